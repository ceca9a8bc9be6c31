"""Commands that train, evaluate and predict, and one that tells why a GPU waits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidpipe.cli.options import (
    CheckpointArgument,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    SetOption,
    ShardsOption,
    WorkersOption,
    app,
    is_first_process,
    parse_shards,
    print_json,
    show,
)
from vidpipe.errors import printable


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a train recipe (see `vidpipe list recipes`) or a YAML file.")],
    shards: ShardsOption,
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

        trial = dry_run(loaded, shards=parse_shards(shards), batch_size=batch_size, device=device)
        if is_first_process():
            show(trial.to_json(), "\n".join(trial.lines()), as_json=as_json)
        return 0
    from vidpipe.train.loop import train as run_training

    folder = out or Path("runs") / Path(recipe).stem
    result = run_training(loaded, shards=parse_shards(shards), out=folder, resume=resume, device=device)
    if as_json and is_first_process():
        print_json(result.to_json())
    return result.exit_code


@app.command("eval")
def eval_(
    checkpoint: CheckpointArgument,
    shards: ShardsOption,
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    views: Annotated[
        str | None,
        typer.Option(metavar="TxS", help="Windows of each video times crops; by default each stored clip's centre."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="A line for each class too, the worst first.")] = False,
    confusion: Annotated[Path | None, typer.Option(help="Draw what was taken for what, to this PNG file.")] = None,
    misclassified: Annotated[Path | None, typer.Option(help="Draw the surest mistakes, to this PNG file.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that go through the model at a time.")] = 16,
    on_bad: Annotated[Literal["raise", "skip"], typer.Option(help="What a damaged sample does.")] = "raise",
    shuffle_frames: Annotated[
        int | None, typer.Option(metavar="SEED", help="Put each clip's frames out of order.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Evaluate a checkpoint on a split."""
    from vidpipe.train.evaluate import evaluate, parse_views

    result = evaluate(
        checkpoint,
        shards=parse_shards(shards),
        split=split,
        device=device,
        precision=precision,
        batch_size=batch_size,
        on_bad=on_bad,
        views=None if views is None else parse_views(views),
        shuffle_frames=shuffle_frames,
        confusion=confusion,
        misclassified=misclassified,
    )
    if is_first_process():
        lines = [result.line(), *(result.table() if per_class else [])]
        show(result.to_json(), "\n".join(lines), as_json=as_json)
    return 0


@app.command()
def predict(
    checkpoint: CheckpointArgument,
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Video files, folders of them, or - for a list on stdin.")
    ] = None,
    lists: Annotated[
        list[Path] | None, typer.Option("--list", help="A file that names videos, one a line or ended by NULs.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that go through the model at a time.")] = 8,
    workers: WorkersOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for decoding one video.")] = 120.0,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Classify video files, preprocessed exactly as the checkpoint's data were."""
    from vidpipe.train.predict import Prediction, PredictOptions
    from vidpipe.train.predict import predict as run_prediction
    from vidpipe.train.video_list import name_videos

    def show(prediction: Prediction) -> None:
        if prediction.error is not None:
            print(f"error: {printable(prediction.video)}: {prediction.error}", file=sys.stderr)
        elif not as_json:
            guesses = [f"  {guess.probability:7.2%}  {guess.name}" for guess in prediction.top]
            print("\n".join([printable(prediction.video), *guesses]), flush=True)

    options = PredictOptions(
        top=top,
        batch_size=batch_size,
        workers=workers,
        timeout_seconds=timeout,
        device=device,
        precision=precision,
    )
    result = run_prediction(checkpoint, name_videos(videos or [], lists or []), options, on_prediction=show)
    if as_json:
        print_json([prediction.to_json() for prediction in result.predictions])
    return result.exit_code


@app.command()
def doctor(
    shards: Annotated[str, typer.Argument(help="A data-set folder, or its train split's: a path or a URL.")],
    model: Annotated[str | None, typer.Option(help="A train recipe: its clips, and its step, are measured.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips of a batch.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.")] = None,
    stride: Annotated[int | None, typer.Option(help="Native frames from one frame of a clip to the next.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="For each stage.")] = 1.0,
    as_json: JsonOption = False,
) -> int:
    """Why is my GPU idle? Measure every stage from the disk to the model's step, and name the one that limits."""
    from vidpipe.bench.doctor.run import Examination, examine

    what = Examination(
        shards=shards,
        model=model,
        batch_size=batch_size,
        frames=frames,
        stride=stride,
        size=size,
        device=device,
        seconds=seconds,
    )
    diagnosis = examine(what)
    show(diagnosis.to_json(), diagnosis.as_text(), as_json=as_json)
    return 0
