"""The sections of ``benches/device.py`` with several processes or threads.

Each yields rows, answers checked.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from device_measures import C, Row, aim, check, row, scan_of_random, timed
from measure import reference, run_apart
from results import copied

import ptycho_fast as pf
from patch_cases import tolerance
from ptycho_fast import _core
from ptycho_fast.patterns import gather_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

THREADS = (1, 2, 4, 8, 16)
SCALE = str(Path(__file__).with_name("scale.py"))
ROOM = 16e9
"""Bytes that must be free for 10^8 positions."""


def processes(device: str, until: float) -> Iterator[Row]:
    """Train in two processes that share the device, beside one with batches twice as large."""
    alone = losses(device, "gloo", 1, until)[0]
    for backend in ("gloo",) if device == "cpu" else ("nccl", "gloo"):
        try:
            one, other = losses(device, backend, 2, until)
        except RuntimeError as refused:
            if backend == "gloo":
                raise
            yield row("nccl", f"refuses two processes on one GPU: {str(refused)[:200]}")
            continue
        name = f"{backend}, two processes"
        check(f"{name}: their weights differ", abs(one["weights"] - other["weights"]), 0)
        pairs = zip(one["losses"], alone["losses"], strict=True)
        error = max(abs(two / single - 1) for two, single in pairs)
        allowed = 1e-5 if device == "cpu" else 1e-3  # TF32 depends on the size of a batch
        told = f"one process, {alone['losses'][-1]:.6g}"
        loss = one["losses"][-1]
        yield row(f"{name}: last loss", loss, "", told, ratio=loss / alone["losses"][-1])
        yield row(f"{name}: largest difference of a loss", error, "", f"allowed {allowed:g}")
        check(f"{name}: a loss differs from that of one process", error, allowed)
        return


def losses(device: str, backend: str, world: int, until: float) -> list[dict[str, Any]]:
    """Train in some processes, as ``torchrun`` would on as many machines; return what they print.

    Raises
    ------
    RuntimeError
        If one fails, or they take longer than a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"GLOO_SOCKET_IFNAME": "lo", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    command = [sys.executable, __file__, device, backend]
    started, said = [], []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(world):
            own = {"RANK": str(rank), "GROUP_RANK": str(rank), "WORLD_SIZE": str(world)}
            own |= {"TORCHELASTIC_RUN_ID": "device"} if world > 1 else {}
            files = [Path(folder) / f"{rank}.{name}" for name in ("out", "err")]
            said.append(files)
            with files[0].open("w") as out, files[1].open("w") as err:
                started.append(
                    subprocess.Popen(
                        command, stdout=out, stderr=err, env={**os.environ, **shared, **own}
                    )
                )
        end = min(until, time.monotonic() + 60)
        try:
            while any(one.poll() is None for one in started) and time.monotonic() < end:
                if any(one.poll() for one in started):
                    end = min(end, time.monotonic() + 5)  # the other waits in vain
                time.sleep(0.1)
        finally:
            for one in started:
                one.kill()
                one.wait()
        if any(one.returncode for one in started):
            words = [line for _, err in said for line in err.read_text().splitlines()]
            told = [line for line in words if "rror" in line or "uplicate" in line] or words
            late = "they had not finished after a minute, or when no time was left"
            msg = f"{backend}, {world} process(es): {told[-1] if told else late}"
            raise RuntimeError(msg)
        return [json.loads(out.read_text().splitlines()[-1]) for out, _ in said]


def train_here(device: str, backend: str) -> dict[str, Any]:
    """Train in this process and those that belong to it; return the losses, if they are here."""
    import torch  # noqa: PLC0415
    from lightning.pytorch.strategies import DDPStrategy  # noqa: PLC0415

    from ptycho_fast.models import PtychoModel  # noqa: PLC0415
    from ptycho_fast.models.training.lightning import Trainer  # noqa: PLC0415

    world = int(os.environ["WORLD_SIZE"])

    def trainer(**given: Any) -> Any:
        given["precision"] = "32-true"
        if world > 1:
            given["strategy"] = DDPStrategy(process_group_backend=backend)
        return Trainer(**given)

    N, n = (16, 64) if device == "cpu" else (32, 256)
    # At higher rates Adam enlarges rounding errors: so would another number of threads.
    model = PtychoModel("cnn", N=N, width=8, learning_rate=1e-4)
    rows = model.train(
        pf.simulate_scan(n_positions=n, N=N, seed=0),
        batch_size=4 // world,
        max_epochs=3,
        picture_every=0,
        device=device.replace("cuda", "gpu"),
        trainer_cls=trainer,
    )
    assert model.network is not None
    weights = sum(float(p.detach().double().sum()) for p in model.network.parameters())
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return {"losses": [line["loss"] for line in rows], "weights": weights}


