"""Fixtures that all tests share: real clips, generated videos, shards made from both, and the command line."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import CommandResult, RunCommand, run_command

REPOSITORY = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: before any of them imports torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def heeds_interrupts() -> None:
    """Processes that tests start heed Ctrl-C also where the tests themselves run in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def videos_dir() -> Path:
    """The folder of real clips: $VIDPIPE_TEST_VIDEOS, or shared/videos beside the checkout."""
    folder = Path(os.environ.get("VIDPIPE_TEST_VIDEOS", REPOSITORY.parent / "shared" / "videos"))
    if not (folder / "labels.csv").is_file():
        message = f"no real clips in {folder}; set VIDPIPE_TEST_VIDEOS to a folder that has them"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def vidpipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Runs `vidpipe ARGUMENTS...` in this process."""

    def run(*arguments: object) -> CommandResult:
        code = run_command([str(argument) for argument in arguments], monkeypatch)
        captured = capsys.readouterr()
        return CommandResult(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def session_command() -> Callable[..., int]:
    """Runs `vidpipe ARGUMENTS...` in this process, for fixtures of the whole session."""

    def run(*arguments: object) -> int:
        with pytest.MonkeyPatch.context() as monkeypatch:
            return run_command([str(argument) for argument in arguments], monkeypatch)

    return run


@pytest.fixture(scope="session")
def real_shards(
    videos_dir: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> Path:
    """The real clips in shards (7 train, 3 val; one damaged video rejected), several small shards for train."""
    out = tmp_path_factory.mktemp("real") / "shards"
    options = ("--max-rejects", "20%", "--frames", 16, "--stride", 2, "--clips", 1, "--shard-size-mb", 8)
    assert (
        session_command(
            "prep", "csv", "--source", videos_dir, "--set", "annotations=labels.csv", "--out", out, *options
        )
        == 0
    )
    return out


@pytest.fixture(scope="session")
def motion_shards(tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]) -> Path:
    """A small `motion` data set in shards: 8 classes, 32 train and 16 val clips; the videos are in its folder `videos`."""
    out = tmp_path_factory.mktemp("motion") / "shards"
    assert (
        session_command(
            "prep", "motion", "--out", out, "--set", "train_videos=4", "--set", "val_videos=2", "--shard-size-mb", 2
        )
        == 0
    )
    return out


@pytest.fixture(scope="session")
def codec_shards(
    motion_shards: Path, tmp_path_factory: pytest.TempPathFactory, session_command: Callable[..., int]
) -> dict[str, Path]:
    """The videos of `motion_shards` with every codec."""
    folders = {"tensor": motion_shards}
    for codec in ("jpeg", "mp4"):
        folders[codec] = tmp_path_factory.mktemp(codec) / "shards"
        videos = ("--source", motion_shards / "videos", "--set", "train_videos=4", "--set", "val_videos=2")
        assert session_command("prep", "motion", *videos, "--codec", codec, "--out", folders[codec]) == 0
    return folders


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server with a bucket named `data`."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    started = moto.ThreadedMotoServer("127.0.0.1", port=0)
    started.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = started.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("NO_PROXY", host)
        patch.setenv("no_proxy", host)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(s3_server: str, motion_shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The `motion` data set at a URL of its own; the cache is in the test's folder."""
    import s3fs

    from vidpipe.loader.remote import folder as remote

    monkeypatch.setenv("VIDPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    # On a busy machine the server may take its time; a read that is given up and tried again would be counted twice.
    monkeypatch.setattr(s3fs.S3FileSystem, "connect_timeout", 120)
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 120)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    name = "b" + re.sub("[^a-z0-9]", "", tmp_path.name.lower())[-50:]
    files.mkdir(name)
    for split in ("train", "val"):
        files.put(str(motion_shards / split), f"{name}/motion/{split}", recursive=True)
    return f"s3://{name}/motion"
