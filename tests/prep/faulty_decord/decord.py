"""The real decord, but videos of certain names make it misbehave; a folder to put on PYTHONPATH.

`hangs`: spins for ever and ignores SIGTERM. `segfaults`: dies of SIGSEGV. `killed-once`, `killed-always`: waits to be killed
from outside, at the first attempt or at each. $FAULTY_LOG gets a line `PID NAME` for each video that is opened.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
del sys.modules["decord"]
import decord  # noqa: E402  the real one, which stays in this one's place

LOG = Path(os.environ["FAULTY_LOG"])
real_reader = decord.VideoReader


def faulty_reader(uri, *arguments, **options):
    name = Path(uri).stem
    earlier = name in LOG.read_text().split() if LOG.exists() else False
    with LOG.open("a") as log:
        log.write(f"{os.getpid()} {name}\n")
    if name == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
    if name == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "killed-always" or (name == "killed-once" and not earlier):
        time.sleep(600)
    return real_reader(uri, *arguments, **options)


decord.VideoReader = faulty_reader
