"""`train`: from a recipe and shards to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml
from lightning_fabric import Fabric

from vidpipe.errors import UsageError
from vidpipe.files import whole_file
from vidpipe.loader.reading.splits import Folder, Shards, read_manifest
from vidpipe.models.frozen import frozen_part, write_frozen
from vidpipe.models.videomae_pretrain import VideoMAEPretrain
from vidpipe.shards.manifest import Manifest
from vidpipe.train.bad_samples import BAD_SAMPLES
from vidpipe.train.checkpoint import class_difference
from vidpipe.train.data import (
    ClipLoader,
    evaluated_shards,
    open_eval_loader,
    open_train_loader,
    other_splits,
    preprocessing_of,
    steps_per_epoch,
)
from vidpipe.train.device import Device, make_fabric, resolve_precision
from vidpipe.train.features import start_from_features
from vidpipe.train.guard import forget_steps_after
from vidpipe.train.memory import memory_advice, step_advice
from vidpipe.train.optim import run_length
from vidpipe.train.parts import check_parts
from vidpipe.train.progress import Progress
from vidpipe.train.recipe import TrainRecipe
from vidpipe.train.reconstructions import CLIPS, Reconstructions
from vidpipe.train.result import TrainResult
from vidpipe.train.run import Run
from vidpipe.train.run_lock import only_run
from vidpipe.train.run_pictures import RunPictures
from vidpipe.train.runlog import RunLog
from vidpipe.train.setup import build_learner, build_model, check_labels, other_normalizations
from vidpipe.train.sharding import is_dealt_out
from vidpipe.train.state import RunState, check_shared, read_resume_point
from vidpipe.train.stop import StopRequest
from vidpipe.train.writer import CheckpointWriter

RECIPE = "recipe.yaml"


def train(
    recipe: TrainRecipe,
    *,
    shards: Shards,
    out: Path,
    resume: bool = False,
    device: Device = "auto",
    quiet: bool = False,
    open_loader: Callable[..., ClipLoader] = open_train_loader,
) -> TrainResult:
    """Train a model as a recipe says.

    Args:
        shards: a data set's folder (with splits), or that of its train split: a path or a URL; or several, as `Loader` takes
            them. Those of several that have the split to evaluate are evaluated as one.
        out: the run folder: checkpoints, metrics.csv, recipe.yaml, TensorBoard events, pictures.
        resume: go on from last.ckpt, exactly where it was written; without one, begin.
        quiet: show nothing.
        open_loader: opens what is trained from, given what `open_train_loader` is given.

    Raises:
        UsageError: `out` already holds a run and `resume` is False, another run is at work there, or the recipe doesn't fit the
            data or the run.
        CheckpointError: last.ckpt can't be used.
        TrainingError: the loss is not finite, or memory doesn't suffice.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())  # first: what comes while the run is prepared ends it when it begins
        recipe = recipe.model_copy(update={"precision": resolve_precision(recipe.precision, device)})
        fabric = make_fabric(device=device, precision=recipe.precision, strategy=recipe.strategy)
        check_parts(recipe, world_size=fabric.world_size)
        progress = Progress(quiet=quiet or not fabric.is_global_zero)
        if fabric.is_global_zero:
            stack.enter_context(only_run(out, stop=stop, say=progress.say))
        fabric.barrier()  # what is found in the folder before may not be the last of a run that is ending
        if recipe.strategy == "fsdp" and fabric.world_size > 1:
            check_shared(out, fabric)
        point = read_resume_point(out, recipe, resume=resume, world_size=fabric.world_size)
        stack.enter_context(memory_advice("training", fabric.device, step_advice(recipe, world_size=fabric.world_size)))
        loader = stack.enter_context(
            open_loader(
                shards,
                recipe.data,
                accumulate=recipe.optim.accumulate,
                device=str(fabric.device),
                seed=recipe.seed,
                rank=fabric.global_rank,
                world_size=fabric.world_size,
            )
        )
        evaluated = evaluated_shards(shards, recipe.eval.split)
        state, total_steps = _state_at_the_start(
            fabric, recipe, loader, shards=shards, evaluated=evaluated, load_init=point is None, say=progress.say
        )
        eval_loader = _eval_loader(state, evaluated, stack) if evaluated else None
        if point is not None:
            state.restore(point.path)
        _introduce(progress, state, total_steps=total_steps, out=out, resumed=point is not None, resume=resume)
        log = _open_folder(out, state, stack) if fabric.is_global_zero else None
        sharded = is_dealt_out(state.learner.module)
        if fabric.is_global_zero and not sharded:
            state.frozen = write_frozen(frozen_part(state.learner.module), out)
        draws_input = log is not None and recipe.log.pictures and state.step == 0 and loader.manifest.features is None
        run = Run(
            state=state,
            eval_loader=eval_loader,
            total_steps=total_steps,
            out=out,
            log=log,
            pictures=RunPictures(
                state,
                out,
                input_due=draws_input,
                reconstructions=_reconstructions(state, shards, evaluated=evaluated, out=out),
            ),
            progress=stack.enter_context(progress),
            writer=stack.enter_context(
                CheckpointWriter(
                    out,
                    keep_last=recipe.checkpoint.keep_last,
                    rank=fabric.global_rank,
                    sharded=sharded,
                    device=fabric.device,
                )
            ),
            stop=stop,
        )
        run.run()
        result = run.result()
    if fabric.is_global_zero and recipe.log.pictures:
        run.pictures.draw_end(run.evaluation, run.mistakes)
    progress.say(result.line())
    return result


