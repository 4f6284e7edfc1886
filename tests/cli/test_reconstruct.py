"""`ptycho-fast reconstruct`: what it asks for, what it writes, and what an interrupt leaves."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from commands import ERROR, file_names
from ptycho_fast.canvas import canvas
from ptycho_fast.cli import main
from ptycho_fast.cli import reconstruct as command
from ptycho_fast.cli.command import defaults_of
from ptycho_fast.frames import Frames
from ptycho_fast.reconstruction import Reconstruction, reconstruct
from ptycho_fast.reconstruction.resolution import Resolution
from series_tables import assert_same_image, statuses

if TYPE_CHECKING:
    from collections.abc import Callable

ALWAYS = {"amplitude.png", "phase.png", "probe.png", "reconstruction.npz", "report.html"}


def result(scan: pf.Scan, *notes: str, **fields: Any) -> Reconstruction:
    """A reconstruction whose object is the number of its row."""
    where = canvas(scan.positions, scan.N)
    rows = np.arange(where.shape[0])[:, np.newaxis] * np.ones(where.shape[1])
    return Reconstruction(
        object=(1 + rows).astype(np.complex64),
        origin=where.origin,
        probe=np.ones((1, scan.N, scan.N), np.complex64),
        positions=scan.positions,
        coverage=np.ones(where.shape, np.float32),
        **{"deviance": 1.0171, "mu": 30.0, "notes": notes, "seconds": 1.5, **fields},
    )


def report(scan: pf.Scan, iteration: int, **fields: Any) -> Any:
    """What `reconstruct` reports; the phase of its object grows with the iteration."""
    where = canvas(scan.positions, scan.N)
    return SimpleNamespace(
        **{
            "iteration": iteration,
            "fraction": iteration / 10,
            "deviance": 1 + 1 / iteration,
            "remaining": 10.0 - iteration,
            "object": np.exp(1j * iteration * np.eye(*where.shape)),
            "coverage": np.ones(where.shape, np.float32),
            "origin": where.origin,
            **fields,
        }
    )


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Reconstruction]], None]:
    """Let the command call a function of the test, which has the arguments of the true one."""

    def replace(function: Callable[..., Reconstruction]) -> None:
        monkeypatch.setattr(command, "reconstruct", functools.wraps(reconstruct)(function))

    return replace


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("", {}),
        ("--iterations 7 --modes 3", {"iterations": 7, "modes": 3}),
        ("--refine-positions --seed 5", {"positions": "refine", "seed": 5}),
        ("--uncertainty", {"uncertainty": 8}),
        ("--uncertainty 20 --threads 1", {"uncertainty": 20, "num_threads": 1}),
        ("--probe-diameter 12.5 --device gpu", {"probe_diameter": 12.5, "device": "gpu"}),
    ],
)
def test_options_become_arguments_and_the_defaults_are_those_of_the_function(
    scan: pf.Scan, replaced: Callable[..., None], options: str, arguments: dict[str, Any]
) -> None:
    got: dict[str, Any] = {}

    def stand_in(given: pf.Scan, **keywords: Any) -> Reconstruction:
        got.update(keywords)
        np.testing.assert_array_equal(given.diffraction, scan.diffraction)
        return result(given)

    replaced(stand_in)
    assert main(["reconstruct", "scan.npz", "-o", "OUT", *options.split()]) == 0
    assert callable(got.pop("progress"))
    expected = defaults_of(reconstruct) | arguments
    assert got == {name: expected[name] for name in got}
    assert arguments.keys() <= got.keys()


def test_the_result_is_written_and_printed(
    here: Path, scan: pf.Scan, replaced: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    frequencies = np.linspace(0.05, 0.5, 10)
    frc = Resolution(frequencies, (frequencies < 0.22).astype(np.float64), np.full(10, 0.5), 1e-8)
    made = result(scan, "Odd.", "Odder.", resolution=frc, pixel_size=1e-8)
    replaced(lambda *_, **__: made)
    argv = ["reconstruct", "scan.npz", "-o", "deep/OUT/", "--threads", "1"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^read +n = 40 positions, patterns of 8 x 8 +[\d.]+ m?s$", out, re.M)
    height, width = made.object.shape
    assert f"image       {width} x {height} pixels, deviance 1.017 (1 is noise alone)" in out
    # Half-way from 0.2 to 0.25; 0.143 is 0.857 of the way.
    assert f"resolution  {0.5 / 0.225:.3g} pixels = {5 / 0.225:.3g} nm (half-bit)\n" in out
    assert f"resolution  {0.5 / (0.2 + 0.857 * 0.05):.3g} pixels = " in out
    assert "note        Odd.\nnote        Odder.\n" in out
    # The file has the true object. Comparing is another command.
    assert "rmse" not in out
    folder = here / "deep" / "OUT"
    assert set(file_names(folder)) >= {*ALWAYS, "frc.svg"}
    np.testing.assert_array_equal(Reconstruction.load(folder).object, made.object)
    command_line = "ptycho-fast reconstruct scan.npz -o deep/OUT/ --threads 1"
    assert f"<pre>{command_line}</pre>" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("scan")
def test_a_scan_is_reconstructed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the true function."""
    assert main(["reconstruct", "scan.npz", "-o", "OUT", "--iterations", "3"]) == 0
    assert "deviance" in capsys.readouterr().out
    assert set(file_names(here / "OUT")) >= ALWAYS
    made = Reconstruction.load(here / "OUT")
    assert np.isfinite(made.object).all()
    assert made.canvas == canvas(pf.read_scan("scan.npz").positions, 8)


