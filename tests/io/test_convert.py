"""`convert`, and the way of a beamline file to a first batch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.cli import main
from ptycho_fast.frames import FileFrames
from ptycho_fast.io import convert
from ptycho_fast.patterns import gather_patterns

if TYPE_CHECKING:
    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")
resource = pytest.importorskip("resource")

ENERGY, DISTANCE, PIXEL = 8800.0, 1.9, 75e-6
WAVELENGTH = 6.62607015e-34 * 299792458 / (ENERGY * 1.602176634e-19)


class Beamline(NamedTuple):
    counts: NDArray[np.uint16]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    bad: NDArray[np.bool_]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, where relative names point."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def beamline(n: int = 40, size: int = 32, **storage: Any) -> Beamline:
    """Write raw.h5: counts, motors in micrometres, a mask and the geometry."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 1000, (n, size, size)).astype("u2")
    counts[rng.random(counts.shape) < 0.001] = 65535
    side = int(np.ceil(np.sqrt(n)))
    x = 0.2 * (np.arange(n) % side) + rng.normal(0, 0.02, n)
    y = 0.2 * (np.arange(n) // side) + rng.normal(0, 0.02, n)
    bad = rng.random((size, size)) < 0.02
    with h5py.File("raw.h5", "w") as file:
        file.create_dataset("entry/data/data", data=counts, **storage)
        file["entry/sample/samx"], file["entry/sample/samy"] = x, y
        for axis in "xy":
            file[f"entry/sample/sam{axis}"].attrs["units"] = "um"
        file["entry/detector/pixel_mask"] = bad.astype("u4")
        file["entry/detector/x_pixel_size"] = PIXEL
        file["entry/detector/distance"] = DISTANCE
        file["entry/source/energy"] = ENERGY / 1000
        file["entry/source/energy"].attrs["units"] = "keV"
    return Beamline(counts, x * 1e-6, y * 1e-6, bad)


def test_a_beamline_file_reaches_its_first_batch_in_three_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = beamline(3000, 32, chunks=(10, 32, 32), compression="gzip", compression_opts=1)
    # 1. What is in it? The keys are unknown, so there is a line to check.
    assert main(["inspect", "raw.h5"]) == 1
    out = capsys.readouterr().out
    assert re.search(
        r"^/entry/data/data +uint16 +\(3000, 32, 32\) +chunks \(10, 32, 32\)$", out, re.MULTILINE
    )
    assert "its arrays must be named" in out
    (line,) = [line.strip() for line in out.splitlines() if "ptycho-fast convert" in line]
    assert "?" not in line
    # 2. The line as it stands.
    assert main(shlex.split(line)[1:]) == 0
    # 3. Groups.
    assert (
        main(["group", "raw_converted.npz", "-o", "groups.npz", "--groups", "500", "--seed", "1"])
        == 0
    )
    scan = pf.read_scan("raw_converted.npz", load=False)
    groups = pf.Groups.load("groups.npz", scan.positions)
    rows = groups.indices[:32]
    batch = gather_patterns(scan.diffraction[rows.ravel()], np.arange(128).reshape(32, 4))

    good = (raw.counts != 65535) & ~raw.bad
    truth = np.sqrt(np.where(good, raw.counts, 0), dtype="f4")
    np.testing.assert_array_equal(batch, truth[rows].transpose(0, 2, 3, 1))
    pixel = WAVELENGTH * DISTANCE / (32 * PIXEL)
    expected = np.stack([raw.x - raw.x.min(), raw.y - raw.y.min()], axis=1) / pixel + 16
    np.testing.assert_allclose(scan.positions, expected, rtol=1e-6)
    np.testing.assert_array_equal(scan.mask, ~raw.bad)
    # Patterns lie uncompressed in the file, and normalisation needs no pass over them.
    assert isinstance(scan.diffraction, FileFrames)
    assert scan.bad_pixels is not None
    saturated = (raw.counts == 65535) & ~raw.bad
    np.testing.assert_array_equal(scan.bad_pixels.good(np.arange(len(scan)), 32), ~saturated)
    assert scan.energies is not None
    np.testing.assert_allclose(
        scan.energies, np.square(truth, dtype="f8").sum(axis=(1, 2)), rtol=1e-12
    )


def test_convert_writes_what_read_scan_reads(capsys: pytest.CaptureFixture[str]) -> None:
    beamline(chunks=(8, 32, 32))
    flags = (
        "--counts --diffraction entry/data/data --x entry/sample/samx --y entry/sample/samy "
        "--mask entry/detector/pixel_mask --unit um --energy-eV 8800 --distance-m 1.9 "
        "--detector-pixel-m 75e-6 --swap-xy --flip-x --flip-y --crop 24 --centre 15,17 --bin 3"
    )
    assert main(["convert", "raw.h5", "out.npz", *flags.split()]) == 0
    assert "40 patterns of 8 x 8 to out.npz" in capsys.readouterr().out
    expected = pf.read_scan(
        "raw.h5", counts=True, diffraction="entry/data/data", x="entry/sample/samx",
        y="entry/sample/samy", mask="entry/detector/pixel_mask", unit="um", energy_eV=8800,
        distance_m=1.9, detector_pixel_m=75e-6, swap_xy=True, flip_x=True, flip_y=True, crop=24,
        centre=(15, 17), bin=3,
    )  # fmt: skip
    scan = pf.read_scan("out.npz")
    for field in ("positions", "diffraction", "mask"):
        np.testing.assert_array_equal(getattr(scan, field), getattr(expected, field))
    np.testing.assert_array_equal(
        scan.metadata["object_pixel_m"], expected.metadata["object_pixel_m"]
    )
    with zipfile.ZipFile("out.npz") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    # The same options say to `inspect` and `group` what is in the file.
    assert main(["inspect", "raw.h5", *flags.split()]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^N +8 pixels$", out, re.MULTILINE)
    highest = f"{expected.diffraction.max():g}"
    assert re.search(rf"^amplitude +0 \.\. {re.escape(highest)}$", out, re.MULTILINE)
    bad = np.count_nonzero(~expected.mask) if expected.mask is not None else None
    assert re.search(rf"^bad pixels +{bad} of 64 in every pattern, \d+ more in", out, re.MULTILINE)
    assert main(["group", "raw.h5", "-o", "groups.npz", "--seed", "3", *flags.split()]) == 0
    pf.Groups.load("groups.npz", scan.positions)


def test_convert_copies_a_scan(here: Path) -> None:
    scan = pf.simulate_scan(30, 16, seed=0)
    pf.write_scan(scan, "a.npz")
    with np.load("a.npz") as arrays:
        np.savez_compressed("packed.npz", **arrays)
    for name in ("a.npz", "packed.npz"):
        shares: list[float] = []
        convert(name, "out.npz", progress=shares.append)
        assert sum(shares) == pytest.approx(1)
        read = pf.read_scan("out.npz")
        for field in ("positions", "positions_start", "diffraction", "probe", "object"):
            np.testing.assert_array_equal(getattr(read, field), getattr(scan, field))
        assert read.metadata == scan.metadata
        assert read.energies is not None
        np.testing.assert_allclose(
            read.energies, np.square(scan.diffraction, dtype="f8").sum(axis=(1, 2)), rtol=1e-12
        )


def test_energies_leave_out_masked_pixels() -> None:
    stack = np.full((3, 4, 4), 2, np.float32)
    mask = np.eye(4, dtype=bool)
    np.savez("a.npz", xcoords=np.arange(3.0), ycoords=np.zeros(3), diff3d=stack, detector_mask=mask)
    convert("a.npz", "out.npz")
    read = pf.read_scan("out.npz")
    np.testing.assert_array_equal(read.energies, [16.0] * 3)
    np.testing.assert_array_equal(read.mask, mask)


def test_convert_holds_a_block_not_the_file(here: Path) -> None:
    frames, size = 2000, 128
    with h5py.File("raw.h5", "w") as file:
        data = file.create_dataset("d", (frames, size, size), "u2", chunks=(4, size, size),
                                   compression="lzf")  # fmt: skip
        for first in range(0, frames, 400):
            data[first : first + 400] = first // 400 + 1
        file["x"] = file["y"] = np.arange(float(frames))
    # 131 MB of amplitudes, in an address space that has no room for them.
    script = """
import resource
import ptycho_fast as pf
from ptycho_fast.io import convert
from ptycho_fast.io.hdf5.links import import_h5py
import_h5py()
now = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (now + 90 * 2**20,) * 2)
convert("raw.h5", "out.npz", diffraction="d", x="x", y="y", unit="px", counts=True)
try:
    pf.read_scan("out.npz")
except MemoryError:
    print("no room")
"""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs Linux")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PTYCHO_FAST_NUM_THREADS": "2"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "no room"), done.stderr
    patterns = pf.read_scan("out.npz", load=False).diffraction
    np.testing.assert_array_equal(
        patterns[::400], np.sqrt(np.arange(1, 6), dtype="f4")[:, None, None] * np.ones((128, 128))
    )


# --- faults -----------------------------------------------------------------------------------

NAMED = "--diffraction entry/data/data --x entry/sample/samx --y entry/sample/samy --unit px"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("ptycho-fast: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_disk_that_fills_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], before: bytes | None
) -> None:
    beamline(400, 32)
    if before is not None:
        Path("out.npz").write_bytes(before)
    # A limit on the size of files stands in for the end of a disk.
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    try:
        refused(capsys, "convert", "raw.h5", "out.npz", "--counts", *NAMED.split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    left = sorted(path.name for path in here.iterdir())
    assert left == ["raw.h5"] if before is None else ["out.npz", "raw.h5"]
    assert before is None or Path("out.npz").read_bytes() == before


def test_too_little_room_is_said_before_the_work(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beamline()
    usage = shutil.disk_usage(here)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * 2**10))
    sentence = refused(capsys, "convert", "raw.h5", "out.npz", "--counts", *NAMED.split())
    assert re.search(r"out\.npz needs 0\.2 MiB, but .* has 0\.1 MiB free", sentence)
    assert sorted(path.name for path in here.iterdir()) == ["raw.h5"]


def test_a_damaged_chunk_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beamline(chunks=(4, 32, 32), fletcher32=True)
    with h5py.File("raw.h5") as file:
        chunk = file["entry/data/data"].id.get_chunk_info_by_coord((8, 0, 0))
    with open("raw.h5", "r+b") as raw:
        raw.seek(chunk.byte_offset + 5)
        raw.write(b"\xff\xee\xdd")
    sentence = refused(capsys, "convert", "raw.h5", "out.npz", "--counts", *NAMED.split())
    assert "pattern 0..39 of 40, can't be read" in sentence
    assert sorted(path.name for path in here.iterdir()) == ["raw.h5"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (f"raw.h5 raw.h5 --counts {NAMED} --to cxi", "raw.h5 is the scan itself"),
        (f"raw.h5 out.h5 --counts {NAMED}", "out.h5 does not say its format by its name"),
        (f"raw.h5 out.npz --counts {NAMED} --to cxi", "named as a file of the format 'npz'"),
        (f"raw.h5 no/out.npz --counts {NAMED}", "there is no folder no"),
        (f"raw.h5 out.npz {NAMED}", "never guessed"),
        ("raw.h5 out.npz --counts", "its arrays must be named"),
        (f"nothing.h5 out.npz --counts {NAMED}", "nothing.h5: No such file or directory"),
        (f"raw.h5 out.npz --counts {NAMED} --crop 99", "beyond the detector's 32x32 pixels"),
    ],
)
def test_impossible_conversions_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], argv: str, sentence: str
) -> None:
    beamline()
    assert sentence in refused(capsys, "convert", *argv.split())
    assert sorted(path.name for path in here.iterdir()) == ["raw.h5"]


