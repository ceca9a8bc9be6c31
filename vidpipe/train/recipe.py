"""What a training run is: the schema of the recipes in train/.

A recipe is YAML; `load_train_recipe` finds it, applies what it extends and the command line's overrides, and checks it.
Unknown keys are refused everywhere but in `model`, whose further keys are checked by the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vidpipe.loader.augmentation.policies import Mixing, RandAugment
from vidpipe.recipes import Section, load_recipe, validate
from vidpipe.train.recipe_data import DataSection

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Strategy = Literal["ddp", "fsdp"]
_Beta = Annotated[float, Field(ge=0, lt=1)]
_MODEL_KEYS_FROM_DATA = {"num_frames": "data.frames", "image_size": "data.size", "num_classes": "the shards' classes"}


class ModelSection(BaseModel):
    """Which model; keys beside these are the model's own configuration and are checked by it.

    Attributes:
        name: as in `vidpipe list models`.
        init: published weights to start from, as `vidpipe.models.weights` reads them, or several that are loaded in turn;
            None is a random start.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    init: str | tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _no_keys_from_data(self) -> Self:
        for key, source in _MODEL_KEYS_FROM_DATA.items():
            if key in self.config:
                raise ValueError(f"model.{key} follows from {source}: set that instead")
        return self

    @property
    def init_sources(self) -> tuple[str, ...]:
        """The weights to start from, in turn."""
        return (self.init,) if isinstance(self.init, str) else self.init or ()

    @property
    def config(self) -> dict[str, Any]:
        """The model's own keys."""
        return dict(self.model_extra or {})


class DistillSection(Section):
    """Learning from a teacher too: (1 - weight) x the loss on the labels + weight x T^2 x KL(teacher || student) + relations.

    Attributes:
        teacher: checkpoint or run folder of a model that learned the same classes from clips of the same shape.
        weight: share of the teacher's logits, 0 to 1 (arXiv:1503.02531); with 1 the labels aren't used.
        temperature: T, by which both sides' logits are divided.
        qkv_weight, hidden_weight: of MiniViT's relations among queries, keys and values, and among tokens
            (arXiv:2204.07154, section 3.3), of the last spatial layer; between factorised encoders only.
    """

    teacher: str
    weight: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    qkv_weight: float = Field(default=0.0, ge=0)
    hidden_weight: float = Field(default=0.0, ge=0)


class OptimSection(Section):
    """The optimiser, by timm's name for it.

    Attributes:
        name: for instance sgd, adamw, lamb (timm's `list_optimizers`).
        lr: peak learning rate, for a batch of `lr_batch` clips where that is given.
        lr_batch: the rate, and with it the schedule's `warmup_lr` and `min_lr`, is multiplied by batch_size / lr_batch.
        weight_decay: not applied to biases, norms and what the model's `no_weight_decay()` names.
        betas: of the Adam family; None is the optimiser's default.
        layer_decay: factor on the rate for each layer further from the head.
        clip_grad: largest norm of all gradients together; None doesn't clip.
        accumulate: parts into which a process divides its share of a batch, to save memory.
    """

    name: str = "adamw"
    lr: float = Field(gt=0)
    lr_batch: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    betas: tuple[_Beta, _Beta] | None = None
    eps: float | None = Field(default=None, gt=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    clip_grad: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, ge=1)


