"""The arms of the loader benchmark. To add one: a file here and its row in `ARMS`."""

from __future__ import annotations

# Name to class. Modules are imported in the arm's own process only. The order is that of tables.
ARMS: dict[str, str] = {
    "memcpy": "vidpipe.bench.arms.memcpy:MemcpyArm",
    "vidpipe": "vidpipe.bench.arms.vidpipe_read:VidpipeReadArm",
    "vidpipe-unchecked": "vidpipe.bench.arms.vidpipe_read:VidpipeUncheckedReadArm",
    "vidpipe-torch": "vidpipe.bench.arms.vidpipe_loader:VidpipeTorchArm",
    "vidpipe-dali": "vidpipe.bench.arms.vidpipe_loader:VidpipeDaliArm",
    "dali-reader": "vidpipe.bench.arms.dali_reader:DaliReaderArm",
    "webdataset": "vidpipe.bench.arms.web_dataset:WebDatasetArm",
    "decord": "vidpipe.bench.arms.decord_on_the_fly:DecordArm",
}

CEILING = "memcpy"
ON_THE_FLY = "decord"
