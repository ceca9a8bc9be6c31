"""`make_features`: from shards of clips to shards of what a frozen backbone makes of them, going on from what is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from vidpipe import __version__
from vidpipe.errors import ShardError, UsageError
from vidpipe.features.backbone import Backbone, open_backbone, save_backbone
from vidpipe.features.shard import ShardMaker, ShardPart
from vidpipe.files import whole_file
from vidpipe.loader.reading.pool import default_threads
from vidpipe.models.backbone import own_normalization
from vidpipe.shards.features import FeatureDtype, FeatureSpec
from vidpipe.shards.index import write_samples
from vidpipe.shards.layout import MANIFEST, REJECTS
from vidpipe.shards.locks import locked, present
from vidpipe.shards.manifest import (
    Manifest,
    content_fingerprint,
    find_split,
    load_manifest,
    manifest_if_finished,
    split_folders,
)
from vidpipe.shards.parts import drop_leftovers, drop_part, read_about, read_rows, write_part

_BACKBONE_LOCK, _SPLIT_LOCK = "backbone", "split"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureJob:
    """What to make features of, and how.

    Attributes:
        shards: a data-set folder, or one split's, with clips.
        out: gets the backbone's weights and one folder a split.
        backbone: name of any timm model.
        weights: as `vidpipe.models.weights.read_weights` takes them; None is timm's own for that name.
        splits: only these; all by default.
        size: side in pixels of the squares that the backbone is given.
        crops: squares of each frame, evenly along its longer side, each a sample of its own; 1 is the centre.
        dtype: of the stored values.
        batch_size: frames of a forward pass.
        device: a torch device.
    """

    shards: Path
    out: Path
    backbone: str
    weights: str | None = None
    splits: Sequence[str] = ()
    size: int = 224
    crops: int = 1
    dtype: FeatureDtype = "float16"
    batch_size: int = 64
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class SplitResult:
    """A finished split; `reused` of its shards were finished before this run."""

    samples: int
    shards: int
    bytes: int
    reused: int


@dataclass(frozen=True, slots=True)
class FeatureResult:
    """What a run leaves behind; `note` is what one should know about it."""

    out: Path
    backbone: str
    weights: str
    width: int
    splits: dict[str, SplitResult]
    note: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain containers for `--json`."""
        return {**asdict(self), "out": str(self.out)}

    def as_text(self) -> str:
        """A line for each split."""
        lines = [
            f"{name}: {split.samples} samples in {split.shards} shards, {split.bytes / 1e6:.1f} MB"
            for name, split in self.splits.items()
        ]
        lines.append(f"features of {self.backbone}, {self.width} for each frame, are in {self.out}")
        return "\n".join([*lines, *([f"note: {self.note}"] if self.note else [])])


def make_features(job: FeatureJob, *, on_shard: Callable[[str, int, int], None] | None = None) -> FeatureResult:
    """Make the features of a data set.

    Args:
        on_shard: called after each shard with its split, the number of shards that are finished, and of all.

    Raises:
        UsageError: an argument is not allowed, or a split isn't there.
        CheckpointError: the backbone's weights can't be had or don't fit.
        ShardError: the clips can't be used, or `out` holds features that were made otherwise, or is made with
            another backbone by another run just now.
    """
    for name, value, allowed in (("size", job.size, range(16, 4097)), ("crops", job.crops, range(1, 100))):
        if value not in allowed:
            raise UsageError(f"--{name} {value}: expected {allowed.start} to {allowed.stop - 1}")
    if job.batch_size < 1:
        raise UsageError(f"--batch-size {job.batch_size}: expected at least 1")
    folders = split_folders(job.shards)
    if job.splits:
        folders = {split: find_split(job.shards, split) for split in job.splits}
    if job.out.resolve() in {path.resolve() for folder in folders.values() for path in (folder, folder.parent)}:
        raise UsageError(f"--out {job.out}: holds the clips; choose another folder")
    backbone = open_backbone(job.backbone, job.weights, size=job.size)

    def clean() -> None:
        for name in folders:
            drop_leftovers(job.out / name)

    with present(job.out, backbone.weights, clean=clean):
        with locked(job.out, _BACKBONE_LOCK, wait=True):
            _check_finished(job.out, backbone)
            save_backbone(backbone, job.out)
        backbone.module.to(job.device)
        results = {
            name: _make_split(job, backbone, folder, job.out / name, on_shard) for name, folder in folders.items()
        }
    note = _normalization_note(backbone, load_manifest(next(iter(folders.values()))))
    return FeatureResult(job.out, backbone.name, backbone.weights, backbone.width, results, note)


