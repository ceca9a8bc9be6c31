"""What reports say of the machine, with an `nvidia-smi` that answers as NVIDIA's does."""

from __future__ import annotations

from pathlib import Path

import pytest

import vidpipe
from vidpipe.bench.machine import describe_machine, package_versions


def test_gpus_are_named_with_their_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 580.159.04'\necho 'NVIDIA L4, 580.159.04'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = describe_machine()
    assert machine.gpu == ("NVIDIA H100 80GB HBM3 (driver 580.159.04)", "NVIDIA L4 (driver 580.159.04)")
    assert "NVIDIA H100" in str(machine)


def test_a_checkout_that_isnt_installed_has_a_version_too() -> None:
    versions = package_versions()
    assert versions["vidpipe"] == vidpipe.__version__ and versions["torch"]
