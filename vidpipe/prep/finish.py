"""Finishes a split: index, rejects and, last of all, the manifest."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidpipe.datasets.base import DatasetFormat
from vidpipe.errors import ShardError
from vidpipe.files import whole_file
from vidpipe.prep.parts import ShardPart
from vidpipe.prep.plan import SplitPlan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.tally import Tally
from vidpipe.shards.index import write_samples
from vidpipe.shards.layout import REJECTS
from vidpipe.shards.manifest import VERSION_SEPARATOR, ChannelSums, Counts, Manifest, ShardEntry
from vidpipe.shards.parts import read_rows


def finish_split(
    split: SplitPlan, parts: Sequence[ShardPart], *, name: str, recipe: PrepRecipe, options: DatasetFormat, out: Path
) -> Manifest:
    """Write samples.parquet, rejects.jsonl and, last of all, manifest.json.

    Args:
        parts: of all shards, in the plan's order.
        name: the recipe's name.

    Raises:
        ShardError: videos and samples plus rejects don't add up; nothing is written then.
    """
    counts = count(split, parts)
    if counts.videos != counts.written + counts.rejected:
        raise ShardError(
            f"{out}: {counts.videos} videos, but {counts.written} written and {counts.rejected} rejected: the counts differ"
        )
    tally = Tally()
    samples_file = write_samples(out, (row for part in parts for row in tally.counted(part, read_rows(out, part.name))))
    write_rejects(out, parts)
    _drop_surplus(out, split)
    manifest = Manifest(
        dataset=name,
        split=split.split,
        classes=split.classes,
        clip=split.clip,
        codec=recipe.codec_spec,
        normalization=recipe.normalize,
        measured=functools.reduce(ChannelSums.plus, (part.channels for part in parts), ChannelSums()).normalization(),
        horizontal_flip=recipe.horizontal_flip,
        counts=counts,
        labels=tally.labels(split.classes),
        sources=tally.sources(),
        samples_file=samples_file,
        shards=tuple(
            ShardEntry(
                name=part.name,
                samples=part.samples,
                bytes=part.bytes,
                sha256=part.sha256,
                plan=part.plan,
                decoders=dict(sorted(part.decoders.items())),
                channels=part.channels,
            )
            for part in parts
        ),
        recipe=resolved_recipe(recipe, options),
        versions=_united(part.versions for part in parts),
    )
    manifest.write(out)
    return manifest


def _united(versions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """All that occur of each package, sorted, with `VERSION_SEPARATOR` between them."""
    each = list(versions)
    names = dict.fromkeys(name for one in each for name in one)
    return {
        name: VERSION_SEPARATOR.join(
            sorted({version for one in each for version in one.get(name, "unknown").split(VERSION_SEPARATOR)})
        )
        for name in names
    }


def restated(manifest: Manifest, recipe: PrepRecipe) -> Manifest:
    """A finished split's manifest with what a recipe of the same plan says of that on which no shard depends."""
    told = recipe.model_dump(mode="json", include={"horizontal_flip", "normalize"})
    return manifest.model_copy(
        update={
            "horizontal_flip": recipe.horizontal_flip,
            "normalization": recipe.normalize,
            "recipe": {**manifest.recipe, **told},
        }
    )


def count(split: SplitPlan, parts: Sequence[ShardPart]) -> Counts:
    """What became of a split's videos."""
    decoders: Counter[str] = Counter()
    for part in parts:
        decoders.update(part.decoders)
    reasons = Counter(reject.reason for part in parts for reject in part.rejects)
    return Counts(
        videos=split.num_videos,
        written=decoders.total(),
        rejected=reasons.total(),
        clips=sum(part.samples for part in parts),
        rejects_by_reason=dict(sorted(reasons.items())),
        decoders=dict(sorted(decoders.items())),
    )


def _drop_surplus(out: Path, split: SplitPlan) -> None:
    """Remove the shards of an earlier, longer plan."""
    names = {shard.name for shard in split.shards}
    for path in out.iterdir():
        is_shard = path.suffix in (".tar", ".idx") and path.stem.isdecimal()
        if is_shard and path.with_suffix(".tar").name not in names:
            path.unlink()


def write_rejects(out: Path, parts: Iterable[ShardPart]) -> None:
    """Write rejects.jsonl: one JSON object a line, in the plan's order."""
    with whole_file(out / REJECTS) as stream:
        for part in parts:
            for reject in part.rejects:
                stream.write((json.dumps(asdict(reject), sort_keys=True, ensure_ascii=False) + "\n").encode())


def resolved_recipe(recipe: PrepRecipe, options: DatasetFormat) -> dict[str, Any]:
    """The recipe with the format's options beside its own keys, as in the file."""
    return dict(sorted({**recipe.model_dump(mode="json"), **options.model_dump(mode="json")}.items()))
