"""An index of 10,000 shards: opened, sampled in every order, within so many bytes a sample."""

from __future__ import annotations

import json
import os
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import vidpipe
from vidpipe.loader.reading.index import Strings, load_index
from vidpipe.memory import resident_bytes
from vidpipe.shards.index import SCHEMA, write_samples
from vidpipe.shards.manifest import load_manifest

pytestmark = pytest.mark.slow

SHARDS, SAMPLES = 10_000, 500_000


@pytest.fixture(scope="module")
def many_shards(motion_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of as many shards, all of them one file of `motion`, whose first clip every sample is."""
    source, folder = motion_shards / "train", tmp_path_factory.mktemp("many")
    numbers = pa.array(np.arange(SAMPLES))
    shard = pc.cast(pa.array(np.arange(SAMPLES) * SHARDS // SAMPLES), pa.string())
    first = pq.read_table(source / "samples.parquet").slice(0, 1)
    frames = len(first.column("payload_crc32")[0])
    columns = {name: pa.repeat(first.column(name)[0], SAMPLES) for name in SCHEMA.names}
    columns["key"] = pc.binary_join_element_wise(pc.cast(numbers, pa.string()), "000", "-")
    columns["shard"] = pc.binary_join_element_wise(shard, ".tar", "")
    columns["video"] = pc.binary_join_element_wise("train/a class of some name/", columns["key"], ".mp4", "")
    columns["label"] = pa.array(np.random.default_rng(0).integers(0, 8, SAMPLES).astype(np.int32))
    checksums = np.random.default_rng(0).integers(0, 2**32, SAMPLES * frames, dtype=np.uint32)  # no easy compression
    columns["payload_crc32"] = pa.ListArray.from_arrays(
        pa.array(np.arange(SAMPLES + 1, dtype=np.int32) * frames), pa.array(checksums)
    )
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    written = write_samples(folder, table)
    manifest = json.loads((source / "manifest.json").read_text())
    entry = {**manifest["shards"][0], "samples": SAMPLES // SHARDS}
    manifest["shards"] = [{**entry, "name": f"{number}.tar"} for number in range(SHARDS)]
    manifest["samples_file"] = written.model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "0.tar").write_bytes((source / "00000.tar").read_bytes())
    for number in range(1, SHARDS):
        os.link(folder / "0.tar", folder / f"{number}.tar")
    return folder


def test_the_index_takes_so_many_bytes_a_sample(many_shards: Path) -> None:
    manifest = load_manifest(many_shards)
    pa.default_memory_pool().release_unused()
    before = resident_bytes()
    index = load_index(many_shards, manifest)
    after = resident_bytes()
    values = [getattr(index, field.name) for field in fields(index)]
    taken = sum(v.nbytes for v in values if isinstance(v, np.ndarray))
    taken += sum(v.content.nbytes + v.starts.nbytes for v in values if isinstance(v, Strings))
    assert 100 < taken / len(index) < 170
    assert before is None or after is None or after - before < 1.5 * taken, "what it took to read it is given back"


@pytest.mark.parametrize("options", [{}, {"shuffle": "windowed"}, {"balance": "class"}, {"where": "label in (1, 2)"}])
def test_the_first_batch_of_ten_thousand_shards(many_shards: Path, options: dict[str, str]) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    settings = vidpipe.LoaderOptions(check="off", **options)  # the checksums are made up
    with vidpipe.Loader(
        many_shards, batch_size=8, size=32, augment="train", backend="torch", options=settings
    ) as loader:
        batch = next(iter(loader))
        print(f"{options}: {time.perf_counter() - begun:.2f} s, {time.process_time() - cpu:.2f} s of CPU")
        assert len(set(batch.key)) == 8
        shards = {int(key.partition("-")[0]) * SHARDS // SAMPLES for key in batch.key}
        if "where" in options:
            assert set(batch.label.tolist()) <= {1, 2}
        assert len(shards) > 3
