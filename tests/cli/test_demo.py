"""`ptycho-fast demo`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from commands import file_names, needs_matplotlib
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# TensorFlow is to be imported by the demo, in a process that has not imported it.
WITH_TWO_ITERATIONS = """
import functools, sys
from ptycho_fast.cli import demo, main

demo.reconstruct = functools.partial(demo.reconstruct, iterations=2)
sys.exit(main(["demo"]))
"""


def test_demo_into_a_file_gets_a_sentence(here: Path, refused: Callable[..., str]) -> None:
    (here / "file").touch()
    assert refused("demo", "-o", "file") == (
        "file can't be the folder for the results: it is a file. Name a folder."
    )


@pytest.mark.usefixtures("quick_demo")
def test_demo_makes_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorflow", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo", "-o", "new/folder"]) == 0
    assert file_names(here / "new" / "folder") == ["demo_phase.png"]


@needs_matplotlib
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
def test_demo_feeds_tensorflow_and_keeps_it_quiet(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_TWO_ITERATIONS], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "8 of 32 groups through tf.data" in done.stdout
    assert "diffraction (32, 64, 64, 4) float32" in done.stdout
    assert "coords_relative (32, 1, 2, 4) float64" in done.stdout
    assert "Y (32, 64, 64, 4) complex64" in done.stdout
    assert file_names(here) == ["demo.png", "demo_phase.png"]
    for name in file_names(here):
        assert (here / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("quick_demo")
def test_demo_without_tensorflow_and_matplotlib_says_what_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorflow", "matplotlib", "matplotlib.figure", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "8 of 32 groups through NumPy" in out
    assert "Y (32, 64, 64, 4) complex64" in out
    assert 'pip install "ptycho_fast[tensorflow]"' in out
    assert 'pip install "ptycho_fast[plot]"' in out
    assert file_names(here) == ["demo_phase.png"]


@pytest.mark.usefixtures("quick_demo")
def test_demo_survives_a_broken_tensorflow(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "tensorflow.py").write_text("raise RuntimeError('not for this processor')\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # the picture takes seconds
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "importing it fails: RuntimeError: not for this processor" in out
    assert "8 of 32 groups through NumPy" in out
