"""`python train_process.py SHARDS OUT [JSON of recipe sections]`: a training run in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.train.toy import make_toy_recipe
from vidpipe.train.loop import train

if __name__ == "__main__":
    shards, out, sections = sys.argv[1:]
    recipe = make_toy_recipe(**json.loads(sections))
    sys.exit(train(recipe, shards=Path(shards), out=Path(out), resume=True, device="cpu").exit_code)
