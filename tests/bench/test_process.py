"""Processes of benchmarks: what they use is counted whole, and Ctrl-C is left to the benchmark's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidpipe.bench.guard import Guard
from vidpipe.bench.process import GroupProcess, answer
from vidpipe.bench.usage import group_cpu_seconds
from vidpipe.errors import VidpipeError

BURN = "import time\nwhile time.process_time() < 0.3: pass"


def burn_and_count() -> float:
    """What the group is said to have used, after a child that used 0.3 s has ended."""
    subprocess.run([sys.executable, "-S", "-c", BURN], check=True)
    return group_cpu_seconds(os.getpgrp())


def blocked_signals() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def fail_at_length() -> None:
    raise ValueError("first words\n" + "at some place\n" * 100 + "last words")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system doesn't tell")
def test_time_of_children_that_have_ended_counts() -> None:
    with Guard() as guard, GroupProcess("burns", answer, burn_and_count, guard=guard, start="spawn") as process:
        assert process.receive() >= 0.3


def test_a_process_is_deaf_to_interrupts_from_its_start() -> None:
    with Guard() as guard, GroupProcess("waits", answer, blocked_signals, guard=guard, start="spawn") as process:
        assert signal.SIGINT in process.receive()
    assert signal.SIGINT not in blocked_signals()


def test_a_long_error_is_one_line_with_both_its_ends() -> None:
    with (
        Guard() as guard,
        GroupProcess("fails", answer, fail_at_length, guard=guard, start="spawn") as process,
        pytest.raises(VidpipeError, match=r"^fails: ValueError: first words .* \.\.\. .* last words$") as caught,
    ):
        process.receive()
    assert len(str(caught.value)) < 400
