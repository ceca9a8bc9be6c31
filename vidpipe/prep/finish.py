"""Finishes a split: index, rejects and, last of all, the manifest."""

from __future__ import annotations

import functools
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidpipe import __version__
from vidpipe.datasets.base import DatasetFormat
from vidpipe.errors import ShardError
from vidpipe.prep.parts import PARTS_FOLDER, Reject, ShardPart
from vidpipe.prep.plan import SplitPlan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.index import write_samples
from vidpipe.shards.layout import REJECTS, TEMPORARY_SUFFIX, whole_file
from vidpipe.shards.manifest import ChannelSums, Counts, Manifest, ShardEntry, Sources
from vidpipe.video.decode import decoder_versions


def finish_split(
    split: SplitPlan,
    parts: Sequence[ShardPart],
    missing: Sequence[Reject],
    *,
    name: str,
    recipe: PrepRecipe,
    options: DatasetFormat,
    out: Path,
) -> Manifest:
    """Write rejects.jsonl, samples.parquet and manifest.json, then drop what only an unfinished run needs.

    Args:
        missing: rejects of videos that the annotations name but that are not there.
        name: the recipe's name.

    Raises:
        ShardError: videos and samples plus rejects don't add up; nothing is written then.
    """
    rejects = [*missing, *(reject for part in parts for reject in part.rejects)]
    written = sum(part.written for part in parts)
    videos = split.num_videos + len(missing)
    if videos != written + len(rejects):
        raise ShardError(
            f"{out}: {videos} videos, but {written} written and {len(rejects)} rejected: the counts differ"
        )
    _drop_leftovers(out, split)
    write_rejects(out, rejects)
    samples_file = write_samples(out, [row for part in parts for row in part.rows])
    manifest = Manifest(
        dataset=name,
        split=split.split,
        classes=split.classes,
        clip=split.clip,
        codec=recipe.codec_spec,
        normalization=recipe.normalize,
        measured=functools.reduce(ChannelSums.plus, (part.channels for part in parts), ChannelSums()).normalization(),
        horizontal_flip=recipe.horizontal_flip,
        counts=Counts(
            videos=videos,
            written=written,
            rejected=len(rejects),
            clips=sum(len(part.rows) for part in parts),
            rejects_by_reason=_counted(reject.reason for reject in rejects),
            decoders=_counted(name for part in parts for name, count in part.decoders.items() for _ in range(count)),
        ),
        labels=_labels(split, parts),
        sources=_sources(parts),
        samples_file=samples_file,
        shards=tuple(
            ShardEntry(
                name=part.name,
                samples=len(part.rows),
                bytes=part.bytes,
                sha256=part.sha256,
                plan=part.plan,
                decoders=dict(sorted(part.decoders.items())),
                channels=part.channels,
            )
            for part in parts
        ),
        recipe=resolved_recipe(recipe, options),
        versions={"vidpipe": __version__, **decoder_versions()},
    )
    manifest.write(out)
    shutil.rmtree(out / PARTS_FOLDER, ignore_errors=True)
    return manifest


def _drop_leftovers(out: Path, split: SplitPlan) -> None:
    """Remove temporary files of killed runs, and the shards of an earlier, longer plan."""
    names = {shard.name for shard in split.shards}
    for path in out.iterdir():
        is_shard = path.suffix in (".tar", ".idx") and path.stem.isdecimal()
        if path.suffix == TEMPORARY_SUFFIX or (is_shard and path.with_suffix(".tar").name not in names):
            path.unlink()


def write_rejects(out: Path, rejects: Iterable[Reject]) -> None:
    """Write rejects.jsonl: one JSON object a line, in the plan's order."""
    with whole_file(out / REJECTS) as stream:
        for reject in rejects:
            stream.write((json.dumps(asdict(reject), sort_keys=True, ensure_ascii=False) + "\n").encode())


def resolved_recipe(recipe: PrepRecipe, options: DatasetFormat) -> dict[str, Any]:
    """The recipe with the format's options beside its own keys, as in the file."""
    return dict(sorted({**recipe.model_dump(mode="json"), **options.model_dump(mode="json")}.items()))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _labels(split: SplitPlan, parts: Sequence[ShardPart]) -> dict[str, int]:
    videos = {row["video"]: row["label"] for part in parts for row in part.rows}
    by_label = Counter(videos.values())
    return {name: by_label[index] for index, name in enumerate(split.classes)}


def _sources(parts: Sequence[ShardPart]) -> Sources:
    videos = list({row["video"]: row for part in parts for row in part.rows}.values())
    if not videos:
        return Sources()
    durations = sorted(float(row["duration_seconds"]) for row in videos)
    least, middle, most = (round(value, 3) for value in (durations[0], statistics.median(durations), durations[-1]))
    return Sources(
        seconds=round(sum(durations), 3),
        duration_seconds=(least, middle, most),
        sizes=_most_common(f"{row['source_width']}x{row['source_height']}" for row in videos),
        fps=_most_common(f"{row['source_fps']:.2f}" for row in videos),
        codecs=_most_common(row["source_codec"] for row in videos),
    )


def _most_common(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
