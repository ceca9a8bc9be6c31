"""`vidpipe` that stops for ever at a point of finishing; a script for tests to kill: POINT SIGNAL_FILE ARGUMENTS...

POINT is `index` (all but the manifest of the first split is written), `manifest` (that is, too) or `clearing` (all is written).
SIGNAL_FILE appears when it is reached.
"""

import sys
import time
from pathlib import Path

import vidpipe.prep.run
from vidpipe.cli import main
from vidpipe.shards.manifest import Manifest

point, signal_file, *arguments = sys.argv[1:]
write_manifest = Manifest.write


def hold(*_):
    Path(signal_file).touch()
    while True:
        time.sleep(60)


def write_and_hold(manifest, folder):
    write_manifest(manifest, folder)
    hold()


if point == "clearing":
    vidpipe.prep.run.drop_leftovers = hold
else:
    Manifest.write = hold if point == "index" else write_and_hold
sys.argv = ["vidpipe", *arguments]
main()
