"""The part of the stored frames that a clip is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a frame that is resized to the model's input, in whole pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def center_region(height: int, width: int) -> Region:
    """The largest square about the centre."""
    side = min(height, width)
    return Region(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)
