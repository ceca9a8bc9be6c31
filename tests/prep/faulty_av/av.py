"""The real PyAV, but videos of certain names make it misbehave; a folder to put on PYTHONPATH.

`hangs.mp4`: never opens, and ignores SIGTERM; $HANGING, if set, is a file that gets its process's PID. `segfaults.mp4`: dies
of SIGSEGV.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
del sys.modules["av"]
import av  # noqa: E402  the real one, which stays in this one's place

real_open = av.open


def faulty_open(file, *arguments, **options):
    name = Path(file).name if isinstance(file, str) else ""
    if name == "hangs.mp4":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "HANGING" in os.environ:
            written = Path(os.environ["HANGING"] + ".tmp")
            written.write_text(str(os.getpid()))
            written.rename(os.environ["HANGING"])
        while True:
            time.sleep(1)
    if name == "segfaults.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return real_open(file, *arguments, **options)


av.open = faulty_open
