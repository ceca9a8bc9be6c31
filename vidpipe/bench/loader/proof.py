"""Proof that an arm gives the clips that are stored, before anything is timed."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import Arm, Job
from vidpipe.bench.psnr import psnr_db
from vidpipe.errors import VidpipeError

# Limits of the difference of antialiased resizes, in levels of 255. Implementations differ in when they round to 8 bits
# (seen: 1), and at the frame's edge, where the filter reaches beyond it, in what they find there (seen: 13 at 1/7 size).
MAX_LEVELS = 2.0
MAX_EDGE_LEVELS = 24.0
MAX_MEAN_LEVELS = 0.5
EDGE_PIXELS = 2
# Of frames that were decoded anew, maybe by another version on another kind of CPU; and beside a codec that itself loses.
MIN_PSNR_DB = 35.0
MIN_PSNR_DB_LOSSY = 24.0


@dataclass(frozen=True, slots=True)
class Proof:
    """How far an arm's clips are from the reference, in 8-bit levels (0 to 255).

    Attributes:
        clips: that were compared.
        max_levels: the largest difference of any value.
        mean_levels: the mean one.
        psnr_db: of the worst clip; None when all are equal.
    """

    clips: int
    max_levels: float
    mean_levels: float
    psnr_db: float | None

    def __str__(self) -> str:
        if self.psnr_db is None:
            return "equal"
        return f"within {self.max_levels:.2g}" if self.max_levels >= 0.01 else "but for rounding"


def prove(arm: Arm, job: Job, *, num_batches: int) -> Proof:
    """Compare an arm's first batches, clip by clip, with what is stored under their keys.

    `read` must give the stored bytes; `train`, with its centre crop, what the loader's torch reference computes from them,
    within the limits above. Arms that decode anew have to reach `MIN_PSNR_DB`, or from videos beside a codec that loses
    `MIN_PSNR_DB_LOSSY`.

    Raises:
        VidpipeError: a clip differs or is none of the stored ones; the message has arm, key and difference.
    """
    stored = StoredClips(arm.setup.folder, frames=arm.setup.frames)
    keys: list[str] = []
    worst, mean, psnr = 0.0, 0.0, math.inf
    with closing(arm.batches(job)) as batches:
        for batch in islice(batches, num_batches):
            if len(batch.keys) != len(batch.video) or not batch.keys:
                raise VidpipeError(f"{arm.title}: {job}: {len(batch.keys)} keys for {len(batch.video)} clips")
            for key, video in zip(batch.keys, batch.video, strict=True):
                difference = _difference(arm, job, stored, key, np.asarray(video))
                worst = max(worst, float(difference.max()))
                mean += float(difference.mean())
                psnr = min(psnr, psnr_db(difference))
                _judge(arm, job, key, difference, lossy=arm.from_videos and stored.manifest.codec.name != "tensor")
                keys.append(key)
    _check_variety(arm, job, keys, len(stored))
    return Proof(len(keys), worst, mean / len(keys), None if math.isinf(psnr) else psnr)


def _difference(arm: Arm, job: Job, stored: StoredClips, key: str, video: NDArray[np.generic]) -> NDArray[np.float32]:
    """Absolute difference to the reference in levels."""
    clip = stored.by_key.get(key)
    if clip is None:
        raise VidpipeError(f"{arm.title}: {job}: gave a clip {key!r}, which is not in {stored.folder}")
    expected: NDArray[np.generic] = stored.frames(clip)
    levels: NDArray[np.float32] = np.ones(1, np.float32)
    if job == "train":
        expected = stored.model_input(clip, size=arm.setup.size).numpy()
        levels = 255 * np.array(stored.manifest.normalization.std, np.float32).reshape(3, 1, 1, 1)
    if video.shape != expected.shape or video.dtype != expected.dtype:
        got, wanted = f"{video.dtype} {list(video.shape)}", f"{expected.dtype} {list(expected.shape)}"
        raise VidpipeError(f"{arm.title}: {job}: clip {key}: got {got}, expected {wanted}")
    difference: NDArray[np.float32] = np.subtract(video, expected, dtype=np.float32)
    np.abs(difference, out=difference)
    difference *= levels
    return difference


def _judge(arm: Arm, job: Job, key: str, difference: NDArray[np.float32], *, lossy: bool) -> None:
    if arm.decodes_anew:
        least = MIN_PSNR_DB_LOSSY if lossy else MIN_PSNR_DB
        same = psnr_db(difference) >= least
        limit = f"a PSNR of {least:g} dB"
    elif job == "read":
        same = not difference.any()
        limit = "the stored bytes"
    else:
        inner = difference[..., EDGE_PIXELS:-EDGE_PIXELS, EDGE_PIXELS:-EDGE_PIXELS]
        highest, mean = float(difference.max()), float(difference.mean())
        same = inner.max(initial=0) <= MAX_LEVELS and highest <= MAX_EDGE_LEVELS and mean <= MAX_MEAN_LEVELS
        limit = f"at most {MAX_LEVELS:g} levels ({MAX_EDGE_LEVELS:g} at the edge), {MAX_MEAN_LEVELS:g} in the mean"
    if not same:
        got = f"{difference.max():.1f} of 255 levels at most, {difference.mean():.2f} in the mean"
        raise VidpipeError(
            f"{arm.title}: {job}: clip {key} differs from what is stored by {got}; expected {limit}: "
            "nothing was timed, since the arms must do the same work"
        )


def _check_variety(arm: Arm, job: Job, keys: list[str], total: int) -> None:
    """Workers that begin their shares again at different times may repeat some clips, but not half of them."""
    if len(set(keys)) <= min(len(keys), total) / 2:
        raise VidpipeError(
            f"{arm.title}: {job}: {len(keys)} clips, but only {len(set(keys))} different ones: the same are given again"
        )
