"""Count the instructions of each kernel of the core, which do not wander as seconds do.

``python benches/instructions.py`` builds ``instructions.rs``, runs it under callgrind, and prints a
table of instructions for each item (a position, a group, a patch): those of two runs less those of
one, with AVX2, since valgrind knows no AVX-512. ``--check`` compares them with the committed table,
``benches/instructions.md``, and fails if a kernel takes over 10 % more; ``--write`` replaces it. It
needs Rust, valgrind, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).with_suffix(".md")

MOST = 1.1
"""How many times the committed instructions a kernel may take."""

BENCH = ["cargo", "bench", "--locked", "--bench", "instructions"]


def build() -> str:
    """Build the program, and return its path."""
    command = [*BENCH, "--no-run", "--message-format", "json"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    programs: list[str] = re.findall(r'"executable":"([^"]*instructions[^"]*)"', printed)
    return programs[-1]


def counted(program: str, kernel: str, times: int) -> int:
    """Return how many instructions the program takes in all."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [program, kernel, str(times)]
    environment = {**os.environ, "PTYCHO_FAST_SIMD": "avx2"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    total = re.search(r"Collected : (\d+)", done.stderr)
    assert total is not None, done.stderr
    return int(total[1])


def counts() -> dict[str, tuple[int, str]]:
    """Return the instructions of each kernel for each item, and what the item is."""
    program = build()
    found = {}
    listed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in listed.splitlines():
        kernel, items, item = line.split(maxsplit=2)
        once, twice = (counted(program, kernel, times) for times in (1, 2))
        found[kernel] = round((twice - once) / int(items)), item
    return found


def table(found: dict[str, tuple[int, str]]) -> str:
    """Return a table in Markdown."""
    rows = [f"| {kernel} | {item} | {count} |" for kernel, (count, item) in found.items()]
    return "\n".join(["| kernel | by | instructions |", "|---|---|---|", *rows])


def check(found: dict[str, tuple[int, str]]) -> None:
    """Compare with the committed table.

    Raises
    ------
    SystemExit
        If a kernel is missing in either, or takes over 10 % more.
    """
    rows = re.findall(r"^\| (\S+) \| .* \| (\d+) \|$", TABLE.read_text(), re.MULTILINE)
    before = {kernel: int(count) for kernel, count in rows}
    again = "Run `python benches/instructions.py --write` and commit the table."
    if before.keys() != found.keys():
        raise SystemExit(f"{TABLE.name} has kernels {[*before]}, not {[*found]}. {again}")
    more = [
        f"{kernel} takes {count} instructions for each {item}, {count / before[kernel] - 1:+.0%}"
        for kernel, (count, item) in found.items()
        if count > MOST * before[kernel]
    ]
    if more:
        raise SystemExit(f"{'; '.join(more)}. If they are worth it: {again}")


def main() -> None:
    """Count, and print, compare or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="fail if a kernel takes over 10 %% more")
    what.add_argument("--write", action="store_true", help="replace the committed table")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("The instructions were not counted: valgrind is not installed.")
        sys.exit(0 if arguments.check else 1)
    found = counts()
    print(table(found))
    if arguments.check:
        check(found)
    if arguments.write:
        title = (
            "# Instructions\n\nDrawn by `python benches/instructions.py --write`; with AVX2.\n\n"
        )
        TABLE.write_text(f"{title}{table(found)}\n")


if __name__ == "__main__":
    main()
