"""Some positions of a scan, or smaller patterns: the same as read so, in memory and in a file."""

from __future__ import annotations

import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.frames import FileFrames, Frames
from small_scans import in_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

n, N = 11, 12
GEOMETRY = {"energy_eV": 8800.0, "distance_m": 1.9, "detector_pixel_m": 75e-6}
CUTS: list[dict[str, Any]] = [
    {"crop": 6},
    {"crop": 7},
    {"bin": 2},
    {"bin": 3},
    {"crop": 8, "bin": 2},
]


def counts() -> NDArray[np.uint16]:
    """Some pixels are saturated: one in all patterns, others in some."""
    made = np.random.default_rng(0).integers(1, 100, (n, N, N)).astype(np.uint16)
    made[:, 5, 6] = made[3, 4:6, 4] = made[7, 0, 0] = made[7, 7, 7] = 65535
    return made


def amplitude_file(path: Path) -> Path:
    random = np.random.default_rng(1)
    bad = counts() == 65535
    bad[:, 5, 6] = False
    mask = np.ones((N, N), bool)
    mask[5, 6] = False
    pf.write_scan(
        pf.Scan(
            random.uniform(6, 30, (n, 2)),
            np.where(counts() == 65535, 0, np.sqrt(counts())).astype(np.float32),
            scan_index=np.arange(n) * 3,
            mask=mask,
            bad_pixels=BadPixels.of(bad),
        ),
        path,
    )
    return path


def count_file(path: Path) -> Path:
    x, y = np.random.default_rng(1).uniform(6, 30, (2, n))
    np.savez(path, xcoords=x, ycoords=y, diff3d=counts())
    return path


def done(scan: pf.Scan, cut: dict[str, Any]) -> pf.Scan:
    scan = scan.crop(cut["crop"]) if "crop" in cut else scan
    return scan.bin(cut["bin"]) if "bin" in cut else scan


def are_the_same(one: pf.Scan, other: pf.Scan, ulp: int = 0) -> None:
    assert one.diffraction.dtype == other.diffraction.dtype
    rows = np.arange(len(one))
    for mine, its in zip(one.measured(rows), other.measured(rows), strict=True):
        if mine is None or its is None:
            assert mine is its
        elif ulp and mine.dtype == np.float32:
            np.testing.assert_array_max_ulp(mine, its, ulp)
        else:
            np.testing.assert_array_equal(
                np.broadcast_to(mine, one.diffraction.shape),
                np.broadcast_to(its, other.diffraction.shape),
            )
    for name in ("positions", "positions_start", "scan_index"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    if not isinstance(one.diffraction, Frames) and not isinstance(other.diffraction, Frames):
        np.testing.assert_array_equal(one.mask, other.mask)
        assert (one.bad_pixels is None) == (other.bad_pixels is None)
        if one.bad_pixels is not None and other.bad_pixels is not None:
            np.testing.assert_array_equal(one.bad_pixels.starts, other.bad_pixels.starts)
            np.testing.assert_array_equal(one.bad_pixels.pixels, other.bad_pixels.pixels)


@pytest.mark.filterwarnings("ignore:.*(pixels|centred on row)")
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("load", [True, False])
def test_smaller_patterns_are_those_that_are_read_so(
    tmp_path: Path, cut: dict[str, Any], load: bool
) -> None:
    path = amplitude_file(tmp_path / "amplitudes.npz")
    options: dict[str, Any] = {**cut, "counts": False}
    scan = pf.read_scan(path, counts=False, load=load)
    assert isinstance(scan.diffraction, Frames) != load
    smaller = done(scan, cut)
    assert isinstance(smaller.diffraction, Frames) != load
    are_the_same(smaller, pf.read_scan(path, load=load, **options))
    are_the_same(smaller, done(pf.read_scan(path, counts=False, load=not load), cut))


@pytest.mark.filterwarnings("ignore:.*(pixels|centred on row)")
@pytest.mark.parametrize("cut", CUTS)
def test_counts_are_summed_as_the_file_has_them(tmp_path: Path, cut: dict[str, Any]) -> None:
    """In memory there are their roots, rounded to float32."""
    path = count_file(tmp_path / "counts.npz")
    options: dict[str, Any] = {"counts": True}
    expected = pf.read_scan(path, **options, **cut)
    are_the_same(done(pf.read_scan(path, load=False, **options), cut), expected)
    are_the_same(done(pf.read_scan(path, **options), cut), expected, ulp="bin" in cut)


@pytest.mark.filterwarnings("ignore:.*(pixels|centred on row)")
@pytest.mark.parametrize("cut", CUTS)
def test_pixels_of_the_object_are_as_large_as_if_it_was_read_so(
    tmp_path: Path, cut: dict[str, Any]
) -> None:
    path = tmp_path / "lengths.npz"
    x, y = np.random.default_rng(1).uniform(-2e-6, 3e-6, (2, n))
    np.savez(path, xcoords=x, ycoords=y, diff3d=counts())
    options: dict[str, Any] = {"counts": True, "unit": "m", **GEOMETRY}
    expected = pf.read_scan(path, **options, **cut)
    found = done(pf.read_scan(path, **options), cut)
    pixel = "object_pixel_m"
    assert found.metadata.keys() == expected.metadata.keys() == {pixel, *GEOMETRY}
    for name, value in expected.metadata.items():
        np.testing.assert_allclose(found.metadata[name], value, rtol=1e-14)
    # Reading puts the smallest position at N // 2 of the patterns that are kept.
    apart = found.positions - expected.positions
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-12)


