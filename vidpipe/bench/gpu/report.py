"""The GPU benchmark's report: for people, for programs, and as a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vidpipe.bench.gpu.rows import BatchRow, CopyRow, DecoderRow, ModelRow
from vidpipe.bench.reports import LeftOut, Report
from vidpipe.bench.tables import number, table

_BATCH_HEADINGS = (
    *("", "clips/s", "CPU/clip", "GPU/clip"),
    *("GPU memory", "host memory", "page-locked", "first batch", "difference"),
)
_MODEL_HEADINGS = (
    *("", "batch", "cached", "end to end", "of cached", "data wait"),
    *("a step", "queued in", "beside the loader", "GPU memory"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport(Report):
    """What a run of the GPU benchmark found.

    Attributes:
        device: `cuda`, or `cpu` in a rehearsal.
        shards: what was read, in words, codec by codec.
        clip_bytes: of a clip's 8-bit frames.
        workers: threads of others than the loader, processes of what decodes on the fly.
        readers: what reads for the loader, `threads` or `processes`.
        minutes: that the run took.
    """

    device: str
    shards: tuple[str, ...]
    frames: int
    size: int
    clip_bytes: int
    batch_size: int
    workers: int
    readers: str
    seconds: float
    minutes: float
    copies: tuple[CopyRow, ...]
    decoders: tuple[DecoderRow, ...]
    batches: tuple[BatchRow, ...]
    models: tuple[ModelRow, ...]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; each rate with its clips per second."""
        return {**_with_rates(asdict(self)), "files": [str(path) for path in self.files]}

    def as_text(self) -> str:
        """A table for each part, and how it was made."""
        ready = f"bfloat16 [{self.batch_size}, 3, {self.frames}, {self.size}, {self.size}]"
        lines = [*self.shards]
        for title, rows in (
            (f"copies ({self.clip_bytes / 1e6:.2f} MB a clip)", _copies(self.copies)),
            ("decoders alone", _decoders(self.decoders)),
            (f"ready batches on {self.device}, {ready}", _batches(self.batches)),
            ("training steps", _models(self.models)),
        ):
            if len(rows) > 1:
                lines += ["", title, *table(rows)]
        lines += ["", *(f"left out: {row.name}: {row.reason}" for row in self.left_out)]
        if self.device == "cpu":
            lines.append("a rehearsal without a GPU: these figures say nothing of one")
        lines.append("CPU: of all threads and processes; difference: to the reference on the CPU, in normalised units")
        taking = f"{self.workers} workers, the loader reads in {self.readers}, files in the page cache"
        lines.append(f"at least {self.seconds:g} s each, {taking}; {self.minutes:.1f} minutes in all")
        return "\n".join([*lines, *self.closing_lines()])

    def pictures(self) -> dict[str, Any]:
        """Clips per second: of ready batches beside the ceilings, and of training beside its cached step."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(15, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        rates = {row.name: row.rate.clips_per_second for row in self.batches}
        rates |= {row.name: row.rate.clips_per_second for row in self.decoders}
        rates |= {row.name: row.clips_per_second for row in self.copies}
        names = list(rates)[::-1]
        colors = ["tab:blue" if name.startswith("vidpipe") else "tab:gray" for name in names]
        bars = left.barh(names, [rates[name] for name in names], color=colors)
        left.bar_label(bars, [number(rates[name]) for name in names], padding=4)
        left.set(xlabel="clips per second", title="ready batches, decoders, copies")
        left.margins(x=0.25)
        if names:
            left.set_xscale("log")
        rows = self.models[::-1]
        places = range(len(rows))
        cached = [row.cached.clips_per_second for row in rows]
        right.barh([at + 0.2 for at in places], cached, height=0.4, color="tab:gray", label="cached batch")
        ends = [row.end_to_end.clips_per_second for row in rows]
        bars = right.barh([at - 0.2 for at in places], ends, height=0.4, color="tab:blue", label="end to end")
        right.bar_label(bars, [f"{row.wait_share:.1%} wait" for row in rows], padding=4)
        right.set_yticks(list(places), [f"{row.model}, {row.codec}" for row in rows])
        right.set(xlabel="clips per second", title="training")
        right.margins(x=0.2)
        if rows:
            right.legend(fontsize="small")
        figure.suptitle(str(self.machine), fontsize="small")
        return {".png": figure}


def _copies(rows: tuple[CopyRow, ...]) -> list[tuple[str, ...]]:
    cells = [(row.name, f"{row.gigabytes_per_second:.1f}", number(row.clips_per_second)) for row in rows]
    return [("", "GB/s", "clips/s"), *cells]


def _decoders(rows: tuple[DecoderRow, ...]) -> list[tuple[str, ...]]:
    cells = [
        (row.name, number(row.rate.clips_per_second), _milliseconds(row.rate.cpu_seconds, row.rate.clips))
        for row in rows
    ]
    return [("", "clips/s", "CPU/clip"), *cells]


def _batches(rows: tuple[BatchRow, ...]) -> list[tuple[str, ...]]:
    cells = [
        (
            row.name,
            number(row.rate.clips_per_second),
            _milliseconds(row.rate.cpu_seconds, row.rate.clips),
            "" if row.gpu_seconds_per_clip is None else f"{row.gpu_seconds_per_clip * 1e3:.3f} ms",
            _megabytes(row.rate.gpu_bytes),
            _megabytes(row.host_bytes),
            _megabytes(row.pinned_bytes),
            f"{row.first_batch_seconds:.2f} s",
            "" if row.largest_difference is None else f"{row.largest_difference:.3f}",
        )
        for row in rows
    ]
    return [_BATCH_HEADINGS, *cells]


def _models(rows: tuple[ModelRow, ...]) -> list[tuple[str, ...]]:
    cells = [
        (
            f"{row.model}, {row.clip}, {row.codec}",
            str(row.batch_size),
            number(row.cached.clips_per_second),
            number(row.end_to_end.clips_per_second),
            f"{row.end_to_end.clips_per_second / row.cached.clips_per_second:.3f}",
            f"{row.wait_share:.1%}",
            _milliseconds(row.cached.seconds, row.cached.clips / row.batch_size),
            _milliseconds(row.queued_alone, 1),
            _milliseconds(row.queued_fed, 1),
            _megabytes(row.gpu_bytes),
        )
        for row in rows
    ]
    return [_MODEL_HEADINGS, *cells]


def _milliseconds(seconds: float, times: float) -> str:
    return f"{seconds / times * 1e3:.2f} ms"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f} MB"


def _with_rates(value: Any) -> Any:
    """Plain values, with the clips per second of everything that has clips and seconds."""
    if isinstance(value, dict):
        plain = {key: _with_rates(item) for key, item in value.items()}
        if {"clips", "seconds"} <= value.keys():
            plain["clips_per_second"] = value["clips"] / value["seconds"]
        return plain
    if isinstance(value, list | tuple):
        return [_with_rates(item) for item in value]
    return value
