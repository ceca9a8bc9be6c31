"""The ffmpeg program, one process for each video, as many at a time as there are workers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import ClassVar

from vidpipe.bench.prep.arms.base import Done, PrepArm, Work
from vidpipe.errors import VideoError
from vidpipe.video.ffmpeg import run_ffmpeg
from vidpipe.video.files import absolute_path

TIMEOUT_SECONDS = 600.0


class _FfmpegProgram(PrepArm):
    """Goes through all frames of each video, unless a subclass says otherwise."""

    @abstractmethod
    def output(self, work: Work, number: int) -> list[str]:
        """ffmpeg's options for what comes out."""

    def run(self, report: Callable[[Done], None]) -> None:
        """Each thread waits for one ffmpeg at a time."""
        with ThreadPoolExecutor(self.setup.workers) as executor:
            futures = [executor.submit(self._one, work, number) for number, work in enumerate(self.setup.works)]
            for future in as_completed(futures):
                report(future.result())

    @staticmethod
    def expected(work: Work) -> int:
        """All frames."""
        return work.num_frames

    @staticmethod
    def decoded(work: Work) -> int:
        """All frames."""
        return work.num_frames

    def _one(self, work: Work, number: int) -> Done:
        try:
            told = run_ffmpeg(
                [
                    *("-loglevel", "error", "-nostats", "-progress", "pipe:1", "-y"),
                    *("-threads", "1", "-filter_threads", "1", "-i", absolute_path(self.setup.videos / work.path)),
                    *("-map", f"0:{work.stream_index}", "-fps_mode", "passthrough"),
                    *self.output(work, number),
                ],
                timeout_seconds=TIMEOUT_SECONDS,
            )
        except VideoError as error:
            return Done(work.path, 0, f"{error.reason}: {error.message}")
        counts = [line.partition("=")[2] for line in told.decode("ascii", "replace").splitlines() if "frame=" in line]
        return Done(work.path, int(counts[-1]) if counts else 0)


class WholeVideos(_FfmpegProgram):
    """Decode all of every video, scale all frames, keep nothing."""

    title: ClassVar[str] = "ffmpeg, whole videos"
    about: ClassVar[str] = (
        "ffmpeg -threads 1 -i VIDEO -vf scale=W:H -f null -: every frame decoded and scaled, none kept."
    )

    def output(self, work: Work, number: int) -> list[str]:
        """All frames."""
        del number
        return ["-vf", f"scale={work.width}:{work.height}", "-f", "null", "-"]


class NeededFrames(_FfmpegProgram):
    """Decode up to the clip's last frame, scale the clip's frames alone, keep nothing."""

    title: ClassVar[str] = "ffmpeg, the needed frames"
    about: ClassVar[str] = (
        "ffmpeg -threads 1 -i VIDEO -vf select=CLIP,scale=W:H -frames:v N -f null -: decoded up to the clip's last frame, "
        "only the clip's frames scaled, none kept, no RGB."
    )

    def output(self, work: Work, number: int) -> list[str]:
        """The clip's distinct frames, which are evenly spaced."""
        del number
        wanted = work.wanted
        step = wanted[1] - wanted[0] if len(wanted) > 1 else 1
        select = f"select='between(n,{wanted[0]},{wanted[-1]})*not(mod(n-{wanted[0]},{step}))'"
        scale = f"scale={work.width}:{work.height}"
        return ["-vf", f"{select},{scale}", "-frames:v", str(len(wanted)), "-f", "null", "-"]

    @staticmethod
    def expected(work: Work) -> int:
        """The clip's distinct frames."""
        return len(work.wanted)

    @staticmethod
    def decoded(work: Work) -> int:
        """Up to the clip's last frame."""
        return work.needed


class Reencoding(_FfmpegProgram):
    """Re-encode every video at the clips' size, as video2dataset's resolution subsampler does (by default libx264, crf 23)."""

    title: ClassVar[str] = "ffmpeg, each video re-encoded"
    about: ClassVar[str] = (
        "ffmpeg -threads 1 -i VIDEO -vf scale=W:H -c:v libx264 -threads 1 OUT.mp4, as video2dataset does with each video; "
        "without sound."
    )

    def output(self, work: Work, number: int) -> list[str]:
        """A file of all frames."""
        path = absolute_path(self.setup.scratch / f"{number:06d}.mp4")
        return ["-vf", f"scale={work.width}:{work.height}", "-c:v", "libx264", "-threads", "1", path]
