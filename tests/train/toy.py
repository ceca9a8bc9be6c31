"""A data set of tiny tinted videos, and a recipe that trains on it in a second or two."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vidpipe.recipes import validate
from vidpipe.train.recipe import TrainRecipe
from vidpipe.video.ffmpeg import run_ffmpeg

CLASSES = ("blue", "green", "grey", "red")
_CHANNEL = {"red": 0, "green": 1, "blue": 2}
MakeRecipe = Callable[..., TrainRecipe]


def make_toy_shards(folder: Path, prep: Callable[..., int]) -> Path:
    """A data-set folder: 26 videos to train on, 8 videos with 2 clips each to evaluate; clips of 6 frames x stride 2.

    Args:
        folder: where the videos and, in `toy`, the shards go.
        prep: runs `vidpipe ARGUMENTS...` and gives its exit code.
    """
    videos = folder / "videos"
    videos.mkdir(parents=True)
    rows = ["path,label,split"]
    rng = np.random.default_rng(0)
    for number in range(34):
        name = CLASSES[number % 4]
        _write_video(videos / f"{number}.mkv", name, rng)
        rows.append(f"{number}.mkv,{name},{'train' if number < 26 else 'val'}")
    (videos / "labels.csv").write_text("\n".join(rows) + "\n")
    out = folder / "toy"
    geometry = ("--frames", 6, "--stride", 2, "--height", 24, "--workers", 1)
    for split, clips in (("train", 1), ("val", 2)):
        options = ("--set", "annotations=labels.csv", "--split", split, "--clips", clips, *geometry)
        assert prep("prep", "csv", "--source", videos, "--out", out, *options) == 0
    return out


def _write_video(path: Path, name: str, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 120, (40, 24, 32, 3), np.uint8)
    if name in _CHANNEL:
        frames[..., _CHANNEL[name]] += 100
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x24", "-r", "25", "-i", "pipe:0"]
    run_ffmpeg([*source, "-c:v", "libx264", "-qp", "10", "-y", str(path)], timeout_seconds=60, stdin=frames.tobytes())


def rename_classes(split: Path, classes: Sequence[str]) -> None:
    """Make a split of shards claim other classes."""
    path = split / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["classes"] = list(classes)
    path.write_text(json.dumps(manifest))


TOY_RECIPE = Path(__file__).with_name("toy.yaml")
TOY: dict[str, Any] = yaml.safe_load(TOY_RECIPE.read_text())


def toy_command(shards: Path, sections: Mapping[str, Any]) -> list[str]:
    """Arguments of `vidpipe` to train the toy recipe with keys of its sections set; what is missing is `--out`."""
    sets: list[str] = []
    for section, values in sections.items():
        flat = (
            {f"{section}.{key}": value for key, value in values.items()}
            if isinstance(values, dict)
            else {section: values}
        )
        sets += [text for key, value in flat.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    return ["train", str(TOY_RECIPE), "--shards", str(shards), "--device", "cpu", *sets]


def make_toy_recipe(**sections: object) -> TrainRecipe:
    """The toy recipe with sections updated: `make_toy_recipe(optim={"lr": 1.0})`."""
    raw: dict[str, object] = dict(TOY)
    for name, value in sections.items():
        old = raw.get(name)
        raw[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return validate(TrainRecipe, raw, where="toy recipe")


def with_batch_norm(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with a model that keeps running statistics."""
    model = {"name": "r2plus1d", "width": 8, "layers": [1, 1, 1, 1]}
    return recipe.model_copy(update={"model": type(recipe.model).model_validate(model)})
