"""What to say when memory runs out, a GPU's or the machine's: the numbers, and what would help."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vidpipe.errors import TrainingError
from vidpipe.memory import available_bytes, resident_bytes
from vidpipe.train.parts import smallest_part
from vidpipe.train.recipe import TrainRecipe


@contextmanager
def memory_advice(where: str, device: torch.device, advice: str) -> Iterator[None]:
    """Turn running out of memory into one line.

    Args:
        where: what was going on, with how many clips at a time.
        advice: what would help.

    Raises:
        TrainingError: in place of torch's OutOfMemoryError, and of what torch and Python raise where the machine's memory
            doesn't suffice.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(f"{where}: out of memory{_numbers(device, error)}; {advice}") from error
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(f"{where}: out of memory{_numbers(torch.device('cpu'), error)}; {advice}") from error


def step_advice(recipe: TrainRecipe, *, world_size: int) -> str:
    """What helps a training step that doesn't fit, what leaves the step's clips as they are first."""
    accumulate, share, fewest = recipe.optim.accumulate, recipe.data.batch_size // world_size, smallest_part(recipe)
    together = recipe.data.clips_per_sample
    smaller_parts = [n for n in range(accumulate + 1, share // fewest + 1) if share % (n * together) == 0]
    advice = []
    if smaller_parts:
        advice.append(f"optim.accumulate={smaller_parts[0]} (the same batch in smaller parts)")
    if not recipe.model.config.get("checkpointing"):
        advice.append("model.checkpointing=true (about a third more time)")
    if recipe.precision == "fp32":
        advice.append("precision=bf16")
    if world_size > 1 and recipe.strategy != "fsdp":
        advice.append("strategy=fsdp")
    advice.append("a smaller --batch-size, --frames or --size")
    return f"try --set {', --set '.join(advice[:-1])}, or {advice[-1]}" if advice[:-1] else f"try {advice[-1]}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch's allocator of the machine's memory failed, for which it has no type: only the message tells."""
    return "DefaultCPUAllocator" in str(error)


def _numbers(device: torch.device, error: BaseException) -> str:
    return (
        _gpu_numbers(device) if device.type == "cuda" and isinstance(error, torch.OutOfMemoryError) else _own_numbers()
    )


def _gpu_numbers(device: torch.device) -> str:
    free, total = torch.cuda.mem_get_info(device)
    own, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_allocated(device)
    gib = [f"{n / 2**30:.1f}" for n in (total, own, peak, max(0, total - free - own))]
    return f" ({gib[0]} GiB on the GPU; {gib[1]} held by this process, {gib[2]} at most in tensors; {gib[3]} by others)"


def _own_numbers() -> str:
    """What Linux says of this process and this machine; nothing elsewhere."""
    available, resident = available_bytes(), resident_bytes()
    if available is None or resident is None:
        return ""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    allowed = "" if limit == resource.RLIM_INFINITY else f", {limit / 2**30:.1f} of addresses allowed (ulimit -v)"
    return f" ({resident / 2**30:.1f} GiB held by this process, {available / 2**30:.1f} available to it{allowed})"
