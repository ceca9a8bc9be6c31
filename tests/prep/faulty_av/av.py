"""The real PyAV, but videos of certain names make it misbehave; a folder to put on PYTHONPATH.

`hangs.mp4`: never opens, and ignores SIGTERM; $HANGING, if set, is a file that gets its process's PID. `segfaults.mp4`: dies
of SIGSEGV. `unreadable.mp4` and `disconnected.mp4`: their disk, or their file server, fails whoever reads them, not whoever opens
them. `vanishes.mp4` is removed when it is opened, `unmounts.mp4` takes the folder above its own along, whose name gets `.gone`.
"""

import errno
import os
import signal
import sys
import time
from io import FileIO
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
del sys.modules["av"]
import av  # noqa: E402  the real one, which stays in this one's place

FAILURES = {"unreadable.mp4": errno.EIO, "disconnected.mp4": errno.ENOTCONN}
real_open = av.open
real_path_open = Path.open


class FailingFile(FileIO):
    def readinto(self, buffer):
        code = FAILURES[Path(self.name).name]
        raise OSError(code, os.strerror(code))


def failing_path_open(path, mode="r", *arguments, **options):
    return FailingFile(path, mode) if path.name in FAILURES else real_path_open(path, mode, *arguments, **options)


def faulty_open(file, *arguments, **options):
    path = Path(file) if isinstance(file, str) else Path()
    if path.name == "hangs.mp4":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "HANGING" in os.environ:
            written = Path(os.environ["HANGING"] + ".tmp")
            written.write_text(str(os.getpid()))
            written.rename(os.environ["HANGING"])
        while True:
            time.sleep(1)
    if path.name == "segfaults.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name in FAILURES:
        raise av.error.OSError(FAILURES[path.name], "as libav says", file)
    if path.name == "vanishes.mp4":
        path.unlink()
    if path.name == "unmounts.mp4":
        source = path.parent.parent
        source.rename(source.with_name(f"{source.name}.gone"))
    return real_open(file, *arguments, **options)


av.open = faulty_open
Path.open = failing_path_open
