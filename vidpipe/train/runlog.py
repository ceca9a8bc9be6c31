"""What a run writes down about itself: metrics.csv and TensorBoard events, one row for a step across all resumes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from vidpipe.errors import TrainingError
from vidpipe.files import whole_file

METRICS = "metrics.csv"
COLUMNS = (
    "step",
    "epoch",
    "lr",
    "loss",
    "top1",
    "grad_norm",
    "clips_per_second",
    "data_wait_share",
    "seconds",
    "bad_samples",
    "skipped_steps",
    "val_loss",
    "val_top1",
    "val_top5",
)


class RunLog:
    """Writes rows to metrics.csv, one for a step, and the same numbers to TensorBoard.

    The last row stays open: what is added at its step, also by a run that goes on there, is put into it.

    Args:
        folder: the run folder.
        step: the step at which the run goes on; rows of later steps, of a run that was killed, are taken out first.
        tensorboard: write events too.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        rows = [row for row in read_metrics(folder) if row.get("step", step + 1) <= step]
        lines = [_line(dict(zip(COLUMNS, COLUMNS, strict=True))), *map(_line, rows)]
        with whole_file(folder / METRICS) as stream:
            stream.write("".join(lines).encode())
        self._row: dict[str, float] = rows[-1] if rows and rows[-1]["step"] == step else {}
        self._unwritten = set(self._row)
        self._stream = (folder / METRICS).open("r+b")
        self._start = sum(map(len, lines[:-1]))
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, step: int, *, epochs: int, values: dict[str, float]) -> None:
        """Add columns to the row of `step`; the row before it is written out.

        Args:
            epochs: that are over with that step; its row's `epoch`.
        """
        unknown = values.keys() - set(COLUMNS)
        if unknown:
            raise TrainingError(f"metrics.csv has no columns {sorted(unknown)}")
        if self._row.get("step") != step:
            self.flush()
            self._row = {"step": step, "epoch": epochs}
            self._unwritten = {"epoch"}
            self._start = self._stream.seek(0, io.SEEK_END)
        self._unwritten |= {name for name, value in values.items() if self._row.get(name) != value}
        self._row |= values

    def flush(self) -> None:
        """Write the row out as it is by now."""
        if not self._unwritten:
            return
        self._stream.seek(self._start)
        self._stream.write(_line(self._row).encode())
        self._stream.truncate()
        self._stream.flush()
        if self._events is not None:
            for name in COLUMNS:
                if name in self._unwritten and name != "step":
                    tag = name.replace("val_", "val/") if name.startswith("val_") else f"train/{name}"
                    self._events.add_scalar(tag, self._row[name], self._row["step"])
            self._events.flush()
        self._unwritten = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._stream.close()
        if self._events is not None:
            self._events.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run folder's metrics.csv; cells that are empty are left out. Rows that are torn are ignored."""
    path = folder / METRICS
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0].decode()
    rows = [row for row in csv.DictReader(whole.splitlines()) if None not in row and None not in row.values()]
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]


def _line(row: Mapping[str, float | str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_text(row.get(column, "")) for column in COLUMNS])
    return text.getvalue()


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
