"""Arms of the prep benchmark that do less than they should, for the tests."""

from __future__ import annotations

import os
from collections.abc import Callable

from vidpipe.bench.prep.arms.base import Done, Work
from vidpipe.bench.prep.arms.ffmpeg_program import NeededFrames, WholeVideos


class OneFrame(WholeVideos):
    """Decodes one frame of each video."""

    def output(self, work: Work, number: int) -> list[str]:
        return ["-frames:v", "1", *super().output(work, number)]


class SecondRunIsEmpty(NeededFrames):
    """Does its work once, for the proof; then it only says so."""

    def run(self, report: Callable[[Done], None]) -> None:
        proven = self.setup.videos / "proven"
        if proven.exists():
            for work in self.setup.works:
                report(Done(work.path, 0))
        else:
            proven.touch()
            super().run(report)


class Dies(WholeVideos):
    """Its process ends in the middle."""

    def run(self, report: Callable[[Done], None]) -> None:
        print("the last words", flush=True)
        os._exit(7)
