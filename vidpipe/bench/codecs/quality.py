"""How near the stored frames are to the decoded source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidpipe.bench.psnr import psnr_of_error
from vidpipe.loader.reading.index import load_index
from vidpipe.loader.reading.reader import ClipReader
from vidpipe.shards.codecs import stores_whole_videos
from vidpipe.shards.manifest import load_manifest
from vidpipe.video.decode import extract_clips

WHOLE_VIDEO_FRAMES = 64


@dataclass(frozen=True, slots=True)
class Quality:
    """PSNR in dB, in RGB; infinite where the frames are equal.

    Attributes:
        frames: that were compared.
        mean_db: of the mean squared error of all frames.
        worst_db: of the worst frame.
    """

    frames: int
    mean_db: float
    worst_db: float


def measure_quality(shards: Path, videos: Path) -> Quality:
    """Compare every sample's frames, as the loader reads them, with the source decoded once more.

    Of samples that are whole videos, `WHOLE_VIDEO_FRAMES` are taken, spread evenly.

    Args:
        shards: a split's folder.
        videos: the folder that it was made from.
    """
    manifest = load_manifest(shards)
    index = load_index(shards, manifest)
    reader = ClipReader(shards, manifest, index)
    spec = manifest.clip
    whole = stores_whole_videos(manifest.codec)
    if whole:
        evenly = {"frames": WHOLE_VIDEO_FRAMES, "sampling": "uniform", "stride": 1, "jitter": False}
        spec = spec.model_copy(update=evenly)
    errors: list[float] = []
    for sample in range(len(index)):
        key = str(index.video[sample])
        source = extract_clips(videos / key, spec, key=key).clips[0]
        wanted = source.frame_indices.tolist() if whole else range(spec.frames)
        stored = reader.read(sample, wanted, np.empty(source.video.nbytes, np.uint8))
        for ours, theirs in zip(stored, source.video, strict=True):
            difference = np.subtract(ours, theirs, dtype=np.float32).reshape(-1)
            errors.append(float(np.dot(difference, difference)) / difference.size)
    reader.close()
    return Quality(len(errors), psnr_of_error(sum(errors) / len(errors)), psnr_of_error(max(errors)))
