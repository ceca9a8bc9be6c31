"""The command line: arguments to configuration to one call; nothing else. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from vidpipe.errors import VidpipeError

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
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _failed(f"{where}{error.strerror or error}", 1)
    if code == 130:
        _failed("interrupted; run the same command again to go on", code)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _overrides(options: Mapping[str, object], sets: list[str] | None) -> list[str]:
    """Options that were given, as `key=value` overrides of the recipe; --set has the last word."""
    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None] + (sets or [])


def _show(content: Any, text: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(content)
    else:
        print(text)


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
    engine: Annotated[Literal["local", "ray"], typer.Option(help="What runs the work.")] = "local",
    task: Annotated[str | None, typer.Option(metavar="i/n", help="Only the i-th of n slices, for job arrays.")] = None,
    shard_size_mb: Annotated[float | None, typer.Option(help="Target size of a shard in 10^6 bytes.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only that many videos of each split, for a trial.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the global shuffle and of the clips' places.")] = None,
    max_rejects: Annotated[
        str | None, typer.Option(help="Share of videos that may be rejected, such as 1% or 0.01.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for each video.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what is there and what it takes; decode nothing.")
    ] = False,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Try rejected videos again.")] = False,
    strict: Annotated[bool | None, typer.Option("--strict", help="Decode each video to its very end.")] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> int:
    """Decode videos once and write their clips to shards. Going on after an interruption: the same command again."""
    from vidpipe.prep.command import RunOptions, run_dry, run_prep

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
    run = RunOptions(
        splits=split or [], workers=workers, limit=limit, engine=engine, task=task, retry_rejects=retry_rejects
    )
    act = run_dry if dry else run_prep
    result = act(recipe, _overrides(values, sets), source=source, out=out, run=run)
    _show(result.to_json(), result.as_text(), as_json=as_json)
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
    _show(description.to_json(), description.as_text(), as_json=as_json)
    if grid:
        write_grid(folder, grid, clips=clips)
        print(f"contact sheet: {grid}", file=sys.stderr)
    return 0


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a train recipe (see `vidpipe list recipes`) or a YAML file.")],
    shards: Annotated[Path, typer.Option(help="A data-set folder, or its train split's.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/RECIPE by default.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length of the run.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips of one optimiser step, over all devices.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.")] = None,
    stride: Annotated[int | None, typer.Option(help="Native frames from one frame of a clip to the next.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    device: DeviceOption = "auto",
    sets: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out was saved.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="One step: does it fit, where does the time go.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Train a classifier on shards."""
    from vidpipe.train.recipe import load_train_recipe

    loaded = load_train_recipe(
        recipe, sets or [], epochs=epochs, batch_size=batch_size, frames=frames, stride=stride, size=size
    )
    if dry:
        from vidpipe.train.dry_run import dry_run

        trial = dry_run(loaded, shards=shards, batch_size=batch_size or 1, device=device)
        _show(trial.to_json(), "\n".join(trial.lines()), as_json=as_json)
        return 0
    from vidpipe.train.loop import train as run_training

    result = run_training(
        loaded, shards=shards, out=out or Path("runs") / Path(recipe).stem, resume=resume, device=device
    )
    if as_json:
        _print_json(result.to_json())
    return result.exit_code


@app.command("eval")
def eval_(
    checkpoint: CheckpointArgument,
    shards: Annotated[Path, typer.Option(help="A data-set folder, or one split's.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    shuffle_frames: Annotated[
        int | None, typer.Option(metavar="SEED", help="Put each clip's frames out of order.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Evaluate a checkpoint on a split."""
    from vidpipe.train.evaluate import evaluate

    result = evaluate(
        checkpoint, shards=shards, split=split, device=device, batch_size=batch_size, shuffle_frames=shuffle_frames
    )
    _show(result.to_json(), result.line(), as_json=as_json)
    return 0


@app.command()
def predict(
    checkpoint: CheckpointArgument,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Classify video files, preprocessed exactly as the checkpoint's data were."""
    from vidpipe.train.predict import Prediction
    from vidpipe.train.predict import predict as run_prediction

    def show(prediction: Prediction) -> None:
        if prediction.error is not None:
            print(f"error: {prediction.video}: {prediction.error}", file=sys.stderr)
        elif not as_json:
            print(prediction.video)
            for guess in prediction.top:
                print(f"  {guess.probability:7.2%}  {guess.name}")

    result = run_prediction(checkpoint, videos, top=top, device=device, on_prediction=show)
    if as_json:
        _print_json([prediction.to_json() for prediction in result.predictions])
    return result.exit_code


@bench_app.command("loader")
def bench_loader(
    shards: Annotated[Path | None, typer.Argument(help="A data-set folder; the demo's by default.")] = None,
    source: Annotated[Path | None, typer.Option(help="The videos that the shards were made from.")] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON and the plot go.")] = Path("benchmarks/loader"),
    quick: Annotated[bool, typer.Option("--quick", help="Few clips and rounds: a first impression.")] = False,
    as_json: JsonOption = False,
) -> int:
    """The loader against decoding on the fly, WebDataset and DALI's own reader, and the memory's speed."""
    from vidpipe.bench.loader import LoaderBenchmark, run_loader_benchmark

    report = run_loader_benchmark(LoaderBenchmark(shards=shards, source=source, out=out, quick=quick))
    _show(report.to_json(), report.as_text(), as_json=as_json)
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


if __name__ == "__main__":
    main()
