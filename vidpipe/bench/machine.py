"""What a benchmark ran on: hardware and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import vidpipe
from vidpipe.cores import usable_cores

_PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "simplejpeg", "decord2", "decord", "av"),
    *("nvidia-dali-cuda130", "nvidia-dali-cuda120", "webdataset", "litdata", "mosaicml-streaming", "torchcodec"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware.

    Attributes:
        cores: that this process may use.
        memory_bytes: of the machine; None where the system doesn't tell.
        gpu: the GPUs that `nvidia-smi` lists, each with its driver's version.
        load: mean number of running processes in the minute before; well above 0: others were at work.
    """

    cpu: str
    cores: int
    memory_bytes: int | None
    gpu: tuple[str, ...]
    system: str
    load: float

    def __str__(self) -> str:
        memory = f", {self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else ""
        return f"{self.cpu}, {self.cores} cores{memory}, {', '.join(self.gpu) or 'no GPU'}"


def describe_machine() -> Machine:
    """The machine that this process runs on."""
    memory = None
    with suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_bytes=memory,
        gpu=_gpu_names(),
        system=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
    )


def package_versions() -> dict[str, str]:
    """Versions of Python and of what the arms use; packages that aren't installed are left out."""
    versions = {"python": platform.python_version(), "vidpipe": vidpipe.__version__}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_names() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        rows = (line.rpartition(", ") for line in done.stdout.splitlines() if line.strip())
        return tuple(f"{name} (driver {version})" for name, _, version in rows)
    return ()
