from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prep.interrupted_runs import wait_for_end
from video.numbered import MakeVideo, numbered_frames, read_numbers

from vidpipe.errors import UsageError, VideoError, VidpipeError
from vidpipe.video.decode import Decoder, extract_clips
from vidpipe.video.ffmpeg import _tied_to_parent, failure, ffmpeg_path, ffmpeg_version, run_ffmpeg
from vidpipe.video.probe import probe
from vidpipe.video.spec import ClipSpec

ALL: tuple[Decoder, ...] = ("pyav", "decord", "ffmpeg")
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
NAMES = [
    "with space.mp4",
    "-leading-dash.mp4",
    "quotes'\"`$(x);&|.mp4",
    "new\nline\ttab.mp4",
    "concat:a|b.mp4",
    "http:x.mp4",
    "percent%03d[1]*?.mp4",
    "日本語-é.mp4",
    os.fsdecode(b"latin1-\xe9\xff.mp4"),
    os.fsdecode(b"latin1-\xe9.avi"),
]


def test_run_gives_stdout_and_takes_stdin(tmp_path: Path) -> None:
    raw = numbered_frames(3, 64, 32).tobytes()
    source = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x32", "-i", "pipe:0"]
    assert run_ffmpeg([*source, "-f", "rawvideo", "pipe:1"], timeout_seconds=60, stdin=raw) == raw
    assert b"ffmpeg" in run_ffmpeg(["-version"], timeout_seconds=60)
    assert ffmpeg_version()[:1] in "nN0123456789"


def test_failure_and_timeout_are_told(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="No such file") as raised:
        run_ffmpeg(["-v", "error", "-i", str(tmp_path / "none.mp4"), "-f", "null", "-"], timeout_seconds=60)
    assert raised.value.reason == "ffmpeg"
    endless = ["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc", "-f", "null", "-"]
    with pytest.raises(VideoError, match=r"0\.5 s") as raised:
        run_ffmpeg(endless, timeout_seconds=0.5)
    assert raised.value.reason == "timeout"


def test_another_ffmpeg_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    static = ffmpeg_path()
    ffmpeg_path.cache_clear()
    monkeypatch.setenv("VIDPIPE_FFMPEG", "no-such-ffmpeg")
    with pytest.raises(UsageError, match="VIDPIPE_FFMPEG=no-such-ffmpeg"):
        ffmpeg_path()
    monkeypatch.setenv("VIDPIPE_FFMPEG", static)
    assert ffmpeg_path() == static
    ffmpeg_path.cache_clear()


@pytest.mark.parametrize(
    ("program", "kind", "named"),
    [
        ("echo \"Unrecognized option 'stats_enc_pre:v'.\" >&2; exit 8", VidpipeError, "stats_enc_pre"),
        ("kill -SEGV $$", VideoError, "SIGSEGV"),
        ("exit 183", VideoError, "exit code 183"),
        ("exit 244", VideoError, "not enough memory"),
    ],
)
def test_an_ffmpeg_that_fails_in_other_ways(
    program: str,
    kind: type[VidpipeError],
    named: str,
    ffmpeg_video: MakeVideo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = ffmpeg_video("x.mp4", *H264, frames=4)
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    monkeypatch.setattr("vidpipe.video.ffmpeg.ffmpeg_path", lambda: str(fake))
    with pytest.raises(kind, match=named) as raised:
        extract_clips(path, ClipSpec(), key="k", decoder="ffmpeg")
    assert type(raised.value) is kind


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name) for name in NAMES])
def test_any_file_name_works(
    name: str, ffmpeg_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ffmpeg_video(f"plain{Path(name).suffix}", *H264, frames=20).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for given in (path, Path(name), name):
        assert probe(given).num_frames == 20
    for decoder in ALL:
        (clip,) = extract_clips(name, ClipSpec(frames=4, height=128), key=name, decoder=decoder).clips
        assert read_numbers(clip.video) == clip.frame_indices.tolist()


def test_ffmpeg_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """The child decodes a pipe that never ends; its parent gets SIGKILL, as prep does to a worker that hangs."""
    pipe = tmp_path / "endless.avi"
    os.mkfifo(pipe)
    program = (
        "import sys; from vidpipe.video.ffmpeg import run_ffmpeg;"
        "run_ffmpeg(['-v', 'error', '-i', sys.argv[1], '-f', 'null', '-'], timeout_seconds=600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(pipe)])
    writing = _opened_for_writing(pipe, parent)
    # ffmpeg has opened the pipe, so it is the only child: what looked for the program before is over.
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text(encoding="ascii").split()
    assert Path(f"/proc/{child}/cmdline").read_bytes().startswith(os.fsencode(ffmpeg_path()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_for_end([int(child)])
    os.close(writing)


def _opened_for_writing(pipe: Path, reader: subprocess.Popen[bytes]) -> int:
    """Descriptor of a named pipe, once somebody has opened it to read."""
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO and reader.poll() is None, "nobody reads it"
        time.sleep(0.02)


def test_an_ffmpeg_that_knows_too_little_isnt_taken_for_damage() -> None:
    """What 7.0 says of a value that came with 7.1."""
    said = (
        '[h264 @ 0x1] Unable to parse option value "codec" as boolean\n[h264 @ 0x1] Error setting option apply_cropping'
    )
    assert type(failure(said.encode(), 234)) is VidpipeError and "too old" in str(failure(said.encode(), 234))
    assert isinstance(failure(b"[h264 @ 0x1] Invalid NAL unit size", 69), VideoError)
    killed = failure(b"", -9)
    assert isinstance(killed, VideoError) and killed.reason == "crash" and "SIGKILL" in str(killed)


def test_an_ffmpeg_that_cant_be_started_isnt_taken_for_damage(
    tmp_path: Path, ffmpeg_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    path = ffmpeg_video("plain.mp4", *H264, frames=20)
    monkeypatch.setattr("vidpipe.video.ffmpeg.ffmpeg_path", lambda: str(program))
    with pytest.raises(VidpipeError, match=f"{program} can't be started: .*No such file") as caught:
        extract_clips(path, ClipSpec(frames=4, height=128), key="plain", decoder="ffmpeg")
    assert type(caught.value) is VidpipeError


@pytest.mark.parametrize("setpriv", ["none", "one that doesn't know the option"])
def test_ffmpeg_runs_where_no_setpriv_ties_it_to_its_parent(
    setpriv: str, tmp_path: Path, ffmpeg_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ffmpeg_video("plain.mp4", *H264, frames=20)
    if setpriv != "none":
        program = tmp_path / "setpriv"
        program.write_text("#!/bin/sh\necho \"setpriv: unrecognized option '$1'\" >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    _tied_to_parent.cache_clear()
    try:
        (clip,) = extract_clips(path, ClipSpec(frames=4, height=128), key="plain", decoder="ffmpeg").clips
    finally:
        _tied_to_parent.cache_clear()
    assert read_numbers(clip.video) == clip.frame_indices.tolist()
