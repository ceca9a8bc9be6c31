"""What a launcher says: which of how many processes this is."""

from __future__ import annotations

import os

from vidpipe.errors import UsageError


def whole_from_environment(name: str, default: int, *, least: int = 0) -> int:
    """What a variable says, such as RANK, or `default` where it isn't set or is empty.

    Raises:
        UsageError: it is no whole number, or a smaller one than `least`.
    """
    text = os.environ.get(name) or str(default)
    if not (text.strip().isdecimal() and int(text) >= least):
        raise UsageError(
            f"{name}: the environment says {text!r}, expected a whole number, at least {least}; unset it, or start with torchrun"
        )
    return int(text)


def rank_and_world_size() -> tuple[int, int]:
    """Those of torch.distributed once it is initialised; before that, what the environment says, else 0 of 1.

    Raises:
        UsageError: the environment doesn't say which of several processes this is, or no number.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    world_size = whole_from_environment("WORLD_SIZE", 1, least=1)
    if world_size > 1 and not os.environ.get("RANK"):
        raise UsageError(
            f"RANK: isn't set, but WORLD_SIZE is {world_size}: make the loader after torch.distributed is initialised (with "
            "Lightning: in train_dataloader), start with torchrun, or give rank and world_size"
        )
    return whole_from_environment("RANK", 0), world_size


def check_rank(rank: int, world_size: int) -> None:
    """Refuse to go on as another process than this one is by now: several would do the same work.

    Raises:
        UsageError: torch.distributed was initialised meanwhile, and says otherwise.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    now = rank_and_world_size()
    if now != (rank, world_size):
        raise UsageError(
            f"loader: was made for rank {rank} of {world_size}, but torch.distributed says {now[0]} of {now[1]}: make it after "
            "torch.distributed is initialised, or give rank and world_size"
        )
