"""`vidpipe bench epoch`: the share of an epoch that goes into data, decoding on the fly and from shards."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.epoch.report import EpochReport
from vidpipe.bench.epoch.session import EpochSession
from vidpipe.bench.machine import describe_machine, package_versions
from vidpipe.bench.prepared import prepare_again
from vidpipe.bench.running import Progress, check_options, to_stderr
from vidpipe.bench.selection import clips_manifest, find_shards
from vidpipe.bench.train_step import StandInStep, Step, TrainStep
from vidpipe.cores import usable_cores
from vidpipe.errors import UsageError
from vidpipe.shards.manifest import Manifest, find_split
from vidpipe.train.device import Device, pick_device

# What ViViT-B/16x2 takes at 40 to 50 % of the peak of an H100 or H200 in bf16 training (six times its multiply-adds): 230 to 290.
GPU_CLIPS_PER_SECOND = 250.0
GPU_RECIPE: tuple[str, tuple[str, ...]] = ("vivit", ())
CPU_RECIPE: tuple[str, tuple[str, ...]] = ("vivit-tiny", ("model.patch_size=32",))  # 49 patches at 224 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBenchmark:
    """What to measure, and for how long.

    Attributes:
        shards: a data-set folder or a split's, whose recipe says what is prepared; the demo's by default.
        source: folder of the videos that they were made from.
        split: of the shards.
        recipe: of the training step; by default ViViT-B on a GPU, and a narrow ViViT on the CPU.
        device: that trains.
        gpu_rate: clips per second of the GPU that a sleeping step stands in for where there is none.
        videos: at most so many are prepared and trained on.
        batch_size: clips a batch.
        size: side of the model's input in pixels.
        steps: of each run, at least; 6, or 3 if quick. Workers give their batches in bursts of one each, and whole bursts are
            taken.
        rounds: turns of each arm; 2, or 1 if quick.
        workers: of DataLoader and loader; by default one a core.
        out: folder that the JSON and the plot go to, as `epoch.*`, or `epoch-quick.*`.
        quick: a first impression: few steps, no repetition.

    Raises:
        UsageError: a value is out of its range.
    """

    shards: Path | None = None
    source: Path | None = None
    split: str = "train"
    recipe: str | None = None
    device: Device = "auto"
    gpu_rate: float = GPU_CLIPS_PER_SECOND
    videos: int = 64
    batch_size: int = 8
    size: int = 224
    steps: int | None = None
    rounds: int | None = None
    workers: int | None = None
    out: Path = Path("benchmarks/epoch")
    quick: bool = False

    def __post_init__(self) -> None:
        check_options(self, "epoch", "gpu_rate", "videos", "batch_size", "size", "steps", "rounds", "workers")


def run_epoch_benchmark(options: EpochBenchmark, *, progress: Progress = to_stderr) -> EpochReport:
    """Prepare the videos, measure, and write the JSON and the plot.

    Args:
        progress: is given a line now and then; by default they go to stderr.

    Raises:
        UsageError: there are no shards, or no videos, where they should be.
        VidpipeError: the videos can't be prepared, or an arm gives other clips than the shards.
    """
    workers, rounds = options.workers or usable_cores(), options.rounds or (1 if options.quick else 2)
    num_steps = workers * math.ceil((options.steps or (3 if options.quick else 6)) / workers)
    machine = describe_machine()
    device = pick_device(options.device)
    shards, source = find_shards(options.shards, options.source)
    if source is None:
        raise UsageError("bench epoch: decoding on the fly needs the videos; name their folder with --source")
    manifest = clips_manifest(find_split(shards, options.split))
    with tempfile.TemporaryDirectory(prefix="vidpipe-bench-") as temporary:
        folders = {}
        for codec in ("tensor", "jpeg"):
            progress(f"preparing at most {options.videos} videos with codec {codec}")
            (Path(temporary) / codec).mkdir()
            folders[codec] = prepare_again(
                manifest, source, codec=codec, folder=Path(temporary) / codec, limit=options.videos
            )
        steps = _steps(options, clips_manifest(folders["tensor"]), device=device)
        session = EpochSession(
            folders,
            source,
            device=device,
            batch_size=options.batch_size,
            size=options.size,
            workers=workers,
            scratch=Path(temporary),
        )
        rows = session.measure(steps, num_steps=num_steps, rounds=rounds, progress=progress)
        report = EpochReport(
            quick=options.quick,
            machine=machine,
            versions=package_versions(),
            device=device,
            geometry=session.geometry,
            batch_size=options.batch_size,
            workers=workers,
            size=options.size,
            steps=num_steps,
            rounds=rounds,
            rows=tuple(rows),
        )
    return report.written(options.out, "epoch")


def _steps(options: EpochBenchmark, manifest: Manifest, *, device: str) -> list[Step]:
    """On a GPU its own step; without one a stand-in, and the step of a small model on the CPU."""
    name, overrides = GPU_RECIPE if device == "cuda" else CPU_RECIPE
    if options.recipe is not None:
        name, overrides = options.recipe, ()
    geometry = (f"data.frames={manifest.clip.frames}", "data.stride=null", f"data.size={options.size}")
    real = TrainStep(
        name,
        (*overrides, *geometry),
        manifest,
        device="cuda" if device == "cuda" else "cpu",
        batch_size=options.batch_size,
    )
    return [real] if device == "cuda" else [StandInStep(options.gpu_rate), real]
