"""decord reading the frames that prep takes, in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.bench.prep.arms.base import Done, PrepArm, Work
from vidpipe.errors import VideoError, one_line
from vidpipe.video.decord_library import load_decord
from vidpipe.video.files import library_path


class DecordFrames(PrepArm):
    """A `decord.VideoReader` for each video."""

    title: ClassVar[str] = "decord, the same frames"
    about: ClassVar[str] = (
        "decord.VideoReader(VIDEO, width=W, height=H, num_threads=1).get_batch(CLIP).asnumpy() in as many processes; none kept."
    )

    def run(self, report: Callable[[Done], None]) -> None:
        """Videos go to the processes one by one."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.setup.workers, mp_context=context, initializer=load_decord) as executor:
            futures = [executor.submit(_count, self.setup.videos, work) for work in self.setup.works]
            for future in as_completed(futures):
                report(future.result())

    @staticmethod
    def expected(work: Work) -> int:
        """The clip's frames, repeated ones too."""
        return len(work.frame_indices)


def read_frames(videos: Path, work: Work) -> NDArray[np.uint8]:
    """The clip: uint8 [T, H, W, 3].

    Raises:
        VideoError: it can't be decoded.
    """
    decord = load_decord()
    try:
        with library_path(videos / work.path) as name:
            reader: Any = decord.VideoReader(name, width=work.width, height=work.height, num_threads=1)
            video: NDArray[np.uint8] = reader.get_batch(list(work.frame_indices)).asnumpy()
            return video
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError("decord", f"decord: {one_line(error)}", stage="decode") from error


def _count(videos: Path, work: Work) -> Done:
    try:
        return Done(work.path, len(read_frames(videos, work)))
    except VideoError as error:
        return Done(work.path, 0, error.message)
