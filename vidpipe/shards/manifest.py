"""The manifest: what a split folder holds and how it came to be. It is written last, so its presence means "complete"."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidpipe.errors import ShardError
from vidpipe.files import whole_file
from vidpipe.shards.codecs import CodecSpec
from vidpipe.shards.features import FeatureSpec
from vidpipe.shards.layout import FORMAT_VERSION, MANIFEST, REJECTS
from vidpipe.video.spec import ClipSpec

VERSION_SEPARATOR = ", "


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Normalization(_Frozen):
    """normalised = (x - mean) / std, per channel (RGB), where x is in [0, 1]."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class ChannelSums(_Frozen):
    """Exact sums over sampled pixels, per channel (RGB) in 8-bit units, from which mean and std follow."""

    pixels: int = 0
    sums: tuple[int, int, int] = (0, 0, 0)
    squares: tuple[int, int, int] = (0, 0, 0)

    def plus(self, other: ChannelSums) -> ChannelSums:
        """The sums over both sets of pixels."""
        (a, b, c), (d, e, f) = self.sums, other.sums
        (g, h, i), (j, k, m) = self.squares, other.squares
        return ChannelSums(pixels=self.pixels + other.pixels, sums=(a + d, b + e, c + f), squares=(g + j, h + k, i + m))

    def normalization(self) -> Normalization | None:
        """Mean and std in [0, 1], or None without any pixel."""
        if self.pixels == 0:
            return None
        means = [value / self.pixels for value in self.sums]
        stds = [math.sqrt(max(q / self.pixels - m * m, 0.0)) for q, m in zip(self.squares, means, strict=True)]
        (r, g, b), (r_std, g_std, b_std) = ([round(v / 255, 6) for v in values] for values in (means, stds))
        return Normalization(mean=(r, g, b), std=(r_std, g_std, b_std))


