"""The command ``follow``, in a process of its own, while another process writes the scan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from commands import file_names
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 120.0
"""Seconds to wait for what takes a few."""


class Sender:
    """A command that follows messages of this process."""

    def __init__(self, folder: Path, scan: pf.Scan) -> None:
        zmq = pytest.importorskip("zmq")
        self.context, self.scan = zmq.Context(), scan
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.setsockopt(zmq.SNDTIMEO, int(1000 * LIMIT))
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        source = f"tcp://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ptycho_fast.cli", "follow", source, "-o", str(folder),
             "--unit", "px", "--amplitude", "--threads", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A shell that runs the tests in the background may have SIGINT ignored.
            preexec_fn=_hear_interrupts if sys.platform != "win32" else None,  # noqa: PLW1509
        )  # fmt: skip

    def send(self, low: int, high: int) -> None:
        from ptycho_fast.live.zmq import message  # noqa: PLC0415

        self.socket.send_multipart(message("probe", self.scan.probe))
        self.socket.send_multipart(message("frames", self.scan.diffraction[low:high], low))
        self.socket.send_multipart(message("positions", self.scan.positions[low:high], low))

    def end(self) -> None:
        from ptycho_fast.live.zmq import message  # noqa: PLC0415

        self.socket.send_multipart(message("end"))

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.socket.close(linger=0)
        self.context.term()


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def scan() -> pf.Scan:
    return pf.simulate_scan(n_positions=120, N=16, seed=0)


@pytest.fixture
def followed(tmp_path: Path, scan: pf.Scan) -> Iterator[Sender]:
    sender = Sender(tmp_path / "OUT", scan)
    yield sender
    sender.close()


def until(condition: Callable[[], Any]) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < LIMIT
        time.sleep(0.01)


def test_the_report_is_renewed_while_the_scan_grows(
    followed: Sender, tmp_path: Path, scan: pf.Scan
) -> None:
    folder = tmp_path / "OUT"
    followed.send(0, 60)
    assert "n = 60 positions" in followed.line()
    first = (folder / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="1">' in first
    assert "Still being measured: 60 positions so far." in first
    assert file_names(folder) == ["amplitude.png", "phase.png", "report.html"]
    picture = (folder / "phase.png").read_bytes()
    followed.send(60, 120)
    while "n = 120 positions" not in (line := followed.line()):
        assert line
    assert "Still being measured: 120 positions" in (folder / "report.html").read_text()
    assert (folder / "phase.png").read_bytes() != picture
    followed.end()
    out, err = followed.process.communicate(timeout=LIMIT)
    assert followed.process.returncode == 0, err
    assert "The sender has said that the scan has ended." in out
    assert "http-equiv" not in (folder / "report.html").read_text()
    made = pf.Reconstruction.load(folder)
    expected = pf.reconstruct(scan, num_threads=1)
    assert np.array_equal(made.object, expected.object)
    kept = pf.read_scan(folder / "scan.npz")
    assert np.array_equal(kept.diffraction, scan.diffraction)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_an_interrupt_saves_what_has_arrived(
    followed: Sender, tmp_path: Path, scan: pf.Scan
) -> None:
    folder = tmp_path / "OUT"
    followed.send(0, 80)
    assert "n = 80 positions" in followed.line()
    followed.process.send_signal(signal.SIGINT)
    out, err = followed.process.communicate(timeout=LIMIT)
    assert followed.process.returncode == 130, err
    assert "Interrupted: this is the image as it was then." in out
    assert pf.Reconstruction.load(folder).positions.shape == (80, 2)
    assert np.array_equal(pf.read_scan(folder / "scan.npz").diffraction, scan.diffraction[:80])


def test_an_error_saves_what_has_arrived(followed: Sender, tmp_path: Path, scan: pf.Scan) -> None:
    from ptycho_fast.live.zmq import message  # noqa: PLC0415

    folder = tmp_path / "OUT"
    followed.send(0, 80)
    assert "n = 80 positions" in followed.line()
    followed.socket.send_multipart(message("positions", scan.positions[70:], first=70))
    out, err = followed.process.communicate(timeout=LIMIT)
    assert followed.process.returncode == 2
    assert "10 positions too many" in err
    assert "An error ended it: " in out
    assert pf.Reconstruction.load(folder).positions.shape == (80, 2)
    assert np.array_equal(pf.read_scan(folder / "scan.npz").diffraction, scan.diffraction[:80])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are closed in another way there")
def test_what_has_arrived_is_saved_although_nobody_reads_the_output(
    followed: Sender, tmp_path: Path
) -> None:
    assert followed.process.stdout is not None
    followed.process.stdout.close()
    followed.send(0, 80)
    assert followed.process.wait(LIMIT) == 141
    assert pf.Reconstruction.load(tmp_path / "OUT").positions.shape == (80, 2)
    assert len(pf.read_scan(tmp_path / "OUT" / "scan.npz")) == 80


def test_what_never_comes_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.h5"
    pytest.importorskip("h5py")
    arguments = ["follow", str(path), "-o", str(tmp_path / "OUT"), "--diffraction", "d", "--x", "x",
                 "--y", "y", "--unit", "px", "--counts", "--patience", "0.2"]  # fmt: skip
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert f"ptycho-fast: error: Nothing that could be imaged came from {path}" in told
    assert "is not there yet" in told
    assert file_names(tmp_path) == []


def test_without_names_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["follow", "scan.h5", "-o", str(tmp_path / "OUT"), "--counts"]) == 2
    assert "diffraction=KEY, x=KEY, y=KEY" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
