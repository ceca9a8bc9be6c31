"""A split on its way: what of its plan is finished in the folder, and what is still to be made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidpipe.errors import ShardError
from vidpipe.prep.finish import count, restated
from vidpipe.prep.parts import ShardPart, load_part, printable, restore_parts
from vidpipe.prep.plan import SplitPlan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.shard_job import ShardTask
from vidpipe.shards.index import read_samples
from vidpipe.shards.manifest import Counts, Manifest, manifest_if_finished
from vidpipe.shards.parts import drop_part

# What of a recipe decides which videos lie in which shard and how, besides what the manifest has in fields of its own.
_PLAN_KEYS = ("seed", "shard_size_mb", "decoder", "strict")
# What of a recipe decides nothing of a shard (but `normalize` of float16).
_OTHER_KEYS = frozenset({"horizontal_flip", "max_rejects", "normalize", "timeout_seconds"})


@dataclass(slots=True)
class SplitWork:
    """A split's plan and folder, and what was last seen there.

    Attributes:
        recipe: as the manifest keeps it.
        manifest: set when it is complete.
        notes: sentences for people on what this run did to it beside making shards.
    """

    plan: SplitPlan
    out: Path
    recipe: Mapping[str, Any]
    manifest: Manifest | None = None
    parts: dict[str, ShardPart] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refresh(self) -> list[ShardTask]:
        """Look for what has been finished since; what is still to be made.

        Raises:
            ShardError: the folder holds a finished split of another plan.
        """
        if self.manifest is None:
            self.manifest = self._complete()
        if self.manifest is not None:
            return []
        for shard in self.plan.shards:
            part = None if shard.name in self.parts else load_part(self.out, shard)
            if part:
                self.parts[shard.name] = part
        left = [shard for shard in self.plan.shards if shard.name not in self.parts]
        return [ShardTask(shard, self.plan.clip, len(self.plan.classes), self.out) for shard in left]

    def look_again(self) -> list[ShardTask]:
        """As `refresh`, trusting nothing that was seen before."""
        self.manifest = None
        self.parts.clear()
        return self.refresh()

    def finished_parts(self) -> list[ShardPart]:
        """The parts seen so far, in the plan's order."""
        return [self.parts[shard.name] for shard in self.plan.shards if shard.name in self.parts]

    def counts(self) -> Counts:
        """What became of the videos, once all shards are finished."""
        return self.manifest.counts if self.manifest else count(self.plan, self.finished_parts())

    def is_said_otherwise(self, recipe: PrepRecipe) -> bool:
        """Whether the manifest of a complete split is to be restated."""
        return self.manifest is not None and bool(_changes(self.manifest, recipe))

    def restate(self, recipe: PrepRecipe) -> None:
        """Have the manifest of a complete split say what the recipe says now, as far as no shard depends on it."""
        if self.manifest is not None and (changes := _changes(self.manifest, recipe)):
            self.manifest = restated(self.manifest, recipe)
            self.manifest.write(self.out)
            self.notes += changes

    def check_retry(self, recipe: PrepRecipe) -> None:
        """See that `forget_rejects` loses nothing.

        Raises:
            ShardError: the folder holds a finished split of other options, or one with videos that are gone now.
        """
        manifest = manifest_if_finished(self.out)
        if manifest is not None:
            self._check_options(manifest, recipe)
            self._check_videos()

    def forget_rejects(self, recipe: PrepRecipe) -> None:
        """Have the shards made again that have a rejected video which is there.

        Of a complete split all parts are restored, so those of other fingerprints are made again too: of videos that
        have another size now or have arrived.
        """
        manifest = manifest_if_finished(self.out)
        if manifest is not None:
            if self._is_of(manifest) and manifest.counts.rejected == sum(
                len(shard.missing) for shard in self.plan.shards
            ):
                return
            self.notes += _changes(manifest, recipe)
            restore_parts(self.out, manifest)
        self.look_again()
        for shard in self.plan.shards:
            part = self.parts.get(shard.name)
            if part and len(part.rejects) > len(shard.missing):
                drop_part(self.out, shard.name)
                del self.parts[shard.name]

    def _complete(self) -> Manifest | None:
        manifest = manifest_if_finished(self.out)
        if manifest is None or self._is_of(manifest):
            return manifest
        before, now = manifest.recipe, self.recipe
        keys = [key for key in {**before, **now} if key not in _OTHER_KEYS and before.get(key) != now.get(key)]
        others = "; ".join(f"{key} was {json.dumps(before.get(key))}, is {json.dumps(now.get(key))}" for key in keys)
        raise ShardError(
            f"{self.out}: holds a finished data set that was made from other videos or other options"
            f"{f' ({others})' if others else ''}; choose another --out, "
            "delete that folder first, or, if only rejected videos were mended or have arrived, use --retry-rejects"
        )

    def _is_of(self, manifest: Manifest) -> bool:
        ours = [shard.fingerprint for shard in self.plan.shards]
        return [entry.plan for entry in manifest.shards] == ours and manifest.classes == self.plan.classes

    def _check_options(self, manifest: Manifest, recipe: PrepRecipe) -> None:
        ours = recipe.model_dump(mode="json")
        theirs = manifest.recipe
        if (manifest.classes, manifest.clip, manifest.codec, *(theirs.get(key) for key in _PLAN_KEYS)) != (
            self.plan.classes,
            self.plan.clip,
            recipe.codec_spec,
            *(ours[key] for key in _PLAN_KEYS),
        ):
            raise ShardError(
                f"{self.out}: holds a finished data set that was made with other options or classes, so --retry-rejects "
                "would make all of it anew; give the options of that time, choose another --out, or delete that folder first"
            )

    def _check_videos(self) -> None:
        there = {printable(video.path) for shard in self.plan.shards for video in shard.videos}
        gone = sorted(set(read_samples(self.out, ["video"])["video"].to_pylist()) - there)
        if gone:
            raise ShardError(
                f"{self.out}: {len(gone)} videos of the finished data set are not in the source now, such as {gone[0]}; "
                "--retry-rejects drops none: bring them back, choose another --out, or delete that folder first"
            )


def _changes(manifest: Manifest, recipe: PrepRecipe) -> list[str]:
    """What a manifest would say otherwise if it were restated, in sentences."""
    before, now = manifest.model_dump(mode="json"), restated(manifest, recipe).model_dump(mode="json")
    return [
        f"its manifest now says {key} {json.dumps(now[key])}, no more {json.dumps(before[key])}"
        for key in ("horizontal_flip", "normalization")
        if now[key] != before[key]
    ]
