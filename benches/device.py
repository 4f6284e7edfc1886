"""Everything that a GPU does, on this machine's: speed and answers, beside the alternatives.

``python benches/device.py -o OUT/`` takes at most five minutes with an NVIDIA GPU and 16 cores. It
prints a table, and writes it to the folder with all figures as JSON, under the name of the card.
``--cpu`` tries everything in small sizes where there is no GPU. Each section runs in a process of
its own: one that fails is listed with its error, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from measure import run_apart

from ptycho_fast import _core

LIMIT = 300.0
"""Seconds for everything."""

MOST = 120.0
"""Seconds for a section, so that one that hangs leaves time for the others."""

SECTIONS = {
    "card": "The card",
    "patches": "Object patches in PyTorch",
    "feed": "Patterns that stay on the device",
    "training": "Training",
    "reconstruction": "`pf.reconstruct`",
    "processes": "Two processes, one device",
    "threads": "Threads of the CPU",
}
"""Functions of `device_sections` or `device_processes`, with their titles."""


def here(name: str, device: str, until: float) -> dict[str, Any]:
    """Run a section in this process; return the rows until its end or its error."""
    import device_processes  # noqa: PLC0415
    import device_sections  # noqa: PLC0415

    found: dict[str, Any] = {"rows": [], "error": ""}
    try:
        module = device_sections if hasattr(device_sections, name) else device_processes
        for row in getattr(module, name)(device, until):
            found["rows"].append(row)
    except Exception as error:  # whatever it is, the other sections go on
        words = " ".join(str(error).split())
        found["error"] = f"{type(error).__name__}: {words[:400]}"
    return found


def apart(name: str, device: str, until: float) -> dict[str, Any]:
    """Run a section in a process of its own, also if it brings that process down."""
    start = time.monotonic()
    until = min(until, start + MOST)
    # A GPU that is not to be used is hidden, also from pty-chi.
    variables = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    found: dict[str, Any] = {"rows": []}
    try:
        left = max(1.0, until - start)
        found = run_apart(__file__, [name, device, until], variables, seconds=left)
    except SystemExit as error:
        lines = str(error).strip().splitlines() or ["The process ended without a word."]
        found["error"] = lines[-1]
    return {"title": SECTIONS[name], **found, "seconds": round(time.monotonic() - start, 1)}


def table(sections: list[dict[str, Any]]) -> str:
    """Return the table, and below it the errors."""
    lines = ["| | | | beside | ratio | goal |", "|---|---|---|---|---|---|"]
    for section in sections:
        title = f"**{section['title']}** ({section['seconds']:.0f} s)"
        for row in section["rows"]:
            beside = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
            cells = [title, row["what"], row["value"], row["beside"], beside, row["goal"]]
            lines.append("| " + " | ".join(cells) + " |")
            title = ""
        if section["error"]:
            words = section["error"].replace("|", "/")
            lines.append(f"| {title} | **failed** | {words} | | | |")
    return "\n".join(lines)


def main() -> None:
    """Run the sections, print the table and write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("-o", "--output", type=Path, help="the folder for the table and the JSON")
    parser.add_argument("--cpu", action="store_true", help="small sizes, without a GPU")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(here(*json.loads(asked.here))))
        return
    if asked.output is None:
        parser.error("Say with -o where the table and the JSON are to be written.")
    start = time.monotonic()
    device, until = ("cpu" if asked.cpu else "cuda"), start + LIMIT
    sections = []
    for name, title in SECTIONS.items():
        sections.append(apart(name, device, until))
        print(f"{title}: {sections[-1]['seconds']} s {sections[-1]['error']}", flush=True)
        if name == "card" and sections[0]["error"]:
            raise SystemExit(sections[0]["error"])
    card = sections[0]["rows"][0]["value"]
    report = {
        "card": card,
        "machine": platform.platform(),
        "cores": _core.count_threads(None),
        "variables": {k: v for k, v in os.environ.items() if k.endswith("NUM_THREADS")},
        "seconds": round(time.monotonic() - start, 1),
        "sections": sections,
    }
    how = " --cpu" if asked.cpu else ""
    page = f"# {card}\n\nDrawn by `python benches/device.py{how}` in {report['seconds']:.0f} s.\n\n"
    page += "Each ratio is the figure, divided by that beside it.\n\n" + table(sections) + "\n"
    print(f"\n{page}")
    asked.output.mkdir(parents=True, exist_ok=True)
    target = asked.output / re.sub(r"\W+", "-", card.lower()).strip("-")
    target.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    target.with_suffix(".md").write_text(page)
    raise SystemExit(any(section["error"] for section in sections))


if __name__ == "__main__":
    main()
