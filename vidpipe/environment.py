"""What a launcher says: which of how many processes this is."""

from __future__ import annotations

import os

from vidpipe.errors import UsageError

_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_EXPORTS = (
    "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID GROUP_RANK=$SLURM_NODEID WORLD_SIZE=$SLURM_NTASKS "
    "LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE (with --ntasks-per-node) MASTER_ADDR=FIRST_MACHINE MASTER_PORT=29500, as the script "
    "in docs/training.md does"
)


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


def num_processes(*, gpus: int | None) -> tuple[int, int]:
    """How many processes train together, and how many of them on this machine, as the launcher says: all unless it says otherwise; 1
    and 1 without a launcher.

    Args:
        gpus: that this process sees; None where it uses none.

    Raises:
        UsageError: what the launcher says is incomplete, contradicts itself, or is not what processes of ours can do with.
    """
    world_size = whole_from_environment("WORLD_SIZE", 1, least=1)
    local_size = whole_from_environment("LOCAL_WORLD_SIZE", world_size, least=1)
    tasks = whole_from_environment("SLURM_STEP_NUM_TASKS", 1)
    if tasks > 1 and not os.environ.get("WORLD_SIZE"):
        raise UsageError(
            f"WORLD_SIZE: isn't set in one of {tasks} tasks of srun, which would all do the same: {_EXPORTS}, or WORLD_SIZE=1 if "
            "each task is to work by itself"
        )
    if world_size == 1:
        return 1, 1
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: not set, but WORLD_SIZE is {world_size}: start with torchrun, or {_EXPORTS}"
        )
    rank, local_rank = whole_from_environment("RANK", 0), whole_from_environment("LOCAL_RANK", 0)
    wrong = {
        f"RANK: got {rank}, expected less than WORLD_SIZE, {world_size}": rank >= world_size,
        f"LOCAL_RANK: got {local_rank}, expected less than LOCAL_WORLD_SIZE, {local_size}": local_rank >= local_size,
        f"WORLD_SIZE: got {world_size}, expected a multiple of LOCAL_WORLD_SIZE, {local_size}: start as many processes on each "
        "machine": world_size % local_size != 0,
        f"LOCAL_WORLD_SIZE: got {local_size}, but this process sees {gpus} GPUs: each takes that of its LOCAL_RANK, so let all of "
        "them see all (srun --gpus-per-node instead of --gpus-per-task; leave CUDA_VISIBLE_DEVICES alone), or start fewer": (
            gpus is not None and gpus < local_size
        ),
    }
    for message, is_so in wrong.items():
        if is_so:
            raise UsageError(message)
    return world_size, local_size


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
        UsageError: torch.distributed was initialised meanwhile, and says otherwise; or this is one of several workers of a DataLoader.
    """
    from torch import distributed
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    if worker is not None and worker.num_workers > 1:
        raise UsageError(
            f"loader: is read in each of a DataLoader's {worker.num_workers} workers, all of which would give the same batches: iterate "
            "the loader itself, which reads ahead without workers, or give rank and world_size"
        )
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    now = rank_and_world_size()
    if now != (rank, world_size):
        raise UsageError(
            f"loader: was made for rank {rank} of {world_size}, but torch.distributed says {now[0]} of {now[1]}: make it after "
            "torch.distributed is initialised, or give rank and world_size"
        )
