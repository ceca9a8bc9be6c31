"""The prep recipe: which data set, how its clips are cut, and how they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from vidpipe.datasets import get_format
from vidpipe.datasets.base import DatasetFormat
from vidpipe.errors import UsageError
from vidpipe.recipes import Section, SpelledSize, find_recipe, load_recipe, validate
from vidpipe.shards.codecs import CODECS, CodecSpec, stores_whole_videos
from vidpipe.shards.manifest import Normalization
from vidpipe.video.spec import MAX_COUNT, ClipSpec, Count, Rate, Sampling, Side


def _fraction(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(f"{value.strip()[:-1].strip()}e-2")  # the float that 0.07 is, which 7 / 100 needn't be
    return value


def _clip_counts(value: object) -> object:
    counts = list(value.values()) if isinstance(value, Mapping) else [value]
    if not all(type(count) is int and 1 <= count <= MAX_COUNT for count in counts):
        raise ValueError(f"expected 1 to {MAX_COUNT}, for all splits or split by split as in {{train: 1, val: 4}}")
    return value


class PrepRecipe(Section):
    """What `vidpipe prep` does, apart from the options of the data set's own format.

    Attributes:
        dataset: name of the annotation format, see `vidpipe list datasets`.
        frames: frames of a stored clip.
        stride: source frames from one frame of a clip to the next; None with `fps` or `sampling: uniform`.
        fps: frames a second by presentation time, instead of a stride.
        sampling: `stride`, `fps` or `uniform` (evenly over the whole video); by default what the two fields above say.
        clips: clips of each video, for all splits or split by split.
        height: short side of the stored frames, in pixels.
        codec: how frames are stored. `mp4` stores each video once and whole: `clips` is 1 then, and `frames` and `stride` are
            what trainers take of it by default.
        dtype: of codec `tensor`: `uint8`, or `float16` for normalised values.
        quality: of codec `jpeg`, 1 to 100; 90 by default.
        crf: of codec `mp4`, x264's constant rate factor, 0 to 51; 20 by default.
        crop: fixed (width, height) of stored frames: scaled to cover, then cropped about the centre.
        horizontal_flip: whether mirroring a clip keeps its label true.
        normalize: mean and std that trainers are to apply.
        shard_size_mb: target size of a shard in 10^6 bytes; a target, not a limit.
        seed: of the global shuffle and of the clips' jitter.
        timeout_seconds: for each video; its decoder is killed after that.
        max_rejects: share of all videos that may be rejected ("1%" or 0.01).
    """

    dataset: str
    frames: Count = 32
    stride: Count | None = None
    fps: Rate | None = None
    sampling: Sampling | None = None
    clips: Annotated[int | dict[str, int], BeforeValidator(_clip_counts)] = 1
    height: Side = 240
    crop: Annotated[tuple[Side, Side], SpelledSize] | None = None
    codec: str = "tensor"
    dtype: Literal["uint8", "float16"] = "uint8"
    quality: int | None = Field(None, ge=1, le=100)
    crf: int | None = Field(None, ge=0, le=51)
    horizontal_flip: bool = True
    normalize: Normalization = Normalization()
    shard_size_mb: float = Field(512, gt=0)
    seed: int = 0
    decoder: Literal["auto", "pyav", "decord", "ffmpeg"] = "auto"
    strict: bool = False
    timeout_seconds: float = Field(120, gt=0)
    max_rejects: Annotated[float, BeforeValidator(_fraction)] = Field(0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> PrepRecipe:
        if self.codec not in CODECS:
            raise ValueError(f"codec {self.codec!r} is not known; there are: {', '.join(CODECS)}")
        if self.quality is not None and self.codec != "jpeg":
            raise ValueError(f"quality goes with codec: jpeg, not with {self.codec}")
        if self.crf is not None and self.codec != "mp4":
            raise ValueError(f"crf goes with codec: mp4, not with {self.codec}")
        if self.dtype != "uint8" and self.codec != "tensor":
            raise ValueError(f"dtype {self.dtype} goes with codec: tensor, not with {self.codec}")
        if self.codec == "mp4" and self.decoder == "decord":
            raise ValueError("codec: mp4 is encoded by ffmpeg, which decodes too: decoder: auto or ffmpeg")
        if min(self.normalize.std) <= 0:
            raise ValueError(
                f"normalize.std is what trainers divide by: expected more than 0, got {self.normalize.std}"
            )
        if self.sampling == "fps" and self.fps is None:
            raise ValueError("sampling: fps needs `fps: FRAMES_A_SECOND`")
        if self.fps is not None and self.sampling not in (None, "fps"):
            raise ValueError(f"fps goes with sampling: fps, not with {self.sampling}; set fps to null")
        if self.stride is not None and (self.fps is not None or self.sampling not in (None, "stride")):
            raise ValueError("stride goes with sampling: stride only; set stride, or fps and sampling, to null")
        return self

    @property
    def codec_spec(self) -> CodecSpec:
        """The codec with its parameters."""
        return CodecSpec(
            name=self.codec,
            dtype=self.dtype,
            quality=self.quality,
            crf=self.crf,
            mean=self.normalize.mean if self.dtype == "float16" else None,
            std=self.normalize.std if self.dtype == "float16" else None,
        )

    def clip_spec(self, split: str) -> ClipSpec:
        """How clips of a split are cut: jittered in train, centred elsewhere."""
        clips = self.clips if isinstance(self.clips, int) else self.clips.get(split, 1)
        if stores_whole_videos(self.codec_spec):
            clips = 1
        sampling = self.sampling or ("fps" if self.fps else "stride")
        return ClipSpec(
            frames=self.frames,
            sampling=sampling,
            stride=self.stride or 1,
            fps=self.fps,
            clips=clips,
            height=self.height,
            crop=self.crop,
            jitter=split == "train",
            seed=self.seed,
        )


def _displaced(written: Mapping[str, Any]) -> Iterator[str]:
    """Of the keys that say how a clip's frames follow each other, those that don't go with what is written over them."""
    if written.get("stride") is not None:
        yield from ("fps", "sampling")
    if written.get("fps") is not None:
        yield from ("stride", "sampling")
    sampling = written.get("sampling")
    if sampling is not None:
        yield from (key for key in ("stride", "fps") if key != sampling)


def load_prep_recipe(name: str, overrides: Sequence[str] = ()) -> tuple[PrepRecipe, DatasetFormat]:
    """A recipe by name or path, with `key=value` overrides, and the data set's format with its own options.

    In the file, the format's options stand beside the recipe's own keys. An overridden `stride`, `fps` or `sampling` displaces
    what the recipe has of the other two, where they don't go together.

    Raises:
        UsageError: no such recipe or data set, an unknown key, or a value that is not allowed.
    """
    path = find_recipe("prep", name)
    raw = load_recipe("prep", name, overrides, displaced=_displaced)
    if "dataset" not in raw:
        raise UsageError(f"recipe {path}: dataset: required, but missing")
    format_class = get_format(str(raw["dataset"]))
    options = {key: raw.pop(key) for key in list(raw) if key in format_class.model_fields}
    recipe = validate(PrepRecipe, raw, where=f"recipe {path}", extra_keys=format_class.model_fields)
    return recipe, validate(format_class, options, where=f"recipe {path}")