def test_an_interrupt_saves_the_best_image_and_exits_with_130(
    here: Path, replaced: Callable[..., None], scan: pf.Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(given: pf.Scan, **_: Any) -> Reconstruction:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return result(given, "Interrupted after 7 iterations.")
        raise AssertionError

    replaced(stand_in)
    before = signal.getsignal(signal.SIGINT)
    assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 130
    out, err = capsys.readouterr()
    assert "note        Interrupted after 7 iterations." in out
    assert "stopped     The image is the best so far.\n" in out
    assert err == f"{ERROR}Interrupted.\n"
    assert set(file_names(here / "OUT")) >= ALWAYS
    assert Reconstruction.load(here / "OUT").notes == ("Interrupted after 7 iterations.",)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("scan")
def test_an_interrupt_before_there_is_an_image_leaves_none(
    here: Path, replaced: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(*_: Any, **__: Any) -> Reconstruction:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    replaced(stand_in)
    assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 130
    assert capsys.readouterr().err == f"{ERROR}Interrupted.\n"
    assert file_names(here) == ["scan.npz"]


INTERRUPTED = """
import functools, os, signal, sys, time
from ptycho_fast.cli import main, reconstruct as command
from ptycho_fast.reconstruction import reconstruct

@functools.wraps(reconstruct)
def slow(scan, *, progress, iterations=None, **rest):
    def watch(report):
        progress(report)
        if report.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    return reconstruct(scan, progress=watch, iterations=50, **rest)

command.reconstruct = slow
sys.exit(main(["reconstruct", "scan.npz", "-o", "OUT"]))
"""


@pytest.mark.usefixtures("scan")
@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_a_signal_stops_the_true_function(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "stopped     The image is the best so far." in done.stdout
    made = Reconstruction.load(here / "OUT")
    assert made.notes
    assert np.isfinite(made.object).all()


class Terminal(io.StringIO):
    """A standard error that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_line_of_progress(
    scan: pf.Scan, replaced: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(given: pf.Scan, *, progress: Any, **_: Any) -> Reconstruction:
        for iteration in (1, 4):
            progress(report(given, iteration))
        progress(report(given, 5, remaining=None))
        return result(given)

    replaced(stand_in)
    monkeypatch.setattr(command, "LINE_EVERY", 0)
    monkeypatch.setenv("COLUMNS", "100")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 0
    lines = [line.removesuffix("\x1b[K") for line in shown.getvalue().split("\r")]
    form = "image        {}0%, iteration {}, deviance {} (1 is noise alone)"
    assert lines[-4:] == [
        form.format(1, 1, 2) + ", 9.00 s left",
        form.format(4, 4, 1.25) + ", 6.00 s left",
        form.format(5, 5, 1.2),
        "",
    ]


def test_the_picture_is_renewed_as_the_image_improves(
    here: Path, scan: pf.Scan, replaced: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, seen = here / "OUT" / "phase.png", list[bytes]()

    def stand_in(given: pf.Scan, *, progress: Any, **_: Any) -> Reconstruction:
        clock = iter((0.5, 1.9, 2.0, 2.0, 3.0, 4.1, 4.1))
        monkeypatch.setattr(now, "monotonic", lambda: next(clock))
        for iteration in range(1, 6):
            progress(report(given, iteration))
            seen.append(picture.read_bytes() if picture.exists() else b"")
        return result(given)

    replaced(stand_in)
    now = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("ptycho_fast.cli.reconstruct.time", now)
    assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 0
    # After 2 seconds, and then after more than 2 more.
    assert [bool(content) for content in seen] == [False, False, True, True, True]
    assert seen[2] == seen[3] != seen[4]
    assert all(content[:4] == b"\x89PNG" for content in seen[2:])
    assert picture.read_bytes() != seen[4]
    assert [name for name in file_names(here / "OUT") if name.startswith(".")] == []


def test_a_picture_that_can_not_be_written_stops_nothing(
    here: Path, scan: pf.Scan, replaced: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: Path) -> Any:
        raise OSError(28, "No space left on device")

    def stand_in(given: pf.Scan, *, progress: Any, **_: Any) -> Reconstruction:
        monkeypatch.setattr(command, "PICTURE_EVERY", 0)
        monkeypatch.setattr(command, "replacing", full_disk)
        progress(report(given, 1))
        return result(given)

    replaced(stand_in)
    assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 0
    assert set(file_names(here / "OUT")) >= ALWAYS


def test_patterns_that_do_not_fit_stay_in_their_file(
    scan: pf.Scan,
    replaced: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[pf.Scan] = []

    def stand_in(scan: pf.Scan, **_: Any) -> Reconstruction:
        given.append(scan)
        return result(scan)

    replaced(stand_in)
    needed = 4 * scan.diffraction.nbytes
    for free, lazy in ((needed, True), (needed + 4, False)):
        monkeypatch.setattr("ptycho_fast.memory.available", lambda free=free: free)
        assert main(["reconstruct", "scan.npz", "-o", "OUT"]) == 0
        assert isinstance(given[-1].diffraction, Frames) == lazy
        assert ("patterns of 8 x 8, in their file" in capsys.readouterr().out) == lazy


@pytest.mark.usefixtures("scan")
def test_mistakes_get_a_sentence_and_write_nothing(
    here: Path, refused: Callable[..., str], replaced: Callable[..., None]
) -> None:
    assert "nothing.npz: No such file" in refused("reconstruct", "nothing.npz", "-o", "OUT")
    (here / "file").write_text("")
    sentence = refused("reconstruct", "scan.npz", "-o", "file")
    assert "file can't be the folder for the results" in sentence
    assert file_names(here) == ["file", "scan.npz"]

    def stand_in(*_: Any, **__: Any) -> Reconstruction:
        msg = "num_threads must be a whole number in 1..4096, got 0."
        raise ValueError(msg)

    replaced(stand_in)
    sentence = refused("reconstruct", "scan.npz", "-o", "OUT", "--threads", "0")
    assert sentence.endswith("(On the command line num_threads is --threads.)")
    refused("reconstruct", "scan.npz", "-o", "new/folder", "--threads", "0")
    assert file_names(here) == ["file", "scan.npz"]


def test_it_runs_in_another_thread(scan: pf.Scan, replaced: Callable[..., None]) -> None:
    """Where no handler of signals can be set."""
    replaced(lambda given, **_: result(given))
    codes: list[int] = []
    argv = ["reconstruct", "scan.npz", "-o", "OUT"]
    thread = threading.Thread(target=lambda: codes.append(main(argv)))
    thread.start()
    thread.join()
    assert codes == [0]


QUICK = ("--iterations", "1", "--prior", "none", "--threads", "1")


@pytest.fixture
def scans() -> list[str]:
    """Two scans, in a/data.npz and b/data.npz, and a file that is damaged."""
    for seed, folder in enumerate(("a", "b")):
        os.mkdir(folder)
        pf.write_scan(pf.simulate_scan(20, 8, seed=seed), f"{folder}/data.npz")
    with open("damaged.npz", "wb") as file:
        file.write(b"PK")
    return ["a/data.npz", "b/data.npz"]


def test_several_files_are_a_series(
    here: Path, scans: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reconstruct", "*/data.npz", "damaged.npz", "-o", "OUT", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"^a_data +\d+ x \d+ pixels, deviance [\d.]+ +[\d.]+ m?s$", out, re.M)
    assert re.search(r"^damaged +failed: .*damaged\.npz is not an NPZ file", out, re.M)
    assert re.search(r"^series +2 of 3 scans done +[\d.]+ m?s$", out, re.M)
    assert err.startswith(f"{ERROR}1 of 3 scans failed: damaged. OUT/series.csv says why.")
    assert statuses(here / "OUT") == {"a_data": "done", "b_data": "done", "damaged": "failed"}
    assert set(file_names(here / "OUT" / "a_data")) >= ALWAYS
    alone = reconstruct(pf.read_scan(scans[1]), iterations=1, prior="none")
    assert_same_image(Reconstruction.load(here / "OUT" / "b_data"), alone)
    page = (here / "OUT" / "a_data" / "report.html").read_text()
    assert "ptycho-fast reconstruct &#x27;*/data.npz&#x27; damaged.npz -o OUT" in page
    # Again, without what failed.
    assert main(["reconstruct", *scans, "-o", "OUT", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "2 that were done before, with the same file and options" in out
    # One file of a series stays one of a series, and other options are other images.
    assert main(["reconstruct", scans[0], "-o", "OUT", *QUICK, "--modes", "2"]) == 0
    assert len(Reconstruction.load(here / "OUT" / "a_data").probe) == 2
    assert not (here / "OUT" / "report.html").exists()


@pytest.mark.usefixtures("scan")
def test_mistakes_about_a_series_get_a_sentence_and_write_nothing(
    here: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ("reconstruct", "scan.npz", "scan.npz", "-o", "OUT")
    assert refused("reconstruct", "scan.npz", "*.h5", "-o", "OUT") == "No file matches *.h5."
    assert "workers must be a whole number in 1..4096" in refused(*argv, "--workers", "0")
    sentence = refused(*argv, "--modes", "0", "--threads", "1")
    assert sentence == "modes must be a whole number in 1..100, got 0."
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*argv, "--workers", "2"]) == 2
    assert capsys.readouterr().err.endswith('with: pip install "ptycho_fast[cluster]"\n')
    assert file_names(here) == ["scan.npz"]


def start_series(*options: str) -> subprocess.Popen[bytes]:
    """Start a series of scans in a process of its own, and wait until it is at the second one."""
    for seed in range(2):
        pf.write_scan(pf.simulate_scan(60, 32, seed=seed), f"scan_{seed}.npz")
    running = subprocess.Popen(
        [sys.executable, "-m", "ptycho_fast.cli", "reconstruct",
         "scan_0.npz", "scan_1.npz", "-o", "OUT", *QUICK, *options],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    end = time.monotonic() + 120
    while not os.path.exists("OUT/scan_1") or not os.path.exists("OUT/scan_0/made_from.json"):
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    return running


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_a_series_goes_on_where_it_was_stopped(
    here: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    running = start_series()
    running.send_signal(getattr(signal, number))
    assert running.wait() == (130 if number == "SIGINT" else -signal.SIGKILL)
    assert statuses(here / "OUT") == {"scan_0": "done", "scan_1": "waiting"}
    record = here / "OUT" / "scan_0" / "made_from.json"
    before = record.stat().st_mtime_ns
    files = ["scan_0.npz", "scan_1.npz"]
    assert main(["reconstruct", *files, "-o", "OUT", *QUICK]) == 0
    assert "kept                    1 that" in capsys.readouterr().out
    assert record.stat().st_mtime_ns == before
    assert set(statuses(here / "OUT").values()) == {"done"}
    for name in files:
        alone = reconstruct(pf.read_scan(name), iterations=1, prior="none")
        assert_same_image(Reconstruction.load(here / "OUT" / name[:-4]), alone)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="processes are found in /proc")
def test_workers_end_with_a_command_that_is_killed() -> None:
    pytest.importorskip("distributed")
    running = start_series("--workers", "2")
    workers = descendants(running.pid)
    assert len(workers) >= 2
    running.kill()
    running.wait()
    end = time.monotonic() + 120
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < end, "workers are left"
        time.sleep(0.1)


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have started."""
    words = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        words += (thread / "children").read_text().split()
    children = set(map(int, words))
    return children.union(*map(descendants, children))