class ScheduleSection(Section):
    """The learning rate over time, updated at every step.

    Attributes:
        name: shape after the warm-up. `plateau` multiplies by `decay_rate` after `patience` evaluations without improvement.
        epochs, steps: length of the run; one of them.
        warmup_epochs, warmup_steps: length of the linear warm-up; at most one of them.
        warmup_lr: rate at which the warm-up starts.
        min_lr: rate at which cosine and poly end.
        decay_after_warmup: cosine and poly fall from the end of the warm-up on; otherwise from the first step, hidden by the
            warm-up.
        milestones: epochs of the run, ascending, at which `multistep` multiplies the rate by `decay_rate`.
        decay_epochs: epochs between two multiplications of `step`, counted from the beginning of the run.
        decay_rate: factor of step, multistep and plateau; power of poly.
        patience: evaluations without improvement before plateau acts.
        metric: what plateau takes for an improvement: a lower loss, or a higher accuracy.
    """

    name: Literal["cosine", "constant", "step", "multistep", "poly", "plateau"] = "cosine"
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    warmup_epochs: float | None = Field(default=None, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_lr: float = Field(default=0.0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    decay_after_warmup: bool = False
    milestones: tuple[float, ...] = ()
    decay_epochs: float = Field(default=30, gt=0)
    decay_rate: float = Field(default=0.1, gt=0)
    patience: int = Field(default=5, ge=0)
    metric: Literal["loss", "top1"] = "loss"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give one of epochs and steps, got epochs {self.epochs} and steps {self.steps}")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError("give one of warmup_epochs and warmup_steps, not both")
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("milestones go with `name: multistep`, and only with it")
        if list(self.milestones) != sorted(set(self.milestones)) or min(self.milestones, default=1) <= 0:
            raise ValueError(f"milestones: got {list(self.milestones)}, expected ascending epochs above 0")
        return self


class EvalSection(Section):
    """When a split is evaluated while training; without that split, training says so and goes on without.

    Attributes:
        split: which.
        every_epochs: evaluate after every so many epochs, and after the last step; 0 never.
        every_steps: evaluate after every so many steps instead.
    """

    split: str = "val"
    every_epochs: int = Field(default=1, ge=0)
    every_steps: int | None = Field(default=None, ge=1)


class CheckpointSection(Section):
    """When checkpoints are written: before each evaluation, when one was the best, at the end, when asked to stop, and as said here.

    Attributes:
        every_steps: also after every so many steps, for runs with long epochs.
        every_epochs: also after every so many epochs; 0 for not.
        keep_last: how many are kept, the newest ones; the best one is kept besides.
    """

    every_steps: int | None = Field(default=None, ge=1)
    every_epochs: int = Field(default=1, ge=0)
    keep_last: int = Field(default=1, ge=1)


class LogSection(Section):
    """How often the run says how it goes.

    Attributes:
        every_steps: steps between two rows of metrics.csv (and two plain lines where there is no terminal).
        tensorboard: write TensorBoard events.
        pictures: draw the first batch as the model sees it (input.png), reconstructions in pretraining, and the curves at the
            end (curves.png).
    """

    every_steps: int = Field(default=20, ge=1)
    tensorboard: bool = True
    pictures: bool = True


class TrainRecipe(Section):
    """One experiment.

    Attributes:
        summary: one line for `vidpipe list recipes`.
        label_smoothing: share of a label that is spread over all classes.
        distill: a teacher to learn from too.
        precision: `auto` is bf16 on a GPU that has it and fp32 elsewhere.
        strategy: of several processes: `ddp` keeps a copy of the model on each; `fsdp` deals weights, gradients and the
            optimiser's state out among them (FSDP2), which takes less memory and more communication.
        seed: of the initial weights, the order, the augmentation and dropout.
        ema: decay of the moving average of the weights, which is then what is evaluated; None keeps none. timm's
            warm-up goes before it: the n-th step takes 1 - n^(-2/3) as long as that is lower.
        on_nan: `raise` stops at a loss or gradients that are not finite, `skip` leaves the batch out and goes on.
        max_skips: steps in a row that `skip`, or the loss scaling of fp16, may leave out; the last of them ends the run.
        compile: run the model through torch.compile.
    """

    summary: str = ""
    model: ModelSection
    data: DataSection = DataSection()
    optim: OptimSection
    schedule: ScheduleSection
    rand_augment: RandAugment | None = None
    mixing: Mixing = Mixing()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distill: DistillSection | None = None
    precision: Precision = "auto"
    strategy: Strategy = "ddp"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    ema: float | None = Field(default=None, gt=0, lt=1)
    on_nan: Literal["raise", "skip"] = "raise"
    max_skips: int = Field(default=20, ge=1)
    compile: bool = False
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()

    @property
    def rate_scale(self) -> float:
        """What all learning rates are multiplied by."""
        return self.data.batch_size / self.optim.lr_batch if self.optim.lr_batch else 1.0

    @model_validator(mode="after")
    def _plateau_sees_evaluations(self) -> Self:
        if self.schedule.name == "plateau" and not (self.eval.every_epochs or self.eval.every_steps):
            raise ValueError("schedule.name plateau goes by evaluations: set eval.every_epochs or eval.every_steps")
        return self


def load_train_recipe(
    name: str,
    overrides: Sequence[str] = (),
    *,
    epochs: float | None = None,
    batch_size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    size: int | None = None,
) -> TrainRecipe:
    """The recipe `name` with the command line's own options applied, and then `key.sub=value` overrides.

    Args:
        name: a name of `vidpipe list recipes`, or a path.
        epochs: length of the run in epochs, also where the recipe counts steps.

    Raises:
        UsageError: no such recipe, or a key or value that is not allowed.
    """
    data = {"batch_size": batch_size, "frames": frames, "stride": stride, "size": size}
    options = {"schedule.epochs": epochs, **{f"data.{key}": value for key, value in data.items()}}
    items = [f"{key}={value}" for key, value in options.items() if value is not None]
    raw = load_recipe("train", name, [*items, *overrides], displaced=_displaced)
    return validate(TrainRecipe, raw, where=f"recipe {name}")


def _displaced(written: Mapping[str, Any]) -> Iterator[str]:
    """A length in steps takes the place of one in epochs and the other way round; likewise for the warm-up."""
    other = {"steps": "epochs", "epochs": "steps", "warmup_steps": "warmup_epochs", "warmup_epochs": "warmup_steps"}
    schedule = written.get("schedule")
    if isinstance(schedule, Mapping):
        yield from (f"schedule.{other[name]}" for name in other if schedule.get(name) is not None)
