"""How a run shows that it goes: one live line on a terminal, plain lines elsewhere; both on stderr."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

_PLAIN_SECONDS = 10.0


@dataclass(frozen=True)
class Pulse:
    """The state of a run at one step.

    Attributes:
        loss: None while all steps since the last log row were left out.
        top1: share of the training clips that were classified rightly; None where labels are mixed.
        data_wait_share: share of the time since the last log row that went into waiting for the next batch.
        memory_bytes: most memory that tensors took on the GPU.
        eta_seconds: time to the end of the run at this pace.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float | None
    top1: float | None
    lr: float
    clips_per_second: float
    data_wait_share: float
    memory_bytes: int | None
    eta_seconds: float

    def line(self) -> str:
        """One line for people."""
        loss = "none" if self.loss is None else f"{self.loss:.4f}"
        parts = [f"step {self.step}/{self.total_steps}", f"epoch {self.epoch}", f"loss {loss}"]
        if self.top1 is not None:
            parts.append(f"acc {self.top1:.1%}")
        parts += [f"lr {self.lr:.2e}", f"{self.clips_per_second:.1f} clips/s", f"data wait {self.data_wait_share:.1%}"]
        if self.memory_bytes is not None:
            parts.append(f"gpu {self.memory_bytes / 2**30:.1f} GiB")
        parts.append(f"eta {duration(self.eta_seconds)}")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows pulses and says sentences; silent on all processes but the first.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._terminal = self._console.is_terminal and not self._console.is_dumb_terminal and not quiet
        self._last_line = -_PLAIN_SECONDS

    def pulse(self, pulse: Pulse, *, due: bool) -> None:
        """Show the state of the run.

        Args:
            due: a log row is due: without a terminal, a line is printed then, or when the last one is long ago.
        """
        if self._terminal:
            done = int(20 * pulse.step / max(1, pulse.total_steps))
            self._live.update(
                Text(f"{'━' * done}{'╌' * (20 - done)} {pulse.line()}", no_wrap=True, overflow="ellipsis")
            )
        elif due or time.monotonic() - self._last_line > _PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(pulse.line(), markup=False)

    def note(self, text: str) -> None:
        """Show what is going on besides steps; only on a terminal."""
        if self._terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def say(self, sentence: str) -> None:
        """Print a sentence above the live line."""
        self._console.print(sentence, markup=False)

    def __enter__(self) -> Self:
        if self._terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._live.stop()
