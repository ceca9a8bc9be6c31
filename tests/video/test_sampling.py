from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.video.sampling import plan_clips
from vidpipe.video.spec import ClipSpec


def steady(num_frames: int, fps: float = 25.0) -> NDArray[np.float64]:
    return np.arange(num_frames) / fps


def indices(spec: ClipSpec, times: NDArray[np.float64], key: str = "a/b.mp4") -> list[list[int]]:
    return [plan.frame_indices.tolist() for plan in plan_clips(spec, times, key=key)]


def test_one_strided_clip_is_centred() -> None:
    assert indices(ClipSpec(frames=4, stride=2), steady(20)) == [[7, 9, 11, 13]]
    assert indices(ClipSpec(frames=1), steady(1)) == [[0]]


def test_several_clips_are_spread_evenly() -> None:
    starts = [clip[0] for clip in indices(ClipSpec(frames=8, clips=4), steady(107))]
    assert starts == [12, 37, 62, 87]


@pytest.mark.parametrize("num_frames", [1, 2, 15, 16, 31, 32, 100])
@pytest.mark.parametrize("stride", [1, 2, 7])
@pytest.mark.parametrize("jitter", [False, True])
def test_stride_is_kept_and_a_short_video_is_padded_with_its_last_sampled_frame(
    num_frames: int, stride: int, jitter: bool
) -> None:
    spec = ClipSpec(frames=16, stride=stride, clips=3, jitter=jitter)
    for plan in plan_clips(spec, steady(num_frames), key="k"):
        steps = np.diff(plan.frame_indices)
        held = 16 - plan.padded_frames
        assert (steps[: held - 1] == stride).all()
        assert (steps[held - 1 :] == 0).all()
        assert plan.frame_indices.max() < num_frames
        assert (plan.padded_frames > 0) == (num_frames < 15 * stride + 1)


def test_jitter_stays_in_each_clips_share_and_is_keyed() -> None:
    spec = ClipSpec(frames=4, clips=5, jitter=True, seed=3)
    times = steady(1003)
    shares = np.array([[clip[0] // 200 for clip in indices(spec, times, key=f"v{i}")] for i in range(50)])
    assert (shares == np.arange(5)).all()
    assert indices(spec, times, "x") == indices(spec, times, "x")
    assert indices(spec, times, "x") != indices(spec, times, "y")
    assert indices(spec, times, "x") != indices(spec.model_copy(update={"seed": 4}), times, "x")
    assert indices(spec, times, "caf\udce9") != indices(spec, times, "caf\udce8")


def test_jitter_is_the_same_on_every_machine() -> None:
    spec = ClipSpec(frames=2, clips=3, jitter=True, seed=1)
    assert indices(spec, steady(1000), "class/video.mp4") == [[267, 268], [644, 645], [729, 730]]


def test_uniform_takes_the_centres_of_equal_segments() -> None:
    assert indices(ClipSpec(frames=4, sampling="uniform"), steady(40)) == [[5, 15, 25, 35]]
    # VideoMAE's test sampling for Something-Something: int(tick / 2 + tick * x)
    for num_frames in (16, 37, 100, 211):
        tick = num_frames / 16
        expected = [int(tick / 2 + tick * x) for x in range(16)]
        assert indices(ClipSpec(frames=16, sampling="uniform"), steady(num_frames)) == [expected]


def test_uniform_clips_interleave_and_short_videos_repeat_frames_in_order() -> None:
    assert indices(ClipSpec(frames=4, sampling="uniform", clips=2), steady(40)) == [[2, 12, 22, 32], [7, 17, 27, 37]]
    (plan,) = plan_clips(ClipSpec(frames=8, sampling="uniform"), steady(3), key="k")
    assert plan.frame_indices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert plan.padded_frames == 5


def test_fps_takes_what_is_on_screen() -> None:
    # 25 fps for a second, then one frame every 0.4 s.
    times = np.concatenate([np.arange(25) / 25, 1.0 + 0.4 * np.arange(10)])
    spec = ClipSpec(frames=10, sampling="fps", fps=5.0, clips=2)
    clips = indices(spec, times)
    for clip in clips:
        shown_at = times[clip[0]] + np.arange(10) / 5.0
        assert clip == [int(np.flatnonzero(times <= t + 1e-9)[-1]) for t in shown_at]
    # The video lasts 4.64 s and a clip 1.8 s, so that the starts are a quarter and three quarters into 2.84 s.
    assert [times[clip[0]] for clip in clips] == pytest.approx([0.68, 1.8])


@pytest.mark.parametrize("offset", [0.0, 5.0, -0.08])
def test_fps_is_right_with_times_rounded_to_milliseconds_and_any_start(offset: float) -> None:
    times = np.round(np.arange(300) / 29.97, 3) + offset
    (clip,) = indices(ClipSpec(frames=16, sampling="fps", fps=14.985), times)
    assert np.diff(clip).tolist() == [2] * 15


def test_fps_above_the_native_rate_repeats_and_a_short_video_is_padded() -> None:
    (plan,) = plan_clips(ClipSpec(frames=8, sampling="fps", fps=50.0), steady(100), key="k")
    assert (plan.frame_indices.tolist(), plan.padded_frames) == ([48, 48, 49, 49, 50, 50, 51, 51], 0)
    (plan,) = plan_clips(ClipSpec(frames=8, sampling="fps", fps=5.0), steady(20), key="k")
    assert plan.frame_indices.tolist() == [0, 5, 10, 15, 15, 15, 15, 15]
    assert plan.padded_frames == 4
    (plan,) = plan_clips(ClipSpec(frames=3, sampling="fps", fps=5.0), steady(1), key="k")
    assert (plan.frame_indices.tolist(), plan.padded_frames) == ([0, 0, 0], 2)


def test_no_frames_is_an_error() -> None:
    with pytest.raises(ValueError, match="without frames"):
        plan_clips(ClipSpec(), steady(0), key="k")