@pytest.mark.parametrize(
    "argv", ["--counts --amplitude", "--centre 3", "--centre a,b", "--unit inch", "--crop x"]
)
def test_impossible_options_are_refused(argv: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["convert", "raw.h5", "out.npz", *argv.split()])
    assert stop.value.code == 2


# --- guesses ----------------------------------------------------------------------------------


def suggested(capsys: pytest.CaptureFixture[str], path: str) -> str:
    assert main(["inspect", path]) == 1
    (line,) = [
        line.strip()
        for line in capsys.readouterr().out.splitlines()
        if line.strip().startswith("ptycho-fast convert")
    ]
    return line


def test_unknown_options_are_shown_as_question_marks(capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("a b.h5", "w") as file:
        file["frames"] = np.zeros((5, 6, 8), "f4")
        file["stages/X"] = file["stages/Y"] = np.zeros(7)
        file["small"] = np.zeros((2, 3, 3))
    assert suggested(capsys, "a b.h5") == (
        "ptycho-fast convert 'a b.h5' 'a b_converted.npz' --diffraction /frames "
        "(--counts or --amplitude) --x /stages/X --y /stages/Y --unit ? --crop 6 --index ? "
        "--energy-eV ? --distance-m ? --detector-pixel-m ?"
    )


def test_columns_probe_and_npz_are_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(
        "a.npz", images=np.zeros((9, 4, 4), "i4"), positions=np.zeros((9, 2)),
        probe_guess=np.zeros((2, 4, 4), "c8"), bad_pixels=np.zeros((4, 4), bool),
        wavelength=1e-10,
    )  # fmt: skip
    line = suggested(capsys, "a.npz")
    for option in (
        "--diffraction images", "--counts", "--x 'positions[:,0]'", "--y 'positions[:,1]'",
        "--probe probe_guess", "--mask bad_pixels", "--energy-eV 12398.42",
    ):  # fmt: skip
        assert option in line, option


def test_a_file_without_stacks_leaves_every_option_open(capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("a.h5", "w") as file:
        file["text"] = "hello"
    assert "--diffraction ? (--counts or --amplitude) --x ? --y ?" in suggested(capsys, "a.h5")


def test_a_product_lacks_only_its_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("product-out.h5", "w") as file:
        file["probe_position_x_m"] = file["probe_position_y_m"] = np.arange(3) * 1e-6
        file["object"] = np.ones((1, 90, 90), "c8")
        for axis, side in (("x", "width"), ("y", "height")):
            file["object"].attrs[f"pixel_{side}_m"] = 1e-7
            file["object"].attrs[f"center_{axis}_m"] = 0.0
    assert suggested(capsys, "product-out.h5") == (
        "ptycho-fast convert product-out.h5 product-out_converted.npz --diffraction ?"
    )
    with h5py.File("diffraction.h5", "w") as file:
        file["patterns"] = np.ones((3, 8, 8), "u2")
    line = suggested(capsys, "product-out.h5")
    assert main(shlex.split(line)[1:]) == 0
    positions = pf.read_scan("product-out_converted.npz").positions
    np.testing.assert_allclose(positions, np.array([[45, 45], [55, 55], [65, 65]]), rtol=1e-12)
