"""The videos of some shards, prepared again with another codec."""

from __future__ import annotations

from pathlib import Path

import yaml

from vidpipe.prep.command import RunOptions, run_prep
from vidpipe.prep.plan import nominal_video_bytes
from vidpipe.prep.recipe import load_prep_recipe
from vidpipe.shards.manifest import Manifest, find_split

SHARDS = 8  # so that sequential readers, which deal shards out to their workers, have enough for all


def prepare_again(manifest: Manifest, source: Path, *, codec: str, folder: Path, limit: int | None = None) -> Path:
    """Prepare a split as its manifest says, but with another codec.

    Args:
        source: the folder of the videos.
        folder: an empty one; the recipe and the shards are written into it.
        limit: only the first so many videos of the split, in the order of its shards.

    Returns:
        the new split's folder.

    Raises:
        UsageError: no such codec.
        VidpipeError: as `vidpipe prep` would.
    """
    name = folder / f"{manifest.dataset}.yaml"
    name.write_text(yaml.safe_dump(manifest.recipe))
    # But for what only goes with the codec that it was for; and of a few of the videos, more may be rejected than of all.
    overrides = ["quality=null", "crf=null", "dtype=uint8", f"codec={codec}", "max_rejects=1"]
    recipe, _ = load_prep_recipe(str(name), overrides)
    per_shard = -(-min(manifest.counts.videos, limit or manifest.counts.videos) // SHARDS)
    size = per_shard * nominal_video_bytes(recipe, recipe.clip_spec(manifest.split)) / 1e6
    run = RunOptions(splits=[manifest.split], limit=limit)
    run_prep(str(name), [*overrides, f"shard_size_mb={size}"], source=source, out=folder / "shards", run=run)
    return find_split(folder / "shards", manifest.split)
