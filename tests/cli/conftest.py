"""What the tests of the command line start from."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import ptycho_fast as pf
from commands import ERROR
from ptycho_fast.cli import demo, main
from ptycho_fast.reconstruction import reconstruct

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, where relative names point."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scan() -> pf.Scan:
    """A scan, which is in scan.npz."""
    scan = pf.simulate_scan(40, 8, seed=0)
    pf.write_scan(scan, "scan.npz")
    return scan


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail, and return the one sentence it prints."""

    def refused(*argv: str) -> str:
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert err.startswith(ERROR)
        assert err.count("\n") == 1
        sentence = err.removeprefix(ERROR).rstrip("\n")
        assert not sentence.startswith(("'", '"', "(", "["))
        assert not sentence.endswith(("'", '"'))
        return sentence

    return refused


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a process of its own."""

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ptycho_fast.cli", *argv],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo with two iterations. `.ci/run` runs the whole one, in a process of its own."""
    monkeypatch.setattr(demo, "reconstruct", functools.partial(reconstruct, iterations=2))
