"""NPZ scans that are prepared as raw data: counts, lengths, crops and bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from beamline_files import GEOMETRY, METRES, counts, expected, motors, n

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")


def npz(path: Path, stack: NDArray[Any], **more: Any) -> Path:
    x, y = motors()
    np.savez(path, xcoords=x, ycoords=y, diff3d=stack, **more)
    return path


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
def test_npz_counts_in_metres_become_amplitudes_in_pixels(
    tmp_path: Path, dtype: str, load: bool
) -> None:
    stack = counts(dtype) + np.dtype(dtype).type(1)
    if dtype[0] == "u":
        stack[3, 2, 1] = np.iinfo(dtype).max
    path = npz(tmp_path / "a.npz", stack, scan_index=np.arange(n), note="gold")
    scan = pf.read_scan(path, load=load, counts=True, unit="m", **GEOMETRY)
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    amplitude = np.sqrt(stack, dtype="f4")
    if dtype[0] == "u":
        amplitude[3, 2, 1] = 0
    np.testing.assert_array_equal(np.asarray(scan.diffraction), amplitude)
    np.testing.assert_array_equal(scan.scan_index, np.arange(n))
    assert scan.metadata["note"] == "gold"


def test_npz_keeps_its_object_while_positions_lie_on_it(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", counts("f4"), objectGuess=np.ones((20, 30), "c8"),
               xcoords_start=np.zeros(n), ycoords_start=np.ones(n))  # fmt: skip
    scan = pf.read_scan(path, counts=False, bin=2)
    assert scan.object is not None
    np.testing.assert_array_equal(scan.positions_start, [[0, 1]] * n)
    with pytest.warns(UserWarning, match="no longer lie on the object"):
        assert pf.read_scan(path, crop=4).object is None
    with pytest.warns(UserWarning, match="no longer lie on the object"):
        flipped = pf.read_scan(path, flip_x=True)
    x, y = motors()
    np.testing.assert_allclose(
        flipped.positions, np.stack([x.min() + x.max() - x, y], axis=1), rtol=1e-12
    )


def test_npz_files_are_read_by_other_keys(tmp_path: Path) -> None:
    x, y = motors()
    stack = counts(shape=(n, 10, 12))
    np.savez(tmp_path / "a.npz", images=stack, posx=x, posy=y, bad=np.eye(10, 12, dtype=int))
    options: dict[str, Any] = {**METRES, "diffraction": "images", "x": "posx", "y": "posy"}
    scan = pf.read_scan(tmp_path / "a.npz", mask="bad", crop=8, **options)
    np.testing.assert_allclose(scan.positions, expected(x, y), rtol=1e-12)
    good = np.eye(10, 12)[1:9, 2:10] == 0
    np.testing.assert_array_equal(scan.mask, good)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(stack[:, 1:9, 2:10], dtype="f4") * good)
    with pytest.raises(KeyError, match=r"no 'image'.*images \(12, 10, 12\)"):
        pf.read_scan(tmp_path / "a.npz", crop=8, **{**options, "diffraction": "image"})
    with pytest.raises(ValueError, match="x can't be named alone"):
        pf.read_scan(npz(tmp_path / "b.npz", counts()), x="posx")


def test_a_probe_that_is_named_replaces_that_of_the_file(tmp_path: Path) -> None:
    stack, named = counts("f4"), np.full((8, 8), 2 + 1j)
    np.save(tmp_path / "probe.npy", named)
    # What the file itself has may be no probe at all.
    for stored in ({}, {"probeGuess": np.ones((8, 8), "c8")}, {"probeGuess": np.ones(3)}):
        path = npz(tmp_path / "a.npz", stack, objectGuess=np.ones((20, 30), "c8"), **stored)
        scan = pf.read_scan(path, probe=f"{tmp_path}/probe.npy")
        np.testing.assert_array_equal(scan.probe, named)
        np.testing.assert_array_equal(scan.diffraction, stack)
        assert scan.object is not None
