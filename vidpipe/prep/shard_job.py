"""Makes one shard: decodes its videos, writes their samples, records what became of each."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidpipe import __version__
from vidpipe.errors import VideoError
from vidpipe.prep.decoder import NUM_BUFFERS, Decoder
from vidpipe.prep.decoder_process import ClipResult, Job
from vidpipe.prep.parts import Reject, ShardPart, load_part, printable, save_part
from vidpipe.prep.plan import PlannedVideo, ShardPlan
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.checksum import crc32
from vidpipe.shards.index import SampleRow
from vidpipe.shards.layout import label_bytes, sample_key, write_errors
from vidpipe.shards.locks import locked
from vidpipe.shards.manifest import ChannelSums, manifest_if_finished
from vidpipe.shards.parts import drop_part
from vidpipe.shards.tar import Member, TarWriter, open_shard
from vidpipe.video.decode import decoder_versions
from vidpipe.video.spec import ClipSpec

MISSING = "named by the annotations, or by a link, but there is no such file"


@dataclass(frozen=True, slots=True)
class VideoDone:
    """Progress: one video was written (`clips` > 0) or rejected."""

    path: str
    clips: int
    bytes: int
    reject: Reject | None


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard that has to be made in the split's folder `out`, with what its split says of clips and labels."""

    shard: ShardPlan
    clip: ClipSpec
    num_classes: int
    out: Path


def make_shard(
    task: ShardTask, *, recipe: PrepRecipe, root: Path, decoder: Decoder, on_video: Callable[[VideoDone], None]
) -> bool:
    """Write the index, the shard and then its part file; each appears whole or not at all.

    The part that another plan left goes first, as it would mark whatever shard of that name as done.

    Returns:
        whether it was made; not when another process is at it or has finished it.

    Raises:
        ShardError: it can't be written, for instance because the disk is full.
    """
    finish = begin_shard(task, recipe=recipe, root=root, decoder=decoder, on_video=on_video)
    if finish is None:
        return False
    finish()
    return True


def begin_shard(
    task: ShardTask, *, recipe: PrepRecipe, root: Path, decoder: Decoder, on_video: Callable[[VideoDone], None]
) -> Callable[[], None] | None:
    """The part of `make_shard` that the decoder is needed for.

    Returns:
        the rest, which waits for the disk and has to be called, in whatever thread; None where there is nothing to do.

    Raises:
        ShardError: as `make_shard`, and so may the rest.
    """
    with write_errors(task.out / task.shard.name), ExitStack() as lock:
        held = lock.enter_context(locked(task.out, task.shard.name))
        if not held or load_part(task.out, task.shard) is not None or _is_in_manifest(task):
            return None
        with ExitStack() as shard:
            writer = shard.enter_context(open_shard(task.out / task.shard.name))
            part, rows = _write_videos(writer, task, recipe=recipe, root=root, decoder=decoder, on_video=on_video)
            open_writer = shard.pop_all()
        held_lock = lock.pop_all()

    def finish() -> None:
        with write_errors(task.out / task.shard.name), held_lock:
            with open_writer:
                drop_part(task.out, task.shard.name)
            part.bytes, part.sha256 = writer.summary.bytes, writer.summary.sha256
            save_part(task.out, part, rows)

    return finish


def _is_in_manifest(task: ShardTask) -> bool:
    """Whether the split was completed with this very shard since the task was set."""
    manifest = manifest_if_finished(task.out)
    return manifest is not None and any(
        entry.name == task.shard.name and entry.plan == task.shard.fingerprint for entry in manifest.shards
    )


def _write_videos(
    writer: TarWriter,
    task: ShardTask,
    *,
    recipe: PrepRecipe,
    root: Path,
    decoder: Decoder,
    on_video: Callable[[VideoDone], None],
) -> tuple[ShardPart, list[dict[str, Any]]]:
    """Decode and write all videos of a shard; its part, without the archive's size and hash, and the samples' rows."""
    plan = task.shard
    rejects = {
        video.number: _reject(video, plan.name, VideoError("missing", MISSING, stage="find")) for video in plan.missing
    }
    rows: list[SampleRow] = []
    channels = ChannelSums()
    decoders: Counter[str] = Counter()
    jobs = [
        Job(
            path=root / video.path,
            key=video.path,
            spec=task.clip,
            codec=recipe.codec_spec,
            decoder=recipe.decoder,
            strict=recipe.strict,
            buffer=position % NUM_BUFFERS,
        )
        for position, video in enumerate(plan.videos)
    ]
    for video, job, outcome in zip(plan.videos, jobs, decoder.run(jobs), strict=True):
        before = writer.summary.bytes
        if outcome.error is None:
            source = outcome.source or {}
            decoders[str(source["decoder"])] += 1
            rows += _write_video(
                writer, task, video=video, job=job, clips=outcome.clips, source=source, decoder=decoder
            )
            channels = functools.reduce(ChannelSums.plus, (clip.channels for clip in outcome.clips), channels)
        else:
            rejects[video.number] = _reject(video, plan.name, outcome.error)
        size = writer.summary.bytes - before
        on_video(VideoDone(video.path, len(outcome.clips), size, rejects.get(video.number)))
    part = ShardPart(
        name=plan.name,
        plan=plan.fingerprint,
        bytes=0,
        sha256="",
        samples=len(rows),
        rejects=[rejects[number] for number in sorted(rejects)],
        channels=channels,
        decoders=dict(decoders),
        versions={"vidpipe": __version__, **decoder_versions()},
    )
    return part, [asdict(row) for row in rows]


def _write_video(
    writer: TarWriter,
    task: ShardTask,
    *,
    video: PlannedVideo,
    job: Job,
    clips: Sequence[ClipResult],
    source: dict[str, Any],
    decoder: Decoder,
) -> Iterator[SampleRow]:
    label = label_bytes(video.label, task.num_classes)
    for number, clip in enumerate(clips):
        key = sample_key(video.number, number)
        description = _description(video, number, clip, source)
        members = writer.add(key, {"cls": (label,), "json": (description,), **decoder.payload(job, clip)})
        yield _row(
            key,
            task.shard.name,
            video,
            number=number,
            clip=clip,
            members=members,
            description=description,
            source=source,
        )


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
    description: bytes,
    source: dict[str, Any],
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
        duration_seconds=source["duration_seconds"],
        source_width=source["width"],
        source_height=source["height"],
        source_fps=source["fps"],
        source_codec=source["codec"],
        cls_offset=placed["cls"].offset,
        cls_size=placed["cls"].size,
        json_offset=placed["json"].offset,
        json_size=placed["json"].size,
        json_crc32=crc32(description),
        payload_offset=payload[0].offset,
        payload_sizes=tuple(member.size for member in payload),
        payload_crc32=clip.crc32,
    )


def _reject(video: PlannedVideo, shard: str, error: VideoError) -> Reject:
    message = " ".join(error.message.split())
    return Reject(printable(video.path), video.label_name, shard, error.stage, error.reason, message)
