"""The codec benchmark's results: for people, for programs, and as a picture."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from vidpipe.bench.codecs.filmstrip import Filmstrip
from vidpipe.bench.codecs.quality import Quality
from vidpipe.bench.codecs.variants import REFERENCE
from vidpipe.bench.reports import LeftOut, Report, draw_rounds
from vidpipe.bench.tables import number, table

PARTIAL_GOAL = 1.3
_HEADINGS = (
    *("MB/sample", "frames", "kB/frame", "to tensor", "PSNR", "worst frame"),
    *("prep clips/s", "to tensor", "read clips/s", "to tensor", "train clips/s", "to tensor"),
)
_PARTIAL_HEADINGS = ("all of a short clip", "spread over a long one", "to short", "in a row of a long one", "to short")


@dataclass(frozen=True, slots=True)
class PartialReads:
    """Milliseconds to read so many frames in one thread, a value a round.

    Attributes:
        whole_ms: all of a clip that holds no more; empty where whole videos are stored.
        spread_ms: every fourth frame of a clip of four times as many, or of a video.
        row_ms: frames that follow each other in it.
    """

    whole_ms: tuple[float, ...]
    spread_ms: tuple[float, ...]
    row_ms: tuple[float, ...]

    def ratio(self, values: tuple[float, ...]) -> float | None:
        """Median ratio to `whole_ms`, round by round."""
        return median(v / w for v, w in zip(values, self.whole_ms, strict=True)) if self.whole_ms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecResult:
    """One codec with its parameters.

    Attributes:
        overrides: of the prep recipe.
        whole_videos: its samples are whole videos instead of clips.
        sample_bytes, sample_frames: of a sample's payload, in the mean.
        prep: clips (or videos) per second of each round, from the start of prep to its end.
        read: clips per second of each round, as the reader gives them: uint8.
        train: clips per second of each round, as the loader gives them.
    """

    name: str
    overrides: tuple[str, ...]
    whole_videos: bool
    sample_bytes: float
    sample_frames: float
    quality: Quality
    prep: tuple[float, ...]
    read: tuple[float, ...]
    train: tuple[float, ...]
    partial: PartialReads

    @property
    def frame_bytes(self) -> float:
        """Bytes of a stored frame, in the mean."""
        return self.sample_bytes / self.sample_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecReport(Report):
    """What a run of the codec benchmark found.

    Attributes:
        videos: that were prepared in a round; of them `distinct_videos` are different files.
        source_videos: in the source folder.
        frames, stride, pixels: of the stored clips; pixels are (width, height).
        size: side in pixels of what the loader gives.
        round_seconds: least length of a turn of reading.
        refused: codecs that were left out.
        left_out: videos that can't be decoded.
    """

    videos: int
    distinct_videos: int
    source_videos: int
    frames: int
    stride: int
    pixels: tuple[int, int]
    size: int
    workers: int
    round_seconds: float
    results: tuple[CodecResult, ...]
    filmstrip: Filmstrip
    refused: tuple[LeftOut, ...]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; each result with its medians and its ratios to `tensor`. A PSNR of None: equal."""
        reference = self._reference
        results = [
            {
                **asdict(result),
                "quality": {key: _finite(value) for key, value in asdict(result.quality).items()},
                "frame_bytes": result.frame_bytes,
                "times_tensor_bytes": result.frame_bytes / reference.frame_bytes,
                "prep_clips_per_second": median(result.prep),
                "read_clips_per_second": median(result.read),
                "train_clips_per_second": median(result.train),
                "times_tensor_prep": _ratio(result.prep, reference.prep),
                "times_tensor_read": _ratio(result.read, reference.read),
                "times_tensor_train": _ratio(result.train, reference.train),
                "times_short_spread": result.partial.ratio(result.partial.spread_ms),
                "times_short_row": result.partial.ratio(result.partial.row_ms),
            }
            for result in self.results
        ]
        return {**asdict(self), "results": results}

    def as_text(self) -> str:
        """The tables, and what is to be known about them."""
        width, height = self.pixels
        clip = f"{self.frames} frames of {width}x{height}, stride {self.stride}"
        lines = [f"{self.videos} videos, of them {self.distinct_videos} different files: one clip of {clip}, from each"]
        lines += ["", *table([("", *_HEADINGS), *(self._row(result) for result in self.results)])]
        lines += ["", f"milliseconds to read {self.frames} frames in one thread"]
        lines += table([("", *_PARTIAL_HEADINGS), *(self._partial_row(result) for result in self.results)])
        lines += [*self._goals(), "", *self._filmstrip(), ""]
        lines.append(
            "PSNR in RGB against the decoded source; mp4 holds whole videos, from which the same clips are read"
        )
        lines += [f"codec left out: {refused.name}: {refused.reason}" for refused in self.refused]
        lines += [f"video left out: {video.name}: {video.reason}" for video in self.left_out]
        if self.distinct_videos + len(self.left_out) < self.source_videos:
            lines.append(f"note: chosen evenly from {self.source_videos} videos")
        rounds = f"median of {len(self.results[0].prep)} interleaved rounds, reading {self.round_seconds:g} s or more in each"
        lines.append(
            f"{rounds}; {self.workers} processes or threads, files in the page cache; train: {self.size}x{self.size}"
        )
        return "\n".join([*lines, *self.closing_lines()])

    def pictures(self) -> dict[str, Any]:
        """Sizes and speeds."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 1.4 + 0.4 * len(self.results)), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        names = [result.name for result in self.results[::-1]]
        sizes = [result.frame_bytes / 1e3 for result in self.results[::-1]]
        rates = [("prep", "clips prepared a second"), ("train", "clips loaded for training a second")]
        bars = panels[0].barh(names, sizes, color="tab:gray")
        panels[0].bar_label(bars, [number(size) for size in sizes], padding=4)
        panels[0].set_xlabel("kB a frame")
        panels[0].set_xscale("log")
        for axis, (field, label) in zip(panels[1:], rates, strict=True):
            draw_rounds(axis, {result.name: getattr(result, field) for result in self.results})
            axis.set_xlabel(label)
        for axis in panels:
            axis.margins(x=0.25)
        figure.suptitle(f"{self.frames} frames of {self.pixels[0]}x{self.pixels[1]}\n{self.machine}", fontsize="small")
        return {".png": figure}

    @property
    def _reference(self) -> CodecResult:
        return next(result for result in self.results if result.name == REFERENCE)

    def _row(self, result: CodecResult) -> tuple[str, ...]:
        reference = self._reference
        return (
            result.name,
            f"{result.sample_bytes / 1e6:.2f}",
            f"{result.sample_frames:.0f}",
            number(result.frame_bytes / 1e3),
            f"{result.frame_bytes / reference.frame_bytes:.3f}",
            _decibels(result.quality.mean_db),
            _decibels(result.quality.worst_db),
            number(median(result.prep)),
            f"{_ratio(result.prep, reference.prep):.2f}",
            number(median(result.read)),
            f"{_ratio(result.read, reference.read):.2f}",
            number(median(result.train)),
            f"{_ratio(result.train, reference.train):.2f}",
        )

    def _partial_row(self, result: CodecResult) -> tuple[str, ...]:
        partial = result.partial
        ratios = [partial.ratio(values) for values in (partial.spread_ms, partial.row_ms)]
        spread, row = ("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        whole = number(median(partial.whole_ms)) if partial.whole_ms else ""
        return result.name, whole, number(median(partial.spread_ms)), spread, number(median(partial.row_ms)), row

    def _goals(self) -> list[str]:
        lines = []
        for result in self.results:
            ratio = result.partial.ratio(result.partial.spread_ms)
            if result.name.startswith("jpeg") and ratio is not None:
                reached = "reached" if ratio <= PARTIAL_GOAL else "not reached"
                lines.append(
                    f"goal: {result.name}, spread over a long clip at {PARTIAL_GOAL:g} or less: {ratio:.2f}, {reached}"
                )
        return lines

    def _filmstrip(self) -> list[str]:
        strip = self.filmstrip
        frames, short, long = (median(values) for values in (strip.frames_ms, strip.strip_ms, strip.long_strip_ms))
        sizes = f"{strip.frames_bytes / 1e3:.0f} and {strip.strip_bytes / 1e3:.0f} kB"
        return [
            f"layouts of JPEG, decoding {strip.frames} frames in one thread: one file a frame {number(frames)} ms, "
            f"a filmstrip of them {number(short)} ms ({sizes}),",
            f"from a filmstrip of {strip.long_frames} frames {number(long)} ms ({long / short:.2f} of the short one)",
        ]


def _ratio(values: tuple[float, ...], others: tuple[float, ...]) -> float:
    return median(value / other for value, other in zip(values, others, strict=True))


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.1f} dB"
