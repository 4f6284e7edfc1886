"""The documentation's Python blocks and commands, run as written, in order, page by page."""

from __future__ import annotations

import importlib.util
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from places import ROOT
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        needed = re.match(r"# needs: (\w+)", block)
        if needed is None or importlib.util.find_spec(needed[1]) is not None:
            exec(compile(block, page, "exec"), names)


@pytest.mark.skipif(not PAGES, reason="the documentation is not here")
def test_the_quick_starts_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    lines = [
        line.partition("#")[0]
        for line in (DOCS / "index.md").read_text().splitlines()
        if line.startswith("ptycho-fast ") and "demo" not in line
    ]
    assert len(lines) >= 3
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_every_script_that_a_page_names_is_there(page: str) -> None:
    text = (DOCS / page).read_text()
    for script in re.findall(r"`(?:python )?((?:docs|benches)/\w+\.py)", text):
        assert (DOCS.parent / script).exists(), script


@pytest.mark.skipif(not (ROOT / "rust").exists(), reason="the source is not here")
def test_every_path_that_the_guide_for_contributors_names_is_there() -> None:
    text = CONTRIBUTING.read_text()
    named = re.findall(r"`((?:benches|docs|python|rust|tests)/[\w./]+)`", text)
    assert len(named) > 20
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert not missing
