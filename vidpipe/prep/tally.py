"""What the samples of a split add up to, counted row by row, so that the rows needn't be held."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vidpipe.errors import ShardError
from vidpipe.prep.parts import ShardPart
from vidpipe.shards.layout import video_of
from vidpipe.shards.manifest import Sources


class Tally:
    """Counts of videos; a video's first sample stands for it."""

    def __init__(self) -> None:
        self._labels: Counter[int] = Counter()
        self._durations = array("d")
        self._sizes: Counter[str] = Counter()
        self._fps: Counter[str] = Counter()
        self._codecs: Counter[str] = Counter()

    def counted(self, part: ShardPart, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows of a shard, which are counted as they pass.

        Raises:
            ShardError: at their end, if they aren't as many videos and samples as the part says.
        """
        videos: set[str] = set()
        samples = 0
        for row in rows:
            samples += 1
            video = video_of(row["key"])
            if video not in videos:
                videos.add(video)
                self._count(row)
            yield row
        if (samples, len(videos)) != (part.samples, part.written):
            raise ShardError(
                f"{part.name}: {samples} samples of {len(videos)} videos in its part file, but {part.samples} of "
                f"{part.written} were written; delete the shard and run the same command again"
            )

    def _count(self, row: dict[str, Any]) -> None:
        self._labels[row["label"]] += 1
        self._durations.append(row["duration_seconds"])
        self._sizes[f"{row['source_width']}x{row['source_height']}"] += 1
        self._fps[f"{row['source_fps']:.2f}"] += 1
        self._codecs[row["source_codec"]] += 1

    def labels(self, classes: Sequence[str]) -> dict[str, int]:
        """Number of videos for each class."""
        return {name: self._labels[index] for index, name in enumerate(classes)}

    def sources(self) -> Sources:
        """What the videos were."""
        if not self._durations:
            return Sources()
        durations = sorted(self._durations)
        least, middle, most = (round(value, 3) for value in (durations[0], statistics.median(durations), durations[-1]))
        return Sources(
            seconds=round(sum(durations), 3),
            duration_seconds=(least, middle, most),
            sizes=_most_common(self._sizes),
            fps=_most_common(self._fps),
            codecs=_most_common(self._codecs),
        )


def _most_common(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
