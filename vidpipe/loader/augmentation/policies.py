"""How whole batches are mixed and augmented: settings of `mix_batch` and `rand_augment`, and sections of the recipes in train/."""

from __future__ import annotations

from pydantic import Field

from vidpipe.recipes import Settings


class Mixing(Settings):
    """Mixing of the clips of a batch; the labels become soft. Off where an alpha is 0.

    Attributes:
        mixup: alpha of the Beta distribution of mixup's weights (arXiv:1710.09412).
        cutmix: alpha of the Beta distribution of the kept area of CutMix (arXiv:1905.04899); one box for all frames of a clip.
        prob: share of the clips that are mixed at all.
        switch_prob: share of CutMix among the mixed clips where both are on.
        erase: share of the clips in which a box, the same in all frames, is filled with noise of the data's spread
            (arXiv:1708.04896).
    """

    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    prob: float = Field(default=1.0, ge=0, le=1)
    switch_prob: float = Field(default=0.5, ge=0, le=1)
    erase: float = Field(default=0.0, ge=0, le=1)

    @property
    def is_soft(self) -> bool:
        """Whether labels become soft."""
        return (self.mixup > 0 or self.cutmix > 0) and self.prob > 0

    @property
    def is_on(self) -> bool:
        """Whether anything is done."""
        return self.is_soft or self.erase > 0


class RandAugment(Settings):
    """RandAugment on the clips of a batch (arXiv:1909.13719): `rand-mM-nN-mstdS-inc1` where that notation is known.

    Attributes:
        ops: operations applied to a clip in turn (N).
        magnitude: mean strength, 0 to 10 (M).
        std: standard deviation of the strength (S).
        prob: with which each operation is applied at all.
    """

    ops: int = Field(default=4, ge=1)
    magnitude: float = Field(default=7.0, ge=0, le=10)
    std: float = Field(default=0.5, ge=0)
    prob: float = Field(default=0.5, ge=0, le=1)
