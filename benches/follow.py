"""How far the picture of a scan that grows lags behind its file.

``python benches/follow.py`` lets a second process write frames of 64 x 64 pixels, 500 a second, to
an HDF5 file in SWMR mode, and follows it as `ptycho-fast follow` does, with the pictures it draws,
on one thread. For each frame, the delay is the time from its arrival in the file to the picture
that contains it. ``--quick`` writes fewer frames. The end is checked: the scan that was followed is
that of the finished file, to the bit.

There are two clocks. By that of the processor, time passes as long as this process computes or
pauses: that is the delay where it has a core to itself. The other is the wall clock: the delay on
this machine as it is now.

A frame that arrives while a picture is made has to wait for the next one, so the delay is up to the
time of two pictures. The first picture is made from nothing, and takes longer where there is no
probe; the frames that arrive meanwhile are caught up with, and their delays are printed apart.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import ptycho_fast as pf
from ptycho_fast.live import HDF5Source, News
from ptycho_fast.live.follow import PAUSE
from ptycho_fast.reconstruction.pictures import amplitude_picture, phase_picture

N, RATE, BATCH = 64, 500.0, 25

WRITER = """
import sys
import h5py, numpy as np
scan = np.load(sys.argv[1])
counts, xy = scan["counts"], scan["xy"]
with h5py.File(sys.argv[2], "w", libver="latest") as file:
    kinds = {"frames": counts, "x": xy[:, 0].copy(), "y": xy[:, 1].copy()}
    for key, values in kinds.items():
        chunks = (1, *counts.shape[1:]) if key == "frames" else (256,)
        file.create_dataset(key, data=values[:0], chunks=chunks, maxshape=(None, *values.shape[1:]))
    file["probe"] = scan["probe"]
    file.swmr_mode = True
    print("ready", flush=True)
    low = 0
    for line in sys.stdin:
        high = int(line)
        for key, values in kinds.items():
            file[key].resize(high, axis=0)
            file[key][low:high] = values[low:high]
            file[key].flush()
        low = high
        print("written", flush=True)
"""


class Timed(HDF5Source):
    """A file that is written up to what has arrived by some clock, each time it is looked at."""

    def __init__(self, data: Path, path: Path, n: int, *, wall: bool, **reading: Any) -> None:
        super().__init__(path, **reading)
        self.n, self.written, self.paused = n, 0, 0.0
        self.now = time.monotonic if wall else time.process_time
        self.writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(data), str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.wall = wall
        self.tell("")
        self.begin = self.now()

    def tell(self, line: str) -> None:
        """Tell the writer up to which frame to write, and wait until it has."""
        assert self.writer.stdin is not None
        assert self.writer.stdout is not None
        self.writer.stdin.write(line)
        self.writer.stdin.flush()
        self.writer.stdout.readline()

    @property
    def clock(self) -> float:
        """Seconds since the first frame."""
        return self.now() - self.begin + (0.0 if self.wall else self.paused)

    def poll(self) -> News:
        """Have the file written, and look at it."""
        due = min(int(self.clock * RATE) // BATCH * BATCH, self.n)
        if due > self.written:
            self.tell(f"{due}\n")
            self.written = due
        news = super().poll()
        self.paused += PAUSE if news.patterns is None else 0.0
        return news

    def close(self) -> None:
        """Have the file closed."""
        super().close()
        self.writer.communicate()


def delays(
    folder: Path, scan: pf.Scan, *, wall: bool, blind: bool
) -> tuple[int, np.ndarray[Any, Any]]:
    """Return how many pictures there were, and the delay of each frame."""
    data, path, n = folder / "data.npz", folder / "scan.h5", len(scan)
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)
    np.savez(data, counts=counts, xy=scan.positions, probe=np.asarray(scan.probe))
    names: dict[str, Any] = {"diffraction": "frames", "x": "x", "y": "y"}
    names |= {"unit": "px", "counts": True} | ({} if blind else {"probe": "probe"})
    source = Timed(data, path, n, wall=wall, **names)
    shown, drawn = [], []
    for update in pf.follow(source, final={"num_threads": 1}):
        for picture in (phase_picture, amplitude_picture):
            made = picture(update.image.object, update.image.coverage)
            (folder / "picture.png").write_bytes(made.png)
        shown.append(update.n)
        drawn.append(source.clock)
        if update.n == n:
            break
    source.close()
    finished = pf.read_scan(path, **names)
    assert np.array_equal(update.scan.diffraction, finished.diffraction)
    assert np.array_equal(update.scan.positions, finished.positions)
    frames = np.arange(n)
    arrived = (frames // BATCH + 1) * BATCH / RATE
    return len(shown), np.array(drawn)[np.searchsorted(shown, frames + 1)] - arrived


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="1000 frames, and one clock")
    quick = parser.parse_args().quick
    n = 1000 if quick else 5000
    scan = pf.simulate_scan(n_positions=n, N=N, seed=0)
    print(f"{n} frames of {N} x {N}, {RATE:g} a second; delay in seconds.")
    print("| clock | probe | pictures | delay at first, at most | later: median | at most |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for wall in (False,) if quick else (False, True):
            for blind in (False, True):
                of = functools.partial(delays, Path(name), scan)
                pictures, delay = of(wall=wall, blind=blind)
                first, later = delay[: n // 2], delay[n // 2 :]
                print(
                    f"| {'wall' if wall else 'processor'} | {'unknown' if blind else 'given'} | "
                    f"{pictures} | {first.max():.2f} | {np.median(later):.2f} | "
                    f"{later.max():.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
