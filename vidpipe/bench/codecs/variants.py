"""Which codecs there are to compare, each with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidpipe.bench.prep.arms.vidpipe_prep import RECIPE
from vidpipe.bench.reports import LeftOut
from vidpipe.errors import UsageError
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.shards.codecs import CODECS, CodecSpec

REFERENCE = "tensor"
# Overrides of the prep recipe. A codec that has no row here is compared as it is by default.
VARIANTS: dict[str, tuple[str, ...]] = {
    "tensor": ("codec=tensor",),
    "tensor float16": ("codec=tensor", "dtype=float16"),
    "jpeg 75": ("codec=jpeg", "quality=75"),
    "jpeg 90": ("codec=jpeg", "quality=90"),
    "jpeg 95": ("codec=jpeg", "quality=95"),
    "mp4 crf 20": ("codec=mp4", "crf=20"),
    "mp4 crf 28": ("codec=mp4", "crf=28"),
}
QUICK_VARIANTS = ("tensor", "jpeg 90", "mp4 crf 20")


@dataclass(frozen=True, slots=True)
class Variant:
    """A codec with its parameters.

    Attributes:
        overrides: of the prep recipe.
    """

    name: str
    overrides: tuple[str, ...]
    spec: CodecSpec

    @property
    def whole_videos(self) -> bool:
        """Whether its samples are whole videos."""
        return CODECS[self.spec.name].whole_videos

    @property
    def lossless(self) -> bool:
        """Whether its frames have to come back bit for bit."""
        return self.spec.name == REFERENCE


def find_variants(names: Sequence[str] | None) -> tuple[list[Variant], list[LeftOut]]:
    """The variants of these names, or all, and those whose recipe is refused. `REFERENCE` is always the first."""
    tabled = {overrides[0].partition("=")[2] for overrides in VARIANTS.values()}
    every = VARIANTS | {codec: (f"codec={codec}",) for codec in CODECS if codec not in tabled}
    found, refused = [], []
    for name, overrides in every.items():
        if names is not None and name not in (*names, REFERENCE):
            continue
        try:
            recipe, _ = load_prep_recipe(RECIPE, overrides)
        except UsageError as error:
            refused.append(LeftOut(name, str(error)))
        else:
            found.append(Variant(name, overrides, recipe.codec_spec))
    return found, refused
