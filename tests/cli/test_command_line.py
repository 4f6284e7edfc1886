"""What all commands have in common: help, mistakes, the log, exit codes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from commands import ERROR, file_names, needs_matplotlib
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    RunCommand = Callable[..., CompletedProcess[str]]


MISTAKES = ("missing", "folder", "text", "empty", "cut", "keys", "nan")


# Where keys are missing, `inspect` proposes a command instead: tests/cli/test_inspect.py.
@pytest.mark.parametrize(
    ("command", "mistake"),
    [(c, m) for m in MISTAKES for c in ("group", "inspect") if (c, m) != ("inspect", "keys")],
)
def test_files_that_can_not_be_read_get_a_sentence(
    here: Path, scan: pf.Scan, refused: Callable[..., str], command: str, mistake: str
) -> None:
    path = here / "bad.npz"
    whole = (here / "scan.npz").read_bytes()
    expected = "bad.npz is not an NPZ file, or it is damaged or cut short"
    if mistake == "missing":
        expected = "bad.npz: No such file or directory."
    elif mistake == "folder":
        path.mkdir()
        expected = "bad.npz is a folder. Name a file in it."
    elif mistake == "text":
        path.write_text("xcoords = 1, 2, 3\n")
        expected = "bad.npz is text. The formats that can be read are"
    elif mistake == "empty":
        path.write_bytes(b"")
        expected = "bad.npz is empty. Copy or write it again."
    elif mistake == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif mistake == "keys":
        np.savez(path, xcoords=np.zeros(3), diff3d=np.zeros((3, 2, 2)))
        expected = "bad.npz is not a scan: it lacks ycoords."
    else:
        positions = scan.positions.copy()
        positions[[3, 5], 1] = np.nan
        pf.write_scan(dataclasses.replace(scan, positions=positions), path)
        expected = "3"
    before = file_names(here)
    argv = [command, "bad.npz", *(["-o", "out.npz"] if command == "group" else [])]
    assert expected in refused(*argv)
    assert file_names(here) == before


@pytest.mark.parametrize(
    "argv", [[], ["polish"], ["group", "scan.npz"], ["simulate", "-o", "a", "--pixels", "many"]]
)
def test_usage_errors_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(argv)
    assert exited.value.code == 2
    assert "usage: ptycho-fast" in capsys.readouterr().err


@pytest.mark.usefixtures("scan")
def test_full_disk_leaves_the_old_file(
    here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(file: Any, *_: Any, **__: Any) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    (here / "out.npz").write_bytes(b"old")
    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    assert "No space left" in refused("group", "scan.npz", "-o", "out.npz")
    assert "No space left" in refused("simulate", "-o", "out.npz", "--positions", "2")
    assert file_names(here) == ["out.npz", "scan.npz"]
    assert (here / "out.npz").read_bytes() == b"old"


@needs_matplotlib
@pytest.mark.usefixtures("scan", "quick_demo")
@pytest.mark.parametrize("command", ["demo", "simulate", "inspect", "convert", "group"])
def test_help_has_an_example_that_runs(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # a demo without it is a quick one
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    example = capsys.readouterr().out.split("example:\n")[1].split()
    assert example[:2] == ["ptycho-fast", command]
    assert main(example[1:]) == 0


def test_verbose_shows_the_log_and_silence_is_the_default(run_command: RunCommand) -> None:
    loud, quiet = (
        run_command("simulate", "-o", "a.npz", "--positions", "2", *v) for v in (["-v"], [])
    )
    assert (loud.returncode, quiet.returncode) == (0, 0)
    assert loud.stderr.startswith(f"ptycho_fast: {pf.__version__}, Python ")
    assert quiet.stderr == ""


def test_a_mistake_exits_with_2_and_prints_one_sentence(run_command: RunCommand) -> None:
    done = run_command("inspect", "nothing.npz")
    assert done.returncode == 2
    assert done.stderr == f"{ERROR}nothing.npz: No such file or directory.\n"


def test_the_package_itself_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptycho_fast", "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"ptycho-fast {pf.__version__}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are closed in another way there")
@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize(
    ("argv", "unbuffered"),
    [(["inspect", "scan.npz"], ""), (["inspect", "scan.npz"], "1"), (["group", "--help"], "")],
)
def test_output_that_nobody_reads_ends_the_command_quietly(
    argv: list[str], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "ptycho_fast", *argv],
            stdout=output, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
from ptycho_fast.cli import main
for command in ("train", "infer"):
    try:
        main([command, "--help"])
    except SystemExit as exited:
        assert exited.code == 0
assert main(["train", "scan.npz", "-o", "RUN"]) == 2
"""


@pytest.mark.usefixtures("scan")
def test_train_and_infer_without_pytorch_show_help_and_say_what_to_install(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--architecture NAME" in done.stdout
    assert "--refine P" in done.stdout
    assert "n = 40 positions" not in done.stdout  # it is said before the scan is read
    assert done.stderr.startswith(f"{ERROR}PyTorch is needed")
    assert done.stderr.endswith('pip install "ptycho_fast[torch]"\n')
    assert file_names(here) == ["scan.npz"]
