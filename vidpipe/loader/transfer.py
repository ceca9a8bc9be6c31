"""Copies from host to GPU that don't block, and the loader's CUDA streams."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.errors import UsageError
from vidpipe.loader.reading.buffers import aligned_array
from vidpipe.loader.reading.shared_memory import PageLock

_PORTABLE = 1  # cudaHostRegisterPortable: page-locked for all GPUs
MAX_UNDER_WAY = 2  # batches on a stream: one is worked on while the next is queued


def find_device(name: str | torch.device) -> torch.device:
    """The device of a name, where `cuda` means the current one: DALI counts from 0 otherwise.

    Raises:
        UsageError: it is the name of no device, or of a GPU that isn't there.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: got {name!r}, expected a device of torch's, such as 'cpu' or 'cuda:0'") from error
    if device.type != "cuda":
        return device
    is_vague = str(device) == "cuda"  # torch's stubs say that there is always an index
    if not torch.cuda.is_available() or (not is_vague and device.index >= torch.cuda.device_count()):
        raise UsageError(
            f"device: got '{device}', but torch finds {torch.cuda.device_count()} CUDA devices here; take device='cpu', or "
            "check `nvidia-smi`"
        )
    return torch.device("cuda", torch.cuda.current_device()) if is_vague else device


def threads_for(device: torch.device, number: int, *, name: str) -> ThreadPoolExecutor:
    """Threads that work on a device, which is the current one in all of them where it is a GPU.

    In a new thread that is the first GPU otherwise, on which the process would then be given a context, of some hundred MB, by
    what merely goes back to the current device, as the end of a stream's block does.
    """
    return ThreadPoolExecutor(number, thread_name_prefix=name, initializer=_make_current, initargs=(device,))


def _make_current(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host's, on the device; on a GPU the copy is queued on the current stream, and nothing waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from any other memory, the copy would make the host wait for all that is queued
    return tensor.to(device, non_blocking=True)


def allocation_for(device: torch.device) -> Callable[[int], NDArray[np.uint8]]:
    """What gives memory that a device is to be fed from: flat uint8 arrays, page-locked where a GPU fetches from them."""
    return _pinned_array if device.type == "cuda" else aligned_array


def page_lock_for(device: torch.device) -> PageLock | None:
    """What locks the pages of memory that isn't torch's, so that a GPU can fetch from it by itself, and gives what undoes it.

    It raises UsageError where the system or the driver doesn't allow it. None where the device is no GPU.
    """
    if device.type != "cuda":
        return None

    def lock(memory: NDArray[np.uint8]) -> Callable[[], None]:
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = memory.ctypes.data
        with torch.cuda.device(device):  # in a new thread the first one is current, and would be given a context
            code = runtime.cudaHostRegister(address, memory.nbytes, _PORTABLE)
        if int(code) != 0:
            raise UsageError(
                f"readers: {memory.nbytes / 1e6:.3g} MB of memory can't be page-locked ({runtime.cudaGetErrorString(code)}); "
                "take smaller batches or fewer prefetch_batches, or readers='threads'"
            )

        def unlock() -> None:
            with torch.cuda.device(device):
                torch.cuda.synchronize()  # it is rare, and nothing may read it any more
                runtime.cudaHostUnregister(address)

        return unlock

    return lock


def _pinned_array(size: int) -> NDArray[np.uint8]:
    memory: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True).numpy()
    return memory


def videos_in(flat: Tensor, starts: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Parts of a flat tensor, each of its shape; where they are alike and in equal distances, by one call.

    Each call of torch's lets go of Python's lock, and has to wait for it where many threads want it.
    """
    steps = {after - before for before, after in itertools.pairwise(starts)}
    if len(set(shapes)) == 1 and len(steps) == 1:
        shape, (step,) = shapes[0], steps
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        whole = flat.as_strided((len(starts), *shape), (step, *strides), flat.storage_offset() + starts[0])
        return list(whole.unbind(0))
    return [flat[start : start + math.prod(shape)].view(shape) for start, shape in zip(starts, shapes, strict=True)]


def as_one(videos: Sequence[Tensor]) -> Tensor | None:
    """Contiguous tensors that are alike and lie one behind the other in memory, as one of one more axis; None for others."""
    first = videos[0]
    begin, size = first.data_ptr(), first.nbytes
    if (
        any(
            video.data_ptr() != begin + place * size or video.shape != first.shape or video.dtype != first.dtype
            for place, video in enumerate(videos)
        )
        or first.untyped_storage().nbytes() < len(videos) * size + first.storage_offset() * first.itemsize
    ):
        return None
    return first.as_strided((len(videos), *first.shape), (first.numel(), *first.stride()), first.storage_offset())


class SideStream:
    """A stream of the loader's own, so that its work doesn't stand behind the model's.

    Args:
        device: on any but CUDA ones, work is done at once, and there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda: torch.cuda.Stream | None = None
        if device.type == "cuda":
            # Before the model's: these are many short kernels, each of which would wait for one of the model's to end.
            self.cuda = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._under_way: deque[tuple[torch.cuda.Event, object]] = deque()
        self._kept: list[object] = []

    @contextmanager
    def queue(self) -> Iterator[None]:
        """Work within the block goes to this stream; first waits until there is room for another batch."""
        while len(self._under_way) >= MAX_UNDER_WAY:
            self._wait_for_oldest()
        if self.cuda is None:
            yield
        else:
            with torch.cuda.device(self.cuda.device), torch.cuda.stream(self.cuda):  # see `threads_for`
                yield

    def keep(self, memory: object) -> None:
        """Hold on to something that is read by what is queued, until the end that is marked next.

        Memory of torch's own needs that only where another stream takes it next; memory of another library always does, as
        that library knows nothing of the work on this stream.
        """
        if self.cuda is not None:
            self._kept.append(memory)

    def mark(self, reads: object) -> torch.cuda.Event | None:
        """The end of what was queued so far, for others to wait for; what it `reads` is kept until then."""
        if self.cuda is None:
            return None
        kept, self._kept = self._kept, []
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # a thread that waits for it sleeps
        event.record(self.cuda)
        self._under_way.append((event, (reads, kept)))
        return event

    def follow(self, event: torch.cuda.Event | None) -> None:
        """Let what is queued from now on begin after an event of another stream; None is nothing to wait for."""
        if self.cuda is not None and event is not None:
            self.cuda.wait_event(event)

    def close(self) -> None:
        """Wait for all that was queued."""
        while self._under_way:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        self._under_way[0][0].synchronize()
        self._under_way.popleft()  # only now: what it holds may be written to as soon as it is let go
