"""The arms of the loader benchmark. To add one: a file here and its row in `ARMS`."""

from __future__ import annotations

from typing import NamedTuple

from vidpipe.shards.codecs.base import CodecSpec


class ArmEntry(NamedTuple):
    """Where an arm lives ("module:Class"; imported in the arm's own process only), and which codecs it can read.

    Attributes:
        codecs: their names; any if there are none. Those that are named are meant with 8-bit frames.
    """

    target: str
    codecs: tuple[str, ...] = ()

    def reads(self, spec: CodecSpec) -> bool:
        """Whether it can read shards of such a codec."""
        return not self.codecs or (spec.name in self.codecs and spec.dtype == "uint8")


_ARMS = "vidpipe.bench.loader.arms"
# The order is that of tables.
ARMS: dict[str, ArmEntry] = {
    "memcpy": ArmEntry(f"{_ARMS}.memcpy:MemcpyArm"),
    "preadv": ArmEntry(f"{_ARMS}.preadv:PreadvArm", ("tensor",)),
    "vidpipe": ArmEntry(f"{_ARMS}.vidpipe_loader:VidpipeReadArm"),
    "vidpipe-unchecked": ArmEntry(f"{_ARMS}.vidpipe_loader:VidpipeUncheckedReadArm"),
    "vidpipe-torch": ArmEntry(f"{_ARMS}.vidpipe_loader:VidpipeTorchArm"),
    "vidpipe-dali": ArmEntry(f"{_ARMS}.vidpipe_loader:VidpipeDaliArm"),
    "dali-reader": ArmEntry(f"{_ARMS}.dali_reader:DaliArrayArm", ("tensor",)),
    "dali-jpeg": ArmEntry(f"{_ARMS}.dali_reader:DaliJpegArm", ("jpeg",)),
    "dali-filmstrip": ArmEntry(f"{_ARMS}.dali_filmstrip:DaliFilmstripArm", ("jpeg",)),
    "webdataset": ArmEntry(f"{_ARMS}.web_dataset:WebDatasetArrayArm", ("tensor",)),
    "webdataset-jpeg": ArmEntry(f"{_ARMS}.web_dataset:WebDatasetJpegArm", ("jpeg",)),
    "webdataset-mp4": ArmEntry(f"{_ARMS}.web_dataset:WebDatasetMp4Arm", ("mp4",)),
    "litdata": ArmEntry(f"{_ARMS}.lit_data:LitDataArm", ("tensor",)),
    "mosaicml-streaming": ArmEntry(f"{_ARMS}.mosaicml_streaming:MosaicmlStreamingArm", ("tensor",)),
    "pyav": ArmEntry(f"{_ARMS}.pyav_on_the_fly:PyAvArm"),
    "torchcodec": ArmEntry(f"{_ARMS}.torchcodec_on_the_fly:TorchcodecArm"),
    "decord": ArmEntry(f"{_ARMS}.decord_on_the_fly:DecordArm"),
}

CEILING = "memcpy"
NO_LOADERS = frozenset({CEILING, "preadv"})  # what there is to reach, and nothing that one could use
ON_THE_FLY = "decord"
