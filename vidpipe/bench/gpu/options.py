"""What the GPU benchmark measures, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.running import check_options
from vidpipe.loader.options import Readers
from vidpipe.train.device import Device

MINUTES = 7.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBenchmark:
    """What to measure, and for how long.

    Attributes:
        shards: data-set folders or splits', one for each codec; by default videos are generated and prepared with all of them.
        source: folder of the videos of `shards`; without it nothing can be decoded on the fly.
        split: of the shards.
        device: `auto` is the GPU and nothing else; `cpu` rehearses what can be rehearsed without one.
        frames: of a batch's clips, at the stored stride.
        size: side of the model's input in pixels.
        batch_size: clips a batch; 32, or 4 if quick.
        seconds: least length of each measurement; 3, or 0.3 if quick.
        minutes: what is not begun by then, from the start of the run, is left out.
        workers: threads of the loader, by default its own choice, and of others, and processes of what decodes on the fly, by
            default one a core.
        readers: what reads for the loader; `auto` is `processes` on a GPU and `threads` without.
        out: folder that the JSON and the plot go to, as `gpu.*`, or `gpu-quick.*`.
        quick: few and small videos, short measurements, and on the CPU models of a few narrow blocks.

    Raises:
        UsageError: a value is out of its range.
    """

    shards: tuple[Path, ...] = ()
    source: Path | None = None
    split: str = "train"
    device: Device = "auto"
    frames: int = 16
    size: int = 224
    batch_size: int | None = None
    seconds: float | None = None
    minutes: float = MINUTES
    workers: int | None = None
    readers: Readers = "auto"
    out: Path = Path("benchmarks/gpu")
    quick: bool = False

    def __post_init__(self) -> None:
        check_options(self, "gpu", "frames", "size", "batch_size", "seconds", "minutes", "workers")

    @property
    def clips_per_batch(self) -> int:
        """Clips of a batch."""
        return self.batch_size or (4 if self.quick else 32)

    @property
    def measured_seconds(self) -> float:
        """Least length of each measurement."""
        return self.seconds or (0.3 if self.quick else 3.0)
