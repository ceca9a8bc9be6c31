"""The prep benchmark at work: the videos are laid out, the arms proven to do the same work with them, and timed in turns."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.guard import Guard
from vidpipe.bench.prep.arms import OURS
from vidpipe.bench.prep.arms.base import Done, PrepArm, PrepArmSetup, Work
from vidpipe.bench.prep.arms.decord_frames import read_frames
from vidpipe.bench.prep.arms.vidpipe_prep import SHARDS
from vidpipe.bench.prep.process import Memory, PrepRun, run_arm
from vidpipe.bench.prep.report import PrepArmResult
from vidpipe.bench.psnr import psnr_db
from vidpipe.bench.reports import LeftOut
from vidpipe.bench.running import in_turn
from vidpipe.bench.sources import lay_out
from vidpipe.errors import VideoError, VidpipeError
from vidpipe.shards.manifest import load_manifest
from vidpipe.video.probe import probe

MIN_PSNR_DB = 40.0


@dataclass(frozen=True, slots=True)
class ArmEntry:
    """An arm: its class, and for prep itself the overrides of the recipe."""

    target: str
    title: str
    kind: type[PrepArm]
    overrides: tuple[str, ...] = ()


class PrepSession:
    """The videos at hand, and what was measured with them.

    Args:
        folder: an empty one, for the videos and for what the arms write.
        source: the folder of the videos.
        arms: by name; `OURS` is the first.

    Attributes:
        videos: paths of those that are used, relative to the source.
        works: all files laid out, each with what prep takes of it.
        left_out: videos that some arm can't deal with, and why.
    """

    def __init__(self, folder: Path, source: Path, arms: dict[str, ArmEntry], *, workers: int, guard: Guard) -> None:
        self.videos: list[str] = []
        self.works: tuple[Work, ...] = ()
        self.left_out: list[LeftOut] = []
        self.workers = workers
        self._folder = folder
        self._source = source
        self._arms = arms
        self._guard = guard
        self._placed: dict[str, str] = {}
        self._memory: dict[str, Memory | None] = {}
        self._runs: dict[str, list[PrepRun]] = {name: [] for name in arms}

    def prove(self, videos: Sequence[str]) -> None:
        """Lay the videos out, run all arms once, and leave out those that one of them can't deal with.

        Raises:
            VidpipeError: none is left.
        """
        faults = self._lay_out(videos, copies=1)
        for name in self._arms:
            if name != OURS and self.works:
                faults = self._faults(name, self._run(name, watch=True)) | faults
        self._leave_out(faults)

    def multiply(self, copies: int) -> None:
        """Lay out each video so often, under other names and so with other clips, and have prep say what it takes of each.

        Raises:
            VidpipeError: none is left.
        """
        self._leave_out(self._lay_out(self.videos, copies=copies))

    def compare_with_decord(self) -> float:
        """Read every clip with decord too; those that differ from prep's are left out. The PSNR in dB of the worst one kept.

        Raises:
            VidpipeError: none is left.
        """
        stored = StoredClips(self._tensor_split)
        clips = {clip.video: clip for clip in stored.clips}
        faults, worst = {}, math.inf
        for work in self.works:
            video = self._placed[work.path]
            try:
                frames = read_frames(self._videos, work)
            except VideoError as error:
                faults[video] = error.message
                continue
            psnr = psnr_db(np.subtract(frames, stored.frames(clips[work.path]), dtype=np.float32))
            if psnr < MIN_PSNR_DB:
                faults[video] = f"decord's get_batch gives other frames than prep (PSNR {psnr:.1f} dB)"
            else:
                worst = min(worst, psnr)
        self._leave_out(faults)
        return worst

    def round(self, number: int) -> None:
        """One turn of each arm; each round begins with another one.

        Raises:
            VidpipeError: an arm failed with a video that it could deal with before.
        """
        for name in in_turn(list(self._arms), number):
            run = self._run(name)
            for video, fault in self._faults(name, run).items():
                raise VidpipeError(f"{name}: {video}: {fault}; it gave the right frames when that was proven")
            self._runs[name].append(run)

    def result(self, name: str) -> PrepArmResult:
        """What was measured of an arm."""
        entry, runs = self._arms[name], self._runs[name]
        decoded = [entry.kind.decoded(work) for work in self.works]
        return PrepArmResult(
            arm=name,
            title=entry.title,
            about=entry.kind.about,
            rounds=tuple(len(self.works) / run.seconds for run in runs),
            source_frames=None if None in decoded else sum(count or 0 for count in decoded),
            clip_frames=sum(entry.kind.given(work) for work in self.works),
            cpu_seconds_per_video=sum(run.cpu_seconds for run in runs) / len(runs) / len(self.works),
            first_seconds=median(run.first_seconds for run in runs),
            memory=self._memory[name],
        )

    @property
    def num_shards(self) -> int:
        """How many prep writes in a run."""
        return len(load_manifest(self._tensor_split).shards)

    @property
    def _videos(self) -> Path:
        return self._folder / "videos"

    @property
    def _tensor_split(self) -> Path:
        """What prep wrote last with the codec `tensor`."""
        return self._folder / OURS / SHARDS / "train"

    def _lay_out(self, videos: Sequence[str], *, copies: int) -> dict[str, str]:
        """Lay videos out and run prep; what it can't deal with, and why."""
        shutil.rmtree(self._videos, ignore_errors=True)
        self.works = ()
        self._placed = lay_out(self._source, videos, self._videos, copies=copies)
        faults = self._faults(OURS, self._run(OURS, watch=True))
        self.works = self._read_works()
        return faults

    def _run(self, name: str, *, watch: bool = False) -> PrepRun:
        entry = self._arms[name]
        scratch = self._folder / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        setup = PrepArmSetup(
            videos=self._videos,
            scratch=scratch,
            works=self.works,
            workers=self.workers,
            overrides=entry.overrides,
        )
        run = run_arm(name, entry.target, setup, guard=self._guard, watch=watch)
        if name != OURS:
            shutil.rmtree(scratch)
        if watch:
            self._memory[name] = run.memory
        return run

    def _read_works(self) -> tuple[Work, ...]:
        """What prep took of each file that it did not reject."""
        stored = StoredClips(self._tensor_split)
        paths = {self._placed[clip.video]: clip.video for clip in stored.clips}
        infos = {video: probe(self._videos / path) for video, path in paths.items()}
        works = []
        for clip in stored.clips:
            info = infos[self._placed[clip.video]]
            indices = tuple(stored.description(clip)["frame_indices"])
            works.append(
                Work(
                    path=clip.video,
                    frame_indices=indices,
                    width=clip.width,
                    height=clip.height,
                    num_frames=info.num_frames,
                    stream_index=info.stream_index,
                )
            )
        return tuple(works)

    def _faults(self, name: str, run: PrepRun) -> dict[str, str]:
        """Videos that the arm could not deal with, and what happened."""
        done = {video.path: video for video in run.done}
        works = {work.path: work for work in self.works}
        faults: dict[str, str] = {}
        for path in works if self.works else self._placed:
            fault = self._fault(name, done.get(path), works.get(path))
            if fault:
                faults.setdefault(self._placed[path], fault)
        return faults

    def _fault(self, name: str, done: Done | None, work: Work | None) -> str:
        entry = self._arms[name]
        if done is None:
            return f"{entry.title} did not come to it"
        if done.error:
            return f"{entry.title}: {done.error}"
        expected = entry.kind.expected(work) if work else 1
        return "" if done.count == expected else f"{entry.title} gives {done.count} instead of {expected}"

    def _leave_out(self, faults: dict[str, str]) -> None:
        used = list(dict.fromkeys(self._placed.values()))
        self.left_out += [LeftOut(video, faults[video]) for video in used if video in faults]
        self.videos = [video for video in used if video not in faults]
        if not self.videos:
            first = self.left_out[0]
            raise VidpipeError(f"bench prep: no video is left that all arms can decode; {first.name}: {first.reason}")
        for path in [path for path, video in self._placed.items() if video in faults]:
            (self._videos / path).unlink()
            del self._placed[path]
        self.works = tuple(work for work in self.works if work.path in self._placed)
