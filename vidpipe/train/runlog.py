"""What a run writes down about itself: metrics.csv and TensorBoard events, without duplicates across resumes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vidpipe.errors import TrainingError
from vidpipe.shards.layout import whole_file

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
    "val_loss",
    "val_top1",
    "val_top5",
)


class RunLog:
    """Appends rows to metrics.csv, one for a step at most, and the same numbers to TensorBoard.

    Args:
        folder: the run folder.
        step: the step at which the run goes on; rows of later steps, of a run that was killed, are taken out first.
        tensorboard: write events too.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        self._path = folder / METRICS
        self._row: dict[str, float] = {}
        _keep_rows(self._path, until=step)
        self._stream = self._path.open("a", encoding="utf-8", newline="")
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add columns to the row of `step`; the row before it is written out."""
        unknown = values.keys() - set(COLUMNS)
        if unknown:
            raise TrainingError(f"metrics.csv has no columns {sorted(unknown)}")
        if self._row and self._row["step"] != step:
            self.flush()
        self._row |= {"step": step, **values}

    def flush(self) -> None:
        """Write the row out."""
        row, self._row = self._row, {}
        if not row:
            return
        csv.writer(self._stream).writerow([_text(row.get(column)) for column in COLUMNS])
        self._stream.flush()
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    tag = name.replace("val_", "val/") if name.startswith("val_") else f"train/{name}"
                    self._events.add_scalar(tag, value, row["step"])
            self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._stream.close()
        if self._events is not None:
            self._events.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run folder's metrics.csv; cells that are empty are left out. A torn last line is ignored."""
    path = folder / METRICS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if None not in row and None not in row.values()]
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]


def _keep_rows(path: Path, *, until: int) -> None:
    rows = [row for row in read_metrics(path.parent) if row.get("step", until + 1) <= until]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_text(row.get(column)) for column in COLUMNS] for row in rows)
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode())


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
