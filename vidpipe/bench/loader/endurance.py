"""What a single round doesn't show of vidpipe's loader: the first batch with a very large index, memory over many epochs."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.bench.guard import Guard
from vidpipe.bench.loader.arm_host import ArmHost
from vidpipe.bench.loader.arms.base import ArmSetup
from vidpipe.bench.loader.session import started_arms
from vidpipe.bench.loader.table import EpochMemory, LargeIndex
from vidpipe.bench.process import GroupProcess, answer
from vidpipe.bench.selection import link_clips
from vidpipe.memory import resident_bytes
from vidpipe.shards.index import SCHEMA, read_samples, write_samples
from vidpipe.shards.layout import shard_name
from vidpipe.shards.manifest import Manifest, load_manifest

ARM = "vidpipe-torch"
LARGE_INDEX_SHARDS = 10_000
MEMORY_AFTER_EPOCHS = (1, 10, 50)
MEMORY_CLIPS = 16


def first_batch_of_large_index(setup: ArmSetup) -> LargeIndex:
    """Open the loader, in a process of its own, on `LARGE_INDEX_SHARDS` links to the shards that there are, and take a batch."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=setup.scratch) as temporary:
        folder = Path(temporary)
        manifest = simulate_shards(setup.folder, folder, shards=LARGE_INDEX_SHARDS)
        with started_arms((ARM,), replace(setup, folder=folder)) as ((arm,), _):
            seconds = arm.process.call("train", ArmHost.open, "train")
            memory = arm.process.usage().memory_bytes
            arm.process.call("closing", ArmHost.close)
    return LargeIndex(LARGE_INDEX_SHARDS, manifest.num_samples, seconds, memory)


def memory_over_epochs(setup: ArmSetup) -> EpochMemory | None:
    """Iterate over a few clips in a process of its own; None where the system doesn't tell what is resident."""
    if resident_bytes() is None:
        return None
    with tempfile.TemporaryDirectory(prefix="epochs-", dir=setup.scratch) as temporary:
        folder = Path(temporary)
        part = link_clips(setup.folder, load_manifest(setup.folder), folder, limit=MEMORY_CLIPS)
        here = replace(setup, folder=folder)
        with (
            Guard() as guard,
            GroupProcess("memory over epochs", answer, _resident_after_epochs, here, guard=guard) as process,
        ):
            found: dict[int, int] = process.receive()
    return EpochMemory(part.num_samples, found)


def simulate_shards(folder: Path, out: Path, *, shards: int) -> Manifest:
    """Fill `out` with links to a split's shards, as if there were so many, and an index that has them all."""
    import pyarrow as pa

    manifest = load_manifest(folder)
    table = read_samples(folder)
    of_shard = table.column("shard").to_numpy(zero_copy_only=False)
    rows = [np.flatnonzero(of_shard == entry.name) for entry in manifest.shards]
    copies = [number % len(rows) for number in range(shards)]
    taken = table.take(np.concatenate([rows[copy] for copy in copies]))
    number = np.repeat(np.arange(shards), [len(rows[copy]) for copy in copies])
    columns: dict[str, Any] = {name: taken.column(name) for name in SCHEMA.names}
    columns["shard"] = pa.array([shard_name(n) for n in number.tolist()])
    for name in ("key", "video"):
        values = zip(number.tolist(), columns[name].to_pylist(), strict=True)
        columns[name] = pa.array([f"{n}/{value}" for n, value in values])
    samples_file = write_samples(out, pa.table(columns, schema=SCHEMA))
    entries = []
    for n, copy in enumerate(copies):
        (out / shard_name(n)).symlink_to(folder / manifest.shards[copy].name)
        entries.append(manifest.shards[copy].model_copy(update={"name": shard_name(n)}))
    simulated = manifest.model_copy(update={"samples_file": samples_file, "shards": tuple(entries)})
    simulated.write(out)
    return simulated


def _resident_after_epochs(setup: ArmSetup) -> dict[int, int]:
    """The bytes that are resident after some numbers of epochs."""
    from vidpipe.bench.loader.arms.vidpipe_loader import open_loader

    found = {}
    with open_loader(setup, setup.folder, backend="torch") as loader:
        for epoch in range(1, max(MEMORY_AFTER_EPOCHS) + 1):
            for batch in loader:
                del batch
            if epoch in MEMORY_AFTER_EPOCHS:
                gc.collect()
                found[epoch] = resident_bytes() or 0
    return found
