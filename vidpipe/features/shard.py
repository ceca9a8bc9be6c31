"""Makes one feature shard of one shard of clips, sample by sample."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpipe.errors import ShardError
from vidpipe.loader.augmentation.augment import Drawn
from vidpipe.loader.augmentation.transform import ClipTransform
from vidpipe.loader.reading.index import make_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.loader.sampling.views import Views
from vidpipe.shards.checksum import crc32
from vidpipe.shards.descriptions import read_descriptions
from vidpipe.shards.features import FeatureFormat, FeatureSpec
from vidpipe.shards.index import SamplesFile
from vidpipe.shards.layout import FORMAT_VERSION, label_bytes, sample_key, video_of, write_errors
from vidpipe.shards.manifest import ShardEntry, load_manifest
from vidpipe.shards.tar import TarWriter, open_shard

AHEAD_FRAMES = 2048  # that wait for the backbone: 1.2 GB at 224 x 224
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardPart:
    """What a finished shard contributes to its split, besides its rows; `plan` is the fingerprint of all that decides its content."""

    name: str
    plan: str
    bytes: int
    sha256: str
    samples: int


class ShardMaker:
    """Makes the feature shards of a split, one for each of its shards of clips.

    Args:
        folder: the split with the clips.
        out: the split that is made.
        backbone: on `device`, in eval mode.
        spec: how features are made.
        batch_size: frames of a forward pass. The last bits of the result may depend on it.
        threads: that read and cut the frames.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        *,
        backbone: nn.Module,
        spec: FeatureSpec,
        batch_size: int,
        device: torch.device,
        threads: int,
    ) -> None:
        self.manifest = load_manifest(folder)
        self._folder, self._out = folder, out
        self._backbone, self._spec, self._batch_size, self._device = backbone, spec, batch_size, device
        self._samples = SamplesFile(folder, self.manifest.samples_file)
        self._index = make_index(self._samples, self.manifest)
        self._first = [*itertools.accumulate((entry.samples for entry in self.manifest.shards), initial=0)]
        self._reader = ClipReader(folder, self.manifest, self._index)
        self._transform = ClipTransform(size=spec.size, normalization=self.manifest.normalization)
        self._format = FeatureFormat(spec)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="vidpipe-frames")

    def close(self) -> None:
        """End the threads and close all shards."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._reader.close()

    def plan(self, entry: ShardEntry) -> str:
        """Fingerprint of all that decides the content of a shard, but the libraries' versions and the device."""
        content = {
            "format": FORMAT_VERSION,
            "features": self._spec.model_dump(mode="json"),
            "normalization": self.manifest.normalization.model_dump(mode="json"),
            "shard": entry.sha256,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def make(self, number: int) -> tuple[ShardPart, list[Row]]:
        """Write a shard of features, by its number, and its index, each whole or not at all; its rows are for samples.parquet.

        Raises:
            ShardError: it can't be written, a clip can't be read, or its features are not finite numbers.
        """
        entry, first = self.manifest.shards[number], self._first[number]
        rows = self._samples.rows(first, entry.samples)
        descriptions = list(read_descriptions(self._folder, rows))
        clips = self._clips(range(first, first + entry.samples))
        features = in_batches(clips, self._batch_size, self._run)
        made: list[Row] = []
        with write_errors(self._out / entry.name), open_shard(self._out / entry.name) as writer:
            for row, description in zip(rows, descriptions, strict=True):
                for crop in range(self._spec.crops):
                    made.append(self._write(writer, row, description, crop=crop, features=next(features)))
        summary = writer.summary
        return ShardPart(entry.name, self.plan(entry), summary.bytes, summary.sha256, len(made)), made

    def _write(
        self, writer: TarWriter, row: Row, description: dict[str, Any], *, crop: int, features: NDArray[np.float32]
    ) -> Row:
        """Add one sample; the source's row, with what is otherwise here."""
        number = row["clip"] * self._spec.crops + crop
        key = sample_key(int(video_of(row["key"])), number)
        try:
            payload, checksums = self._format.encode(features)
        except ValueError as error:
            hint = "; take --dtype float32" if self._spec.dtype == "float16" else ""
            raise ShardError(f"{row['shard']}: sample {row['key']}: {error}{hint}") from error
        more = {"crop": crop, "features": {"backbone": self._spec.backbone, "weights": self._spec.weights}}
        text = json.dumps({**description, **more}, sort_keys=True, ensure_ascii=False).encode()
        label = label_bytes(row["label"], len(self.manifest.classes))
        cls, about, array = writer.add(key, {"cls": (label,), "json": (text,), "npy": (payload,)})
        return {
            **row,
            "key": key,
            "clip": number,
            "height": self._spec.size,
            "width": self._spec.size,
            "cls_offset": cls.offset,
            "cls_size": cls.size,
            "json_offset": about.offset,
            "json_size": about.size,
            "json_crc32": crc32(text),
            "payload_offset": array.offset,
            "payload_sizes": [array.size],
            "payload_crc32": list(checksums),
        }

    def _clips(self, samples: Iterable[int]) -> Iterator[Tensor]:
        """The backbone's input for every crop of some samples, in order, each float32 [T, 3, size, size]."""
        waiting: deque[tuple[int, Future[list[Tensor]]]] = deque()
        for sample in samples:
            frames = int(self._index.shape[sample, 0]) * self._spec.crops
            waiting.append((frames, self._threads.submit(self._crops, sample)))
            while sum(count for count, _ in waiting) > AHEAD_FRAMES:
                yield from waiting.popleft()[1].result()
        while waiting:
            yield from waiting.popleft()[1].result()

    def _crops(self, sample: int) -> list[Tensor]:
        frames, height, width = self._index.shape_of(sample)
        buffer = np.empty(frames * height * width * 3, np.uint8)
        video = torch.from_numpy(self._reader.read(sample, range(frames), buffer))
        views, side = Views(1, self._spec.crops), self._spec.size
        crops = []
        for crop in range(self._spec.crops):
            out = torch.empty((3, frames, side, side), dtype=torch.float32)
            self._transform(video, Drawn(views.region(crop, height, width)), out=out)
            crops.append(out.transpose(0, 1))
        return crops

    def _run(self, frames: Tensor) -> Tensor:
        with torch.inference_mode():
            features: Tensor = self._backbone(frames.to(self._device, non_blocking=True)).float().cpu()
        return features


def in_batches(
    clips: Iterable[Tensor], batch_size: int, run: Callable[[Tensor], Tensor]
) -> Iterator[NDArray[np.float32]]:
    """What `run` makes of each clip's frames, which it is given in batches that don't end where clips end.

    Args:
        clips: [T, ...] each; T may differ.
        run: from [N, ...] with N up to `batch_size` to [N, D].

    Yields:
        float32 [T, D] of each clip.
    """
    lengths: deque[int] = deque()
    frames: list[Tensor] = []
    results: list[Tensor] = []

    def advance(*, to_the_end: bool) -> None:
        joined = torch.cat(frames)
        stop = len(joined) if to_the_end else len(joined) // batch_size * batch_size
        results.extend(run(joined[at : min(at + batch_size, stop)]) for at in range(0, stop, batch_size))
        frames[:] = [joined[stop:]] if stop < len(joined) else []

    def finished() -> Iterator[NDArray[np.float32]]:
        joined = torch.cat(results) if results else torch.empty(0)
        while lengths and lengths[0] <= len(joined):
            length = lengths.popleft()
            yield joined[:length].numpy()
            joined = joined[length:]
        results[:] = [joined] if len(joined) else []

    for clip in clips:
        lengths.append(len(clip))
        frames.append(clip)
        if sum(map(len, frames)) >= batch_size:
            advance(to_the_end=False)
            yield from finished()
    if frames:
        advance(to_the_end=True)
    yield from finished()
