"""`vidpipe inspect`: what shards hold, for people, for programs, and as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.errors import UsageError
from vidpipe.loader.reading.index import make_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.report.contact_sheet import ClipRow, write_contact_sheet
from vidpipe.shards.codecs import CodecSpec, stores_whole_videos
from vidpipe.shards.descriptions import COLUMNS, read_descriptions
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.manifest import Manifest, Normalization, load_manifest, split_folders

LABELS_SHOWN = 12
MAX_FRAMES = 64  # of a clip that the contact sheet chooses from


@dataclass(frozen=True, slots=True)
class Description:
    """The manifests of a data set's splits."""

    folder: Path
    splits: dict[str, Manifest]

    def to_json(self) -> dict[str, Any]:
        """The manifests as plain values."""
        return {"folder": str(self.folder), "splits": {k: m.model_dump(mode="json") for k, m in self.splits.items()}}

    def as_text(self) -> str:
        """A short paragraph for each split."""
        return "\n".join(line for manifest in self.splits.values() for line in _describe(manifest))


def describe(folder: Path) -> Description:
    """Describe a data-set folder, or one split's.

    Raises:
        ShardError: there are no finished shards.
    """
    return Description(folder, {name: load_manifest(path) for name, path in split_folders(folder).items()})


def _describe(manifest: Manifest) -> Iterator[str]:
    counts, clip = manifest.counts, manifest.clip
    size = sum(shard.bytes for shard in manifest.shards)
    how = {"stride": f"stride {clip.stride}", "fps": f"{clip.fps} frames/s", "uniform": "evenly over the video"}
    yield f"{manifest.dataset}/{manifest.split}: {counts.clips} clips of {counts.written} videos, {size / 1e6:.1f} MB"
    extent = f"crop {clip.crop[0]}x{clip.crop[1]}" if clip.crop else f"short side {clip.height}"
    whole = stores_whole_videos(manifest.codec)
    rate = f" at {how['fps']}" if clip.sampling == "fps" else ""
    frames = f"whole videos{rate}" if whole else f"{clip.frames} frames, {how[clip.sampling]}"
    yield f"  clip      {frames}; {extent}; codec {_codec(manifest.codec)}"
    if manifest.features:
        made = manifest.features
        crops = f"{made.crops} crops" if made.crops > 1 else "the centre"
        yield f"  features  {made.backbone}, {made.width} of each frame, {made.dtype}; of {crops} at {made.size}x{made.size}"
    yield f"  videos    {counts.videos} = {counts.written} written + {counts.rejected} rejected"
    for reason, count in counts.rejects_by_reason.items():
        yield f"            {count} {reason}"
    yield f"  decoders  {', '.join(f'{name} {count}' for name, count in counts.decoders.items()) or 'none'}"
    sources = manifest.sources
    if sources.duration_seconds:
        least, middle, most = sources.duration_seconds
        yield f"  durations {least:.1f} to {most:.1f} s, median {middle:.1f} s; {sources.seconds / 3600:.2f} hours together"
        yield f"  sources   {_some(sources.sizes)}; {_some(sources.fps)} frames/s; {_some(sources.codecs)}"
    if manifest.measured:
        yield f"  channels  {_channels(manifest.measured)} (measured)"
    if not manifest.features:
        flips = "may" if manifest.horizontal_flip else "must not"
        yield f"  trainers  normalise by {_channels(manifest.normalization)}, and {flips} mirror clips"
    labels = dict(sorted(manifest.labels.items(), key=lambda item: (-item[1], item[0])))
    yield f"  labels    {len(labels)} classes: {_some(labels, shown=LABELS_SHOWN)}"


def _channels(normalization: Normalization) -> str:
    mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (normalization.mean, normalization.std))
    return f"mean {mean}, std {std}"


def _codec(spec: CodecSpec) -> str:
    """A codec's name, with what was set of its parameters."""
    details = {"quality": spec.quality, "crf": spec.crf, "dtype": spec.dtype if spec.name == "tensor" else None}
    return " ".join([spec.name, *(f"{name} {value}" for name, value in details.items() if value is not None)])


def _some(counts: dict[str, int], *, shown: int = 4) -> str:
    """The first of some counts in words."""
    text = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:shown])
    return f"{text}, and {len(counts) - shown} more" if len(counts) > shown else text


def write_grid(folder: Path, path: Path, *, clips: int) -> None:
    """Write a contact sheet of clips spread evenly over each split.

    Args:
        path: of the PNG file.
        clips: for each split, at most.

    Raises:
        UsageError: there are no clips.
        ShardError: the shards hold features, or are damaged.
    """
    rows = [row for split in split_folders(folder).values() for row in _clip_rows(split, clips)]
    if not rows:
        raise UsageError(f"--grid: {folder} holds no clips to show")
    write_contact_sheet(rows, path)


def _clip_rows(folder: Path, clips: int) -> Iterator[ClipRow]:
    manifest = load_manifest(folder)
    samples = SamplesFile(folder, manifest.samples_file)
    index, rows = make_index(samples, manifest), samples.read(COLUMNS)
    with closing(ClipReader(folder, manifest, index)) as reader:
        for sample in np.unique(np.linspace(0, len(index) - 1, min(clips, len(index))).astype(int)).tolist():
            stored = int(index.shape[sample, 0])
            frames = np.linspace(0, stored - 1, min(stored, MAX_FRAMES)).round().astype(int)
            label = int(index.label[sample])
            (description,) = read_descriptions(folder, rows.slice(sample, 1).to_pylist())
            yield ClipRow(
                label=manifest.classes[label] if label >= 0 else "no label",
                details=(f"{manifest.split} {index.key[sample]}", index.video[sample], f"{stored} frames"),
                frames=reader.read(sample, frames.tolist(), np.empty(len(frames) * index.max_frame_bytes, np.uint8)),
                times_seconds=np.array(description["times_seconds"])[frames],
            )
