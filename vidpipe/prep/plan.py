"""The plan: which video goes to which shard. A pure function of (recipe, listing), so that any executor gets the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidpipe.datasets.base import Listing, Video
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.shards.codecs import make_codec, stores_whole_videos
from vidpipe.shards.layout import FORMAT_VERSION, UNLABELLED, shard_name
from vidpipe.video.spec import ClipSpec

NOMINAL_ASPECT = 4 / 3
NOMINAL_FRAMES = 300  # of a whole video: ten seconds, as in Kinetics


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """A video with its place in the split.

    Attributes:
        number: place in the split's order; part of the samples' keys.
        path: relative to the data set's root, with `/`.
        label: index into the class list, or UNLABELLED.
    """

    number: int
    path: str
    label: int
    label_name: str


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One unit of work: the videos of one shard, in order.

    Attributes:
        fingerprint: hash of everything that decides the shard's bytes, but the libraries' versions.
    """

    split: str
    name: str
    videos: tuple[PlannedVideo, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """All work of a split, and how its clips are cut."""

    split: str
    classes: tuple[str, ...]
    clip: ClipSpec
    shards: tuple[ShardPlan, ...]

    @property
    def num_videos(self) -> int:
        """Videos in all shards."""
        return sum(len(shard.videos) for shard in self.shards)


def make_plan(
    recipe: PrepRecipe, listing: Listing, *, splits: Sequence[str] = (), limit: int | None = None
) -> list[SplitPlan]:
    """The plan for some splits of a listing, or for all of them.

    Args:
        limit: take only the first videos of each split, in the shuffled order.
    """
    wanted = sorted({video.split for video in listing.videos}) if not splits else list(splits)
    return [_plan_split(recipe, listing, split, limit) for split in wanted]


def _plan_split(recipe: PrepRecipe, listing: Listing, split: str, limit: int | None) -> SplitPlan:
    spec = recipe.clip_spec(split)
    labels = {name: index for index, name in enumerate(listing.classes)}
    shuffled = shuffle((video for video in listing.videos if video.split == split), recipe.seed)[:limit]
    videos = [
        PlannedVideo(
            number=number,
            path=video.path,
            label=UNLABELLED if video.label is None else labels[video.label],
            label_name=video.label or "",
        )
        for number, video in enumerate(shuffled)
    ]
    size = nominal_video_bytes(recipe, spec)
    per_shard = max(1, round(recipe.shard_size_mb * 1e6 / size))
    shards: list[ShardPlan] = []
    for start in range(0, len(videos), per_shard):
        chunk = tuple(videos[start : start + per_shard])
        fingerprint = _fingerprint(recipe, spec, listing, chunk)
        shards.append(ShardPlan(split, shard_name(len(shards)), chunk, fingerprint))
    return SplitPlan(split, listing.classes, spec, tuple(shards))


def shuffle(videos: Iterable[Video], seed: int) -> list[Video]:
    """Order by a keyed hash of seed and path: adding a video moves no other relative to the rest."""
    key = f"vidpipe-shuffle-{seed}".encode()
    return sorted(
        videos, key=lambda v: (hashlib.blake2b(_path_bytes(v.path), key=key, digest_size=16).digest(), v.path)
    )


def nominal_video_bytes(recipe: PrepRecipe, spec: ClipSpec) -> int:
    """Bytes of one video's samples by which videos are dealt to shards, whatever they are: 4:3, and ten seconds if stored whole."""
    frames = NOMINAL_FRAMES if stores_whole_videos(recipe.codec_spec) else spec.frames
    width, height = recipe.crop or (round(recipe.height * NOMINAL_ASPECT), recipe.height)
    return make_codec(recipe.codec_spec).nominal_bytes(frames, height, width) * spec.clips


def _fingerprint(recipe: PrepRecipe, spec: ClipSpec, listing: Listing, videos: Sequence[PlannedVideo]) -> str:
    content = {
        "format": FORMAT_VERSION,
        "clip": spec.model_dump(mode="json"),
        "codec": recipe.codec_spec.model_dump(mode="json"),
        "decoder": recipe.decoder,
        "strict": recipe.strict,
        "num_classes": len(listing.classes),
        "videos": [[v.number, v.path, v.label, v.label_name, _file_bytes(listing.root / v.path)] for v in videos],
    }
    text = json.dumps(content, sort_keys=True).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def _path_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
