"""The Ray executor: one Ray task a shard, on the cluster of RAY_ADDRESS or on one that is started on this machine.

Source and output have to be on storage that all nodes share under the same path.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vidpipe.errors import MissingExtraError, ShardError, VidpipeError, one_line
from vidpipe.prep.decoder import Decoder
from vidpipe.prep.recipe import PrepRecipe
from vidpipe.prep.shard_job import ShardTask, VideoDone, make_shard
from vidpipe.shards.locks import present


def run_ray(
    tasks: Sequence[ShardTask],
    *,
    recipe: PrepRecipe,
    root: Path,
    plan: str,
    workers: int | None,
    on_video: Callable[[VideoDone], None],
) -> int:
    """Make all shards, except those that another run is making or has made; one CPU of the cluster for each.

    Args:
        plan: hash of what all runs at the output folder work by.
        workers: shards that are made at once; as many as the cluster has CPUs by default.

    Returns:
        how many were made.

    Raises:
        MissingExtraError: Ray isn't installed.
        KeyboardInterrupt: Ctrl-C; the shards in hand are discarded, finished ones stay.
        VidpipeError: the first that a worker met, or what is wrong with Ray.
    """
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise MissingExtraError("--engine ray: Ray is not installed; pip install 'vidpipe[ray]'") from error
    started = not ray.is_initialized()
    if started:
        elsewhere = bool(os.environ.get("RAY_ADDRESS"))
        # "local": Ray would otherwise join whatever cluster was last started on this machine.
        ray.init(
            address=None if elsewhere else "local",
            num_cpus=None if elsewhere else workers,
            log_to_driver=False,
            include_dashboard=False,
        )
    try:
        make = ray.remote(num_cpus=1, max_retries=3)(_make_shard)
        absolute = [replace(task, out=task.out.resolve()) for task in tasks]
        waiting = list(reversed(absolute))
        running: list[ray.ObjectRef[list[VideoDone] | None]] = []
        made = 0
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        limit = workers or max(1, int(resources.get("CPU", 1)))
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(make.remote(waiting.pop(), recipe, root, plan))
            done, running = ray.wait(running, num_returns=1)
            videos = ray.get(done[0])
            made += videos is not None
            for video in videos or ():
                on_video(video)
    except RayTaskError as error:
        cause: BaseException = getattr(error, "cause", error)
        if isinstance(cause, VidpipeError):
            raise cause from error
        raise ShardError(f"--engine ray: a worker failed: {type(cause).__name__}: {one_line(cause)}") from error
    except RayError as error:
        raise ShardError(f"--engine ray: {one_line(error)}") from error
    finally:
        if started:
            ray.shutdown()
    return made


def _make_shard(task: ShardTask, recipe: PrepRecipe, root: Path, plan: str) -> list[VideoDone] | None:
    """One shard, in a Ray worker, which may outlive its driver and so has a place of its own at the output folder.

    Returns:
        what became of its videos; None when another process is at it or has finished it.
    """
    videos: list[VideoDone] = []
    decoder = Decoder(timeout_seconds=recipe.timeout_seconds, stop=threading.Event())
    try:
        with present(task.out.parent, plan):
            made = make_shard(task, recipe=recipe, root=root, decoder=decoder, on_video=videos.append)
    finally:
        decoder.close()
    return videos if made else None
