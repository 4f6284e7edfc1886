"""Redraw ``benches/RESULTS.md``: every benchmark on this machine, one after the other.

``python benches/results.py`` takes half an hour and wants the machine for itself.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ptycho_fast import _core

HERE = Path(__file__).parent
NOTES = HERE / "notes.md"
"""What the figures mean, written by hand."""

PYTHON = {
    "Groups": "groups.py",
    "A million positions and more, all as centres": "scale.py",
    "Rules": "rules.py",
    "Patches, from Python": "patches.py",
    "The drop-in's dictionary": "grouped_data.py",
    "Coverage of a selection": "coverage.py",
    "Beside busy processes": "busy.py",
}
LIBRARIES = ("numpy", "scipy", "pykdtree")


def run(command: list[str], variables: dict[str, str] | None = None) -> str:
    """Return what a command prints; it must succeed."""
    print("+", *command, flush=True)
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def machine() -> str:
    """Describe the machine, the versions, and how fast it copies."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    rows = {
        "processor": cpu[1] if cpu else platform.processor(),
        "processors to use": str(_core.count_threads(None)),
        "instructions": _core.simd_name(),
        "huge pages": pages.read_text().strip() if pages.exists() else "unknown",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "rustc": run(["rustc", "--version"]).split()[1],
        **{f"a plain copy, {t} thread(s)": f"{copied(t):.1f} GB/s written" for t in (1, 2)},
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def copied(threads: int) -> float:
    """Return the GB/s at which threads copy 256 MiB into memory already touched."""
    source, target = np.ones((2, 1 << 25))
    parts = [np.array_split(array, threads) for array in (target, source)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(9):
            start = time.perf_counter()
            list(pool.map(np.copyto, *parts))
            seconds.append(time.perf_counter() - start)
    return float(source.nbytes / min(seconds) / 1e9)


def main() -> None:
    """Write the page, whole or not at all."""
    parts = ["# Results", f"Drawn by `python benches/{Path(__file__).name}`.", machine()]
    parts.append(NOTES.read_text().strip())
    for title, script in PYTHON.items():
        table = run([sys.executable, str(HERE / script)]).strip()
        if "|---" not in table:
            table = f"```text\n{table}\n```"
        parts += [f"## {title}", f"`python benches/{script}`", table]
    kernels = run(["cargo", "bench", "--bench", "patches"])
    table, head, tree = kernels.partition("\n\npatches ")
    title = "## Patches and gathers, beside a copy"
    parts += [title, "`cargo bench --bench patches`", table.strip()]
    parts.append(f"```text\n{(head + tree).strip()}\n```")
    table = run(["cargo", "bench", "--bench", "groups"]).strip()
    parts += ["## Groups, in Rust", "`cargo bench --bench groups`", f"```text\n{table}\n```"]
    parts += ["## Instructions", "`python benches/instructions.py`"]
    parts.append(run([sys.executable, str(HERE / "instructions.py"), "--write"]).strip())
    target = HERE / "RESULTS.md"
    draft = target.with_suffix(".part")
    draft.write_text("\n\n".join(parts) + "\n")
    draft.replace(target)


if __name__ == "__main__":
    main()
