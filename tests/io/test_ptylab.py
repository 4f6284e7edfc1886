"""Data of PtyLab, written by its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, PIXEL, WAVELENGTH, Truth, check_image, check_ways, misfit, truth
from ptycho_fast.io.suggest import proposal

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def ptylab(path: Path, of: Truth, **changes: Any) -> Path:
    """Write what PtyLab needs; None leaves an entry out."""
    entries = {
        "ptychogram": of.counts.astype("f4"), "encoder": np.stack([of.y, of.x], axis=1),
        "dxd": (PIXEL,), "zo": (DISTANCE,), "wavelength": (WAVELENGTH,), "orientation": 0,
        **changes,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for key, value in entries.items():
            if value is not None:
                file[key] = value
    return path


@pytest.mark.parametrize("turned", [False, True])
def test_data_of_ptylab_explain_themselves(tmp_path: Path, of: Truth, turned: bool) -> None:
    encoder = np.stack([of.y, of.x], axis=1)
    path = ptylab(tmp_path / "a.hdf5", of, encoder=encoder.T if turned else encoder)
    scan = pf.read_scan(path)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    for wrong in ("swap_xy", "flip_x", "flip_y"):
        options: dict[str, Any] = {wrong: True}
        assert misfit(pf.read_scan(path, **options), of) > 10


@pytest.mark.parametrize("orientation", [None, *range(8)])
@pytest.mark.parametrize("load", [True, False])
def test_patterns_are_turned_as_the_file_says(
    tmp_path: Path, of: Truth, orientation: int | None, load: bool
) -> None:
    stored, number = of.counts, orientation or 0
    # What undoes the turns, last one first.
    stored = stored[:, ::-1] if number & 2 else stored
    stored = stored[..., ::-1] if number & 1 else stored
    stored = stored.transpose(0, 2, 1) if number & 4 else stored
    path = ptylab(tmp_path / "a.hdf5", of, ptychogram=stored, orientation=orientation)
    scan = pf.read_scan(path, load=load)
    np.testing.assert_array_equal(scan.diffraction[:], np.sqrt(of.counts, dtype="f4"))
    if load and number == 5:
        check_ways(path, scan)


@pytest.mark.parametrize("orientation", range(8))
@pytest.mark.parametrize("each", [False, True])
def test_a_mask_is_turned_as_the_patterns_are(
    tmp_path: Path, of: Truth, orientation: int, each: bool
) -> None:
    # The brightest pixel of all patterns is bad. They are not square.
    stored = of.counts[:, :, 4:28].astype("f4")
    stored[:, 13, 5] = 2 * stored.max()
    bad = stored == stored.max()
    path = ptylab(
        tmp_path / "a.hdf5", of, ptychogram=stored, orientation=orientation,
        bad=bad if each else bad[0],
    )  # fmt: skip
    scan, plain = (pf.read_scan(path, mask=mask, crop=24) for mask in ("/bad", None))
    brightest = plain.diffraction == plain.diffraction[:].max()
    assert brightest[0].sum() == 1
    np.testing.assert_array_equal(scan.mask, ~brightest[0])


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"zo": None}, KeyError, "does not say the distance from sample to detector. Pass dist"),
        ({"zled": 0.1}, ValueError, "it is Fourier ptychography"),
        ({"encoder": np.zeros((60, 3))}, ValueError, r"encoder must be \(n, 2\)"),
        ({"orientation": 8}, ValueError, "orientation must be one number, 0 to 7, got 8"),
        ({"orientation": ()}, ValueError, r"orientation must be .*, got \[\] of shape \(0,\)"),
        ({"orientation": (1, 2)}, ValueError, r"must be one number, .* got \[1 2\]"),
        ({"orientation": "abc"}, ValueError, "orientation must be one number, 0 to 7, got"),
        ({"wavelength": 0.0}, ValueError, "photon energy is .* no positive number"),
    ],
)
def test_what_data_of_ptylab_lack_is_said(
    tmp_path: Path, of: Truth, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    path = ptylab(tmp_path / "a.hdf5", of, **changes)
    with pytest.raises(error, match=sentence):
        pf.read_scan(path)
    if error is KeyError:
        assert "--distance-m ?" in proposal(path)


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    check_image(
        lambda of: pf.read_scan(
            ptylab(tmp_path / "a.hdf5", of, encoder=np.stack([of.y, of.x], axis=1))
        )
    )
