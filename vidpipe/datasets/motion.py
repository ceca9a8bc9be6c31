"""The `motion` data set: small labelled videos that are generated, so that everything can be tried without a
download."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from vidpipe.cores import usable_cores
from vidpipe.datasets.base import DatasetFormat, Listing
from vidpipe.datasets.folder import list_folders
from vidpipe.datasets.sprites import MOTIONS, draw_track, draw_video
from vidpipe.datasets.tree import SourceTree
from vidpipe.errors import DatasetError, VideoError
from vidpipe.files import whole_file
from vidpipe.recipes import PixelSize
from vidpipe.video.encode import write_h264

_MARK = ".motion"
_VERSION = 1  # to be raised when the same options give other videos


class Motion(DatasetFormat):
    """Generated videos of one sprite in eight kinds of motion; a single frame tells nothing.

    Attributes:
        train_videos: for each class.
        val_videos: for each class.
        video_frames: length of each video.
        video_size: (width, height) in pixels, both even.
        video_fps: frames a second.
        slow_motion: by how much the motion is slowed down, from frame to frame.
        scenery: a detailed background that drifts, which makes videos about as hard to compress and to decode as real ones,
            instead of a plain still one.
        video_seed: another seed gives other videos.
        labels: `direction` names the eight motions; `kind` the four pairs of opposite ones (scale, turn, x, y), an easier task
            on the same videos, for pretraining.
    """

    train_videos: int = Field(64, ge=1, le=9999)
    val_videos: int = Field(16, ge=0, le=9999)
    video_frames: int = Field(32, ge=2, le=3000)
    video_size: PixelSize = (72, 64)
    video_fps: float = Field(16, ge=1, le=120)
    slow_motion: float = Field(1, gt=0)
    scenery: bool = False
    video_seed: int = Field(0, ge=0)
    labels: Literal["direction", "kind"] = "direction"

    @field_validator("video_size")
    @classmethod
    def _even(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 32 or max(value) > 1024 or value[0] % 2 or value[1] % 2:
            raise ValueError("expected two even numbers from 32 to 1024")
        return value

    @model_validator(mode="after")
    def _kinds_have_their_order(self) -> Self:
        if self.classes and self.labels == "kind":
            raise ValueError("classes: a class list goes with `labels: direction` only")
        return self

    def scan(self, source: Path) -> Listing:
        """Read what `generate` has written: class folders train/CLASS/NNNN.mp4 and val/CLASS/NNNN.mp4."""
        tree = SourceTree(source, self.link_targets)
        if not tree.videos:
            raise DatasetError(
                f"source {tree.root}: no generated videos in it; run `vidpipe prep motion` without --source"
            )
        builder = list_folders(tree, layout="split", classes=self.classes)
        listing = builder.build(classes=None if self.classes else MOTIONS)
        return _by_kind(listing) if self.labels == "kind" else listing

    def files(self) -> list[str]:
        """Relative paths of all videos, in an order that takes turns between the classes."""
        numbers = {"train": self.train_videos, "val": self.val_videos}
        return [
            f"{split}/{motion}/{number:04d}.mp4"
            for split, videos in numbers.items()
            for number in range(videos)
            for motion in MOTIONS
        ]

    def fingerprint(self) -> str:
        """What the videos' content depends on, as text; their numbers and labels are not part of it."""
        others = {"classes", "labels", "train_videos", "val_videos"}
        return f"motion {_VERSION} {self.model_dump_json(exclude=others)}\n"


def _by_kind(listing: Listing) -> Listing:
    """The same videos, labelled by what moves instead of which way."""
    kinds = {motion: kind for motion, (kind, _) in MOTIONS.items()}
    videos = tuple(replace(video, label=kinds[str(video.label)]) for video in listing.videos)
    return replace(listing, videos=videos, classes=tuple(sorted(set(kinds.values()))))


def generate(folder: Path, options: Motion, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the data set's videos; those that are there already stay, as long as they were made with the same options.

    The same options give the same videos, with the same versions of numpy and ffmpeg. Of several calls at once, one makes them.

    Args:
        folder: is created if need be. Videos that an earlier run made with other options are removed.
        progress: is called with (videos done, videos in total), at once and after each video.

    Raises:
        DatasetError: the folder holds something else, or can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _claim(folder, options)
            _write_videos(folder, options, progress)
    except OSError as error:
        raise DatasetError(f"motion videos: {folder}: can't be written: {error.strerror}") from error
    except VideoError as error:
        raise DatasetError(f"motion videos: {folder}: {error.message}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for others that generate there, in whatever process, and have them wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(folder: Path, options: Motion) -> None:
    """Make the folder ours: mark it with the options, and remove what other options or larger numbers left behind."""
    mark = folder / _MARK
    if not mark.is_file() and any(folder.iterdir()):
        raise DatasetError(
            f"motion videos: {folder} holds other files; name an empty folder, "
            "or read videos of your own with `vidpipe prep folder`"
        )
    keep = set(options.files()) if mark.is_file() and mark.read_text() == options.fingerprint() else set()
    for path in folder.glob("*/*/[0-9][0-9][0-9][0-9].mp4*"):
        if path.relative_to(folder).as_posix() not in keep:
            path.unlink()
    if not keep:
        with whole_file(mark) as stream:
            stream.write(options.fingerprint().encode())


def _write_videos(folder: Path, options: Motion, progress: Callable[[int, int], None] | None) -> None:
    wanted = options.files()
    todo = [path for path in wanted if not (folder / path).is_file()]
    for parent in {(folder / path).parent for path in todo}:
        parent.mkdir(parents=True, exist_ok=True)
    if progress:
        progress(len(wanted) - len(todo), len(wanted))
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        jobs = [pool.submit(_write_video, folder, path, options) for path in todo]
        try:
            for done, job in enumerate(as_completed(jobs), start=len(wanted) - len(todo) + 1):
                job.result()
                if progress:
                    progress(done, len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_video(folder: Path, path: str, options: Motion) -> None:
    width, height = options.video_size
    seed = hashlib.sha256(f"motion {_VERSION} {options.video_seed} {path}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, dtype=np.uint32).tolist())
    track = draw_track(
        path.split("/")[1],
        frames=options.video_frames,
        slow_motion=options.slow_motion,
        width=width,
        height=height,
        rng=rng,
    )
    video = draw_video(track, width=width, height=height, rng=rng, scenery=options.scenery)
    with whole_file(folder / path) as stream:
        write_h264(stream.name, video, fps=options.video_fps)
