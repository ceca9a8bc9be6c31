from __future__ import annotations

import pytest

from vidpipe.errors import UsageError
from vidpipe.recipes import validate
from vidpipe.video.spec import ClipSpec


@pytest.mark.parametrize(
    ("source", "height", "expected"),
    [
        ((340, 256), 240, (318, 240)),
        ((454, 256), 240, (426, 240)),
        ((320, 568), 240, (240, 426)),
        ((320, 240), 240, (320, 240)),
        ((321, 241), 240, (320, 240)),
        ((1920, 1080), 240, (426, 240)),
        ((50, 50), 240, (240, 240)),
        ((100, 1000), 16, (16, 160)),
    ],
)
def test_short_side_becomes_the_height_and_both_sides_are_even(
    source: tuple[int, int], height: int, expected: tuple[int, int]
) -> None:
    assert ClipSpec(height=height).output_size(*source) == expected


@pytest.mark.parametrize("source", [(340, 256), (256, 340), (1920, 800), (64, 64), (333, 111)])
def test_crop_is_covered_by_the_scaled_picture_and_centred(source: tuple[int, int]) -> None:
    spec = ClipSpec(crop=(320, 240))
    width, height = spec.scaled_size(*source)
    left, top = spec.crop_origin(*source)
    assert spec.output_size(*source) == (320, 240)
    assert width >= 320 and height >= 240
    assert width == 320 or height == 240
    assert width % 2 == height % 2 == 0
    assert abs(width / height - source[0] / source[1]) / (source[0] / source[1]) < 0.02
    assert (left, top) == ((width - 320) // 2, (height - 240) // 2)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"frames": 0}, "frames"),
        ({"height": 241}, "height"),
        ({"height": 8}, "height"),
        ({"sampling": "fps"}, "fps"),
        ({"fps": 12.5}, "fps"),
        ({"sampling": "fps", "fps": -1}, "fps"),
        ({"sampling": "uniform", "stride": 2}, "stride"),
        ({"crop": [320, 241]}, "crop"),
        ({"framez": 3}, "did you mean frames"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(raw: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        validate(ClipSpec, raw, where="recipe x")
