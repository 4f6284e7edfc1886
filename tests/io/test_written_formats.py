"""Scans written for other programs: ours, theirs, ours again."""

from __future__ import annotations

import re
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, ENERGY, PIXEL, WAVELENGTH, N, Truth, misfit, n, truth
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.cli import main
from ptycho_fast.frames import Frames
from ptycho_fast.io import convert

if TYPE_CHECKING:
    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")

GEOMETRY: dict[str, Any] = {
    "energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL,
}  # fmt: skip
NAMES = {"cxi": "a.cxi", "ptychodus": "a.h5", "ptypy": "a.ptyd"}
COUNTS = {
    "cxi": ("a.cxi", "/entry_1/data_1/data"),
    "ptychodus": ("a_diffraction.h5", "/patterns"),
    "ptypy": ("a.ptyd", "/chunks/0/data"),
}
every_format = pytest.mark.parametrize("to", NAMES)


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, where relative names point."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bare(scan: pf.Scan, **changes: Any) -> pf.Scan:
    """Return a scan without what only NPZ holds."""
    return replace(scan, metadata={}, positions_start=scan.positions, **changes)


def through(scan: pf.Scan, to: str, told: dict[str, Any] = GEOMETRY) -> pf.Scan:
    """Write a scan and read it again; what a format cannot hold is not of interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pf.write_scan(scan, NAMES[to], to, **told)
        return pf.read_scan(NAMES[to])


def stored(to: str) -> Any:
    """Return the patterns of the file."""
    name, key = COUNTS[to]
    with h5py.File(name) as file:
        return file[key][()]


def good_of(scan: pf.Scan) -> NDArray[np.bool_]:
    """Return which pixels of each pattern were measured."""
    good = scan.measured(np.arange(len(scan)))[1]
    shape = scan.diffraction.shape
    return np.ones(shape, bool) if good is None else np.broadcast_to(good, shape)


@every_format
@pytest.mark.parametrize("side", [N, 31])
def test_what_is_written_explains_the_patterns_and_comes_back(to: str, side: int) -> None:
    of = truth(N=side)
    again = through(of.scan, to)
    assert misfit(again, of) == pytest.approx(1, abs=0.1)
    for turned in (again.positions[:, ::-1], -again.positions, again.positions * (1, -1)):
        assert misfit(replace(again, positions=turned, object=None), of) > 5
    np.testing.assert_array_equal(stored(to), of.counts)
    assert stored(to).dtype == np.int32
    np.testing.assert_array_equal(again.diffraction, of.scan.diffraction)
    for name, value in GEOMETRY.items():
        np.testing.assert_allclose(again.metadata[name], value, rtol=1e-14)
    np.testing.assert_allclose(
        again.metadata["object_pixel_m"], WAVELENGTH * DISTANCE / (side * PIXEL), rtol=1e-14
    )
    assert again.mask is None
    if to == "ptypy":
        step = np.diff(of.scan.positions, axis=0)
        np.testing.assert_allclose(np.diff(again.positions, axis=0), step, atol=1e-12)
        return
    assert of.scan.probe is not None
    assert again.probe is not None
    np.testing.assert_array_equal(again.object, of.scan.object)
    np.testing.assert_array_equal(again.probe.reshape(of.scan.probe.shape), of.scan.probe)
    np.testing.assert_allclose(again.positions, of.scan.positions, atol=1e-12)


@pytest.mark.parametrize("to", ["cxi", "ptychodus"])
def test_modes_of_the_probe_keep_their_order_and_dtype(to: str, of: Truth) -> None:
    assert of.scan.probe is not None
    modes = np.stack([of.scan.probe, 0.2 * of.scan.probe[::-1].conj()]).astype(np.complex128)
    again = through(replace(of.scan, probe=modes), to)
    assert again.probe is not None
    assert again.probe.dtype == np.complex128
    np.testing.assert_array_equal(again.probe, modes)


def test_a_scan_without_object_comes_back_without_one(of: Truth) -> None:
    scan = bare(of.scan, object=None)
    with pytest.warns(UserWarning, match="has no object, so that of the product is 1 everywhere"):
        pf.write_scan(scan, "a.h5", "ptychodus", **GEOMETRY)
    again = pf.read_scan("a.h5")
    assert again.object is None
    step = np.diff(scan.positions, axis=0)
    np.testing.assert_allclose(np.diff(again.positions, axis=0), step, atol=1e-12)
    with h5py.File("a.h5") as file:
        assert (file["object"][()] == 1).all()
    assert through(scan, "cxi").object is None


def test_a_product_is_refused_without_a_probe(here: Path, of: Truth) -> None:
    with pytest.raises(ValueError, match="holds a probe, and the scan has none"):
        pf.write_scan(replace(of.scan, probe=None), "a.h5", "ptychodus", **GEOMETRY)
    assert list(here.iterdir()) == []
    assert through(replace(of.scan, probe=None), "cxi").probe is None


# --- counts -------------------------------------------------------------------------------------


def amplitudes_of(dtype: Any) -> NDArray[Any]:
    """Return amplitudes that are not the roots of whole numbers."""
    values = np.random.default_rng(0).exponential(30, (20, 8, 8)).astype(dtype)
    values[3, 2] = [0, 1e-3, 1e-9, 1e-15, 1, 1e6, 1e12, 1e18]
    return np.asarray(values)


def scan_of(amplitudes: Any, **changes: Any) -> pf.Scan:
    """Return a scan of these amplitudes."""
    positions = np.random.default_rng(1).uniform(4, 20, (len(amplitudes), 2))
    probe = np.ones(amplitudes.shape[1:], np.complex64)
    return pf.Scan(positions, amplitudes, **{"probe": probe, **changes})


@every_format
def test_amplitudes_of_any_size_come_back_to_the_bit(to: str) -> None:
    amplitudes = amplitudes_of("f4")
    np.testing.assert_array_equal(through(scan_of(amplitudes), to).diffraction, amplitudes)
    assert stored(to).dtype == np.float32
    # Of double precision, what is read is float32, but the file holds all of it.
    amplitudes = amplitudes_of("f8")
    assert through(scan_of(amplitudes), to).diffraction.dtype == np.float32
    assert stored(to).dtype == np.float64
    np.testing.assert_array_equal(np.sqrt(stored(to)), amplitudes)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "u1", "i8"])
def test_roots_of_counts_of_any_dtype_become_counts(dtype: str) -> None:
    amplitudes = np.arange(512).reshape(8, 8, 8).astype(dtype)
    again = through(scan_of(amplitudes), "cxi")
    assert stored("cxi").dtype == np.int32
    np.testing.assert_array_equal(again.diffraction, amplitudes)


def test_counts_beyond_32_bits_are_no_marks_of_bad_pixels() -> None:
    amplitudes = np.ones((4, 8, 8))
    amplitudes[1, 2, 3] = np.sqrt(2.0**31 - 1)  # the largest int32
    again = through(scan_of(amplitudes), "cxi")
    assert stored("cxi")[1, 2, 3] == pytest.approx(2**31 - 1)
    assert good_of(again).all()


def test_counts_that_are_whole_at_first_only_are_written_anew() -> None:
    amplitudes = np.zeros((40, 256, 256), np.float32)
    amplitudes[:30] = 3
    amplitudes[39, 7] = 0.3
    assert amplitudes.nbytes > 2**23
    again = through(scan_of(amplitudes), "ptypy")
    assert stored("ptypy").dtype == np.float32
    np.testing.assert_array_equal(again.diffraction, amplitudes)


@pytest.mark.parametrize("value", [-1.5, np.nan, np.inf, 1e200])
@every_format
def test_amplitudes_that_are_no_roots_are_refused(here: Path, to: str, value: float) -> None:
    amplitudes = np.ones((9, 8, 8))
    amplitudes[5, 6, 7] = value
    told = re.escape(f"amplitude {value:g} in pattern 5 is the root of no count")
    with pytest.raises(ValueError, match=told):
        pf.write_scan(scan_of(amplitudes), NAMES[to], to, **GEOMETRY)
    assert list(here.iterdir()) == []
    # A pixel that is known to be bad may hold anything.
    mask = np.ones((8, 8), bool)
    mask[6, 7] = False
    again = through(scan_of(amplitudes, mask=mask), to)
    np.testing.assert_array_equal(again.mask, mask)
    assert again.diffraction[5, 6, 7] == stored(to)[5, 6, 7] == 0


class Made(Frames):
    """Pattern i holds i everywhere."""

    shape, dtype = (2000, 128, 128), np.dtype(np.float32)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill the patterns."""
        out[...] = rows[:, np.newaxis, np.newaxis]


