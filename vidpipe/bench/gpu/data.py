"""The shards that the GPU benchmark reads: those that are named, or made of generated videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.gpu.options import GpuBenchmark
from vidpipe.bench.selection import find_shards
from vidpipe.errors import UsageError
from vidpipe.prep.command import RunOptions, run_prep
from vidpipe.shards.codecs import CODECS
from vidpipe.shards.manifest import Manifest, find_split, load_manifest

# Like Kinetics: ten seconds, short side 256. Two clips of each are stored, long enough for every model here.
_GENERATED = (
    "video_size=340x256",
    "video_frames=300",
    "video_fps=30",
    "train_videos=8",
    "frames=32",
    "stride=2",
    "clips=2",
)
_QUICK = ("video_size=128x96", "video_frames=80", "video_fps=30", "train_videos=1", "frames=32", "stride=2", "clips=2")


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

    Raises:
        UsageError: there are none where they should be, or two with one codec.
        ShardError: they are unfinished or damaged.
    """
    found: dict[str, Shards] = {}
    for folder, source in _named(options) if options.shards else _generated(options, scratch):
        manifest = load_manifest(folder)
        shards = Shards(folder, source.absolute() if source else None, manifest)
        if shards.codec in found:
            raise UsageError(f"{folder}: the second folder with codec {shards.codec}; expected one of each codec")
        if not manifest.num_samples:
            raise UsageError(f"{folder}: holds no clips; all its videos were rejected, see rejects.jsonl")
        found[shards.codec] = shards
    return found


def _named(options: GpuBenchmark) -> Iterator[tuple[Path, Path | None]]:
    for shards in options.shards:
        folder, source = find_shards(shards, options.source)
        yield find_split(folder, options.split), source


def _generated(options: GpuBenchmark, scratch: Path) -> Iterator[tuple[Path, Path | None]]:
    videos = scratch / "videos"
    made = (
        *(_QUICK if options.quick else _GENERATED),
        "val_videos=0",
        "shard_size_mb=256",
        "height=240",
        "crop=320x240",
    )
    run = RunOptions(splits=["train"], workers=options.workers)
    for codec in CODECS:
        out = scratch / codec
        own = ("clips=1",) if CODECS[codec].whole_videos else ()
        run_prep("motion", (*made, *own, f"codec={codec}"), source=videos, out=out, run=run)
        yield find_split(out, "train"), videos
