"""What the GPU benchmark finds, row by row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A stretch of work in full flow.

    Attributes:
        clips: that were done in it.
        cpu_seconds: of all threads and processes; 0 where the system doesn't tell.
        gpu_bytes: most of the device's memory that was in use, beyond what was before; None without a GPU.
    """

    clips: int
    seconds: float
    cpu_seconds: float
    gpu_bytes: int | None

    @property
    def clips_per_second(self) -> float:
        """Clips by seconds."""
        return self.clips / self.seconds


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A ceiling that memory or bus sets.

    Attributes:
        gigabytes_per_second: (10^9 bytes).
        clips_per_second: of a clip's 8-bit frames, as the codec tensor stores them.
    """

    name: str
    gigabytes_per_second: float
    clips_per_second: float


@dataclass(frozen=True, slots=True)
class DecoderRow:
    """A decoder alone, fed from memory, its output left where it is."""

    name: str
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """Ready batches on the device: bfloat16 [B, 3, T, size, size], normalised.

    Attributes:
        gpu_seconds_per_clip: time of all kernels and copies on the device; None where it couldn't be profiled.
        host_bytes: of the row's processes, without mapped files; None where the system doesn't tell.
        pinned_bytes: page-locked memory of torch's, which the system may or may not count among that; None without a GPU.
        first_batch_seconds: from opening to the first batch.
        largest_difference: to the reference on the CPU, in normalised units, but for a frame of 2 pixels; None where the clips
            are not the same.
    """

    name: str
    rate: Rate
    gpu_seconds_per_clip: float | None
    host_bytes: int | None
    pinned_bytes: int | None
    first_batch_seconds: float
    largest_difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A training step.

    Attributes:
        model: the train recipe's name, with what was changed in it.
        clip: frames, stride and size, in words.
        codec: of the shards that it was fed from end to end.
        cached: on one batch that stays on the device.
        end_to_end: on the loader's batches.
        wait_share: of the time, end to end, that the training loop waited for its next batch, 0 to 1: while it does, the GPU may
            still be at work, so that its idle time is less.
        queued_alone, queued_fed: seconds that the host takes to queue a step on the device, on that one batch and on the loader's:
            threads of the loader hold Python's lock meanwhile. A step that takes longer than the device's own work waits for it.
        gpu_bytes: most that tensors took; None without a GPU.
    """

    model: str
    clip: str
    codec: str
    batch_size: int
    parameters: int
    cached: Rate
    end_to_end: Rate
    wait_share: float
    queued_alone: float
    queued_fed: float
    gpu_bytes: int | None