def threads(device: str, until: float) -> Iterator[Row]:
    """Choose groups, cut patches and gather patterns with more and more threads."""
    counts = [t for t in THREADS if t <= _core.count_threads(None)]
    n, N, B = (10**5, 32, 256) if device == "cpu" else (10**6, 64, 4096)
    rng = np.random.default_rng(0)
    scan = scan_of_random(4 * B, N, "float32")
    image = (rng.normal(size=(1024, 1024)) + 1j * rng.normal(size=(1024, 1024))).astype("c8")
    positions = rng.uniform(N, 1024 - N, (B, 2, C))
    indices = rng.integers(0, 4 * B, (B, C))
    first: dict[str, Any] = {}
    for t in counts:
        found = run_apart(SCALE, [n, t, 9], seconds=60)
        goal = aim("<= 8 ms", found["seconds"] <= 8e-3, device) if t == THREADS[-1] else ""
        yield scaled(f"groups of {n:.0e} positions", t, found["seconds"], first, goal=goal)
    for t in counts:
        plain = 1e9 * copied(t)
        jobs: dict[str, tuple[Callable[..., NDArray[Any]], Any, NDArray[Any]]] = {
            "patches": (
                functools.partial(pf.extract_patches, image, positions, N, num_threads=t),
                lambda: reference.extract_patches(image, positions[:4], N),
                np.zeros((B, N, N, C), np.complex64),
            ),
            "patterns, gathered,": (
                functools.partial(gather_patterns, scan.diffraction, indices, num_threads=t),
                lambda: reference.gather(scan.diffraction, indices[:4]),
                np.zeros((B, N, N, C), np.float32),
            ),
        }
        for name, (job, expected, out) in jobs.items():
            seconds = timed(functools.partial(job, out=out), "cpu")
            error = float(np.abs(out[:4] - expected()).max())
            allowed = tolerance(image) if name == "patches" else 0.0
            check(f"{name}, {t} threads: differ from the definition", error, allowed)
            told = f"a copy, {t} threads, {plain / 1e9:.3g} GB/s"
            share = out.nbytes / seconds / plain
            what = f"{B * C} {name} of {N} x {N}, {t} threads"
            yield row(what, out.nbytes / seconds / 1e9, "GB/s", told, ratio=share)
    if device == "cpu":
        yield from many(10**6, counts, until)
    elif free_memory() < ROOM:
        left = free_memory() / 1e9
        yield row("groups of 1e+08 positions", f"left out: {left:.0f} GB are free, not 16")
    else:
        yield from many(10**8, counts, until)


def many(n: int, counts: list[int], until: float) -> Iterator[Row]:
    """Choose groups of very many positions, with fewer and fewer threads while there is time."""
    rng = np.random.default_rng(0)
    positions = rng.random((n, 2))
    positions *= n**0.5
    first: dict[str, Any] = {}
    seconds, kept = 0.0, None
    # The first run is the warm-up, since it is given its memory by the system.
    for number, t in enumerate([counts[-1], *reversed(counts)]):
        what = f"groups of {n:.0e} positions, once"
        if time.monotonic() + 2.5 * seconds > until - 10:
            yield row(f"{what}, {t} threads", "left out: no time left")
            continue
        start = time.perf_counter()
        groups = pf.group_positions(positions, group_size=C, n_neighbors=7, seed=42, num_threads=t)
        seconds = time.perf_counter() - start
        found = groups.indices[:: max(1, n // 10**6)].copy()
        if kept is None:
            kept = found
            check_nearest(positions, groups.centers[:3], groups.indices[:3])
        del groups
        if not np.array_equal(kept, found):
            msg = f"Of {n} positions, {t} and {counts[-1]} threads choose different groups."
            raise ValueError(msg)
        if number:
            yield scaled(what, t, seconds, first)


def check_nearest(positions: NDArray[Any], centers: NDArray[Any], indices: NDArray[Any]) -> None:
    """Refuse groups whose members are not among the nearest 7 of their centres."""
    for center, members in zip(centers, indices, strict=True):
        near = np.flatnonzero((np.abs(positions - positions[center]) < 8).all(axis=1))
        own = np.flatnonzero(near == center)
        nearest = near[reference.nearest_neighbors(positions[near], own, 7)[0]]
        if len(set(members)) < C or not set(members) <= set(nearest):
            msg = f"The group of position {center} is {members}, but its nearest are {nearest}."
            raise ValueError(msg)


def scaled(what: str, t: int, seconds: float, first: dict[str, Any], **rest: Any) -> Row:
    """Return a row beside that of the first number of threads."""
    before, other = first.setdefault(what, (seconds, t))
    told = f"{other} thread(s)"
    return row(f"{what}, {t} threads", 1e3 * seconds, "ms", told, ratio=seconds / before, **rest)


def free_memory() -> float:
    """Return the bytes that the machine has left."""
    return 1024.0 * int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0])


if __name__ == "__main__":
    print(json.dumps(train_here(*sys.argv[1:])))