def _normalization_note(backbone: Backbone, manifest: Manifest) -> str | None:
    theirs, ours = own_normalization(backbone.module), manifest.normalization
    if theirs == ours:
        return None
    return (
        f"timm's weights for {backbone.name} were trained with mean {theirs.mean} and std {theirs.std}; these clips are "
        f"normalised with mean {ours.mean} and std {ours.std}"
    )


def _check_finished(out: Path, backbone: Backbone) -> None:
    """Refuse to put another backbone beside splits that are finished."""
    for path in sorted(out.glob(f"*/{MANIFEST}")):
        features = load_manifest(path.parent).features
        if features is None:
            what = "clips"
        elif (features.backbone, features.weights) != (backbone.name, backbone.weights):
            what = f"features of {features.backbone} with other weights"
        else:
            continue
        raise ShardError(f"{path.parent}: holds {what}; choose another --out, or delete that folder first")


def _make_split(
    job: FeatureJob, backbone: Backbone, folder: Path, out: Path, on_shard: Callable[[str, int, int], None] | None
) -> SplitResult:
    manifest = load_manifest(folder)
    if manifest.features is not None:
        raise ShardError(f"{folder}: holds features already; give the shards that they were made of")
    spec = FeatureSpec(
        backbone=backbone.name,
        weights=backbone.weights,
        width=backbone.width,
        dtype=job.dtype,
        size=job.size,
        crops=job.crops,
        source=content_fingerprint([manifest]),
    )
    with locked(out, _SPLIT_LOCK, wait=True):
        device = torch.device(job.device)
        maker = ShardMaker(
            folder,
            out,
            backbone=backbone.module,
            spec=spec,
            batch_size=job.batch_size,
            device=device,
            threads=1 if device.type == "cpu" else default_threads([manifest.codec], device.type),
        )
        try:
            finished = _finished(out, maker)
            if finished is not None:
                return _result(finished, reused=len(finished.shards))
            parts, reused = [], 0
            for number, entry in enumerate(manifest.shards, start=1):
                part = _load_part(out, entry.name, maker.plan(entry))
                reused += part is not None
                parts.append(part or _make_part(out, maker, number - 1))
                if on_shard is not None:
                    on_shard(manifest.split, number, len(manifest.shards))
        finally:
            maker.close()
        return _result(_finish(folder, out, manifest, spec, parts), reused=reused)


def _result(manifest: Manifest, *, reused: int) -> SplitResult:
    return SplitResult(
        manifest.num_samples, len(manifest.shards), sum(entry.bytes for entry in manifest.shards), reused
    )


def _finished(out: Path, maker: ShardMaker) -> Manifest | None:
    """The manifest of a split that is complete and is what would be made."""
    manifest = manifest_if_finished(out)
    if manifest is None:
        return None
    if [entry.plan for entry in manifest.shards] != [maker.plan(entry) for entry in maker.manifest.shards]:
        raise ShardError(
            f"{out}: holds features that were made of other clips or with other options; choose another --out, or "
            "delete that folder first"
        )
    return manifest


def _make_part(out: Path, maker: ShardMaker, number: int) -> ShardPart:
    drop_part(out, maker.manifest.shards[number].name)  # of other options: it isn't this shard's
    part, rows = maker.make(number)
    write_part(out, part.name, asdict(part), rows)
    return part


def _load_part(out: Path, name: str, plan: str) -> ShardPart | None:
    """The part of a shard that was finished from this very plan, or None if it has to be made."""
    about = read_about(out, name)
    if about is None or about.get("plan") != plan:
        return None
    with suppress(TypeError):  # as an older vidpipe wrote it
        return ShardPart(**about)
    return None


def _finish(folder: Path, out: Path, source: Manifest, spec: FeatureSpec, parts: Sequence[ShardPart]) -> Manifest:
    """Write index, rejects and, last of all, the manifest."""
    samples_file = write_samples(out, (row for part in parts for row in read_rows(out, part.name)))
    with whole_file(out / REJECTS) as stream:
        stream.write((folder / REJECTS).read_bytes() if (folder / REJECTS).is_file() else b"")
    entries = tuple(
        entry.model_copy(
            update={"samples": part.samples, "bytes": part.bytes, "sha256": part.sha256, "plan": part.plan}
        )
        for entry, part in zip(source.shards, parts, strict=True)
    )
    manifest = source.model_copy(
        update={
            "features": spec,
            "samples_file": samples_file,
            "shards": entries,
            "counts": source.counts.model_copy(update={"clips": sum(part.samples for part in parts)}),
            "versions": {
                **source.versions,
                "vidpipe": __version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        }
    )
    manifest.write(out)
    return manifest
