"""The command line's surface: what there is, how fast it answers, and the package as it is installed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import RunCommand, run_command

import vidpipe as package

REPOSITORY = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "nvidia", "decord", "av", "timm", "pyarrow", "ray", "matplotlib", "numpy", "pydantic", "rich")


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vidpipe', '--help']\n"
        "from vidpipe.cli import main\n"
        "try: main()\n"
        f"finally: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    commands = re.findall(r"^  ([a-z]+) ", result.stdout.partition("Commands")[2], flags=re.MULTILINE)
    assert sorted(commands) == [
        *("bench", "doctor", "eval", "features", "inspect", "list", "predict", "prep", "train", "verify")
    ]
    assert "HEAVY []" in result.stdout


def test_the_version_is_the_packages(vidpipe: RunCommand) -> None:
    shown = vidpipe("--version")
    assert (shown.code, shown.out) == (0, f"vidpipe {package.__version__}\n")


def test_the_packages_names_are_there() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert all(getattr(package, name) for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))  # what completion goes by


@pytest.mark.parametrize("what", ["recipes", "datasets", "codecs"])
def test_lists_have_a_name_and_a_sentence(vidpipe: RunCommand, what: str) -> None:
    result = vidpipe("list", what)
    assert result.code == 0
    rows = [line.split(maxsplit=1) for line in result.out.splitlines()]
    assert len(rows) >= 2 and all(len(row) == 2 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("train", "vivt", "--shards", "x"), 2, "did you mean vivit"),
        (("train", "vivit-tiny", "--shards", "absent"), 1, "no such folder"),
        (("train", "vivit-tiny", "--shards", "absent", "--set", "optim.lrr=1"), 2, "did you mean lr"),
        (("eval", "absent", "--shards", "absent"), 1, "absent"),
        (("predict", "absent", "x.mp4"), 1, "absent"),
        (("inspect", "absent"), 1, "no such folder"),
        (("bench", "loader", "absent"), 1, "absent"),
        (("list", "fish"), 2, "fish"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    vidpipe: RunCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = vidpipe(*arguments)
    assert result.code == code and text in result.err and "Traceback" not in result.err


def test_results_come_whole_where_stdout_lacks_their_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("caf\xe9", "\u65e5\u672c", os.fsdecode(b"\xff")):
        (tmp_path / "videos" / label).mkdir(parents=True)
        (tmp_path / "videos" / label / "x.mp4").touch()
    command = ["prep", "folder", "--source", str(tmp_path / "videos"), "--dry-run"]
    shown = {}
    for encoding in ("ascii", "utf-8"):
        for arguments in (command, [*command, "--json"]):
            stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            monkeypatch.setattr(sys, "stdout", stdout)
            assert run_command(arguments, monkeypatch) == 0
            stdout.flush()
            shown[encoding, arguments[-1]] = stdout.buffer.getvalue().decode(encoding)
    assert "caf\\xe9 1" in shown["ascii", "--dry-run"] and "caf\xe9 1" in shown["utf-8", "--dry-run"]
    free = {"free_bytes": 0}
    assert json.loads(shown["ascii", "--json"]) | free == json.loads(shown["utf-8", "--json"]) | free


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    """The wheel holds the recipes: installed without a checkout, `list recipes` and `prep motion` work."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheels, site, empty = tmp_path / "dist", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(REPOSITORY)], check=True)
    (wheel,) = wheels.glob("vidpipe-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "vidpipe", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        result = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    where = "import vidpipe; print(vidpipe.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run(
        [sys.executable, "-P", "-c", where], env=environment, capture_output=True, text=True, check=True
    )
    assert str(site) in found.stdout
    assert "prep/motion" in run("list", "recipes") and "train/vivit-tiny" in run("list", "recipes")
    run("prep", "motion", "--set", "train_videos=1", "--set", "val_videos=1")
    assert (empty / "shards/motion/train/manifest.json").is_file()
