"""Every error that vidpipe raises on purpose.

    VidpipeError                exit code 1
    ├── UsageError              exit code 2: an argument, a recipe or a recipe's value is wrong
    ├── MissingExtraError       an optional package is not installed
    ├── DatasetError            the source folder or its annotations can't be used
    ├── VideoError              one video can't be used; becomes a reject, never ends a run
    ├── ShardError              shards are absent, unfinished, damaged or of another format
    │   ├── BadSampleError      one sample of a shard is damaged
    │   └── StorageError        storage doesn't serve at the moment, which says nothing about the shards
    ├── ModelError              a model's configuration or input doesn't fit
    ├── CheckpointError         a checkpoint is absent, damaged or doesn't fit
    ├── TrainingError           training can't go on
    └── RejectBudgetError       exit code 3: more videos or annotation rows were rejected than allowed

A message says what was wrong, what was got, what was expected and what to do next, in one line where that is possible.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VidpipeError(Exception):
    """Base of all errors that vidpipe raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(VidpipeError):
    """An argument, a recipe or one of a recipe's values is wrong."""

    exit_code: ClassVar[int] = 2


class MissingExtraError(VidpipeError):
    """An optional package is not installed; the message holds the `pip install` line."""


class DatasetError(VidpipeError):
    """The source folder or its annotations can't be used."""


class VideoError(VidpipeError):
    """One video can't be used.

    Args:
        reason: a short, stable slug by which rejects are counted, for instance `damaged`, `truncated`, `no-video-stream`.
        message: the sentence for people.
        stage: where it was found: `find`, `probe`, `decode`, `encode` or `worker`.
    """

    def __init__(self, reason: str, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.stage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_video_error, (self.reason, self.message, self.stage)


def _rebuild_video_error(reason: str, message: str, stage: str) -> VideoError:
    return VideoError(reason, message, stage=stage)


class ShardError(VidpipeError):
    """Shards are absent, unfinished, damaged or of another format."""


class BadSampleError(ShardError):
    """One sample of a shard is damaged.

    Args:
        shard: file name of the shard.
        key: the sample's key.
        message: what is wrong with it.
    """

    def __init__(self, shard: str, key: str, message: str) -> None:
        super().__init__(f"{shard}: sample {key}: {message}")
        self.shard = shard
        self.key = key
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return BadSampleError, (self.shard, self.key, self.message)


class StorageError(ShardError):
    """Storage doesn't serve at the moment: the network, the room in a cache, the limit on open files, or a loader that was closed.

    It says nothing about the shards themselves, so none of their samples is left out for it.
    """


class ModelError(VidpipeError):
    """A model's configuration or input doesn't fit."""


class CheckpointError(VidpipeError):
    """A checkpoint is absent, damaged or doesn't fit."""


class TrainingError(VidpipeError):
    """Training can't go on, for instance because the loss is not finite."""


class RejectBudgetError(VidpipeError):
    """More videos were rejected than the budget allows."""

    exit_code: ClassVar[int] = 3


def one_line(error: BaseException | str) -> str:
    """What an error says, without line breaks and at most 300 characters of it, for a message of ours."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def printable(name: str) -> str:
    """A file's name in one line of a message: what would break the line, or steer the terminal, is escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
