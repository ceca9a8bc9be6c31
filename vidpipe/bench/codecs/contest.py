"""The codec benchmark at work: videos are stored by every codec, compared with their source, written and read in turns."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.codecs.quality import measure_quality
from vidpipe.bench.codecs.reading import Reading, training_clips_per_second
from vidpipe.bench.codecs.report import CodecResult, PartialReads
from vidpipe.bench.codecs.variants import Variant
from vidpipe.bench.guard import Guard
from vidpipe.bench.prep.arms import PREP
from vidpipe.bench.prep.arms.base import PrepArmSetup
from vidpipe.bench.prep.arms.vidpipe_prep import SHARDS
from vidpipe.bench.prep.process import PrepRun, run_arm
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.sources import lay_out
from vidpipe.errors import VidpipeError

CROP = (320, 240)
LONG = 4  # times as many frames are stored where only some of them are read


class Workshop:
    """The videos, and prep to store them by any codec.

    Args:
        folder: an empty one, for the videos and the shards.
        source: the folder of the videos.
        frames, stride: of the clip that is stored of each.

    Attributes:
        single: folder with each video once.
        repeated: folder with each video often enough for timing.
    """

    def __init__(self, folder: Path, source: Path, *, frames: int, stride: int, workers: int, guard: Guard) -> None:
        self.frames, self.stride, self.workers = frames, stride, workers
        self.single, self.repeated = folder / "single", folder / "repeated"
        self._folder, self._source = folder, source
        self._placed: dict[str, str] = {}
        self._guard = guard

    def choose(self, variant: Variant, videos: Sequence[str]) -> tuple[list[str], list[LeftOut]]:
        """Those that prep can decode, and those that it can't.

        Raises:
            VidpipeError: it can decode none.
        """
        placed = lay_out(self._source, videos, self._folder / "all", copies=1)
        run, _ = self._run(variant, self._folder / "all", "trial", frames=self.frames, stride=self.stride)
        left_out = [LeftOut(placed[done.path], done.error) for done in run.done if done.error]
        bad = {video.name for video in left_out}
        kept = [video for video in videos if video not in bad]
        if not kept:
            raise VidpipeError(f"bench codecs: no video can be decoded; {left_out[0].name}: {left_out[0].reason}")
        return kept, left_out

    def place(self, videos: Sequence[str], *, copies: int) -> None:
        """Make both folders."""
        lay_out(self._source, videos, self.single, copies=1)
        self._placed = lay_out(self._source, videos, self.repeated, copies=copies)

    def prepare(
        self, variant: Variant, videos: Path, name: str, *, frames: int | None = None, stride: int | None = None
    ) -> tuple[PrepRun, Path]:
        """Store one clip of each video; the split's folder, which is written anew each time.

        Raises:
            VidpipeError: one that could be decoded before can't.
        """
        run, folder = self._run(variant, videos, name, frames=frames or self.frames, stride=stride or self.stride)
        for done in run.done:
            if done.error:
                video = f"{self._placed[done.path]}: {done.error}"
                raise VidpipeError(
                    f"bench codecs: {variant.name}: {video}; a clip of it was decoded before: leave it out"
                )
        return run, folder

    def _run(self, variant: Variant, videos: Path, name: str, *, frames: int, stride: int) -> tuple[PrepRun, Path]:
        scratch = self._folder / f"{name} {variant.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        overrides = (
            *(*variant.overrides, f"frames={frames}", f"stride={stride}", "clips=1"),
            *("crop=" + "x".join(map(str, CROP)), "layout=class", "max_rejects=1"),
        )
        setup = PrepArmSetup(
            videos=videos,
            scratch=scratch,
            works=(),
            workers=self.workers,
            overrides=overrides,
        )
        run = run_arm(f"prep, {variant.name}", PREP, setup, guard=self._guard)
        return run, scratch / SHARDS / "train"


class Contestant:
    """A codec; each video is stored once, for its size and quality, and for reading in part.

    Attributes:
        long: the split's folder of the clips of `LONG` times as many frames; of whole videos, where it stores those.

    Raises:
        VidpipeError: the codec is lossless, but the frames differ.
    """

    def __init__(self, variant: Variant, workshop: Workshop) -> None:
        self.variant = variant
        self._workshop = workshop
        _, short = workshop.prepare(variant, workshop.single, "short")
        self._clips = StoredClips(short).clips
        self._quality = measure_quality(short, workshop.single)
        if variant.lossless and not math.isinf(self._quality.worst_db):
            worst = f"{self._quality.worst_db:.1f} dB"
            raise VidpipeError(
                f"{variant.name}: a stored frame is not the decoded one (PSNR {worst}), expected it to be"
            )
        if variant.whole_videos:
            self.long = short
        else:
            frames = LONG * workshop.frames
            _, self.long = workshop.prepare(variant, workshop.single, "long", frames=frames, stride=1)
        self._whole = None if variant.whole_videos else Reading(short)
        self._spread = Reading(self.long, frames=workshop.frames, stride=LONG)
        self._row = Reading(self.long, frames=workshop.frames, stride=1)
        self._prep: list[float] = []
        self._read: list[float] = []
        self._train: list[float] = []
        self._whole_ms: list[float] = []
        self._spread_ms: list[float] = []
        self._row_ms: list[float] = []

    def turn(self, seconds: float, *, size: int) -> None:
        """Prepare all videos and read what was written, by the reader and by the loader, for at least so long each; then
        read in part, for a third of that."""
        shop = self._workshop
        run, shards = shop.prepare(self.variant, shop.repeated, "timed")
        self._prep.append(len(run.done) / run.seconds)
        with Reading(shards) as reading:
            self._read.append(reading.clips_per_second(seconds, threads=shop.workers))
        self._train.append(training_clips_per_second(shards, size=size, threads=shop.workers, seconds=seconds))
        if self._whole:
            self._whole_ms.append(1e3 / self._whole.clips_per_second(seconds / 3))
        self._spread_ms.append(1e3 / self._spread.clips_per_second(seconds / 3))
        self._row_ms.append(1e3 / self._row.clips_per_second(seconds / 3))

    def result(self) -> CodecResult:
        """What was measured."""
        return CodecResult(
            name=self.variant.name,
            overrides=self.variant.overrides,
            whole_videos=self.variant.whole_videos,
            sample_bytes=sum(sum(clip.payload_sizes) for clip in self._clips) / len(self._clips),
            sample_frames=sum(clip.frames for clip in self._clips) / len(self._clips),
            quality=self._quality,
            prep=tuple(self._prep),
            read=tuple(self._read),
            train=tuple(self._train),
            partial=PartialReads(tuple(self._whole_ms), tuple(self._spread_ms), tuple(self._row_ms)),
        )
