"""Parts of a batch: what goes through the model at a time on one process, and how small it may be."""

from __future__ import annotations

from vidpipe.errors import UsageError
from vidpipe.train.data import per_process_batch
from vidpipe.train.recipe import TrainRecipe


def smallest_part(recipe: TrainRecipe) -> int:
    """Fewest clips of a part: a sample's clips stay together, and mixing takes those of two samples."""
    return recipe.data.clips_per_sample * (2 if recipe.mixing.is_soft else 1)


def check_parts(recipe: TrainRecipe, *, world_size: int) -> None:
    """Refuse parts in which mixing would find no partner for a clip, and leave it as it is.

    Raises:
        UsageError: the parts are too small, or the batch can't be divided evenly.
    """
    batch, accumulate = recipe.data.batch_size, recipe.optim.accumulate
    part = per_process_batch(batch, world_size=world_size, accumulate=accumulate)
    fewest = smallest_part(recipe)
    if recipe.mixing.is_soft and part < fewest:
        raise UsageError(
            f"mixing: data.batch_size {batch} among {world_size} processes x {accumulate} accumulation steps makes parts of "
            f"{part} clips, but a clip is mixed with one of another sample of its part, which takes {fewest}; take a larger "
            "--batch-size or a smaller optim.accumulate, or set mixing.prob=0"
        )
