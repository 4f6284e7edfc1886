"""What the benchmarks share: time and peak memory of one job, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

# The answers are checked against the tests' reference.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import reference

__all__ = ["measure", "reference", "run_apart"]

Answer = TypeVar("Answer")


def peak() -> int:
    """Return the high-water mark of this process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(job: Callable[[], Answer], repeats: int) -> tuple[dict[str, float], Answer]:
    """Return the first run's peak, the first and the median time, and the answer."""
    before = peak()
    times = []
    for _ in range(repeats):
        answer: Any = None  # the former answer is not part of the next run
        start = time.perf_counter()
        answer = job()
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            memory = peak() - before
    median = sorted(times)[len(times) // 2]
    return {"first": times[0], "seconds": median, "bytes": memory}, answer


def run_apart(
    script: str,
    job: list[Any],
    variables: dict[str, str] | None = None,
    *,
    seconds: float | None = None,
) -> Any:
    """Run ``python script --here JOB``, no longer than that, and return the JSON it prints last."""
    command = [sys.executable, script, "--here", json.dumps(job)]
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        msg = f"{Path(script).name} {job} took longer than {seconds:.0f} s and was ended."
        raise SystemExit(msg) from None
    if done.returncode:
        raise SystemExit(done.stderr or f"{Path(script).name} {job} ended with {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])