@every_format
def test_patterns_in_a_file_are_never_all_in_memory(to: str) -> None:
    scan = pf.Scan(
        np.random.default_rng(0).uniform(64, 200, (2000, 2)), Made(),
        probe=np.ones((128, 128), np.complex64), object=np.ones((300, 300), np.complex64),
    )  # fmt: skip
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pf.write_scan(scan, NAMES[to], to, **GEOMETRY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scan.diffraction.nbytes / 4
    lazy = pf.read_scan(NAMES[to], load=False)
    np.testing.assert_array_equal(lazy.diffraction[1999], 1999)


# --- pixels that were not measured --------------------------------------------------------------


def marked(of: Truth) -> pf.Scan:
    """Return a scan with a masked pixel, and pixels that are bad in single patterns."""
    bad = np.zeros(of.counts.shape, bool)
    bad[7, 16, 15] = bad[7, 16, 16] = bad[30, 3, 3] = True
    mask = np.ones((N, N), bool)
    mask[3, 4] = False
    patterns = of.scan.diffraction.copy()
    patterns[:, 3, 4] = patterns[bad] = 900
    return bare(of.scan, diffraction=patterns, mask=mask, bad_pixels=BadPixels.of(bad))


@every_format
def test_masks_and_single_bad_pixels_come_back(to: str, of: Truth) -> None:
    scan = marked(of)
    patterns, good = scan.measured(np.arange(n))
    assert good is not None
    again = through(scan, to)
    assert misfit(again, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(stored(to), np.where(good, of.counts, 0))
    if to == "ptychodus":  # which has one mask for all
        assert np.argwhere(~good_of(again)[0]).tolist() == [[3, 3], [3, 4], [16, 15], [16, 16]]
        return
    np.testing.assert_array_equal(good_of(again), good)
    np.testing.assert_array_equal(again.diffraction, patterns)
    again = through(replace(scan, bad_pixels=None), to)
    np.testing.assert_array_equal(again.mask, scan.mask)
    assert again.bad_pixels is None


@pytest.mark.parametrize("name", ["a.npz", "a.cxi", "a.ptyd"])
def test_a_scan_in_its_file_is_written_as_one_in_memory(of: Truth, name: str) -> None:
    scan = marked(of)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pf.write_scan(scan, name, **GEOMETRY)
        lazy = pf.read_scan(name, load=False)
        pf.write_scan(lazy, "again.cxi")
        pf.write_scan(lazy, "again.ptyd")
    for written in ("again.cxi", "again.ptyd"):
        again = pf.read_scan(written)
        np.testing.assert_array_equal(good_of(again), good_of(scan))
        patterns = scan.measured(np.arange(n))[0]
        np.testing.assert_array_equal(again.diffraction, patterns)


def test_what_a_mask_of_all_patterns_costs_is_said(of: Truth) -> None:
    with pytest.warns(UserWarning, match=r"3 pixels that were not measured in some of 60 pat.*\(3"):
        pf.write_scan(marked(of), "a.h5", "ptychodus", **GEOMETRY)
    with pytest.warns(UserWarning, match=r"not measured \(3 in all\), so there is a mask for each"):
        pf.write_scan(marked(of), "a.cxi", **GEOMETRY)
    amplitudes = np.ones((4, 8, 8), np.float32)
    bad = np.zeros((4, 64), bool)
    bad[0, :32] = bad[1, 32:] = True
    scan = scan_of(amplitudes, bad_pixels=BadPixels.of(bad.reshape(4, 8, 8)))
    with pytest.raises(ValueError, match="each pixel of these was not measured in one of them"):
        pf.write_scan(scan, "b.h5", "ptychodus", **GEOMETRY)
    assert not list(Path().glob("b*"))


@every_format
def test_saturated_pixels_of_a_detector_stay_unmeasured(to: str, of: Truth) -> None:
    counts = of.counts.copy()
    counts[:, 3, 4] = counts[7, 16, 15] = 65535
    counts[11] = 0
    with h5py.File("raw.h5", "w") as file:
        file["d"], file["x"], file["y"] = counts, of.x, of.y
        file["p"] = of.scan.probe
    convert(
        "raw.h5", NAMES[to], to=to, diffraction="d", x="x", y="y", probe="p", unit="m",
        counts=True, drop_dark=True, **GEOMETRY,
    )  # fmt: skip
    again = pf.read_scan(NAMES[to])
    rows = np.delete(np.arange(n), 11)
    assert misfit(replace(again, object=None), of, rows[: len(again)]) < 3
    good = np.delete(counts, 11, axis=0) != 65535
    if to == "ptychodus":
        good = np.broadcast_to(good.all(axis=0), good.shape)
    np.testing.assert_array_equal(good_of(again), good)
    kept = np.where(good, np.delete(counts, 11, axis=0), 0)
    np.testing.assert_array_equal(again.measured(np.arange(n - 1))[0], np.sqrt(kept, dtype="f4"))


# --- geometry -----------------------------------------------------------------------------------


@every_format
def test_pixels_need_not_be_square(to: str, of: Truth) -> None:
    metadata = {"detector_pixel_m": np.array((PIXEL, 0.8 * PIXEL))}  # width, height
    scan = bare(of.scan)
    scan = replace(scan, metadata=metadata)
    again = through(scan, to, {"energy_eV": ENERGY, "distance_m": DISTANCE})
    width = WAVELENGTH * DISTANCE / (N * PIXEL)
    np.testing.assert_allclose(again.metadata["object_pixel_m"], (width, width / 0.8), rtol=1e-14)
    np.testing.assert_allclose(again.metadata["detector_pixel_m"], (PIXEL, 0.8 * PIXEL))
    step = np.diff(scan.positions, axis=0)
    np.testing.assert_allclose(np.diff(again.positions, axis=0), step, atol=1e-12)


@every_format
def test_what_is_not_known_of_the_geometry_is_asked_for(here: Path, to: str, of: Truth) -> None:
    scan = bare(of.scan)
    with pytest.raises(KeyError, match="the photon energy and the distance .* --detector-pixel-m"):
        pf.write_scan(scan, NAMES[to], to)
    with pytest.raises(KeyError, match=r"Pass distance_m= \(--distance-m\)"):
        pf.write_scan(scan, NAMES[to], to, energy_eV=ENERGY, detector_pixel_m=PIXEL)
    for wrong in (-3, "8", (1.0, 2.0)):
        with pytest.raises(ValueError, match=r"energy_eV must be a positive number, got .*[38(]"):
            pf.write_scan(scan, NAMES[to], to, energy_eV=wrong)  # type: ignore[arg-type]
    assert list(here.iterdir()) == []
    # Where the size of a pixel of the object is known, the last of the three follows.
    pixel = WAVELENGTH * DISTANCE / (N * PIXEL)
    known = replace(scan, metadata={"object_pixel_m": np.full(2, pixel)})
    with pytest.raises(KeyError, match=r"Pass energy_eV=, distance_m= \(--energy-eV"):
        pf.write_scan(known, NAMES[to], to)
    for left_out, value in GEOMETRY.items():
        again = through(known, to, {**GEOMETRY, left_out: None})
        np.testing.assert_allclose(again.metadata[left_out], value, rtol=1e-12)
    with pytest.raises(ValueError, match=r"is 2\.788.*make it 5\.576.*Correct energy_eV"):
        pf.write_scan(known, NAMES[to], to, **{**GEOMETRY, "distance_m": 2 * DISTANCE})
    odd = replace(scan, metadata={"energy_eV": "high"})
    with pytest.raises(ValueError, match="'high', which is no positive number"):
        pf.write_scan(odd, NAMES[to], to, distance_m=1, detector_pixel_m=1)


def test_a_file_in_pixels_is_converted_with_the_geometry_that_is_told(of: Truth) -> None:
    pf.write_scan(bare(of.scan), "px.npz")
    told = f"--energy-eV {ENERGY} --distance-m {DISTANCE} --detector-pixel-m {PIXEL}"
    assert main(["convert", "px.npz", "a.cxi", *told.split()]) == 0
    again = pf.read_scan("a.cxi")
    np.testing.assert_allclose(again.positions, of.scan.positions, atol=1e-12)
    np.testing.assert_array_equal(again.diffraction, of.scan.diffraction)


def test_crops_and_bins_keep_the_geometry(of: Truth) -> None:
    pf.write_scan(bare(of.scan), "a.npz", **GEOMETRY)
    binned = pf.read_scan("a.npz", bin=2)
    cropped = pf.read_scan("a.npz", crop=16)
    pixel = WAVELENGTH * DISTANCE / (N * PIXEL)
    for scan, detector, size in ((binned, 2, 1), (cropped, 1, 2)):
        np.testing.assert_allclose(scan.metadata["detector_pixel_m"], detector * PIXEL)
        np.testing.assert_allclose(scan.metadata["object_pixel_m"], size * pixel)
        again = through(scan, "cxi", {})
        np.testing.assert_allclose(again.metadata["object_pixel_m"], size * pixel, rtol=1e-12)
        step = np.diff(scan.positions, axis=0)
        np.testing.assert_allclose(np.diff(again.positions, axis=0), step, atol=1e-12)


# --- names, and what goes wrong -----------------------------------------------------------------


def test_the_name_says_the_format_or_it_is_asked_for(here: Path, of: Truth) -> None:
    scan = bare(of.scan)
    for name in ("a.h5", "a", "a.dat"):
        with pytest.raises(ValueError, match=f"{name} does not say its format .* cxi, ptychodus"):
            pf.write_scan(scan, name, **GEOMETRY)
    with pytest.raises(ValueError, match=r"a\.npz is named as a file of the format 'npz', but is"):
        pf.write_scan(scan, "a.npz", "cxi", **GEOMETRY)
    with pytest.raises(
        ValueError, match="to must be one of npz, cxi, ptychodus, ptypy, got 'tike'"
    ):
        pf.write_scan(scan, "a.npz", "tike")
    assert list(here.iterdir()) == []
    pf.write_scan(scan, "A.CXI", **GEOMETRY)
    pf.write_scan(scan, "odd.dat", "cxi", **GEOMETRY)
    assert Path("A.CXI").read_bytes() == Path("odd.dat").read_bytes()
    for name, expected in (("product.hdf5", "diffraction.hdf5"), ("b", "b_diffraction.h5")):
        pf.write_scan(scan, name, "ptychodus", **GEOMETRY)
        assert Path(expected).exists()
        assert misfit(pf.read_scan(name), of) == pytest.approx(1, abs=0.1)


def test_what_a_format_cannot_hold_is_said_once(of: Truth) -> None:
    scan = replace(of.scan, scan_index=np.zeros(n, int))
    for to, words in {
        "cxi": r"CXI has no place for Scan.scan_index, Scan.positions_start, metadata\['simul",
        "ptychodus": r"a ptychodus product has no place for Scan.scan_index, Scan.positions_start",
        "ptypy": r"a .ptyd file has no place for Scan.probe, Scan.object, Scan.scan_index",
    }.items():
        with pytest.warns(UserWarning, match=words) as said:
            pf.write_scan(scan, NAMES[to], to, **GEOMETRY)
        assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pf.write_scan(bare(of.scan), "a.cxi", **GEOMETRY)
        pf.write_scan(bare(of.scan), "a.h5", "ptychodus", **GEOMETRY)
        pf.write_scan(bare(of.scan, probe=None, object=None), "a.ptyd", **GEOMETRY)


def test_frames_keep_their_numbers(of: Truth) -> None:
    numbers = 3 * np.random.default_rng(0).permutation(n)
    again = through(bare(of.scan, scan_index=numbers), "ptychodus")
    np.testing.assert_array_equal(again.diffraction, of.scan.diffraction)
    np.testing.assert_allclose(again.positions, of.scan.positions, atol=1e-12)
    with h5py.File("a.h5") as file:
        np.testing.assert_array_equal(file["probe_position_indexes"], numbers)
        np.testing.assert_array_equal(file["indexes"], numbers)
    through(bare(of.scan, scan_index=numbers), "ptypy")
    with h5py.File("a.ptyd") as file:
        np.testing.assert_array_equal(file["chunks/0/indices"], numbers)


@every_format
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_interrupted_conversion_leaves_nothing(
    here: Path, to: str, before: bytes | None
) -> None:
    pf.write_scan(pf.simulate_scan(600, 64, seed=0), "scan.npz", **GEOMETRY)
    if before is not None:
        Path(NAMES[to]).write_bytes(before)

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("scan.npz", NAMES[to], to=to, progress=stop)
    left = sorted(path.name for path in here.iterdir())
    assert left == sorted(["scan.npz"] + [NAMES[to]] * (before is not None))
    assert before is None or Path(NAMES[to]).read_bytes() == before


@every_format
def test_a_disk_that_fills_leaves_nothing(here: Path, to: str) -> None:
    resource = pytest.importorskip("resource")
    scan = pf.simulate_scan(600, 64, seed=0)
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OSError, match="File too large"):
            pf.write_scan(scan, NAMES[to], to, **GEOMETRY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    assert list(here.iterdir()) == []


def test_what_is_read_is_not_written_over(of: Truth) -> None:
    through(of.scan, "ptychodus")
    before = Path("a_diffraction.h5").read_bytes()
    # The patterns of a.h5 are linked from another file, or named.
    for target, to in (("a_diffraction.h5", "ptypy"), ("a.h5", "ptychodus")):
        with pytest.raises(ValueError, match=f"{target} is the scan itself, or a part of it"):
            convert("a.h5", target, to=to)
    with pytest.raises(ValueError, match=r"a_diffraction.h5 is the scan itself, or a part"):
        convert("a.h5", "a_diffraction.h5", to="cxi", diffraction="a_diffraction.h5:/patterns")
    assert Path("a_diffraction.h5").read_bytes() == before


@every_format
def test_convert_says_which_files_it_wrote(
    capsys: pytest.CaptureFixture[str], to: str, of: Truth
) -> None:
    pf.write_scan(bare(of.scan), "scan.npz", **GEOMETRY)
    assert main(["convert", "scan.npz", NAMES[to], "--to", to]) == 0
    names = "a.h5 and a_diffraction.h5" if to == "ptychodus" else NAMES[to]
    assert f"60 patterns of 32 x 32 to {names} " in capsys.readouterr().out
