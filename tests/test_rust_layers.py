"""The Rust code has one direction: a file uses only what stands before it here.

A new file needs a place in these lists; that of a new rule is ``groups/*``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not (ROOT / "rust").exists(), reason="the Rust source is not here")

CORE = """
error  check philox  simd shared hints  memory  parallel  bounds interleave
index/neighbors  index/boxes
index/grid/cells index/grid/build index/grid/rings index/grid/search index/grid/visit
index/grid/mod  index/kdtree  index/engine  index/few index/labelled index/listed  index/mod
groups/draw groups/slots  groups/smallest groups/natural groups/legacy_rng
groups/nearest groups/oversample groups/quadrant groups/overlap groups/pool groups/legacy groups/*
groups/rule  groups/mod
gather energy  patches/window patches/layout patches/add patches/mod
diffraction/loss diffraction/transform diffraction/experiment
diffraction/gradient diffraction/intensity
diffraction/curvature diffraction/mod
lib
"""
BINDING = "boundary kinds machine  index  groups  patterns patches diffraction  lib"

ONLY_IN = {
    "rayon": "core/src/parallel.rs",
    "kiddo": "core/src/index/kdtree.rs",
    "rustfft": "core/src/diffraction/transform.rs",
    "unsafe": "core/src/shared.rs core/src/hints.rs",
}
"""Words that only these files may say in code."""


def code_of(path: Path) -> str:
    """Return a file without its comments, text and tests."""
    code = re.sub(r"//.*", "", path.read_text())
    code = re.sub(r'"(\\.|[^"\\])*"', '""', code)
    return re.split(r"#\[cfg\(test\)\]\s+mod tests \{", code)[0]


def paths_in(code: str) -> list[list[str]]:
    """Return the paths within the crate that code names, with `use` trees written out."""
    found = []

    def walk(prefix: list[str], tree: str) -> None:
        depth, start = 0, 0
        for i, letter in enumerate(tree + ","):
            depth += (letter == "{") - (letter == "}")
            if letter == "," and depth == 0:
                head, _, inner = tree[start:i].partition("{")
                steps = [step.strip() for step in head.split("::") if step.strip()]
                if inner:
                    walk(prefix + steps, inner.rpartition("}")[0])
                elif steps:
                    found.append([*prefix, *(step.split(" as ")[0] for step in steps)])
                start = i + 1

    for tree in re.findall(r"\buse ([^;]+);", code):
        walk([], tree)
    rest = re.sub(r"\buse [^;]+;", "", code)
    found += [path.split("::") for path in re.findall(r"\b(?:crate|super)(?:::\w+)+", rest)]
    return found


def file_of(source: Path, user: str, path: list[str]) -> str | None:
    """Return the file of a path that `user` names, None if it is of another crate."""
    is_folder = user == "lib" or user.endswith("/mod")
    folder = user.split("/")[:-1]
    first, *steps = path
    if first == "crate":
        base = []
    elif first == "super":
        base = folder[:-1] if is_folder else folder
    else:
        base, steps = folder, path
        if not is_folder or not any(
            (source / "/".join(base) / f).exists() for f in (f"{first}.rs", first)
        ):
            return None
    if not base and steps[0] in ("Error", "Result"):
        return "error"  # lib.rs names them for everybody
    for step in steps:
        if (source / "/".join([*base, step]) / "mod.rs").exists():
            base = [*base, step]
        elif (source / "/".join([*base, f"{step}.rs"])).exists():
            return "/".join([*base, step])
        else:
            break
    return "/".join([*base, "mod"]) if base else "lib"


@pytest.mark.parametrize(("crate", "layers"), [("core", CORE), ("binding", BINDING)])
def test_a_file_uses_only_what_stands_before_it(crate: str, layers: str) -> None:
    source, listed = ROOT / "rust" / crate / "src", layers.split()
    files = {str(path.relative_to(source).with_suffix("")) for path in source.rglob("*.rs")}
    rules = sorted(name for name in files - set(listed) if name.startswith("groups/"))
    order = [name for place in listed for name in (rules if place == "groups/*" else [place])]
    assert files - {"index/tests"} == set(order)
    for user in order:
        used = {file_of(source, user, p) for p in paths_in(code_of(source / f"{user}.rs"))}
        later = [
            name for name in used - {None, user} if order.index(str(name)) >= order.index(user)
        ]
        assert not later, f"{user}.rs uses {later}"


def test_some_words_are_said_in_few_files() -> None:
    for word, places in ONLY_IN.items():
        paths = (ROOT / "rust").rglob("*.rs")
        users = {path for path in paths if re.search(rf"\b{word}\b", code_of(path))}
        assert users == {ROOT / "rust" / place for place in places.split()}, word
