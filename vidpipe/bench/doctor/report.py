"""What `vidpipe doctor` found: the stages' rates, which of them is the limit, and what would lift it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vidpipe.bench.tables import number, table

StageName = Literal[
    "fetch",
    "storage, cold",
    "storage, warm",
    "host copy",
    "CRC-32",
    "decoding",
    "augmentation",
    "decoding and augmentation",
    "transfer",
]
# What each batch passes once the shards are in memory; the host's copying is only there to compare with.
_WAY: tuple[StageName, ...] = (
    "storage, warm",
    "CRC-32",
    "decoding",
    "augmentation",
    "decoding and augmentation",
    "transfer",
)
IN_MEMORY_SHARE = 0.7  # of the free memory: a data set that takes less stays in the page cache after the first epoch


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, measured alone, with all threads that the loader has.

    Attributes:
        clips_per_second: None where it isn't part of the way, or couldn't be measured.
        note: why not, or what has to be known about the figure.
    """

    name: StageName
    clips_per_second: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a verdict depends on beside the rates.

    Attributes:
        codec: of the shards.
        backend: the loader's engine.
        on_gpu: whether batches go to a GPU.
        dataset_bytes: of all shards of the split.
        free_bytes: memory that the page cache could take; None where the system doesn't tell.
        clip_bytes: decoded.
        threads: of the loader.
        cache_bytes: bound of the cache that shards at a URL are fetched into; None for shards on this machine.
    """

    codec: str
    backend: str
    on_gpu: bool
    dataset_bytes: int
    free_bytes: int | None
    clip_bytes: int
    threads: int
    cache_bytes: int | None = None

    @property
    def stays_in_memory(self) -> bool:
        """Whether shards are read from the disk in the first epoch only."""
        return self.free_bytes is not None and self.dataset_bytes < IN_MEMORY_SHARE * self.free_bytes

    @property
    def stays_in_cache(self) -> bool:
        """Whether no shard has to be fetched but in the first epoch."""
        return self.cache_bytes is None or self.dataset_bytes <= self.cache_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer.

    Attributes:
        limit: the stage that training waits for, or `step`.
        data_clips_per_second: that the data come at.
        idle_share: of the time that the model would wait for data, 0 to 1; None without a model.
        advice: what would lift the limit, with the rate to expect where that follows from the figures.
    """

    limit: str
    data_clips_per_second: float
    idle_share: float | None
    advice: tuple[str, ...]


def judge(stages: Mapping[StageName, Stage], *, loader: float, step: float | None, facts: Facts) -> Verdict:
    """Name the limit.

    Args:
        stages: those that there are: an engine that decodes on its device does that and augmentation in one.
        loader: clips a second of the whole loader, with the shards in memory.
        step: clips a second of a training step on a batch that is there already; None without a model.
    """
    # The loader was measured with the shards in memory; this is what they wait for before that, in every epoch.
    waits: dict[StageName, bool] = {"fetch": not facts.stays_in_cache, "storage, cold": not facts.stays_in_memory}
    before = _rates(stages, [name for name, every_epoch in waits.items() if every_epoch])
    data = min([loader, *before.values()])
    if step is not None and step <= data:
        helps = (
            f"the data come at {number(data)} clips/s, {number(data / step)} times as fast: nothing about them would help",
            "larger batches, bf16, torch.compile or a smaller model make steps faster",
        )
        return Verdict(limit="step", data_clips_per_second=data, idle_share=0.0, advice=helps)
    idle = None if step is None else 1 - data / step
    rates = before if data in before.values() else _rates(stages, _WAY)
    limit = min(rates, key=lambda name: rates[name])
    advice = _advice(limit, stages[limit].clips_per_second or loader, loader=loader, facts=facts)
    return Verdict(limit=limit, data_clips_per_second=data, idle_share=idle, advice=advice)


def _rates(stages: Mapping[StageName, Stage], names: Sequence[StageName]) -> dict[StageName, float]:
    """Of those that were measured."""
    return {name: rate for name in names if name in stages and (rate := stages[name].clips_per_second)}


