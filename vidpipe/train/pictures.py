"""Pictures of a run: what the model is shown at the start, and the curves at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.files import whole_file
from vidpipe.loader import Batch
from vidpipe.report.contact_sheet import ClipRow, write_contact_sheet
from vidpipe.report.fonts import printable
from vidpipe.shards.manifest import Normalization
from vidpipe.train.runlog import read_metrics
from vidpipe.train.scores import Evaluation

CONFUSION = "confusion.png"
CURVES = "curves.png"
INPUT = "input.png"
_CLIPS = 8
FRAMES = 6
_NAMED_CLASSES = 60  # more names than these can't be read
_MOST_CELLS = 1000  # on a side of the confusion matrix: of more classes, neighbours share one


def draw_curves(folder: Path) -> Path | None:
    """Draw loss, accuracy, rate and data wait of a run folder over its steps; None if nothing was logged."""
    rows = read_metrics(folder)
    if not rows:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("loss", [("loss", "train"), ("val_loss", "val")]),
        ("top-1", [("top1", "train"), ("val_top1", "val")]),
        ("learning rate", [("lr", "")]),
        ("share of time waiting for data", [("data_wait_share", "")]),
    ]
    for number, (title, series) in enumerate(panels, start=1):
        axes = figure.add_subplot(2, 2, number)
        for column, label in series:
            points = [(row["step"], row[column]) for row in rows if column in row]
            if points:
                marker = "o" if column.startswith("val") or len(points) == 1 else ""
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
        if title != "learning rate":
            axes.update_datalim([(rows[0]["step"], 0.0)])
            axes.autoscale_view()
            axes.set_ylim(bottom=0)
        if any(label for _, label in series) and axes.lines:
            axes.legend()
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.3)
    with whole_file(folder / CURVES) as stream:
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return folder / CURVES


def draw_confusion(evaluation: Evaluation, path: Path) -> Path:
    """Draw which classes were taken for which: rows are labels, columns what the model said, shades the row's shares."""
    from matplotlib.figure import Figure

    num_classes = len(evaluation.classes)
    counts = evaluation.confusion(classes_per_cell=-(-num_classes // _MOST_CELLS)).double()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(20.0, 2.5 + 0.35 * num_classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    end = num_classes - 0.5
    axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues", extent=(-0.5, end, end, -0.5))
    axes.set_xlabel("said")
    axes.set_ylabel("is")
    axes.set_title(evaluation.line(), fontsize=8)
    if num_classes <= _NAMED_CLASSES:
        names = [printable(score.name) for score in evaluation.classes]
        axes.set_xticks(range(num_classes), names, rotation=90, parse_math=False)  # a $ is a $, and no formula
        axes.set_yticks(range(num_classes), names, parse_math=False)
        for row, column in counts.nonzero().tolist():
            shade = "white" if shares[row, column] > 0.5 else "black"
            number = int(counts[row, column])
            axes.text(column, row, str(number), ha="center", va="center", color=shade, fontsize=7)
    with whole_file(path) as stream:
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return path


def draw_input(
    batch: Batch, *, target: torch.Tensor, normalization: Normalization, classes: Sequence[str], path: Path
) -> Path:
    """Draw what the model sees: a row of frames for each of the first clips, with its label.

    Args:
        batch: its `video` [B, 3, T, H, W] as the model is given it; drawn with the normalisation undone.
        target: int64 [B], or float [B, K] where labels are mixed.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (normalization.mean, normalization.std))
    clips = batch.video[:_CLIPS].float().cpu() * std + mean
    rows = [
        ClipRow(label=_label(target[row], classes), details=(batch.key[row],), frames=as_frames(clip))
        for row, clip in enumerate(clips)
    ]
    write_contact_sheet(rows, path, frames_per_clip=FRAMES, full_size=True)
    return path


def as_frames(clip: torch.Tensor) -> NDArray[np.uint8]:
    """A clip [3, T, H, W] with pixels in [0, 1] as frames [T, H, W, 3]; what is outside is cut off."""
    pixels = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    frames: NDArray[np.uint8] = pixels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return frames


def _label(target: torch.Tensor, classes: Sequence[str]) -> str:
    if target.ndim == 0:
        return classes[int(target)]
    parts = target.topk(min(2, len(classes)))
    pairs = zip(parts.values.tolist(), parts.indices.tolist(), strict=True)
    return ", ".join(f"{classes[index]} {share:.0%}" for share, index in pairs if share > 0.005)
