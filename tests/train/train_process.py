"""`python train_process.py SHARDS OUT [JSON of recipe sections]`: a training run in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.train.toy import make_toy_recipe
from vidpipe.train.loop import train


def run(shards: Path, out: Path, sections: dict[str, Any]) -> int:
    """Train the toy recipe with sections updated, from where `out` is; gives the exit code."""
    return train(make_toy_recipe(**sections), shards=shards, out=out, resume=True, device="cpu").exit_code


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