def _advice(limit: StageName, rate: float, *, loader: float, facts: Facts) -> tuple[str, ...]:
    """What helps against each limit, the surest first."""
    without = 1 / max(1 / loader - 1 / rate, 1e-9)
    gain = f": about {number(without)} clips/s" if without < 20 * loader else ""
    more_threads = f"more cores for this process (LoaderOptions(threads=...) has {facts.threads})"
    smaller = "prepare with a smaller --height, or train on a smaller size"
    fewer_bytes = {
        "tensor": "prepare with --codec jpeg: about 1/16 of the bytes for each clip",
        "jpeg": "prepare with --codec mp4, or with a smaller --height: fewer bytes for each clip",
    }.get(facts.codec, "prepare with a smaller --height: fewer bytes for each clip")
    disks = "LoaderOptions(shuffle='windowed') on disks with slow seeks; else a faster disk, or a copy on a local one"
    memory = (
        f"that is the memory's own speed at {facts.clip_bytes / 1e6:.1f} MB a clip: read fewer frames, or {smaller}"
    )
    if not facts.on_gpu:
        elsewhere = "device='cuda' moves it to the GPU"
    elif facts.backend == "torch":
        elsewhere = "pip install nvidia-dali-cuda130: backend='dali' does it in one pass"
    else:
        elsewhere = "drop colour jitter and affine maps, if they are on"
    keep = f"data.cache_gb={facts.dataset_bytes / 1e9:.0f} or more: then shards are fetched in the first epoch only"
    return {
        "fetch": (keep, fewer_bytes, "a faster network, or a copy of the shards on this machine"),
        "storage, cold": (fewer_bytes, disks),
        "storage, warm": (memory,),
        "host copy": (memory,),
        "CRC-32": (f"LoaderOptions(check='off'){gain}", more_threads),
        "decoding": (f"prepare with --codec tensor, which needs no decoding{gain}", more_threads),
        "augmentation": (elsewhere, smaller) if facts.on_gpu else (elsewhere, more_threads, smaller),
        "decoding and augmentation": (
            "prepare with --codec tensor, which needs no decoding, where storage is fast enough",
            f"LoaderOptions(decode='cpu') where cores are idle ({facts.threads} threads), which leaves the GPU the augmentation",
            smaller,
        ),
        "transfer": (f"it is the bus: read fewer frames, or {smaller}",),
    }[limit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was found.

    Attributes:
        clips: geometry, in words.
        loader: clips a second of the whole loader, with the shards in memory.
        step: of a training step on a batch that is there already; None without a model.
        step_note: model, batch size and device of the step.
    """

    shards: str
    machine: str
    clips: str
    facts: Facts
    stages: tuple[Stage, ...]
    loader: float
    step: float | None
    step_note: str
    verdict: Verdict
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return {**asdict(self), "stays_in_memory": self.facts.stays_in_memory}

    def as_text(self) -> str:
        """For people."""
        rows = [("", "clips/s", "MB/s of frames")]
        rates = [(stage.name, stage.clips_per_second) for stage in self.stages]
        for name, rate in [*rates, ("the loader", self.loader), ("training step", self.step)]:
            shown = ("-", "-") if rate is None else (number(rate), number(rate * self.facts.clip_bytes / 1e6))
            rows.append((name, *shown))
        header, *lines = table(rows)
        notes = ["", *(stage.note for stage in self.stages), f"{self.facts.backend}, shards in memory", self.step_note]
        body = [f"{line}  {note}".rstrip() for line, note in zip([header, *lines], notes, strict=True)]
        return "\n".join([f"{self.shards}: {self.clips}", self.machine, "", *body, "", *self._conclusion()])

    def _conclusion(self) -> list[str]:
        verdict = self.verdict
        name = "the model's step" if verdict.limit == "step" else verdict.limit
        waits = "" if verdict.idle_share is None else f"; the model waits {verdict.idle_share:.0%} of the time"
        lines = [f"limit: {name}{waits}"]
        return [*lines, *(f"  {advice}" for advice in verdict.advice), *(f"note: {note}" for note in self.notes)]
