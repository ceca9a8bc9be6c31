"""The arms of the prep benchmark. To add one: a file here and its row in `REFERENCES`."""

from __future__ import annotations

# Name to class. The order is that of tables.
REFERENCES: dict[str, str] = {
    "ffmpeg-needed": "vidpipe.bench.prep.arms.ffmpeg_program:NeededFrames",
    "ffmpeg-whole": "vidpipe.bench.prep.arms.ffmpeg_program:WholeVideos",
    "decord": "vidpipe.bench.prep.arms.decord_frames:DecordFrames",
    "reencode": "vidpipe.bench.prep.arms.ffmpeg_program:Reencoding",
}
PREP = "vidpipe.bench.prep.arms.vidpipe_prep:VidpipePrep"
PREP_WHOLE = "vidpipe.bench.prep.arms.vidpipe_prep:VidpipePrepWhole"

OURS = "vidpipe-tensor"
BARE = "ffmpeg-needed"
DECORD = "decord"


def own_arms() -> dict[str, tuple[str, str]]:
    """prep's own arms by name: class and codec; `OURS` comes first."""
    from vidpipe.shards.codecs import CODECS

    codecs = sorted(CODECS, key=lambda name: (name != "tensor", name))
    return {f"vidpipe-{name}": (PREP_WHOLE if CODECS[name].whole_videos else PREP, name) for name in codecs}
