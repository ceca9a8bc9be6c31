"""Shards are read by others' code: webdataset, DALI's reader, tarfile with numpy, pandas."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vidpipe.shards.manifest import load_manifest


def _shards(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def _by_tarfile(folder: Path) -> dict[str, tuple[int, np.ndarray, dict[str, object]]]:
    samples = {}
    for shard in _shards(folder):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        for key in sorted({name.partition(".")[0] for name in members}):
            video = np.load(io.BytesIO(members[f"{key}.npy"]))
            samples[key] = (int(members[f"{key}.cls"]), video, json.loads(members[f"{key}.json"]))
    return samples


def test_stock_webdataset_decodes_array_label_and_json(real_shards: Path) -> None:
    import webdataset as wds

    folder = real_shards / "train"
    expected = _by_tarfile(folder)
    seen = {s["__key__"]: s for s in wds.WebDataset(_shards(folder), shardshuffle=False).decode()}
    assert set(seen) == set(expected) and len(seen) == 7
    classes = load_manifest(folder).classes
    for key, (label, video, description) in expected.items():
        assert seen[key]["cls"] == label and isinstance(seen[key]["cls"], int)
        assert classes[label] == seen[key]["json"]["label"] == description["label"]
        np.testing.assert_array_equal(seen[key]["npy"], video)
        assert video.dtype == np.uint8 and video.shape[0] == 16 and min(video.shape[1:3]) == 240


def test_dalis_own_reader_gives_the_same_frames_and_labels(real_shards: Path) -> None:
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    folder = real_shards / "train"
    expected = _by_tarfile(folder)

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        payload, label = dali.fn.readers.webdataset(
            paths=_shards(folder),
            index_paths=[shard.replace(".tar", ".idx") for shard in _shards(folder)],
            ext=["npy", "cls"],
            missing_component_behavior="error",
        )
        return dali.fn.decoders.numpy(payload), label

    pipe = pipeline()
    pipe.build()
    for key in expected:
        video, label = (output.as_array()[0] for output in pipe.run())
        np.testing.assert_array_equal(video, expected[key][1])
        assert int(bytes(label)) == expected[key][0]


def test_pandas_reads_the_index_and_its_offsets_are_true(real_shards: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    folder = real_shards / "train"
    frame = pandas.read_parquet(folder / "samples.parquet")
    expected = _by_tarfile(folder)
    assert list(frame.key) == list(expected)
    for row in frame.itertuples():
        content = (folder / row.shard).read_bytes()[row.payload_offset : row.payload_offset + row.payload_sizes[0]]
        np.testing.assert_array_equal(np.load(io.BytesIO(content)), expected[row.key][1])


def test_the_same_video_is_never_in_two_places(real_shards: Path) -> None:
    videos = [d["video"] for split in ("train", "val") for _, _, d in _by_tarfile(real_shards / split).values()]
    assert len(videos) == len(set(videos)) == 10
