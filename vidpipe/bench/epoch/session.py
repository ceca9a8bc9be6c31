"""The epoch benchmark at work: each way to get batches alone, and in front of a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vidpipe.bench.epoch.decord_native import DecordAllFramesArm, DecordIndicesFirstArm
from vidpipe.bench.epoch.report import EpochRow, EpochRun
from vidpipe.bench.loader.arms.base import CENTER_CROP, RANDOM_CROP, Arm, ArmBatch, ArmSetup, Batches
from vidpipe.bench.loader.arms.vidpipe_loader import VidpipeArm
from vidpipe.bench.loader.proof import prove
from vidpipe.bench.running import Progress, in_turn
from vidpipe.bench.train_step import Step, cached_step_seconds, plain_batch
from vidpipe.errors import VidpipeError
from vidpipe.loader import Batch
from vidpipe.loader.transfer import to_device
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import load_manifest
from vidpipe.train.meter import Clock

WARM_UP_BATCHES = 4  # for each worker: all memory was used once by then, and as much is begun as when the clock stops
CACHED_STEPS = 4


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to get batches."""

    title: str
    kind: type[Arm]
    codec: str


WAYS = (
    _Way("decord, all frames first", DecordAllFramesArm, "tensor"),
    _Way("decord, indices first", DecordIndicesFirstArm, "tensor"),
    _Way("vidpipe, jpeg", VidpipeArm, "jpeg"),
    _Way("vidpipe, tensor", VidpipeArm, "tensor"),
)


class EpochSession:
    """The same clips, in each of the ways.

    Args:
        folders: split folders of the same videos, by codec.
        source: folder of the videos.
        device: `cpu` or `cuda`.
        scratch: an empty folder.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        source: Path,
        *,
        device: str,
        batch_size: int,
        size: int,
        workers: int,
        scratch: Path,
    ) -> None:
        self._setups = {
            codec: ArmSetup(
                folder=folder,
                source=source.absolute(),
                scratch=scratch,
                batch_size=batch_size,
                workers=workers,
                size=size,
                crop=RANDOM_CROP,
                device=device,
            )
            for codec, folder in folders.items()
        }
        self._device = torch.device(device)
        rows = read_samples(folders["tensor"], ["key", "label"]).to_pylist()
        self._labels = {row["key"]: row["label"] for row in rows}
        manifest = load_manifest(folders["tensor"])
        self.geometry = (
            f"{manifest.num_samples} clips of {manifest.counts.written} videos of {manifest.dataset}/{manifest.split}: "
            f"{manifest.clip.frames} frames, {size}x{size} pixels for the model"
        )

    def measure(self, steps: Sequence[Step], *, num_steps: int, rounds: int, progress: Progress) -> list[EpochRow]:
        """All ways, in turns; before that, that each gives the clips of the shards.

        Args:
            num_steps: of each run.
            rounds: turns of each way.

        Raises:
            VidpipeError: one doesn't.
        """
        for way in WAYS:
            self._prove(way)
        progress("all ways give the same clips")
        with self._batches(WAYS[-1]) as batches:
            cached = self._labelled(next(batches))
        cached_seconds: dict[str, list[float]] = {step.title: [] for step in steps}
        alone: dict[str, list[float]] = {way.title: [] for way in WAYS}
        runs: dict[tuple[str, str], list[EpochRun]] = {(w.title, s.title): [] for w in WAYS for s in steps}
        for number in range(rounds):
            for step in steps:
                cached_seconds[step.title].append(cached_step_seconds(step, cached, steps=CACHED_STEPS))
            for way in in_turn(WAYS, number):
                progress(f"round {number + 1} of {rounds}: {way.title}")
                alone[way.title].append(self._run(way, None, num_steps=num_steps).clips_per_second)
                for step in steps:
                    runs[way.title, step.title].append(self._run(way, step, num_steps=num_steps))
        return [
            EpochRow(
                way=way.title,
                about=way.kind.about,
                step=step.title,
                loader_rounds=tuple(alone[way.title]),
                cached_step_seconds=median(cached_seconds[step.title]),
                runs=tuple(runs[way.title, step.title]),
            )
            for step in steps
            for way in WAYS
        ]

    def _prove(self, way: _Way) -> None:
        setup = replace(self._setups[way.codec], crop=CENTER_CROP, device="cpu")
        objection = way.kind.objection(setup)
        if objection:
            raise VidpipeError(f"bench epoch: {way.title}: {objection}")
        prove(way.kind(setup), "train", num_batches=1)

    def _run(self, way: _Way, step: Step | None, *, num_steps: int) -> EpochRun:
        """Some steps on a way's batches, once it is in full flow; without a step the batches are only taken."""
        clips = 0
        with self._batches(way) as batches:
            for batch in islice(batches, WARM_UP_BATCHES * self._setups[way.codec].workers):
                if step is not None:
                    step(self._labelled(batch))
            _wait(step)
            clock = Clock()
            for _ in range(num_steps):
                with clock:
                    batch = next(batches)
                if step is not None:
                    step(self._labelled(batch))
                clips += len(batch.keys)
            _wait(step)
            wait_seconds, seconds = clock.lap()
        return EpochRun(clips=clips, wait_seconds=wait_seconds, seconds=seconds)

    def _batches(self, way: _Way) -> closing[Batches]:
        return closing(way.kind(self._setups[way.codec]).batches("train"))

    def _labelled(self, batch: ArmBatch) -> Batch:
        """A batch as the step takes it, on the device without any wait for what is queued there."""
        video: Any = batch.video
        label = torch.tensor([self._labels[key] for key in batch.keys])
        return plain_batch(to_device(video, self._device), to_device(label, self._device), list(batch.keys))


def _wait(step: Step | None) -> None:
    if step is not None:
        step.wait()
