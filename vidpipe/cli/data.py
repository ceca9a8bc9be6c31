"""Commands that make shards and look at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidpipe.cli.options import (
    DeviceOption,
    JsonOption,
    SetOption,
    WorkersOption,
    app,
    on_this_machine,
    overrides,
    print_json,
    show,
)


@app.command()
def prep(
    recipe: Annotated[str, typer.Argument(help="Name of a prep recipe (see `vidpipe list recipes`) or a YAML file.")],
    source: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the shards go; shards/RECIPE by default.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be given more than once.")] = None,
    codec: Annotated[str | None, typer.Option(help="How frames are stored (see `vidpipe list codecs`).")] = None,
    dtype: Annotated[
        Literal["uint8", "float16"] | None, typer.Option(help="Of codec tensor: 8-bit, or normalised values.")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="Of codec jpeg, 1 to 100.")] = None,
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
    from vidpipe.prep.command import PrepSummary, RunOptions, run_dry, run_prep
    from vidpipe.prep.result import OverBudgetError

    values = {
        "codec": codec,
        "dtype": dtype,
        "quality": quality,
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
    try:
        result = act(recipe, overrides(values, sets), source=source, out=out, run=run)
    except OverBudgetError as error:
        summary = PrepSummary(error.result)
        show(summary.to_json(), summary.as_text(), as_json=as_json)
        raise
    show(result.to_json(), result.as_text(), as_json=as_json)
    return 0


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A data-set folder or one split's.", callback=on_this_machine)],
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every row of the index with its sample, and decode all.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Prove that shards are what their manifest says: sizes, hashes, indexes, counts."""
    from dataclasses import asdict

    from vidpipe.shards.manifest import split_folders
    from vidpipe.shards.verify import verify_split

    results = {name: verify_split(path, deep=deep) for name, path in split_folders(folder).items()}
    sound = not any(result.faults for result in results.values())
    if as_json:
        print_json({"sound": sound, "splits": {k: {**asdict(v), "folder": str(v.folder)} for k, v in results.items()}})
    else:
        for name, result in results.items():
            size = f"{result.shards} shards, {result.samples} samples, {result.bytes / 1e6:.1f} MB"
            print(f"{name}: {size}: {f'{len(result.faults)} faults' if result.faults else 'sound'}")
            for fault in result.faults:
                print(f"  {fault}")
    return 0 if sound else 1


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A data-set folder or one split's.", callback=on_this_machine)],
    grid: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips on the contact sheet, for each split.")] = 12,
    as_json: JsonOption = False,
) -> int:
    """Show what shards hold: counts, labels, rejects, and a contact sheet of their clips."""
    from vidpipe.report.inspect import describe, write_grid

    description = describe(folder)
    if grid:
        write_grid(folder, grid, clips=clips)
        print(f"contact sheet: {grid}", file=sys.stderr)
    show(description.to_json(), description.as_text(), as_json=as_json)
    return 0


@app.command()
def features(
    shards: Annotated[
        Path, typer.Argument(help="A data-set folder, or one split's, with clips.", callback=on_this_machine)
    ],
    backbone: Annotated[str, typer.Option(help="Name of any timm model.")],
    out: Annotated[Path, typer.Option(help="Where the features go.")],
    weights: Annotated[
        str | None,
        typer.Option(help="Of the backbone: a file, a run's folder, timm:NAME or hub:ORG/REPO; timm's own by default."),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be given more than once.")] = None,
    size: Annotated[int, typer.Option(help="Side of the squares that the backbone sees, in pixels.")] = 224,
    crops: Annotated[
        int, typer.Option(help="Squares of each frame, evenly along its longer side; 1 is the centre.")
    ] = 1,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the stored values.")] = "float16",
    batch_size: Annotated[int, typer.Option(help="Frames of a forward pass.")] = 64,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> int:
    """Run a frozen backbone over all stored frames, for `vidpipe train resnet-temporal`. Going on: the same command again."""
    from vidpipe.features.make import FeatureJob, make_features
    from vidpipe.train.device import pick_device

    job = FeatureJob(
        shards=shards,
        out=out,
        backbone=backbone,
        weights=weights,
        splits=split or [],
        size=size,
        crops=crops,
        dtype=dtype,
        batch_size=batch_size,
        device=pick_device(device),
    )

    def tell(split: str, done: int, total: int) -> None:
        print(f"{split}: {done}/{total} shards", file=sys.stderr)

    result = make_features(job, on_shard=tell)
    show(result.to_json(), result.as_text(), as_json=as_json)
    return 0
