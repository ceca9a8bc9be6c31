"""What to cut from a video: how many clips, which frames of it, at what size."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sampling = Literal["stride", "fps", "uniform"]

MAX_COUNT = 4096
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
"""Of frames, of clips, or of source frames from one to the next."""
Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
"""Frames a second."""
Side = Annotated[int, Field(ge=16, le=8192, multiple_of=2)]
"""Of a picture, in pixels."""


class ClipSpec(BaseModel):
    """Geometry of the clips that are cut from each video; stored in manifests, so every field is part of the format.

    `sampling` says how the `frames` of a clip follow each other:

    - `stride`: every `stride`-th native frame of the source, whatever its frame rate;
    - `fps`: the frame that is on screen every 1/`fps` seconds, by presentation time, so variable rates are right;
    - `uniform`: evenly over the whole video, the centre of each of `frames` equal segments (as VideoMAE and TSN test on
      Something-Something).

    `clips` are spread evenly over the video. With `jitter` each one starts anywhere in its share of the video, drawn
    from (seed, video, clip number); without it, in the middle of its share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: Count = 16
    sampling: Sampling = "stride"
    stride: Count = 1
    fps: Rate | None = None
    clips: Count = 1
    height: Side = 240
    crop: tuple[Side, Side] | None = None
    jitter: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _fps_goes_with_its_sampling(self) -> ClipSpec:
        if (self.sampling == "fps") != (self.fps is not None):
            got = f"sampling {self.sampling!r} with fps {self.fps}"
            raise ValueError(f"fps is needed by sampling 'fps' and used by no other, got {got}")
        if self.sampling != "stride" and self.stride != 1:
            raise ValueError(
                f"stride is used by sampling 'stride' only, got {self.sampling!r} with stride {self.stride}"
            )
        return self

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, both even, to which an upright source is scaled before any crop.

        Without `crop` the short side becomes `height` and the aspect of the stored pixels is kept; with it, it is the
        smallest size that covers the crop.
        """
        if self.crop is None:
            short = min(width, height)
            target_width, target_height = width * self.height / short, height * self.height / short
            return _nearest_even(target_width, self.height), _nearest_even(target_height, self.height)
        crop_width, crop_height = self.crop
        scale = max(crop_width / width, crop_height / height)
        return _nearest_even(width * scale, crop_width), _nearest_even(height * scale, crop_height)

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, both even, of the clips that are cut from an upright source of this size in pixels."""
        return self.crop or self.scaled_size(width, height)

    def crop_origin(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the centred crop in the scaled picture of an upright source of this size; (0, 0) without one."""
        scaled_width, scaled_height = self.scaled_size(width, height)
        output_width, output_height = self.output_size(width, height)
        return (scaled_width - output_width) // 2, (scaled_height - output_height) // 2


def _nearest_even(value: float, minimum: int) -> int:
    return max(minimum, 2 * math.floor(value / 2 + 0.5))
