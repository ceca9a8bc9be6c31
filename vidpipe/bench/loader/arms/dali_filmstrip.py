"""Filmstrips, all frames of a clip in one tall JPEG: the layout that DALI decodes fastest, read by DALI on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from nvidia.dali import fn, types

from vidpipe.bench.clips import StoredClips
from vidpipe.bench.loader.arms.base import ArmSetup
from vidpipe.bench.loader.arms.dali_reader import DaliReaderArm, some_frames
from vidpipe.shards.tar import open_shard

MAX_JPEG_SIDE = 65_535


class DaliFilmstripArm(DaliReaderArm):
    """fn.readers.webdataset and fn.decoders.image on filmstrips."""

    title: ClassVar[str] = "DALI, JPEG filmstrips"
    about: ClassVar[str] = (
        "The stored frames compressed again, all frames of a clip in one tall JPEG, in shards of the same kind; "
        "fn.readers.webdataset and fn.decoders.image on the CPU, not shuffled (which favours it); "
        "train: fn.random_resized_crop and fn.crop_mirror_normalize."
    )
    decodes_anew: ClassVar[bool] = True

    @classmethod
    def objection(cls, setup: ArmSetup) -> str:
        """Only as many frames as a picture can be tall."""
        tallest = max(clip.frames * clip.height for clip in StoredClips(setup.folder).clips)
        return (
            ""
            if tallest <= MAX_JPEG_SIDE
            else f"a filmstrip would be {tallest} pixels tall, JPEG allows {MAX_JPEG_SIDE}"
        )

    def prepare(self) -> None:
        """Write the filmstrips, with the quality of the frames, to shards like those that they come from."""
        stored = StoredClips(self.setup.folder)
        for shard in stored.shards:
            with open_shard(self.setup.scratch / shard) as writer:
                for clip in (clip for clip in stored.clips if clip.shard == shard):
                    writer.add(clip.key, {"jpg": (stored.filmstrip(clip),)})

    def shards(self, stored: StoredClips) -> list[str]:
        """Those that `prepare` wrote."""
        return [str(self.setup.scratch / shard) for shard in stored.shards]

    def extensions(self, stored: StoredClips) -> list[str]:
        """One file."""
        del stored
        return ["jpg"]

    def video(self, files: list[Any], stored: StoredClips) -> Any:
        """A filmstrip has to be decoded whole; its rows are those of the frames, one below the other."""
        tall = fn.decoders.image(files[0], output_type=types.RGB)
        frames = stored.clips[0].frames
        shape = tall.shape(dtype=types.INT32)
        return some_frames(
            fn.reshape(tall, shape=fn.stack(np.int32(frames), shape[0] // frames, shape[1], shape[2])), stored
        )
