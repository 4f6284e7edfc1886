"""README's Python blocks and commands, run as written, in order; every docstring's example."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ptycho_fast as pf
from places import ROOT

EXTRAS = ("h5py", "lightning", "matplotlib", "skimage", "tensorflow", "torch")
README = (ROOT / "README.md").read_text()
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(pf.__path__, "ptycho_fast.")
    if not module.name.endswith(("._core", ".__main__"))
)
NEEDED = {
    "ptycho_fast.feeds.lightning": "lightning",
    "ptycho_fast.feeds.tensorflow": "tensorflow",
    "ptycho_fast.feeds.torch": "torch",
    "ptycho_fast.metrics": "skimage",
    "ptycho_fast.models": "torch",
    "ptycho_fast.patches.tensorflow": "tensorflow",
    "ptycho_fast.patches.torch": "torch",
    "ptycho_fast.reconstruction.learned": "torch",
    "ptycho_fast.reconstruction.torch": "torch",
}
"""The framework without which modules of these names can't be imported, or have no example."""


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    for block in blocks:
        needed = re.match(r"# needs: (\w+)", block)
        if needed is None or importlib.util.find_spec(needed[1]) is not None:
            exec(compile(block, "README.md", "exec"), names)


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [
        line
        for block in blocks
        if (needed := re.match(r"# needs: (\w+)", block)) is None
        or importlib.util.find_spec(needed[1]) is not None
        for line in block.splitlines()
        if line.startswith("ptycho-fast ")
    ]
    assert len(lines) >= 3
    for line in lines:
        command = [str(Path(sys.executable).with_name("ptycho-fast")), *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["ptycho_fast", *MODULES])
def test_every_docstrings_example_runs(name: str) -> None:
    """But for the examples of frameworks that are not installed."""
    absent = [extra for extra in EXTRAS if importlib.util.find_spec(extra) is None]
    framework = next((NEEDED[start] for start in NEEDED if name.startswith(start)), None)
    if framework in absent or (framework == "lightning" and "torch" in absent):
        pytest.skip(f"{framework} is not installed")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        source = "".join(example.source for example in test.examples)
        if not any(extra in source for extra in absent):
            runner.run(test)
    assert runner.failures == 0
