"""The parent's handle on a decoding child: jobs in, clips out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Event

from vidpipe.errors import VideoError
from vidpipe.prep import decoder_process
from vidpipe.prep.decoder_process import ClipResult, Decoded, Job
from vidpipe.video.child import Child

NUM_BUFFERS = 2


class Decoder:
    """A child process that decodes videos.

    While the caller deals with one video's clips the child decodes the next: there are two shared buffers.

    Args:
        timeout_seconds: for each video.
        stop: when set, waiting ends with Interrupted.
    """

    def __init__(self, *, timeout_seconds: float, stop: Event) -> None:
        self._child: Child[Job, Decoded] = Child(
            decoder_process.main, timeout_seconds=timeout_seconds, stop=stop, num_buffers=NUM_BUFFERS
        )

    def run(self, jobs: Iterable[Job]) -> Iterator[Decoded]:
        """The outcome of each job, in order. What `payload` gives for it is valid until the next one is asked for.

        Raises:
            Interrupted: `stop` was set.
            VidpipeError: decoding can't work at all here, for instance for a broken installation.
        """
        queue = iter(jobs)
        current = next(queue, None)
        try:
            if current is not None:
                self._child.send(current)
            while current is not None:
                outcome = self._outcome(current)
                following = next(queue, None)
                if following is not None:
                    self._child.send(following)
                yield outcome
                current = following
        except GeneratorExit:
            self._child.stop()  # with it goes the job that it is at
            raise

    def payload(self, job: Job, clip: ClipResult) -> dict[str, tuple[memoryview, ...]]:
        """The pieces of a clip's files by extension, as copy-free views of the shared buffer; let go of them before the next video."""
        memory = self._child.buffer(job.buffer)
        return {
            member.extension: tuple(memory[offset : offset + size] for offset, size in member.pieces)
            for member in clip.members
        }

    def close(self) -> None:
        """End the child and free the buffers."""
        self._child.close()

    def _outcome(self, job: Job) -> Decoded:
        try:
            return self._child.receive(job)
        except VideoError as error:
            return Decoded(error=error)
