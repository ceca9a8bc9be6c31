"""What an experiment trains, one by one: where each training lies, and the commands for it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from vidpipe.bench.experiments.definitions import EXPERIMENTS, Variant

_DEFAULT_OUT = Path("benchmarks/experiments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training with its shards. Arguments are those of `vidpipe`, with everything below the folder `out`.

    Attributes:
        folder: of the experiment, relative to `out`.
        videos, shards: names of the folders in it.
        prep: arguments of `vidpipe prep motion`, but for the folders.
        settings: `--set` overrides of the recipe, but for the seed and the weights to start from.
        start: the job whose weights this one starts from.
    """

    name: str
    folder: str
    videos: str
    shards: str
    variant: Variant
    prep: tuple[str, ...]
    settings: tuple[str, ...]
    seed: int
    start: Job | None = None

    def run_folder(self, out: Path) -> Path:
        """Of the training."""
        return out / self.folder / self.name

    def shards_folder(self, out: Path) -> Path:
        """With train and val."""
        return out / self.folder / self.shards

    def videos_folder(self, out: Path) -> Path:
        """The generated videos."""
        return out / self.folder / self.videos

    def prep_arguments(self, out: Path) -> list[str]:
        """That make the videos and the shards."""
        where = ["--source", str(self.videos_folder(out)), "--out", str(self.shards_folder(out))]
        return ["prep", "motion", *self.prep, *where]

    def overrides(self, out: Path) -> list[str]:
        """All of the recipe."""
        start = [f"model.init={self.start.run_folder(out)}"] if self.start else []
        return [*self.settings, *start, f"seed={self.seed}"]

    def train_arguments(self, out: Path) -> list[str]:
        """That train on the CPU."""
        where = ["--shards", str(self.shards_folder(out)), "--out", str(self.run_folder(out)), "--device", "cpu"]
        options = [word for setting in self.overrides(out) for word in ("--set", setting)]
        return ["train", self.variant.recipe, *where, *options]

    def commands(self) -> tuple[str, ...]:
        """What a user would type for the same, in order; folders are those of `vidpipe bench experiments`."""
        own = ["bench", "experiments", self.folder]
        train = own if self.variant.on_the_fly else self.train_arguments(_DEFAULT_OUT)
        before = self.start.commands() if self.start else ()
        return *before, *(shlex.join(["vidpipe", *words]) for words in (self.prep_arguments(_DEFAULT_OUT), train))


def job_of(experiment: str, variant: str, *, seed: int) -> Job:
    """The training of a variant with a seed."""
    chosen = EXPERIMENTS[experiment]
    what = chosen.variants[variant]
    slug = _slug(variant)
    return Job(
        name=f"{slug}-{seed}",
        folder=experiment,
        videos="videos",
        shards=f"shards-{slug}" if what.prep else "shards",
        variant=what,
        prep=(*chosen.prep, *what.prep),
        settings=(*chosen.settings, *what.settings),
        seed=seed,
        start=pretraining_of(experiment) if what.pretrained else None,
    )


def pretraining_of(experiment: str) -> Job:
    """The one training from whose weights variants of an experiment start."""
    what = EXPERIMENTS[experiment].pretraining
    assert what is not None
    return Job(
        name="pretraining",
        folder=experiment,
        videos="videos-pretraining",
        shards="shards-pretraining",
        variant=what,
        prep=what.prep,
        settings=what.settings,
        seed=0,
    )


def _slug(variant: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in variant).split())