class FileEntry(_Frozen):
    """A file's size and SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


class ShardEntry(_Frozen):
    """One shard: its file, what is in it, and the fingerprint of the plan that it was made from.

    Attributes:
        decoders: videos written, by the decoder that decoded them.
    """

    name: str
    samples: int
    bytes: int
    sha256: str
    plan: str
    decoders: dict[str, int]
    channels: ChannelSums


class Sources(_Frozen):
    """What the written videos were.

    Attributes:
        seconds: of all together.
        duration_seconds: least, median and greatest.
        sizes, fps, codecs: number of videos by upright size (`1280x720`), by frame rate rounded to 0.01, and by codec, the
            most frequent first.
    """

    seconds: float = 0.0
    duration_seconds: tuple[float, float, float] | None = None
    sizes: dict[str, int] = Field(default_factory=dict)
    fps: dict[str, int] = Field(default_factory=dict)
    codecs: dict[str, int] = Field(default_factory=dict)


class Counts(_Frozen):
    """What became of the videos; `videos == written + rejected` always holds."""

    videos: int
    written: int
    rejected: int
    clips: int
    rejects_by_reason: dict[str, int] = Field(default_factory=dict)
    decoders: dict[str, int] = Field(default_factory=dict)


class Manifest(_Frozen):
    """Everything that a reader of the shards has to know.

    Attributes:
        classes: class names; a label is an index into them.
        clip: how clips were cut and sized.
        normalization: the one to apply; `measured` is the data's own.
        horizontal_flip: whether mirroring a clip keeps its label true.
        labels: number of videos for each class.
        sources: durations, sizes and codecs of the videos.
        features: how features were made of the clips, where the shards hold these instead of frames; all but the files is then
            that of the shards with the frames.
        samples_file: of `samples.parquet`.
        recipe: the resolved recipe that made the shards.
        versions: of what made them, by package; where not all were made with the same, all that were, with `VERSION_SEPARATOR`
            between them.
    """

    format_version: int = FORMAT_VERSION
    dataset: str
    split: str
    classes: tuple[str, ...]
    clip: ClipSpec
    codec: CodecSpec
    normalization: Normalization
    measured: Normalization | None
    horizontal_flip: bool
    counts: Counts
    labels: dict[str, int]
    sources: Sources
    features: FeatureSpec | None = None
    samples_file: FileEntry
    shards: tuple[ShardEntry, ...]
    recipe: dict[str, Any]
    versions: dict[str, str]

    @property
    def num_samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write it as `manifest.json`, whole or not at all."""
        with whole_file(folder / MANIFEST) as stream:
            stream.write((json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode())


def content_fingerprint(manifests: Iterable[Manifest]) -> str:
    """16 hexadecimal digits that tell the shards of some splits, in this order, from any others."""
    content = "".join(entry.sha256 for manifest in manifests for entry in manifest.shards)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a split folder.

    Raises:
        ShardError: the folder is missing, its preparation is unfinished, or its format is newer than this code.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise _absent(folder)
    return parse_manifest(path.read_bytes(), str(path))


def _absent(folder: Path) -> ShardError:
    """What is to be said of a folder without a manifest."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "no such folder"
        return ShardError(f"{folder}: {what}; expected a folder that `vidpipe prep` wrote, a data set's or a split's")
    if any(folder.glob("*.tar*")):
        over = (folder / REJECTS).is_file() and (folder / REJECTS).stat().st_size
        hint = f"; if it ended with exit code 3, mend the videos in {REJECTS} first, or allow a larger --max-rejects"
        return ShardError(
            f"{folder}: preparation is unfinished (no {MANIFEST}); run the same `vidpipe prep` again{hint if over else ''}"
        )
    return ShardError(f"{folder}: no shards here (no {MANIFEST}); expected a split folder written by `vidpipe prep`")


def manifest_if_finished(folder: Path) -> Manifest | None:
    """The manifest of a split folder, None where there is none (yet, or any more); raises as `parse_manifest`."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """The manifest in a file's content.

    Args:
        path: the file's path or URL, for errors.

    Raises:
        ShardError: it is none, or its format is another than this code's.
    """
    try:
        raw = json.loads(content)
        version = raw["format_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ShardError(f"{path}: damaged: not a manifest ({error})") from error
    if not isinstance(version, int):
        raise ShardError(f"{path}: damaged: format_version is {version!r}, expected a number such as {FORMAT_VERSION}")
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version}, but this vidpipe reads version {FORMAT_VERSION}; "
            + ("upgrade vidpipe" if version > FORMAT_VERSION else "prepare the shards again")
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ShardError(f"{path}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def split_folders(folder: Path) -> dict[str, Path]:
    """Split name to folder, for a data-set folder (with splits) or a single split's folder.

    Raises:
        ShardError: there is no such folder, or no split in it, but perhaps data sets, which are named.
    """
    if (folder / MANIFEST).is_file():
        return {load_manifest(folder).split: folder}
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {path.name: path for path in inside if path.is_dir() and not path.name.startswith(".")}
    finished = {name: path for name, path in found.items() if (path / MANIFEST).is_file()}
    if finished:
        return finished
    for path in found.values():
        if any(path.glob("*.tar*")):
            raise _absent(path)
    data_sets = [name for name, path in found.items() if any(path.glob(f"*/{MANIFEST}"))]
    if data_sets:
        raise ShardError(f"{folder}: holds data sets, no splits: {', '.join(data_sets)}; name one of them")
    raise _absent(folder)


def find_split(folder: Path, split: str) -> Path:
    """The folder of one split, from a data-set folder or that split's own.

    Raises:
        ShardError: it is absent or unfinished; the message names the splits that there are.
    """
    if (folder / MANIFEST).is_file():
        return folder
    if (folder / split).is_dir():
        return folder / split
    raise ShardError(f"{folder}: no split {split!r}; there are: {', '.join(split_folders(folder))}")
