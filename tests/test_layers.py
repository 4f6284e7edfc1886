"""What CONTRIBUTING.md says of the structure: one direction of imports, files one can read."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import ptycho_fast
from places import ROOT

PACKAGE = Path(ptycho_fast.__file__).parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported_by(module: str, path: Path) -> set[str]:
    """Return the modules of this package that a file imports, anywhere in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                source = ".".join(filter(None, [*above, source]))
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys() or {source}
    # The version, and the compiled core, are the package's own and import nothing.
    return {name for name in found if name in MODULES and name != "ptycho_fast"} - {module}


IMPORTS = {
    module: imported_by(module, path) for module, path in MODULES.items() if module != "ptycho_fast"
}
"""What each module imports. The package itself, on top of all, may import any of them."""


def layers() -> dict[str, int]:
    """Return the layer of each top-level module, from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| (`.*) \|$", CONTRIBUTING.read_text(), re.MULTILINE)
    return {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    list(TopologicalSorter(IMPORTS).static_order())


def test_modules_import_only_from_earlier_layers() -> None:
    layer = layers()
    wrong = [
        f"{module} imports {imported}"
        for module, imports in IMPORTS.items()
        for imported in sorted(imports)
        for mine, other in [(module.split(".")[1], imported.split(".")[1])]
        if mine != other and layer[other] >= layer[mine]
    ]
    assert wrong == []


def test_every_module_has_a_layer() -> None:
    names = {module.split(".")[1] for module in IMPORTS}
    assert layers().keys() - {"_core"} == names


def test_files_have_at_most_500_lines() -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "benches", ROOT / "rust"]
    lines = {
        path: path.read_text().count("\n")
        for folder in folders
        for path in folder.rglob("*")
        # The grid's kernel is read as a whole.
        if path.suffix in {".py", ".rs"} and not path.match("index/grid/mod.rs")
    }
    assert {path: count for path, count in lines.items() if count > 500} == {}


def test_functions_have_at_most_80_lines_without_their_docstrings() -> None:
    too_long = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > 80:
                too_long[f"{path.name}: {node.name}"] = lines
    assert too_long == {}
