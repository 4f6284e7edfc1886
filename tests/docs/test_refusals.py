"""The table of error messages quotes what the source says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ptycho_fast as pf
from places import ROOT

PAGE = ROOT / "docs" / "refusals.md"
RUST = ROOT / "rust"
VARIES = "…"
"""Stands on the page, and here in the sentences of the source, for what varies."""

ROWS = re.findall(r"^\| (.+?) \| `(\w+)` \| .+ \|$", PAGE.read_text(), re.MULTILINE)

pytestmark = pytest.mark.skipif(not RUST.exists(), reason="the source in Rust is not here")


def python_text(node: ast.expr) -> str:
    """Return the text of an expression, with `VARIES` for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else VARIES
    if isinstance(node, ast.JoinedStr):
        return "".join(map(python_text, node.values))
    if isinstance(node, ast.BinOp):
        return python_text(node.left) + python_text(node.right)
    return VARIES


def sentences() -> set[str]:
    """Return every string of the package and of the core."""
    found = set()
    for path in Path(pf.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found.add(python_text(node))
    for path in RUST.rglob("*.rs"):
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text(), re.DOTALL):
            joined = re.sub(r"\\\n\s*", "", text).replace('\\"', '"')
            found.add(re.sub(r"\{[^{}]*\}", VARIES, joined))
    return found


@pytest.fixture(scope="module")
def source() -> set[str]:
    return sentences()


def test_the_page_lists_messages() -> None:
    assert len(ROWS) > 80


@pytest.mark.parametrize("message", [message for message, _ in ROWS])
def test_the_words_of_a_message_occur_together_in_the_source(
    message: str, source: set[str]
) -> None:
    words = [part.strip() for part in message.split(VARIES) if part.strip(" .,:;()=")]
    pattern = re.compile(".*".join(map(re.escape, words)), re.DOTALL)
    assert any(pattern.search(sentence) for sentence in source), message


@pytest.mark.parametrize("name", sorted({name for _, name in ROWS}))
def test_exceptions_are_those_of_python(name: str) -> None:
    found = getattr(__import__("builtins"), name)
    assert issubclass(found, Exception)
