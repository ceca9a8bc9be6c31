"""The command line: arguments to configuration to one call; nothing else. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from vidpipe.errors import UsageError, VidpipeError

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
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Decoding processes; one for each core by default.")]


# The base of typer's usage errors: click's class, or that of the copy of click which newer releases of typer carry.
_USAGE_ERRORS: Any = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> NoReturn:
    """Run the command line; every foreseeable error is one line on stderr and an exit code."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except _USAGE_ERRORS as error:
        error.show()
        code = error.exit_code
    except VidpipeError as error:
        code = _failed(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _failed("interrupted; run the same command again to go on", 130)
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _failed(f"{where}{error.strerror or error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _overrides(options: Mapping[str, object], sets: list[str] | None) -> list[str]:
    """Options that were given, as `key=value` overrides of the recipe; --set has the last word."""
    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None] + (sets or [])


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, ensure_ascii=False))


@app.command()
def prep(
    recipe: Annotated[str, typer.Argument(help="Name of a prep recipe (see `vidpipe list recipes`) or a YAML file.")],
    source: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the shards go; shards/RECIPE by default.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be given more than once.")] = None,
    codec: Annotated[str | None, typer.Option(help="How frames are stored (see `vidpipe list codecs`).")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.")] = None,
    stride: Annotated[int | None, typer.Option(help="Native frames from one frame of a clip to the next.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames a second by presentation time, instead of a stride.")
    ] = None,
    clips: Annotated[int | None, typer.Option(help="Clips of each video.")] = None,
    height: Annotated[int | None, typer.Option(help="Short side in pixels.")] = None,
    crop: Annotated[
        str | None, typer.Option(metavar="WxH", help="One size for all: scale to cover, crop the centre.")
    ] = None,
    workers: WorkersOption = None,
    shard_size_mb: Annotated[float | None, typer.Option(help="Target size of a shard in 10^6 bytes.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only that many videos of each split, for a trial.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the global shuffle and of the clips' places.")] = None,
    max_rejects: Annotated[
        str | None, typer.Option(help="Share of videos that may be rejected, such as 1% or 0.01.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for each video.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Decode each video to its very end.")] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> int:
    """Decode videos once and write their clips to shards. Going on after an interruption: the same command again."""
    from vidpipe.prep.command import run_prep

    values = {
        "codec": codec,
        "frames": frames,
        "stride": stride,
        "fps": fps,
        "clips": clips,
        "height": height,
        "crop": crop,
        "shard_size_mb": shard_size_mb,
        "seed": seed,
        "max_rejects": max_rejects,
        "timeout_seconds": timeout,
        "strict": strict,
    }
    result = run_prep(
        recipe,
        _overrides(values, sets),
        source=source,
        out=out,
        splits=split or [],
        workers=workers,
        limit=limit,
    )
    if as_json:
        _print_json(result.as_dict())
    else:
        print(result.as_text())
    return 0


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A data-set folder or one split's.")],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every sample too.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Prove that shards are what their manifest says: sizes, hashes, indexes, counts."""
    from dataclasses import asdict

    from vidpipe.shards.manifest import split_folders
    from vidpipe.shards.verify import verify_split

    results = {name: verify_split(path, deep=deep) for name, path in split_folders(folder).items()}
    sound = not any(result.faults for result in results.values())
    if as_json:
        _print_json({"sound": sound, "splits": {k: {**asdict(v), "folder": str(v.folder)} for k, v in results.items()}})
    else:
        for name, result in results.items():
            size = f"{result.shards} shards, {result.samples} samples, {result.bytes / 1e6:.1f} MB"
            print(f"{name}: {size}: {f'{len(result.faults)} faults' if result.faults else 'sound'}")
            for fault in result.faults:
                print(f"  {fault}")
    return 0 if sound else 1


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A data-set folder or one split's.")],
    grid: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips on the contact sheet, for each split.")] = 12,
    as_json: JsonOption = False,
) -> int:
    """Show what shards hold: counts, labels, rejects, and a contact sheet of their clips."""
    from vidpipe.report.inspect import describe, write_grid

    description = describe(folder)
    if as_json:
        _print_json(description.as_dict())
    else:
        print(description.as_text())
    if grid:
        write_grid(folder, grid, clips=clips)
        print(f"contact sheet: {grid}", file=sys.stderr)
    return 0


@app.command("list")
def list_(what: Annotated[Literal["recipes", "datasets", "models", "codecs"], typer.Argument()]) -> int:
    """List what there is."""
    if what == "recipes":
        from vidpipe.recipes import describe_recipes

        lines = describe_recipes()
    elif what == "datasets":
        from vidpipe.datasets import list_formats

        lines = [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in list_formats().items()]
    elif what == "codecs":
        from vidpipe.shards.codecs import CODECS

        lines = [(name, codec.summary) for name, codec in CODECS.items()]
    else:
        from vidpipe.models import list_models

        lines = [(name, str(summary)) for name, summary in list_models().items()]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")
    return 0


def _usage(message: str) -> NoReturn:
    raise UsageError(message)


if __name__ == "__main__":
    main()
