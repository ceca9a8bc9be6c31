"""Which experiments there are: the data, and the variants that are trained on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One thing that is trained.

    Attributes:
        recipe: of `vidpipe train`.
        settings: `--set` overrides of it.
        prep: further arguments of `vidpipe prep` for its shards.
        on_the_fly: trained from the source videos by decord instead of from the shards.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    prep: tuple[str, ...] = ()
    on_the_fly: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A question, and the variants whose accuracies answer it.

    Attributes:
        prep: arguments of `vidpipe prep motion` for the videos and shards of all variants.
        settings: `--set` overrides that all variants share.
    """

    question: str
    prep: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    variants: dict[str, Variant]


def _steps(count: int) -> tuple[str, ...]:
    """A run of so many steps, evaluated and saved at its end."""
    steps = (f"schedule.steps={count}", f"schedule.warmup_steps={count // 10}", f"eval.every_steps={count}")
    return (*steps, "checkpoint.every_epochs=0", "log.pictures=false", "log.tensorboard=false")


_SHORT = _steps(500)
EXPERIMENTS: dict[str, Experiment] = {
    "frame-interval": Experiment(
        question="Slow motion: does a longer span, by a larger frame interval at the same number of frames, raise accuracy?",
        prep=("--set", "slow_motion=4", "--set", "video_frames=64", "--frames", "64", "--stride", "1"),
        settings=_SHORT,
        variants={
            f"8 frames x {stride}": Variant(recipe="vivit-tiny", settings=(f"data.stride={stride}",))
            for stride in (2, 4, 8)
        },
    ),
    "cutmix": Experiment(
        question="Does CutMix help in short and in longer training from random weights?",
        variants={
            f"{name}, {steps} steps": Variant(
                recipe="vivit-tiny",
                settings=(*_steps(steps), *mixing),
            )
            for steps in (300, 900)
            for name, mixing in (("without", ()), ("CutMix", ("mixing.cutmix=1.0",)))
        },
    ),
    "temporal-attention": Experiment(
        question="What does TimeSformer's attention over time bring over averaging the frames?",
        settings=_SHORT,
        variants={
            "frames averaged": Variant(recipe="timesformer-tiny", settings=("model.attention=space",)),
            "divided attention": Variant(recipe="timesformer-tiny", settings=("model.attention=divided",)),
        },
    ),
    "cross-attention": Experiment(
        question="What does a cross-attention head bring over average pooling, on the same R(2+1)D trunk?",
        settings=_SHORT,
        variants={
            "average pooling": Variant(recipe="r2plus1d-tiny"),
            "cross-attention": Variant(recipe="r2plus1d-perceiver-tiny"),
        },
    ),
    "parity": Experiment(
        question="Is anything lost by training from shards instead of decoding the videos on the fly?",
        settings=_steps(700),
        variants={
            "decord on the fly": Variant(recipe="vivit-tiny", on_the_fly=True),
            "tensor": Variant(recipe="vivit-tiny"),
            "jpeg": Variant(recipe="vivit-tiny", prep=("--codec", "jpeg")),
        },
    ),
}
