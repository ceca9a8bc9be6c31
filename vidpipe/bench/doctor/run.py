"""`vidpipe doctor`: why is my GPU idle? Every stage from the disk to the model's step, each measured alone, in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vidpipe.bench.doctor.report import Diagnosis, Facts, judge
from vidpipe.bench.doctor.stages import Stages
from vidpipe.bench.machine import describe_machine
from vidpipe.loader import Loader
from vidpipe.loader.reading.pool import default_threads
from vidpipe.loader.reading.splits import open_split
from vidpipe.memory import available_bytes
from vidpipe.train.data import open_train_loader
from vidpipe.train.device import Device, pick_device
from vidpipe.train.dry_run import dry_run
from vidpipe.train.recipe import load_train_recipe
from vidpipe.train.recipe_data import DataSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What to measure.

    Attributes:
        shards: a data-set folder, or its train split's: a path or a URL, of which a few shards are fetched and measured.
        model: name or path of a train recipe, whose clips and step are taken; None measures the data alone.
        batch_size: clips of a batch; by default the recipe's on a GPU, else 2 with a model and 8 without.
        frames, stride, size: of the clips; by default the recipe's, or as stored and 224.
        seconds: for each stage.
    """

    shards: str
    model: str | None = None
    batch_size: int | None = None
    frames: int | None = None
    stride: int | None = None
    size: int | None = None
    device: Device = "auto"
    seconds: float = 1.0


def examine(what: Examination) -> Diagnosis:
    """Measure all stages and name the limit.

    Raises:
        UsageError, ShardError: the shards or the recipe can't be used, as `vidpipe train` would say.
    """
    device = pick_device(what.device)
    section = _section(what, device)
    cache_bytes = int(section.cache_gb * 1e9)
    split = open_split(what.shards, None, cache_dir=section.cache_dir, max_bytes=cache_bytes)
    threads = section.threads or default_threads([split.manifest.codec], device)
    with (
        torch.inference_mode(),
        Stages(split, section, device=device, threads=threads, seconds=what.seconds) as stages,
    ):
        measured = stages.measure()
        near = section.model_copy(update={"where": _within(stages.shards, section.where)}) if split.remote else section
    loader_rate, backend = _loader_rate(what.shards, near, device=device, seconds=what.seconds)
    step, step_note = _step(what, section, device)
    facts = Facts(
        codec=stages.manifest.codec.name,
        backend=backend,
        on_gpu=device == "cuda",
        dataset_bytes=sum(entry.bytes for entry in stages.manifest.shards),
        free_bytes=available_bytes(),
        clip_bytes=stages.clip_bytes,
        threads=threads,
        cache_bytes=cache_bytes if split.remote else None,
    )
    return Diagnosis(
        shards=split.name,
        machine=str(describe_machine()),
        clips=f"{stages.geometry}, codec {facts.codec}, {facts.dataset_bytes / 1e9:.2f} GB, {threads} threads",
        facts=facts,
        stages=tuple(measured.values()),
        loader=loader_rate,
        step=step,
        step_note=step_note,
        verdict=judge(measured, loader=loader_rate, step=step, facts=facts),
        notes=_notes(facts),
    )


def _within(shards: Sequence[str], where: str | None) -> str:
    """A condition that holds in these shards only, so that the loader is measured without fetching others."""
    return f"shard in {tuple(shards)!r}" + (f" and ({where})" if where else "")


def _section(what: Examination, device: str) -> DataSection:
    if what.model is None:
        section, default = DataSection(frames=what.frames, stride=what.stride, size=what.size or 224), 8
    else:
        section = load_train_recipe(what.model, frames=what.frames, stride=what.stride, size=what.size).data
        default = section.batch_size if device == "cuda" else 2
    return section.model_copy(update={"batch_size": what.batch_size or default, "drop_last": False})


def _loader_rate(shards: str, section: DataSection, *, device: str, seconds: float) -> tuple[float, str]:
    """Clips a second of the loader as training opens it, and its backend's name."""
    with open_train_loader(shards, section, accumulate=1, device=device, seed=0) as loader:
        assert isinstance(loader, Loader)  # features were refused when the stages were measured
        for _ in loader:  # what has to be made once, and what isn't in memory yet
            break
        clips, start = 0, time.perf_counter()
        while clips == 0 or time.perf_counter() < start + seconds:
            for batch in loader:
                clips += len(batch)
                if time.perf_counter() > start + seconds:
                    break
        if device == "cuda":
            torch.cuda.synchronize()
        return clips / (time.perf_counter() - start), loader.backend


def _step(what: Examination, section: DataSection, device: str) -> tuple[float | None, str]:
    if what.model is None:
        return None, "no --model"
    recipe = load_train_recipe(what.model, frames=what.frames, stride=what.stride, size=what.size)
    trial = dry_run(recipe, shards=what.shards, batch_size=section.batch_size, device=what.device)
    note = f"{trial.model}, batch {section.batch_size}, {trial.device}, {trial.precision}"
    return section.batch_size / trial.step_seconds, note


def _notes(facts: Facts) -> tuple[str, ...]:
    notes: list[str] = []
    if facts.cache_bytes is not None:
        stay = "stay in" if facts.stays_in_cache else "don't fit into"
        when = "in the first epoch only" if facts.stays_in_cache else "in every epoch"
        size, room = facts.dataset_bytes / 1e9, facts.cache_bytes / 1e9
        notes.append(f"{size:.2f} GB of shards {stay} the cache of {room:g} GB: they are fetched {when}")
    if facts.free_bytes is None:
        return tuple(notes)
    stays = "stays in" if facts.stays_in_memory else "doesn't fit into"
    size, free = facts.dataset_bytes / 1e9, facts.free_bytes / 1e9
    counted = "warm" if facts.stays_in_memory else "cold"
    return (*notes, f"{size:.2f} GB of shards {stays} {free:.1f} GB of free memory: storage counts {counted}")
