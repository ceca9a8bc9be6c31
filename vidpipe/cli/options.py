"""What the commands share: the application, options that several have, and how results are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Decode videos once into WebDataset shards, then train video classifiers at GPU speed.",
)
bench_app = typer.Typer(
    no_args_is_help=True, help="Measure, side by side with the alternatives.", rich_markup_mode=None
)
app.add_typer(bench_app, name="bench")

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")]
CheckpointArgument = Annotated[Path, typer.Argument(help="A checkpoint, or a run's folder (its best, else its last).")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Decoding processes; one for each core by default.")]
SourceOption = Annotated[Path, typer.Option(help="Folder of the videos.")]
RoundsOption = Annotated[int | None, typer.Option(min=1, help="Turns of each contestant.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Few files and rounds: a first impression.")]


def overrides(options: Mapping[str, object], sets: list[str] | None) -> list[str]:
    """Options that were given, as `key=value` overrides of the recipe; --set has the last word."""
    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None] + (sets or [])


def show(content: Any, text: str, *, as_json: bool) -> None:
    """Print a result, as JSON or as text."""
    if as_json:
        print_json(content)
    else:
        print(text)


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints results."""
    return os.environ.get("RANK", "0") == "0"


def names(text: str) -> tuple[Any, ...]:
    """`a,b` as names; the configuration checks them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def print_json(content: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(content, indent=1, ensure_ascii=False))
