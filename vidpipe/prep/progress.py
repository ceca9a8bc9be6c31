"""How a prep run shows itself on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vidpipe.datasets.base import Listing, in_words
from vidpipe.errors import printable
from vidpipe.prep.shard_job import VideoDone

LINE_EVERY_SECONDS = 10.0


class ConsoleProgress:
    """Tells a person what prep does. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        columns = (BarColumn(20), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=self._console, disable=not self._live)
        self._task = self._bar.add_task("", total=None)
        self._began = self._said = time.monotonic()
        self._total = self._before = self._videos = self._clips = self._bytes = self._rejects = 0

    def __enter__(self) -> ConsoleProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def generating(self, done: int, total: int) -> None:
        """Source videos are being made (data sets that come from a generator)."""
        if self._live:
            self._bar.update(self._task, total=total, completed=done, description=f"{done}/{total} source videos made")
        elif done == total or time.monotonic() - self._said > LINE_EVERY_SECONDS:
            self._say(f"source videos: {done}/{total}")

    def found(self, listing: Listing) -> None:
        """The source was searched."""
        splits = ", ".join(f"{sum(v.split == s for v in listing.videos)} {s}" for s in listing.splits)
        self._console.print(f"found {len(listing.videos)} videos ({splits}) of {len(listing.classes)} classes")
        if any(listing.counts.values()):
            self._console.print(f"  {', '.join(in_words(listing.counts))}", markup=False)
        for note in listing.notes:
            self._console.print(f"  note: {note}", markup=False)

    def start(self, *, videos: int, done: int) -> None:
        """Decoding begins."""
        self._total, self._before = videos, done
        self._began = self._said = time.monotonic()
        if done:
            self._console.print(f"{done} videos are in finished shards already")
        self._bar.reset(self._task, total=videos, completed=done, description=self._line())

    def video(self, done: VideoDone) -> None:
        """A video was written or rejected."""
        self._videos += 1
        self._clips += done.clips
        self._bytes += done.bytes
        if done.reject:
            self._rejects += 1
            reject = done.reject
            self._console.print(f"reject {printable(reject.path)}: {reject.reason}: {reject.message}", markup=False)
        self._bar.update(self._task, completed=self._before + self._videos, description=self._line())
        last = self._before + self._videos == self._total
        if not self._live and (last or time.monotonic() - self._said > LINE_EVERY_SECONDS):
            self._say(self._line())

    def waiting(self, shards: int) -> None:
        """Other runs are making so many shards."""
        self._console.print(f"waiting for {shards} shards that other runs are making")

    def _line(self) -> str:
        """What matters most comes first, as a narrow terminal cuts off the rest."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        done = self._before + self._videos
        left = seconds / self._videos * (self._total - done) if self._videos else 0
        return ", ".join(
            [
                f"{done}/{self._total} videos",
                *([f"{timedelta(seconds=round(left))} to go"] if left else []),
                f"{self._rejects} rejected",
                f"{self._videos / seconds:.1f} videos/s",
                f"{self._clips / seconds:.1f} clips/s",
                f"{self._bytes / seconds / 1e6:.1f} MB/s",
            ]
        )

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        print(f"prep: {line}", file=sys.stderr, flush=True)
