"""Pictures of a run: what the model is shown at the start, and the curves at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vidpipe.loader import Batch
from vidpipe.shards.layout import whole_file
from vidpipe.shards.manifest import Normalization
from vidpipe.train.runlog import read_metrics
from vidpipe.train.scores import Evaluation

CONFUSION = "confusion.png"
CURVES = "curves.png"
INPUT = "input.png"
_CLIPS = 8
FRAMES = 6
_SIDE = 112  # pixels, about, to which small frames are enlarged
_TEXT = 16
_GAP = 2
_NAMED_CLASSES = 60  # more names than these can't be read


def draw_curves(folder: Path) -> Path | None:
    """Draw loss, accuracy, rate and data wait of a run folder over its steps; None if nothing was logged."""
    rows = read_metrics(folder)
    if not rows:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = torch.tensor(evaluation.confusion, dtype=torch.float64)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    num_classes = len(evaluation.classes)
    side = min(20.0, 2.5 + 0.35 * num_classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("said")
    axes.set_ylabel("is")
    axes.set_title(evaluation.line(), fontsize=8)
    if num_classes <= _NAMED_CLASSES:
        names = [score.name for score in evaluation.classes]
        axes.set_xticks(range(num_classes), names, rotation=90)
        axes.set_yticks(range(num_classes), names)
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
    """Draw what the model sees: a row of frames for each of the first clips, with the label above it.

    Args:
        batch: its `video` [B, 3, T, H, W] as the model is given it; drawn with the normalisation undone.
        target: int64 [B], or float [B, K] where labels are mixed.
    """
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (normalization.mean, normalization.std))
    clips = batch.video[:_CLIPS].float().cpu() * std + mean
    write_strips([(_label(target[row], classes), clip) for row, clip in enumerate(clips)], path)
    return path


def write_strips(rows: Sequence[tuple[str, torch.Tensor]], path: Path) -> None:
    """Write a PNG with a row for each clip: its title, and below it some of its frames, from the first to the last.

    Args:
        rows: titles and clips [3, T, H, W] of one size, pixels in [0, 1]; what is outside is cut off.
    """
    from PIL import Image, ImageDraw

    _, frames, height, width = rows[0][1].shape
    shown = torch.linspace(0, frames - 1, min(frames, FRAMES)).round().long().tolist()
    scale = max(1, round(_SIDE / height))
    high, wide = height * scale, width * scale
    sheet = Image.new("RGB", (len(shown) * (wide + _GAP), len(rows) * (high + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, clip) in enumerate(rows):
        top = row * (high + _TEXT)
        draw.text((2, top + 1), title, fill="black")
        pixels = (clip.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
        for column, frame in enumerate(shown):
            picture = Image.fromarray(pixels[frame]).resize((wide, high), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (wide + _GAP), top + _TEXT - 2))
    with whole_file(path) as stream:
        sheet.save(stream, format="PNG")


def _label(target: torch.Tensor, classes: Sequence[str]) -> str:
    if target.ndim == 0:
        return classes[int(target)]
    parts = target.topk(min(2, len(classes)))
    pairs = zip(parts.values.tolist(), parts.indices.tolist(), strict=True)
    return ", ".join(f"{classes[index]} {share:.0%}" for share, index in pairs if share > 0.005)
