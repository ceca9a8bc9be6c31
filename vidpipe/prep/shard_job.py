"""Makes one shard: decodes its videos, writes their samples, records what became of each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vidpipe.errors import VideoError
from vidpipe.prep.decoder import NUM_BUFFERS, Decoder
from vidpipe.prep.decoder_process import ClipResult, Decoded, Job
from vidpipe.prep.plan import PlannedVideo, ShardPlan, SplitPlan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.index import SampleRow
from vidpipe.shards.layout import label_bytes, sample_key, whole_file
from vidpipe.shards.tar import Member, TarWriter, open_shard

PARTS_FOLDER = ".parts"


@dataclass(slots=True)
class ChannelSums:
    """Exact running sums from which mean and std follow."""

    pixels: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, pixels: int, sums: tuple[int, ...] | list[int], squares: tuple[int, ...] | list[int]) -> None:
        """Add the sums of some more pixels."""
        self.pixels += pixels
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, squares, strict=True)]


@dataclass(slots=True)
class Reject:
    """A video that has no sample, and why."""

    path: str
    label: str
    shard: str
    stage: str
    reason: str
    message: str


@dataclass(slots=True)
class ShardPart:
    """What a finished shard contributes to the split's index, manifest and rejects. Its file marks the shard as done."""

    name: str
    plan: str
    bytes: int
    sha256: str
    rows: list[dict[str, Any]]
    rejects: list[Reject]
    channels: ChannelSums
    decoders: dict[str, int]

    @property
    def written(self) -> int:
        """Videos with samples in the shard."""
        return sum(self.decoders.values())


@dataclass(frozen=True, slots=True)
class VideoDone:
    """Progress: one video was written (`clips` > 0) or rejected."""

    path: str
    clips: int
    bytes: int
    reject: Reject | None


def write_shard(
    plan: ShardPlan,
    split: SplitPlan,
    *,
    recipe: PrepRecipe,
    root: Path,
    out: Path,
    decoder: Decoder,
    on_video: Callable[[VideoDone], None],
) -> ShardPart:
    """Write the shard, its index and then its part file; each appears whole or not at all."""
    part = ShardPart(plan.name, plan.fingerprint, 0, "", [], [], ChannelSums(), {})
    jobs = [
        Job(
            path=root / video.path,
            key=video.path,
            spec=split.clip,
            codec=recipe.codec_spec,
            decoder=recipe.decoder,
            strict=recipe.strict,
            buffer=position % NUM_BUFFERS,
        )
        for position, video in enumerate(plan.videos)
    ]
    with open_shard(out / plan.name) as writer:
        outcomes = decoder.run(jobs)
        for video, job, outcome in zip(plan.videos, jobs, outcomes, strict=True):
            before = writer.summary.bytes
            if outcome.error is None:
                _write_video(writer, part, split, video=video, job=job, outcome=outcome, decoder=decoder)
                reject = None
            else:
                reject = _reject(video, plan.name, outcome.error)
                part.rejects.append(reject)
            on_video(VideoDone(video.path, len(outcome.clips), writer.summary.bytes - before, reject))
    part.bytes, part.sha256 = writer.summary.bytes, writer.summary.sha256
    _save_part(out, part)
    return part


def _write_video(
    writer: TarWriter,
    part: ShardPart,
    split: SplitPlan,
    *,
    video: PlannedVideo,
    job: Job,
    outcome: Decoded,
    decoder: Decoder,
) -> None:
    source = outcome.source or {}
    label = label_bytes(video.label, len(split.classes))
    for number, clip in enumerate(outcome.clips):
        key = sample_key(video.number, number)
        description = _description(video, number, clip, source)
        members = writer.add(key, {"cls": label, "json": description, **decoder.payload(job, clip)})
        row = _row(key, part.name, video, number=number, clip=clip, members=members, json_crc32=zlib.crc32(description))
        part.rows.append(asdict(row))
        part.channels.add(clip.pixels, clip.channel_sums, clip.channel_square_sums)
    name = str(source["decoder"])
    part.decoders[name] = part.decoders.get(name, 0) + 1


def _description(video: PlannedVideo, number: int, clip: ClipResult, source: dict[str, Any]) -> bytes:
    content = {
        "clip": number,
        "frame_indices": clip.frame_indices,
        "label": video.label_name,
        "padded_frames": clip.padded_frames,
        "source": source,
        "times_seconds": clip.times_seconds,
        "video": printable(video.path),
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()


def _row(
    key: str,
    shard: str,
    video: PlannedVideo,
    *,
    number: int,
    clip: ClipResult,
    members: tuple[Member, ...],
    json_crc32: int,
) -> SampleRow:
    placed = {member.extension: member for member in members}
    payload = [member for member in members if member.extension not in ("cls", "json")]
    frames, height, width = clip.shape
    return SampleRow(
        key=key,
        shard=shard,
        label=video.label,
        label_name=video.label_name,
        video=printable(video.path),
        clip=number,
        frames=frames,
        height=height,
        width=width,
        padded_frames=clip.padded_frames,
        start_seconds=clip.times_seconds[0],
        end_seconds=clip.times_seconds[-1],
        cls_offset=placed["cls"].offset,
        cls_size=placed["cls"].size,
        json_offset=placed["json"].offset,
        json_size=placed["json"].size,
        json_crc32=json_crc32,
        payload_offset=payload[0].offset,
        payload_sizes=tuple(member.size for member in payload),
        payload_crc32=clip.crc32,
    )


def _reject(video: PlannedVideo, shard: str, error: VideoError) -> Reject:
    message = " ".join(error.message.split())
    return Reject(printable(video.path), video.label_name, shard, error.stage, error.reason, message)


def printable(path: str) -> str:
    """A path as UTF-8 text; bytes that are not UTF-8 become backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def part_path(out: Path, shard: str) -> Path:
    """Where a shard's part lies until the split is complete."""
    return out / PARTS_FOLDER / f"{shard}.json"


def _save_part(out: Path, part: ShardPart) -> None:
    path = part_path(out, part.name)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as stream:
        stream.write(json.dumps(asdict(part)).encode())


def load_part(out: Path, plan: ShardPlan) -> ShardPart | None:
    """The part of a shard that was finished from this very plan, or None if it has to be made."""
    try:
        raw = json.loads(part_path(out, plan.name).read_bytes())
        raw["rejects"] = [Reject(**reject) for reject in raw["rejects"]]
        raw["channels"] = ChannelSums(**raw["channels"])
        part = ShardPart(**raw)
        size = (out / plan.name).stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return part if part.plan == plan.fingerprint and part.bytes == size else None
