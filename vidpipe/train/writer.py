"""Writing checkpoints while training goes on: one at a time, in a thread, errors reported at the next call of any kind.

A checkpoint is `step-000123.ckpt`; `last.ckpt` and `best.ckpt` are links to such. Whatever is interrupted, the links lead
to whole checkpoints: a new one gets its name when all of it is on disk, then the links follow, then old ones are removed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from vidpipe.errors import CheckpointError, one_line
from vidpipe.files import TEMPORARY_SUFFIX, sync_folder, whole_file
from vidpipe.loader.transfer import threads_for
from vidpipe.train.checkpoint import BEST, LAST
from vidpipe.train.sharding import make_group, write_sharded

_NAME = re.compile(r"step-(\d{6,})(?:-(\d+))?\.ckpt")


class CheckpointWriter:
    """Writes checkpoints into a run folder in the background, in the order of the calls.

    `save` copies the state to main memory before it returns; what happens to the tensors later doesn't matter.

    Args:
        folder: the run folder.
        keep_last: how many checkpoints are kept, the newest ones; the one that `best.ckpt` leads to is kept besides.
        rank: of this process. Where the state is whole on each process only the first writes.
        sharded: the state is dealt out among processes: each writes its part, so all have to make the same calls.
        device: that the state is on.
    """

    def __init__(self, folder: Path, *, keep_last: int, rank: int, sharded: bool, device: torch.device) -> None:
        self._folder, self._keep_last, self._rank = folder, keep_last, rank
        self._group = make_group() if sharded else None
        self._pool = threads_for(device, 1, name="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, state: Mapping[str, Any], *, best: bool) -> None:
        """Copy the state and start writing it, after the write before it is done.

        Args:
            state: as `vidpipe.train.checkpoint.pack` gives it.
            best: let `best.ckpt` lead to it too.

        Raises:
            CheckpointError: the write before this one failed.
        """
        if self._group is None and self._rank != 0:
            return
        copied = snapshot(state)
        self.wait()
        self._pending = self._pool.submit(self._write, copied, best)

    def check(self) -> None:
        """Return at once; raises as `wait` where what was to be written has failed by now."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when all is on disk.

        Raises:
            CheckpointError: it couldn't be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, state: Mapping[str, Any], best: bool) -> None:
        step = int(state["step"])
        try:
            if self._group is not None:
                # All processes have to know the name of what is not finished yet.
                unfinished = self._folder / f"{_name(step, 1)}{TEMPORARY_SUFFIX}"
                write_sharded(state, unfinished, group=self._group, rank=self._rank)
                if self._rank != 0:
                    return
                path = _free_path(self._folder, step)
                unfinished.rename(path)
            else:
                path = _free_path(self._folder, step)
                with whole_file(path) as stream:
                    torch.save(dict(state), stream)
            # The best one first: a run that is killed in between comes by that step again.
            for link in (BEST, LAST) if best else (LAST,):
                _lead(self._folder / link, path.name)
            sync_folder(self._folder)
            _remove_old(self._folder, keep_last=self._keep_last)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{self._folder}: step {step} can't be saved: {one_line(error)}; see to that, and go on with --resume"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)


def snapshot(value: Any) -> Any:
    """A copy in main memory of nested plain containers of tensors, which later steps don't change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    return value


def _name(step: int, number: int) -> str:
    return f"step-{step:06d}{f'-{number}' if number > 1 else ''}.ckpt"


def _free_path(folder: Path, step: int) -> Path:
    """A step may be saved again, for instance once its evaluation is there; what links lead to is never written over."""
    number = 1
    while (folder / _name(step, number)).exists():
        number += 1
    return folder / _name(step, number)


def _lead(link: Path, name: str) -> None:
    temporary = link.with_name(link.name + TEMPORARY_SUFFIX)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    temporary.replace(link)


def _remove_old(folder: Path, *, keep_last: int) -> None:
    """Remove all checkpoints but the newest of each of the last steps, and those that links lead to; and unfinished ones."""
    newest: dict[int, Path] = {}
    found = {path: match for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    for path, match in sorted(found.items(), key=lambda item: (int(item[1][1]), int(item[1][2] or 1))):
        newest[int(match[1])] = path
    kept = {newest[step] for step in sorted(newest)[-keep_last:]}
    kept |= {folder / (folder / link).readlink() for link in (LAST, BEST) if (folder / link).is_symlink()}
    unfinished = [path for path in folder.iterdir() if _NAME.fullmatch(path.name.removesuffix(TEMPORARY_SUFFIX))]
    for path in {*found, *unfinished} - kept:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