def aperture(side: int, radius: float, centre: float) -> Any:
    """A soft aperture of Gaussian profile, out of focus, in the far field."""
    q = np.hypot(*np.meshgrid(*2 * [np.arange(side) - centre], indexing="ij"))
    return np.exp(-((q / radius) ** 2) + 0.02j * q**2)


def transformed(wave: NDArray[Any]) -> NDArray[Any]:
    moved = np.fft.fft2(np.fft.ifftshift(wave, axes=(-2, -1)), norm="ortho")
    return np.fft.fftshift(moved, axes=(-2, -1))


def sample(x: NDArray[Any], y: NDArray[Any]) -> Any:
    """A smooth object at any point, x and y in pixels of the uncropped scan."""
    return np.exp(0.7j * np.sin(x / 9) + 0.5j * np.cos((x + 2 * y) / 11)) * (
        1 + 0.1 * np.sin(y / 8)
    )


def simulated(side: int, probe: NDArray[Any], pixel: float = 1.0) -> pf.Scan:
    """Patterns of that object, whose pixels have this size."""
    axis = np.arange(-(side // 2), side - side // 2) * pixel
    positions = np.random.default_rng(3).uniform(20, 60, (6, 2)) // 2 * 2
    patterns = [
        np.abs(transformed(probe * sample(x + axis, y + axis[:, None]))) for x, y in positions
    ]
    return pf.Scan(positions / pixel, np.array(patterns), probe=probe)


@pytest.mark.parametrize(("side", "kept", "most"), [(64, 32, 2e-4), (60, 30, 2e-4), (63, 21, 1e-2)])
def test_the_probe_explains_cropped_patterns(side: int, kept: int, most: float) -> None:
    probe = transformed(aperture(side, side / 12, side // 2))
    smaller = simulated(side, probe).crop(kept)
    assert smaller.probe is not None
    again = simulated(kept, smaller.probe, pixel=side / kept)
    np.testing.assert_allclose(smaller.positions, again.positions)
    error = np.linalg.norm(smaller.diffraction - again.diffraction)
    assert error < most * np.linalg.norm(again.diffraction)


@pytest.mark.parametrize(
    ("side", "M", "most"),
    [(64, 2, 0.01), (66, 2, 0.01), (63, 3, 0.03), (64, 4, 0.05), (60, 4, 0.05)],
)
def test_the_probe_explains_binned_patterns(side: int, M: int, most: float) -> None:
    """As well as it can: without a phase ramp, the error at M = 2 is 0.09."""
    axis = np.arange(side) - side // 2
    spot = np.exp(-(np.hypot(axis, axis[:, None]) ** 2) * (1 + 0.3j) / 8)
    smaller = simulated(side, spot).bin(M)
    assert smaller.probe is not None
    again = simulated(side // M, smaller.probe)
    error = np.linalg.norm(smaller.diffraction - again.diffraction)
    assert error < most * np.linalg.norm(again.diffraction)
    np.testing.assert_array_equal(smaller.positions, again.positions)


def whole_scan(**fields: Any) -> pf.Scan:
    scan = pf.simulate_scan(40, 16, seed=2)
    y = np.arange(40 * 16 * 16 * 1).reshape(40, 16, 16, 1) + 0j
    return dataclasses.replace(
        scan,
        scan_index=np.arange(40) + 5,
        energies=np.square(scan.diffraction, dtype=np.float64).sum(axis=(1, 2)),
        metadata={"Y": y, "sample_indices": np.arange(100, 140), "told": "once"},
        **fields,
    )


@pytest.mark.parametrize(
    "rows",
    [slice(3, 30, 4), 7, -1, [5, 3, 3, 0], np.arange(40) % 3 == 0, np.array([], int), [-2, 1]],
)
def test_a_subset_has_what_belongs_to_its_positions(tmp_path: Path, rows: Any) -> None:
    bad = np.random.default_rng(0).random((40, 16, 16)) < 0.01
    scan = whole_scan(
        bad_pixels=BadPixels.of(bad), mask=np.random.default_rng(1).random((16, 16)) < 0.9
    )
    chosen = np.atleast_1d(np.arange(40)[rows])
    for source in (
        scan,
        dataclasses.replace(in_file(tmp_path / "a", scan), energies=scan.energies),
    ):
        some = source.subset(rows)
        assert isinstance(some.diffraction, Frames) == isinstance(source.diffraction, Frames)
        np.testing.assert_array_equal(some.diffraction, scan.diffraction[chosen])
        for name in ("positions", "positions_start", "scan_index", "energies"):
            np.testing.assert_array_equal(getattr(some, name), getattr(scan, name)[chosen])
        for key in ("Y", "sample_indices"):
            np.testing.assert_array_equal(some.metadata[key], scan.metadata[key][chosen])
        assert some.metadata["told"] == "once"
        for name in ("probe", "object", "mask"):
            assert getattr(some, name) is getattr(scan, name)
        assert some.bad_pixels is not None
        np.testing.assert_array_equal(
            some.bad_pixels.good(np.arange(len(chosen)), 16), ~bad[chosen]
        )


@pytest.mark.parametrize("rows", [40, [-41], np.ones(39, bool)])
def test_positions_that_are_not_there_are_refused(rows: Any) -> None:
    with pytest.raises(IndexError):
        whole_scan().subset(rows)


class Counted(FileFrames):
    """Patterns in a file, which note how many of them were read."""

    count = 0

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        self.count += len(rows)
        super().read(rows, out)


@pytest.mark.filterwarnings("ignore:The positions no longer lie|.*of the probe's power")
def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    scan = whole_scan()
    (tmp_path / "a").write_bytes(scan.diffraction.tobytes())
    frames = Counted(tmp_path / "a", 0, scan.diffraction.shape, scan.diffraction.dtype)
    left = dataclasses.replace(scan, diffraction=frames)
    smaller = left.subset(np.arange(30)[::-1]).crop(8).subset(slice(10)).bin(2).split(0.3)[1]
    assert frames.count == 0
    expected = scan.subset(np.arange(30)[::-1]).crop(8).subset(slice(10)).bin(2).split(0.3)[1]
    np.testing.assert_array_equal(smaller.diffraction, expected.diffraction)
    assert frames.count == len(smaller) > 0
    # As another process would get them.
    again = pickle.loads(pickle.dumps(left.subset(slice(3)).diffraction))
    np.testing.assert_array_equal(again, scan.diffraction[:3])


@pytest.mark.filterwarnings("ignore:The positions no longer lie|.*of the probe's power")
def test_what_no_longer_fits_is_left_out() -> None:
    scan = whole_scan()
    cropped, binned = scan.crop(8), scan.bin(2)
    assert cropped.object is None
    assert binned.object is scan.object
    for smaller in (cropped, binned):
        assert smaller.probe is not None
        assert smaller.probe.shape == (8, 8)
        assert smaller.probe.dtype == np.complex64
        assert smaller.energies is None
        assert smaller.metadata.keys() == {"sample_indices", "told"}
        np.testing.assert_array_equal(smaller.scan_index, scan.scan_index)
    np.testing.assert_array_equal(cropped.positions_start, scan.positions_start / 2)
    assert scan.crop(16) is scan.bin(1) is scan


def test_an_object_and_light_that_are_lost_are_told() -> None:
    scan = dataclasses.replace(whole_scan(), probe=np.ones((2, 16, 16), np.complex64))
    with pytest.warns(UserWarning, match="no longer lie on the object"):
        scan.crop(8)
    with pytest.warns(
        UserWarning, match="75.0% of the probe's power lies outside the 8 x 8 pixels"
    ):
        binned = scan.bin(2)
    assert binned.probe is not None
    assert binned.probe.shape == (2, 8, 8)
    dot = np.zeros((16, 16), np.complex64)
    dot[8, 8] = 1
    with pytest.warns(UserWarning, match="75.0% of the probe's power is diffracted beyond"):
        dataclasses.replace(scan, probe=dot, object=None).crop(8)


def test_sizes_that_do_not_fit_are_refused() -> None:
    scan = whole_scan()
    for wrong in (0, 17, 7.5, "8"):
        with pytest.raises(ValueError, match="N must be a whole number in 1..16"):
            scan.crop(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="M must be a whole number in 1..16"):
        scan.bin(17)
    with pytest.raises(ValueError, match=r"16 pixels can't be binned by 3: crop\(15\) first"):
        scan.bin(3)


def test_bad_bins_survive_being_written(tmp_path: Path) -> None:
    scan = pf.read_scan(amplitude_file(tmp_path / "a.npz"), load=False, counts=False).bin(2)
    pf.write_scan(scan.subset(slice(5)), tmp_path / "b.npz")
    again = pf.read_scan(tmp_path / "b.npz")
    for one, other in zip(again.measured(np.arange(5)), scan.measured(np.arange(5)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("share", "margin"), [(0.1, None), (0.3, 0.0), (0.25, 6.0)])
def test_a_split_holds_out_what_that_of_a_data_set_does(share: float, margin: float | None) -> None:
    scan = whole_scan()
    groups = pf.group_positions(
        scan.positions, 40, group_size=1, n_neighbors=1, centers="sequential", seed=0
    )
    sides = pf.GroupedDataset(scan, groups).split(share, margin=margin)
    for part, side in zip(scan.split(share, margin=margin), sides, strict=True):
        np.testing.assert_array_equal(part.scan_index, np.sort(side.groups[0].indices[:, 0]) + 5)


def test_splits_with_an_empty_side_are_refused() -> None:
    scan = whole_scan()
    for margin in (-5, np.nan):
        with pytest.raises(
            ValueError, match=f"margin must be a number of at least 0, got {margin}"
        ):
            scan.split(margin=margin)
    with pytest.raises(ValueError, match="a margin of 1000 pixels leaves 0 positions to train on"):
        scan.split(margin=1000)
    with pytest.raises(ValueError, match="between 0 and 1"):
        scan.split(1.0)
    with pytest.raises(ValueError, match="The scan is empty"):
        scan.subset([]).split(0.5)


def test_what_metadata_say_in_words_stays_as_it_is() -> None:
    said = {"detector_pixel_m": "75 um", "object_pixel_m": "unknown"}
    scan = dataclasses.replace(whole_scan(), metadata=said, object=None)
    assert scan.bin(2).metadata == scan.crop(8).metadata == said
