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
        pretrained: starts from the weights of the experiment's `pretraining`, with a classifier of its own.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    prep: tuple[str, ...] = ()
    on_the_fly: bool = False
    pretrained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A question, and the variants whose accuracies answer it.

    Attributes:
        prep: arguments of `vidpipe prep motion` for the videos and shards of all variants.
        settings: `--set` overrides that all variants share.
        pretraining: trained once, with seed 0, on videos of its own; takes no part of `prep` and `settings`.
    """

    question: str
    prep: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    variants: dict[str, Variant]
    pretraining: Variant | None = None


def _steps(count: int) -> tuple[str, ...]:
    """A run of so many steps, evaluated and saved at its end."""
    steps = (f"schedule.steps={count}", f"schedule.warmup_steps={count // 10}", f"eval.every_steps={count}")
    return (*steps, "checkpoint.every_epochs=0", "log.pictures=false", "log.tensorboard=false")


_SHORT = _steps(500)
# Patches of 16 pixels: with the recipe's 8, tubelets of one frame were still at chance after 400 steps.
_FRAME = ("model.tubelet_frames=1", "model.patch_size=16")
_TUBELET = ("model.tubelet_frames=2", "model.patch_size=16")
_FINE_TUNING = (100, 400)
_MIXING: dict[str, tuple[str, ...]] = {"without": (), "CutMix": ("mixing.cutmix=1.0",)}

EXPERIMENTS: dict[str, Experiment] = {
    "cutmix": Experiment(
        question="Does CutMix help in short and in longer fine-tuning of a pretrained model?",
        pretraining=Variant(
            recipe="vivit-tiny", settings=_steps(600), prep=("--set", "video_seed=1", "--set", "labels=kind")
        ),
        variants={
            f"{name}, {steps} steps": Variant(recipe="vivit-tiny", settings=(*_steps(steps), *mixing), pretrained=True)
            for steps in _FINE_TUNING
            for name, mixing in _MIXING.items()
        }
        | {"without, 100 steps, not pretrained": Variant(recipe="vivit-tiny", settings=_steps(100))},
    ),
    "temporal-encoder": Experiment(
        question="What does ViViT's temporal encoder bring over the mean of the spatial encoder's tokens?",
        settings=_SHORT,
        variants={
            f"{name}, tubelets of {frames}": Variant(recipe="vivit-tiny", settings=(*tubelet, *depth))
            for frames, tubelet in (("1 frame", _FRAME), ("2 frames", _TUBELET))
            for name, depth in (("mean", ("model.temporal_depth=0",)), ("temporal encoder", ()))
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
    "frame-interval": Experiment(
        question="Slow motion: does a longer span, by a larger frame interval at the same number of frames, raise accuracy?",
        prep=("--set", "slow_motion=4", "--set", "video_frames=64", "--frames", "64", "--stride", "1"),
        settings=_SHORT,
        variants={
            f"8 frames x {stride}": Variant(recipe="vivit-tiny", settings=(f"data.stride={stride}",))
            for stride in (2, 4, 8)
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
    "temporal-attention": Experiment(
        question="What does TimeSformer's attention over time bring over averaging the frames?",
        settings=_SHORT,
        variants={
            "frames averaged": Variant(recipe="timesformer-tiny", settings=("model.attention=space",)),
            "divided attention": Variant(recipe="timesformer-tiny", settings=("model.attention=divided",)),
        },
    ),
}
