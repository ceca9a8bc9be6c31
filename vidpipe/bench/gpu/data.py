"""The shards that the GPU benchmark reads: those that are named, or made of generated videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.gpu.options import GpuBenchmark
from vidpipe.bench.selection import clips_manifest, find_shards
from vidpipe.errors import UsageError
from vidpipe.prep.command import RunOptions, run_prep
from vidpipe.prep.plan import NOMINAL_FRAMES
from vidpipe.shards.codecs import CODECS, make_codec
from vidpipe.shards.codecs.base import CodecSpec
from vidpipe.shards.manifest import Manifest, find_split

# Like Kinetics: ten seconds, short side 256, and about as many bytes a frame as real videos have. Four clips of each are stored, long enough for every model here.
_GENERATED = ("video_size=340x256", "video_frames=300", "train_videos=4")
_QUICK = ("video_size=128x96", "video_frames=80", "train_videos=1")
_FRAMES, _STRIDE, _CLIPS, _HEIGHT, _WIDTH = 32, 2, 4, 240, 320
_VIDEOS_IN_A_SHARD = 4  # each shard is one worker's, and made anew for every codec: few, so that many are at work
_ORDER = ("tensor", "jpeg", "mp4")  # what matters most comes first, should the time be over before the end


@dataclass(frozen=True, slots=True)
class Shards:
    """A split with one codec.

    Attributes:
        source: folder of its videos; None if it isn't known.
    """

    folder: Path
    source: Path | None
    manifest: Manifest

    @property
    def codec(self) -> str:
        """Its name, with the type of numbers where that is not uint8."""
        spec = self.manifest.codec
        return spec.name if spec.dtype == "uint8" else f"{spec.name} {spec.dtype}"


def find_or_make_shards(options: GpuBenchmark, scratch: Path) -> dict[str, Shards]:
    """The shards by codec.

    Returns:
        those whose rows matter most first.

    Raises:
        UsageError: there are none where they should be, they hold no clips, or two have one codec.
        ShardError: they are unfinished or damaged.
    """
    found: dict[str, Shards] = {}
    for folder, source in _named(options) if options.shards else _generated(options, scratch):
        shards = Shards(folder, source.absolute() if source else None, clips_manifest(folder))
        if shards.codec in found:
            raise UsageError(f"{folder}: the second folder with codec {shards.codec}; expected one of each codec")
        found[shards.codec] = shards
    return dict(sorted(found.items(), key=lambda item: [item[0] != name for name in _ORDER]))


def _named(options: GpuBenchmark) -> Iterator[tuple[Path, Path | None]]:
    for shards in options.shards:
        folder, source = find_shards(shards, options.source)
        yield find_split(folder, options.split), source


def _generated(options: GpuBenchmark, scratch: Path) -> Iterator[tuple[Path, Path | None]]:
    videos = scratch / "videos"
    size = (f"height={_HEIGHT}", f"crop={_WIDTH}x{_HEIGHT}", f"frames={_FRAMES}", f"stride={_STRIDE}")
    made = (*(_QUICK if options.quick else _GENERATED), "val_videos=0", "video_fps=30", "scenery=true", *size)
    run = RunOptions(splits=["train"], workers=options.workers)
    for codec in CODECS:
        out, clips = scratch / codec, 1 if CODECS[codec].whole_videos else _CLIPS
        own = (f"codec={codec}", f"clips={clips}", f"shard_size_mb={_shard_megabytes(codec, clips)}")
        run_prep("motion", (*made, *own), source=videos, out=out, run=run)
        yield find_split(out, "train"), videos


def _shard_megabytes(codec: str, clips: int) -> float:
    """The size by which prep deals `_VIDEOS_IN_A_SHARD` to each shard."""
    frames = NOMINAL_FRAMES if CODECS[codec].whole_videos else _FRAMES
    video_bytes = make_codec(CodecSpec(name=codec)).nominal_bytes(frames, _HEIGHT, _WIDTH) * clips
    return _VIDEOS_IN_A_SHARD * video_bytes / 1e6
