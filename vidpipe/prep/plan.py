"""The plan: which video goes to which shard. A pure function of (recipe, listing), so that any executor gets the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        missing: videos that the annotations name but that are not there. They keep their places in the order, so that one
            that arrives later changes no other shard.
        fingerprint: hash of everything that decides the shard's bytes, but the libraries' versions; of the videos it takes in
            paths and sizes only, since planning opens none.
    """

    split: str
    name: str
    videos: tuple[PlannedVideo, ...]
    missing: tuple[PlannedVideo, ...]
    fingerprint: str

    @property
    def num_videos(self) -> int:
        """Videos that are there or missing."""
        return len(self.videos) + len(self.missing)


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """All work of a split, and how its clips are cut."""

    split: str
    classes: tuple[str, ...]
    clip: ClipSpec
    shards: tuple[ShardPlan, ...]

    @property
    def num_videos(self) -> int:
        """Videos of all shards, there or missing."""
        return sum(shard.num_videos for shard in self.shards)


def make_plan(
    recipe: PrepRecipe, listing: Listing, *, splits: Sequence[str] = (), limit: int | None = None
) -> list[SplitPlan]:
    """The plan for some splits of a listing, or for all of them.

    Args:
        limit: take only the first videos of each split that are there, in the shuffled order.
    """
    wanted = sorted({video.split for video in listing.videos}) if not splits else list(splits)
    return [_plan_split(recipe, listing, split, limit) for split in wanted]


def _plan_split(recipe: PrepRecipe, listing: Listing, split: str, limit: int | None) -> SplitPlan:
    spec = recipe.clip_spec(split)
    labels = {name: index for index, name in enumerate(listing.classes)}
    missing = {video for video in listing.missing if video.split == split and limit is None}
    there = (video for video in listing.videos if video.split == split)
    videos = [
        (
            video not in missing,
            PlannedVideo(
                number=number,
                path=video.path,
                label=UNLABELLED if video.label is None else labels[video.label],
                label_name=video.label or "",
            ),
        )
        for number, video in enumerate(shuffle((*there, *missing), recipe.seed)[:limit])
    ]
    size = nominal_video_bytes(recipe, spec)
    per_shard = max(1, round(recipe.shard_size_mb * 1e6 / size))
    shards: list[ShardPlan] = []
    for start in range(0, len(videos), per_shard):
        chunk = videos[start : start + per_shard]
        shards.append(
            ShardPlan(
                split,
                shard_name(len(shards)),
                videos=tuple(video for is_there, video in chunk if is_there),
                missing=tuple(video for is_there, video in chunk if not is_there),
                fingerprint=_fingerprint(recipe, spec, listing, chunk),
            )
        )
    return SplitPlan(split, listing.classes, spec, tuple(shards))


def slice_of(plans: Sequence[SplitPlan], task: tuple[int, int]) -> list[ShardPlan]:
    """The shards of slice k of n, where `task` is (k, n); slices are cut from all shards, so that they are the same on every run."""
    number, count = task
    return [shard for plan in plans for shard in plan.shards][number - 1 :: count]


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


def output_hash(plans: Sequence[SplitPlan], *, name: str, recipe: Mapping[str, Any]) -> str:
    """Hash of everything that decides what comes to be in an output folder, but the libraries' versions.

    Args:
        plans: of all splits.
        name, recipe: as the manifests keep them.
    """
    splits = [
        [plan.split, plan.classes, plan.clip.model_dump(mode="json"), *(shard.fingerprint for shard in plan.shards)]
        for plan in plans
    ]
    return _hash({"name": name, "recipe": recipe, "splits": splits})


def _fingerprint(
    recipe: PrepRecipe, spec: ClipSpec, listing: Listing, videos: Sequence[tuple[bool, PlannedVideo]]
) -> str:
    content = {
        "format": FORMAT_VERSION,
        "clip": spec.model_dump(mode="json"),
        "codec": recipe.codec_spec.model_dump(mode="json"),
        "decoder": recipe.decoder,
        "strict": recipe.strict,
        "num_classes": len(listing.classes),
        "videos": [
            [v.number, v.path, v.label, v.label_name, _file_bytes(listing.root / v.path) if is_there else -1]
            for is_there, v in videos
        ],
    }
    return _hash(content)


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


def _path_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _file_bytes(path: Path) -> int:
    """-1 where there is none, or none may look at it; that storage doesn't answer is no size, which finished shards would seem not to fit."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return -1
