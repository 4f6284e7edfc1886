"""What the tests of scan files share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of the test's own, which does not exist yet."""
    path = tmp_path_factory.mktemp("cache") / "deep" / "cache"
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(path))
    return path


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names lead to the folder of the test, and so does the cache."""
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
