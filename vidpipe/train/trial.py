"""What a dry run takes of a recipe: few clips, and nothing that has to be downloaded."""

from __future__ import annotations

from pathlib import Path

from vidpipe.train.recipe import TrainRecipe


def trial_of(recipe: TrainRecipe, batch_size: int | None, *, world_size: int) -> tuple[TrainRecipe, list[str]]:
    """The recipe as it is tried, and in what it differs from the one that was asked for.

    Args:
        batch_size: clips of the batch, over all processes; None takes one on each, without what needs several: mixing, and
            several clips of a sample.
    """
    notes: list[str] = []
    if batch_size is None:
        recipe, notes = _with_one_clip(recipe, world_size=world_size)
    elif batch_size != recipe.data.batch_size:
        notes.append(_other_batch(recipe, batch_size))
        recipe = _with_batch(recipe, batch_size)
    elif recipe.optim.accumulate > 1:
        notes.append(f"one of the {recipe.optim.accumulate} parts of a batch")
    if recipe.model.init_sources:
        notes.append(f"random weights instead of {', '.join(recipe.model.init_sources)}")
    if recipe.distill is not None and not Path(recipe.distill.teacher).exists():
        notes.append(f"without the teacher {recipe.distill.teacher}, which is not there")
        recipe = recipe.model_copy(update={"distill": None})
    return recipe, notes


def _with_one_clip(recipe: TrainRecipe, *, world_size: int) -> tuple[TrainRecipe, list[str]]:
    """The recipe with one clip a step on each process, and in what it differs."""
    together, notes, left_out = recipe.data.clips_per_sample, [], []
    if together > 1:
        left_out.append(f"the {together} clips of a sample")
    if recipe.mixing.is_soft:
        left_out.append("mixing")
    if left_out or recipe.data.batch_size != world_size:
        notes.append(_other_batch(recipe, world_size, f" without {' and '.join(left_out)}" if left_out else ""))
    changes = {
        "data": recipe.data.model_copy(update={"clips_per_sample": 1}),
        "mixing": recipe.mixing.model_copy(update={"mixup": 0.0, "cutmix": 0.0}),
    }
    return _with_batch(recipe.model_copy(update=changes), world_size), notes


def _with_batch(recipe: TrainRecipe, batch_size: int) -> TrainRecipe:
    """The recipe with this batch in one part, however few clips there are."""
    data = recipe.data.model_copy(update={"batch_size": batch_size, "drop_last": False})
    return recipe.model_copy(update={"data": data, "optim": recipe.optim.model_copy(update={"accumulate": 1})})


def _other_batch(recipe: TrainRecipe, batch_size: int, without: str = "") -> str:
    whole = recipe.data.batch_size
    return (
        f"batch size {batch_size} here{without}, {whole} in the recipe: add --batch-size {whole} to see whether it fits"
    )
