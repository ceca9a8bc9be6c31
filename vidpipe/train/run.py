"""A run under way: steps, log rows, evaluations and checkpoints, until its length is reached or it is stopped."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vidpipe.errors import TrainingError
from vidpipe.loader import Batch
from vidpipe.train.bad_samples import BAD_SAMPLES, BadSamples
from vidpipe.train.data import ClipLoader
from vidpipe.train.device import peak_memory_bytes
from vidpipe.train.evaluate import score
from vidpipe.train.guard import Guard
from vidpipe.train.memory import memory_advice, step_advice
from vidpipe.train.meter import Clock, Window
from vidpipe.train.mistakes import Mistakes
from vidpipe.train.progress import Progress, Pulse
from vidpipe.train.result import TrainResult
from vidpipe.train.run_pictures import RunPictures
from vidpipe.train.runlog import RunLog
from vidpipe.train.scores import Evaluation, ReconstructionScore
from vidpipe.train.state import RunState
from vidpipe.train.step_numbers import QueuedNumbers
from vidpipe.train.stop import StopRequest
from vidpipe.train.writer import CheckpointWriter


class _EvaluationStopped(Exception):  # noqa: N818 - a way out, not an error
    """A signal came while the split was evaluated."""


@dataclass
class Run:
    """A run under way.

    Attributes:
        eval_loader: None evaluates nothing.
        total_steps: at which it ends.
        out: the run folder.
        log: None on all processes but the first.
    """

    state: RunState
    eval_loader: ClipLoader | None
    total_steps: int
    out: Path
    log: RunLog | None
    pictures: RunPictures
    progress: Progress
    writer: CheckpointWriter
    stop: StopRequest

    def __post_init__(self) -> None:
        self.learner = self.state.learner
        self.fabric = self.learner.fabric
        self.recipe = self.learner.recipe
        self.clock = Clock()
        self.first_step = self.state.step
        self.total = Window()
        self.loss: float | None = None
        self.evaluation: Evaluation | ReconstructionScore | None = None
        self.mistakes: Mistakes | None = None
        self.pending: deque[tuple[int, QueuedNumbers]] = deque()
        loaders = (self.state.loader, self.eval_loader)
        self.bad_samples = BadSamples(self.out / BAD_SAMPLES, [loader for loader in loaders if loader is not None])
        self.guard = Guard(
            self.out,
            policy=self.recipe.on_nan,
            max_skips=self.recipe.max_skips,
            rank=self.fabric.global_rank,
            say=self.progress.say,
        )

    def run(self) -> None:
        """Train until the end or a signal; either way the last state is on disk when this returns."""
        if self.state.evaluation_due:
            self._evaluate()
        if self.state.epochs < self.state.loader.epoch:  # what it goes on from was saved after an epoch's last step
            self._end_epoch()
        self.pictures.draw_reconstructions()
        self.clock.skip()
        empty_epochs = 0
        while self.state.step < self.total_steps and not self._stopped():
            before = self.state.step
            if not self._epoch():
                break
            empty_epochs = empty_epochs + 1 if self.state.step == before else 0
            if empty_epochs > 1:
                raise TrainingError(f"step {self.state.step}: the loader gave no batch in a whole epoch")
            self._end_epoch()
        self._settle(keep=0)
        if self.state.step < self.total_steps:  # stopped: the row is filled when the run goes on
            self._save()
        else:
            if not self.state.window.is_empty:
                self._row()
            self.state.epochs = self._epochs_over()
            self._evaluate()
            self._save()
            self.pictures.draw_reconstructions(final=True)
        self.writer.wait()

    def _epoch(self) -> bool:
        """Train on the rest of an epoch; False if the run's length was reached or a signal came before its end."""
        epoch = self.state.loader.epoch
        batches = iter(self.state.loader)
        while self.state.step < self.total_steps:
            with self.clock:
                parts = list(islice(batches, self.recipe.optim.accumulate))
            if not parts or (self.recipe.data.drop_last and len(parts) < self.recipe.optim.accumulate):
                return True
            self._step(parts, epoch=epoch)
            self.writer.check()  # else all until the next checkpoint would be computed in vain
            if self._stopped():
                return False
        return False

    def _step(self, parts: list[Batch], *, epoch: int) -> None:
        recipe, state = self.recipe, self.state
        if self.pictures.input_due:
            self.pictures.draw_input(parts[0], epoch=epoch)
            self.clock.skip()
        where = f"step {state.step + 1}, {len(parts[0])} clips at a time on each device"
        with memory_advice(where, self.fabric.device, step_advice(recipe, world_size=self.fabric.world_size)):
            result = self.learner.take_step(parts, step=state.step, epoch=epoch)
        state.step += 1
        state.changed = True
        self.pending.append((state.step, QueuedNumbers(result)))
        row_due = state.step % recipe.log.every_steps == 0
        # On a GPU the step before is looked at while this one is computed; on the CPU there is nothing to overlap.
        self._settle(keep=0 if row_due or self.fabric.device.type == "cpu" else 1)
        wait, seconds = self.clock.lap()
        for window in (state.window, self.total):
            window.add_time(wait_seconds=wait, seconds=seconds)
        self._pulse(epoch, due=row_due)
        if row_due:
            self._row()
        if recipe.eval.every_steps and state.step % recipe.eval.every_steps == 0:
            self._evaluate()
        if recipe.checkpoint.every_steps and state.step % recipe.checkpoint.every_steps == 0:
            self._save()

    def _settle(self, *, keep: int) -> None:
        """Take note of results, all but the newest `keep`; a loss that is not finite ends the run or is left out."""
        while len(self.pending) > keep:
            step, queued = self.pending.popleft()
            result = queued.read()
            # The scaler of fp16 tries how large gradients may get, and leaves out what overflows.
            overflowed = self.recipe.precision == "fp16" and not math.isfinite(result.grad_norm)
            norm = None if overflowed else result.grad_norm
            counts = self.guard.accepts(
                step=step,
                loss=result.loss,
                grad_norm=norm,
                keys=result.keys,
                left_out=result.left_out,
                overflowed=overflowed,
            )
            for window in (self.state.window, self.total):
                if counts:
                    window.add(result, grad_norm=norm)
                else:
                    window.skipped_steps += 1

    def _pulse(self, epoch: int, *, due: bool) -> None:
        window, step = self.state.window, self.state.step
        taken = max(1, step - self.first_step)
        pulse = Pulse(
            step=step,
            total_steps=self.total_steps,
            epoch=epoch + 1,
            loss=window.mean_loss,
            top1=window.top1,
            lr=self.learner.schedule.lr,
            clips_per_second=window.clips_per_second * self.fabric.world_size,
            data_wait_share=window.data_wait_share,
            memory_bytes=peak_memory_bytes(self.fabric.device),
            eta_seconds=self.total.seconds / taken * (self.total_steps - step),
        )
        self.progress.pulse(pulse, due=due)

    def _row(self) -> None:
        """Write a log row and begin a new window."""
        self.state.window.bad_samples = self.bad_samples.look()
        window = self.state.window.reduced(self.fabric)
        self.state.window = Window()
        self.state.changed = True
        self.loss = window.mean_loss
        row = {
            "lr": self.learner.schedule.lr,
            "loss": window.mean_loss,
            "top1": window.top1,
            "grad_norm": window.largest_grad_norm,
            "clips_per_second": window.clips_per_second,
            "data_wait_share": window.data_wait_share,
            "seconds": window.seconds,
            "bad_samples": window.bad_samples if self.recipe.data.on_bad == "skip" else None,
            "skipped_steps": window.skipped_steps if self.recipe.on_nan == "skip" else None,
        }
        self._log({name: value for name, value in row.items() if value is not None})

    def _log(self, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.add(self.state.step, epochs=self._epochs_over(), values=values)

    def _epochs_over(self) -> int:
        """Epochs whose last step was taken, also where nothing of what is due then was done yet."""
        return int(self.state.loader.state_dict()["epoch"])

    def _end_epoch(self) -> None:
        recipe, epoch = self.recipe, self.state.loader.epoch
        self.state.epochs = epoch
        self._settle(keep=0)
        if not recipe.eval.every_steps and recipe.eval.every_epochs and epoch % recipe.eval.every_epochs == 0:
            self._evaluate()
        self.pictures.draw_reconstructions()
        self.clock.skip()
        due = recipe.checkpoint.every_epochs and epoch % recipe.checkpoint.every_epochs == 0
        if due and self.state.step < self.total_steps:
            self._save()

    def _evaluate(self) -> None:
        state = self.state
        if self.eval_loader is None or state.evaluated_step == state.step:
            return
        state.evaluation_due = True
        self._save()  # first: whatever befalls the evaluation, --resume begins with it
        if self._stopped():
            return
        self.learner.share_buffers()
        drawn = self.recipe.log.pictures and self.eval_loader.manifest.features is None
        mistakes = Mistakes(state.preprocessing.normalization) if drawn else None
        try:
            evaluation = self._score(self.eval_loader, mistakes)
        except _EvaluationStopped:
            return
        state.evaluation_due, state.evaluated_step, state.changed = False, state.step, True
        if self.guard.accepts_evaluation(step=state.step, loss=evaluation.loss):
            self._take_evaluation(evaluation, mistakes)
        self.pictures.draw_reconstructions()
        self.clock.skip()

    def _score(self, loader: ClipLoader, mistakes: Mistakes | None) -> Evaluation | ReconstructionScore:
        where = f"evaluation at step {self.state.step}, {loader.batch_size} clips at a time"
        with memory_advice(where, self.fabric.device, "set a smaller data.eval_batch_size and add --resume"):
            return score(
                self.learner.evaluated_module,
                loader,
                forward_context=self.fabric.autocast,
                world_size=self.fabric.world_size,
                mistakes=mistakes,
                on_batch=self._evaluated_batch,
            )

    def _take_evaluation(self, evaluation: Evaluation | ReconstructionScore, mistakes: Mistakes | None) -> None:
        state = self.state
        self.evaluation, self.mistakes = evaluation, mistakes
        values = {"val_loss": evaluation.loss}
        if isinstance(evaluation, Evaluation):
            if mistakes is not None:
                mistakes.gather(evaluation, self.fabric.world_size)
            values |= {"val_top1": evaluation.top1, "val_top5": evaluation.top5}
        self.learner.schedule.evaluated(loss=evaluation.loss, top1=values.get("val_top1"))
        is_best = state.take_metrics(values)
        self._log(values)
        self.progress.say(f"step {state.step}  {evaluation.line()}{'  (best so far)' if is_best else ''}")
        if is_best:
            self._save(best=True)

    def _evaluated_batch(self, number: int, total: int) -> None:
        self.progress.note(f"evaluating, batch {number}/{total}")
        if self.stop.agreed(self.fabric):
            raise _EvaluationStopped

    def _save(self, *, best: bool = False) -> None:
        """Save the state, if it has changed since the last time."""
        if not self.state.changed:
            return
        self._settle(keep=0)
        if self.log is not None:
            self.log.flush()
        self.learner.share_buffers()
        self.writer.save(self.state.packed(), best=best)
        self.state.changed = False
        self.clock.skip()

    def _stopped(self) -> bool:
        return self.stop.agreed(self.fabric, step=self.state.step)

    def result(self) -> TrainResult:
        """How it ended; every process must call it."""
        total = self.total.reduced(self.fabric)
        return TrainResult(
            out=self.out,
            steps=self.state.step,
            total_steps=self.total_steps,
            loss=self.loss if self.state.window.is_empty else self.state.window.mean_loss,
            evaluation=self.evaluation,
            best_top1=self.state.metrics.get("best_top1"),
            clips=total.clips,
            bad_samples=self.bad_samples.total(self.fabric.world_size),
            skipped_steps=total.skipped_steps,
            seconds=total.seconds,
            data_wait_share=total.data_wait_share,
            stopped_by=self.stop.signal if self.state.step < self.total_steps or self.state.evaluation_due else None,
        )
