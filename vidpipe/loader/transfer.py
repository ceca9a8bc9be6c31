"""From the host to the device without either waiting for the other, on the CPU nothing but what has to be done there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vidpipe.errors import UsageError

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


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host's, on the device; on a GPU the copy is queued on the current stream, and nothing waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from any other memory, the copy would make the host wait for all that is queued
    return tensor.to(device, non_blocking=True)


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
            self._under_way.popleft()[0].synchronize()
        if self.cuda is None:
            yield
        else:
            with torch.cuda.stream(self.cuda):
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
            self._under_way.popleft()[0].synchronize()
