"""The real PyAV, but opening a video called `hangs` spins for ever and ignores SIGTERM; a folder to put on PYTHONPATH."""

import signal
import sys
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
del sys.modules["av"]
import av  # noqa: E402  the real one, which stays in this one's place

real_open = av.open


def faulty_open(file, *arguments, **options):
    if Path(file).stem == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
    return real_open(file, *arguments, **options)


av.open = faulty_open