def _state_at_the_start(
    fabric: Fabric,
    recipe: TrainRecipe,
    loader: ClipLoader,
    *,
    shards: Shards,
    evaluated: Sequence[Folder],
    load_init: bool,
    say: Callable[[str], None],
) -> tuple[RunState, int]:
    """The state before the first step, and the number of steps of the whole run.

    Args:
        evaluated: those of `shards` that have the split to evaluate.
        load_init: start from the published weights that the recipe names; what goes on needs them no more.
        say: prints a sentence.
    """
    views = read_manifest(evaluated, recipe.eval.split) if evaluated else None
    preprocessing = preprocessing_of(loader.manifest, recipe.data, views=views)
    built = build_model(recipe.model, preprocessing, seed=recipe.seed, load_init=load_init)
    start_from_features(recipe, built.module, loader.manifest, shards=shards, views=views)
    for report in (*other_splits(shards), *built.loaded):
        say(report)
    if load_init and loader.manifest.features is None:
        for note in other_normalizations(recipe.model.init_sources, preprocessing.normalization):
            say(note)
    per_epoch = steps_per_epoch(loader, accumulate=recipe.optim.accumulate, drop_last=recipe.data.drop_last)
    length = run_length(recipe.schedule, steps_per_epoch=per_epoch)
    learner = build_learner(fabric, recipe, built.module, length=length, preprocessing=preprocessing)
    check_labels(learner, loader.manifest, shards=shards)
    if views is None:
        if recipe.schedule.name == "plateau":
            raise UsageError(f"{shards}: no {recipe.eval.split!r} split, by whose evaluation plateau would go")
        say(f"{shards}: no {recipe.eval.split!r} split: training goes without evaluation")
    return RunState(learner, loader, built.description, preprocessing), length.total


def _eval_loader(state: RunState, shards: Shards, stack: ExitStack) -> ClipLoader | None:
    """What is evaluated while training; None where the recipe asks for nothing."""
    recipe, fabric = state.learner.recipe, state.learner.fabric
    if not (recipe.eval.every_epochs or recipe.eval.every_steps):
        return None
    loader = stack.enter_context(
        open_eval_loader(
            shards,
            split=recipe.eval.split,
            preprocessing=state.preprocessing,
            batch_size=recipe.data.eval_batch_size or state.loader.batch_size,
            device=str(fabric.device),
            section=recipe.data,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
    )
    _check_alike(loader.manifest, state)
    return loader


def _check_alike(manifest: Manifest, state: RunState) -> None:
    """Refuse to evaluate on clips whose labels or pixels mean something else than those that are learned from."""
    learned, what = state.preprocessing, None
    if not isinstance(state.learner.module, VideoMAEPretrain):  # which learns no labels
        what = class_difference(learned.classes, manifest.classes, places=("train", manifest.split))
        if what is None and not any(manifest.labels.values()):
            raise UsageError(
                f"eval.split: no video of {manifest.split!r} has a label to compare with; take another split"
            )
    if what is None and manifest.normalization != learned.normalization:
        what = f"train is normalised by {learned.normalization}, {manifest.split} by {manifest.normalization}"
    if what is not None:
        raise UsageError(f"{what}; prepare both splits alike, or train with eval.every_epochs=0")


def _open_folder(out: Path, state: RunState, stack: ExitStack) -> RunLog:
    """Write the resolved recipe into the run folder, without what a run that failed there wrote down, and open its log."""
    recipe = state.learner.recipe
    forget_steps_after(out, state.step)
    if state.step == 0:
        (out / BAD_SAMPLES).unlink(missing_ok=True)
    with whole_file(out / RECIPE) as stream:
        stream.write(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
    return stack.enter_context(RunLog(out, step=state.step, tensorboard=recipe.log.tensorboard))


def _reconstructions(
    state: RunState, shards: Shards, *, evaluated: Sequence[Folder], out: Path
) -> Reconstructions | None:
    """What draws the reconstructions of some clips; None where nothing is reconstructed or drawn."""
    learner, fabric = state.learner, state.learner.fabric
    if not isinstance(learner.module, VideoMAEPretrain) or not learner.recipe.log.pictures:
        return None
    with open_eval_loader(
        evaluated or shards,
        split=learner.recipe.eval.split if evaluated else None,
        preprocessing=state.preprocessing,
        batch_size=CLIPS,
        device=str(fabric.device),
        section=learner.recipe.data.model_copy(update={"backend": "torch", "decode": "cpu", "readers": "threads"}),
    ) as loader:
        clips = next(iter(loader))
    return Reconstructions(out if fabric.is_global_zero else None, clips, step=state.step)


def _introduce(
    progress: Progress, state: RunState, *, total_steps: int, out: Path, resumed: bool, resume: bool
) -> None:
    """Say what is about to be trained on what."""
    learner, data = state.learner, state.preprocessing
    trained = sum(p.numel() for p in learner.module.parameters() if p.requires_grad)
    progress.say(
        f"{learner.recipe.model.name}: {trained:,} trained parameters, {len(data.classes)} classes; "
        f"{state.loader.num_samples:,} clips of {data.frames} x {data.size} x {data.size}, "
        f"{learner.recipe.data.batch_size} a step, {total_steps:,} steps; "
        f"{learner.fabric.device.type}, {learner.recipe.precision}, {learner.fabric.world_size} process(es)"
    )
    if resumed:
        progress.say(f"{out}: going on from step {state.step}, epoch {state.loader.epoch + 1}")
    elif resume:
        progress.say(f"{out}: nothing to go on from: beginning")
