"""Prepared data of ptypy, written by the rules of ``.ptyd``."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, ENERGY, PIXEL, N, Truth, check_image, check_ways, misfit, n, truth
from ptycho_fast.io.suggest import proposal

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py")

META = {
    "energy": ENERGY / 1e3, "distance": DISTANCE, "psize": np.full(2, PIXEL), "num_frames": n,
    "center": np.full(2, N / 2), "shape": np.full(2, N), "label": "scan", "version": 0.1,
}  # fmt: skip


def ptyd(path: Path, of: Truth, *, sizes: tuple[int, ...] = (25, 25, 10), **meta: Any) -> Path:
    """Write chunks of these sizes; a change of None leaves an entry of ``meta`` out."""
    with h5py.File(path, "w") as file:
        for key, value in {**META, **meta}.items():
            if value is not None:
                file[f"meta/{key}"] = value
        file.create_group("info")
        ends = np.cumsum(sizes)
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            rows = slice(end - size, end)
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"] = of.counts[rows].astype("f4")
            chunk["positions"] = np.stack([of.y[rows], of.x[rows]], axis=1)
            chunk["indices"] = np.arange(end - size, end)
    return path


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def test_a_ptyd_explains_its_patterns(tmp_path: Path, of: Truth) -> None:
    # More than ten chunks: as text, "10" would come before "2".
    scan = pf.read_scan(ptyd(tmp_path / "a.ptyd", of, sizes=(5,) * 12))
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    step = np.diff(of.scan.positions, axis=0)
    np.testing.assert_allclose(np.diff(scan.positions, axis=0), step, atol=1e-6)
    assert scan.mask is None
    check_ways(tmp_path / "a.ptyd", scan)


@pytest.mark.parametrize("wrong", ["swap_xy", "flip_x", "flip_y"])
def test_positions_read_the_wrong_way_explain_nothing(
    tmp_path: Path, of: Truth, wrong: str
) -> None:
    turned: dict[str, Any] = {wrong: True}
    scan = pf.read_scan(ptyd(tmp_path / "a.ptyd", of), **turned)
    assert misfit(scan, of) > 10


def test_patterns_of_a_ptyd_may_stay_in_the_file(tmp_path: Path, of: Truth) -> None:
    path = ptyd(tmp_path / "a.ptyd", of)
    loaded, lazy = pf.read_scan(path), pf.read_scan(path, load=False)
    np.testing.assert_array_equal(lazy.diffraction, loaded.diffraction)
    # Across the chunks, in any order, and twice.
    rows = np.array([59, 0, 24, 25, 49, 50, 24])
    np.testing.assert_array_equal(lazy.diffraction[rows], loaded.diffraction[rows])


def test_chunks_in_files_of_their_own_are_joined(tmp_path: Path, of: Truth) -> None:
    whole = ptyd(tmp_path / "whole.ptyd", of)
    path = tmp_path / "a.ptyd"
    with h5py.File(whole) as old, h5py.File(path, "w") as file:
        old.copy("meta", file)
        for number in old["chunks"]:
            with h5py.File(f"{path}.part{int(number):03}", "w") as chunk:
                for key in old[f"chunks/{number}"]:
                    old.copy(f"chunks/{number}/{key}", chunk)
            file[f"chunks/{number}"] = h5py.ExternalLink(f"a.ptyd.part{int(number):03}", "/")
    assert misfit(pf.read_scan(path), of) == pytest.approx(1, abs=0.1)
    (tmp_path / "a.ptyd.part001").unlink()
    with pytest.raises(OSError, match="has chunks 0 .. 2, but 1 cannot be found"):
        pf.read_scan(path)
    (tmp_path / "a.ptyd.part002").unlink()
    with pytest.warns(UserWarning, match="was to hold 60 frames, but its chunks hold 25"):
        assert len(pf.read_scan(path)) == 25


@pytest.mark.parametrize("per_frame", [True, False])
def test_weights_above_0_mark_good_pixels(tmp_path: Path, of: Truth, per_frame: bool) -> None:
    path = ptyd(tmp_path / "a.ptyd", of)
    weights = np.ones((n, N, N), "f4")
    weights[:, 3, 4] = 0
    if per_frame:
        weights[30, 16, 15] = 0
    with h5py.File(path, "r+") as file:
        for number, rows in enumerate((slice(0, 25), slice(25, 50), slice(50, 60))):
            file[f"chunks/{number}/weights"] = weights[rows]
            # What a bad pixel holds must not matter.
            file[f"chunks/{number}/data"][:, 3, 4] = 60000
    scan = pf.read_scan(path)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    good = np.broadcast_to(weights > 0, (n, N, N))
    measured = scan.measured(np.arange(n))[1]
    assert measured is not None
    np.testing.assert_array_equal(np.broadcast_to(measured, good.shape), good)
    with h5py.File(path, "r+") as file:
        for chunk in file["chunks"].values():
            del chunk["weights"]
            chunk["weights"] = np.zeros(0)
        file["info/weight2d"] = weights[0]
    np.testing.assert_array_equal(pf.read_scan(path).mask, weights[0] > 0)


def test_weights_of_whole_chunks_may_differ(tmp_path: Path, of: Truth) -> None:
    path = ptyd(tmp_path / "a.ptyd", of)
    good = np.ones((n, N, N), bool)
    good[:25, 3, 4] = good[25:50, 7, 8] = False
    good[:, 9, 9] = good[55, 1, 2] = False
    with h5py.File(path, "r+") as file:
        file["chunks/0/weights"], file["chunks/1/weights"] = good[0], good[25] * 0.5
        file["chunks/2/weights"] = good[50:]
    scan = pf.read_scan(path)
    measured = scan.measured(np.arange(n))[1]
    assert measured is not None
    np.testing.assert_array_equal(measured & (True if scan.mask is None else scan.mask), good)


def test_weights_of_a_detector_take_no_more_memory_for_many_frames(tmp_path: Path) -> None:
    frames, side = 50_000, 128
    with h5py.File(tmp_path / "a.ptyd", "w") as file:
        data = file.create_dataset(
            "chunks/0/data", (frames, side, side), "u1", chunks=(1, side, side), fillvalue=1
        )
        data[::1000] = np.ones((50, side, side))
        file["chunks/0/positions"] = np.random.default_rng(0).uniform(0, 1e-6, (frames, 2))
        weights = np.ones((side, side))
        weights[:, :40] = 0
        file["chunks/0/weights"] = weights
        for key in ("energy", "distance", "psize"):
            file[f"meta/{key}"] = META[key]
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask = pf.read_scan(tmp_path / "a.ptyd", load=False).mask
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask is not None
    np.testing.assert_array_equal(mask, weights > 0)
    assert peak < frames * side * side / 5


@pytest.mark.parametrize("weights", [np.full((60, N, N), b"a"), np.ones((N, N), complex)])
def test_weights_are_numbers(tmp_path: Path, of: Truth, weights: Any) -> None:
    path = ptyd(tmp_path / "a.ptyd", of, sizes=(60,))
    with h5py.File(path, "r+") as file:
        file["chunks/0/weights"] = weights
    with pytest.raises(ValueError, match=r"/chunks/0/weights must be \(60, 32, 32\)"):
        pf.read_scan(path)


def test_chunks_have_the_names_and_arrays_of_ptypy(tmp_path: Path, of: Truth) -> None:
    path = ptyd(tmp_path / "a.ptyd", of)
    with h5py.File(path, "r+") as file:
        file.copy("chunks/0", "chunks/00")
    with pytest.raises(ValueError, match="a chunk /chunks/00, but ptypy calls it 0"):
        pf.read_scan(path)
    with h5py.File(path, "r+") as file:
        file.move("chunks/00", "chunks/99999999")
    missing = "but 3, 4, 5, 6, 7, ... [(]99999996 in all[)] cannot be found"
    with pytest.raises(OSError, match=f"has chunks 0 .. 99999999, {missing}"):
        pf.read_scan(path)
    for number in (0, 1):
        path = ptyd(tmp_path / f"{number}.ptyd", of)
        with h5py.File(path, "r+") as file:
            del file[f"chunks/{number}/data"]
            file.create_group(f"chunks/{number}/data")
        with pytest.raises(KeyError, match=f"'/chunks/{number}/data' is not a data set"):
            pf.read_scan(path)


@pytest.mark.parametrize("center", [(0, 16), (np.nan, 16), (16, np.inf), (60, -8), (16, 31.5)])
def test_a_centre_about_which_nothing_can_be_cut_is_not_used(
    tmp_path: Path, of: Truth, center: tuple[float, float]
) -> None:
    path = ptyd(tmp_path / "a.ptyd", of, center=np.array(center))
    crop: dict[str, Any] = {"crop": 16}
    for options, side in (({}, N), (crop, 16)):
        with pytest.warns(UserWarning, match="about which nothing can be cut out. The middle is"):
            scan = pf.read_scan(path, **options)
        assert side == scan.N


def test_a_number_of_frames_that_is_none_is_ignored(tmp_path: Path, of: Truth) -> None:
    assert len(pf.read_scan(ptyd(tmp_path / "a.ptyd", of, num_frames=np.nan))) == n


def test_the_probe_of_a_result_may_be_named(tmp_path: Path, of: Truth) -> None:
    path = ptyd(tmp_path / "a.ptyd", of)
    assert of.scan.probe is not None
    with h5py.File(tmp_path / "run.ptyr", "w") as file:
        # Storages have layers.
        file["content/probe/SscanG00/data"] = of.scan.probe[np.newaxis]
    scan = pf.read_scan(path, probe=f"{tmp_path / 'run.ptyr'}:/content/probe/SscanG00/data")
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert scan.probe is not None
    np.testing.assert_array_equal(np.squeeze(scan.probe), of.scan.probe)


def test_a_centre_beside_the_middle_is_used(tmp_path: Path, of: Truth) -> None:
    path = ptyd(tmp_path / "a.ptyd", of, center=np.array([19.0, 14.0]))
    with h5py.File(path, "r+") as file:
        for chunk in file["chunks"].values():
            data = np.pad(chunk["data"][()], ((0, 0), (3, 9), (5, 7)))
            del chunk["data"]
            chunk["data"] = np.roll(data, (0, -7), axis=(1, 2))
    with pytest.warns(UserWarning, match="row 19, column 14 of 44 x 44 pixels.* crop=28"):
        pf.read_scan(path)
    scan = pf.read_scan(path, crop=28)
    # The light is where the file says: on pixel N // 2 of what is kept.
    light = np.square(scan.diffraction).sum(axis=0)
    expected = np.square(of.scan.diffraction).sum(axis=0)[2:30, 2:30]
    np.testing.assert_allclose(light, expected, rtol=1e-5)
    assert scan.metadata["object_pixel_m"][0] * 28 * PIXEL == pytest.approx(
        1.2398419843320026e-06 / ENERGY * DISTANCE
    )


@pytest.mark.parametrize(
    ("meta", "options", "error", "sentence"),
    [
        ({"energy": None}, {}, KeyError, r"does not say the photon energy. Pass energy_eV= \(--"),
        (
            {"distance": None, "psize": None}, {}, KeyError,
            "the distance from sample to detector and the size of a detector pixel. Pass distance_m"
            "=, detector_pixel_m=",
        ),
        ({"psize": np.zeros(2)}, {}, ValueError, "a detector pixel is .*no positive number"),
        ({}, {"x": "a"}, ValueError, "is prepared data of ptypy, which says itself.* leave out x"),
    ],
)  # fmt: skip
def test_what_a_ptyd_does_not_say_is_asked_for(
    tmp_path: Path,
    of: Truth,
    meta: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    path = ptyd(tmp_path / "a.ptyd", of, **meta)
    with pytest.raises(error, match=sentence):
        pf.read_scan(path, **options)
    told: dict[str, Any] = {"energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL}
    if error is KeyError:
        for option in meta.keys() & {"energy", "distance"}:
            assert f"--{option}-" in proposal(path)
        assert misfit(pf.read_scan(path, **told), of) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [(60, 3), (59, 2)])
def test_wrong_positions_are_refused(tmp_path: Path, of: Truth, shape: tuple[int, int]) -> None:
    path = ptyd(tmp_path / "a.ptyd", of, sizes=(60,))
    with h5py.File(path, "r+") as file:
        del file["chunks/0/positions"]
        file["chunks/0/positions"] = np.zeros(shape)
    with pytest.raises(ValueError, match=r"positions must be \(60, 2\)"):
        pf.read_scan(path)


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    check_image(lambda of: pf.read_scan(ptyd(tmp_path / "a.ptyd", of)))
