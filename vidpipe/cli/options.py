"""What the commands share: the application, options that several have, and how results are shown."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vidpipe import __version__
from vidpipe.errors import UsageError

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


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vidpipe {__version__}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[  # its callback acts on it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="What the model computes in; auto is what it was trained in, but fp32 on the CPU."),
]
CheckpointArgument = Annotated[Path, typer.Argument(help="A checkpoint, or a run's folder (its best, else its last).")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Decoding processes; one for each core by default.")]
ShardsOption = Annotated[
    list[str],
    typer.Option(
        metavar="FOLDER[=WEIGHT]",
        help="A data-set folder, or one split's: a path or a URL. Once for each of several, with shares of every epoch or without.",
    ),
]
SourceOption = Annotated[Path, typer.Option(help="Folder of the videos.")]
RoundsOption = Annotated[int | None, typer.Option(min=1, help="Turns of each contestant.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Few files and rounds: a first impression.")]


def overrides(options: Mapping[str, object], sets: list[str] | None) -> list[str]:
    """Options that were given, as `key=value` overrides of the recipe; --set has the last word."""
    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None] + (sets or [])


def parse_shards(values: Sequence[str]) -> str | list[str] | dict[str, float]:
    """Data sets as a loader takes them, of which each is given as FOLDER or as FOLDER=WEIGHT.

    Raises:
        UsageError: only some have a weight, or one is given twice.
    """
    parsed = dict(_folder_and_weight(value) for value in values)
    weights = {folder: weight for folder, weight in parsed.items() if weight is not None}
    if len(parsed) < len(values) or 0 < len(weights) < len(parsed):
        raise UsageError(
            f"--shards: got {', '.join(values)}, expected each folder once, and a weight for all of them (as in "
            f"{values[0].partition('=')[0]}=0.5) or for none"
        )
    return weights or (values[0] if len(values) == 1 else list(values))


def on_this_machine(folder: Path) -> Path:
    """A folder that a command needs here.

    Raises:
        UsageError: it is a URL.
    """
    if re.match(r"\w+:/", str(folder)):  # a path has lost one of the two slashes
        url = str(folder).replace(":/", "://", 1)
        raise UsageError(f"{url}: is a URL, but this command works on a folder of this machine: copy the shards here")
    return folder


def _folder_and_weight(value: str) -> tuple[str, float | None]:
    folder, _, weight = value.rpartition("=")
    if not Path(value).exists():  # names of folders may have a = in them
        with suppress(ValueError):
            return folder, float(weight)
    return value, None


def show(content: Any, text: str, *, as_json: bool) -> None:
    """Print a result, as JSON or as text."""
    if as_json:
        print_json(content)
    else:
        print(text)


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints results."""
    return os.environ.get("RANK", "0") == "0"


def names(given: Sequence[str]) -> tuple[Any, ...]:
    """An option's values, each `a,b`, as names; the configuration checks them."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


def print_json(content: Any) -> None:
    """Print plain values as JSON, in ASCII where stdout isn't UTF-8."""
    is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    print(json.dumps(content, indent=1, ensure_ascii=not is_utf8))
