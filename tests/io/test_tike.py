"""Data of tike, written by the rules of its functions."""

from __future__ import annotations

import bz2
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import N, Truth, check_image, check_ways, misfit, truth

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def tike(path: Path, of: Truth, **changes: Any) -> Path:
    """Write (1, n, N, N), (1, n, 2) and (1, 1, 1, modes, N, N); None leaves an array out."""
    assert of.scan.probe is not None
    side = of.scan.N
    arrays = {
        "data": np.fft.ifftshift(of.counts, axes=(1, 2)).astype("f4")[np.newaxis],
        # Row and column of the first pixel of each window.
        "scan": (of.scan.positions[:, ::-1] - side // 2).astype("f4")[np.newaxis],
        "probe": of.scan.probe[np.newaxis, np.newaxis, np.newaxis, np.newaxis],
        **changes,
    }
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize("side", [31, 32])
def test_data_of_tike_explain_themselves(tmp_path: Path, side: int) -> None:
    of = truth(side)
    scan = pf.read_scan(tike(tmp_path / "a.npz", of))
    assert scan.probe is not None
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    np.testing.assert_allclose(scan.positions, of.scan.positions, atol=1e-4)
    check_ways(tmp_path / "a.npz", scan)
    for wrong in ("swap_xy", "flip_x", "flip_y"):
        options: dict[str, Any] = {wrong: True}
        assert misfit(pf.read_scan(tmp_path / "a.npz", **options), of) > 10


def test_positions_of_tike_lie_on_its_object(tmp_path: Path, of: Truth) -> None:
    assert of.scan.object is not None
    scan = pf.read_scan(tike(tmp_path / "a.npz", of, psi=of.scan.object[np.newaxis]))
    np.testing.assert_array_equal(scan.object, of.scan.object)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    # A smaller window has larger pixels, which are not those of the object.
    with pytest.warns(UserWarning, match="The probe has shape"):
        small = pf.read_scan(tmp_path / "a.npz", crop=16)
    assert small.object is None
    np.testing.assert_allclose(small.positions, of.scan.positions / 2, atol=1e-4)


def test_arrays_of_other_shapes_are_not_taken_for_tike(tmp_path: Path, of: Truth) -> None:
    for change in ({"scan": np.zeros((3, 2))}, {"probe": np.zeros((N, N))}, {"probe": None}):
        with pytest.raises(KeyError, match="is not a scan: it lacks xcoords"):
            pf.read_scan(tike(tmp_path / "a.npz", of, **change))


def test_a_mask_is_shifted_as_the_patterns_are(tmp_path: Path, of: Truth) -> None:
    good = np.ones((N, N), bool)
    good[N // 2 + 2, 0] = False
    path = tike(tmp_path / "a.npz", of, good_pixels=np.fft.ifftshift(good))
    np.testing.assert_array_equal(pf.read_scan(path, mask="good_pixels").mask, good)


@pytest.mark.parametrize("key", ["diff3d", "diffraction"])
def test_an_npz_scan_may_hold_arrays_with_the_names_of_tike(
    tmp_path: Path, of: Truth, key: str
) -> None:
    x, y = of.scan.positions.T
    plain = {key: of.scan.diffraction, "xcoords": x, "ycoords": y}
    scan = pf.read_scan(tike(tmp_path / "a.npz", of, **plain))
    np.testing.assert_array_equal(scan.diffraction, of.scan.diffraction)
    np.testing.assert_array_equal(scan.positions, of.scan.positions)


def test_light_in_the_middle_is_said_not_to_be_of_tike(tmp_path: Path, of: Truth) -> None:
    path = tike(tmp_path / "a.npz", of, data=of.counts.astype("f4")[np.newaxis])
    with (
        pytest.warns(UserWarning, match="The mean pattern is centred on"),
        pytest.warns(UserWarning, match="was read as data of tike, whose zero.* name its arrays"),
    ):
        pf.read_scan(path)


@pytest.mark.parametrize("dtype", ["U4", "?", "c8"])
def test_windows_of_tike_must_be_real_numbers(tmp_path: Path, of: Truth, dtype: str) -> None:
    corners = (of.scan.positions[:, ::-1] - N // 2)[np.newaxis].astype(dtype)
    with pytest.raises(ValueError, match="'scan' must be real numbers"):
        pf.read_scan(tike(tmp_path / "a.npz", of, scan=corners))


def test_a_file_that_bzip2_compressed_is_read(tmp_path: Path, of: Truth) -> None:
    plain = tike(tmp_path / "a.npz", of)
    packed = tmp_path / "a.npz.bz2"
    packed.write_bytes(bz2.compress(plain.read_bytes()))
    scan = pf.read_scan(packed)
    np.testing.assert_array_equal(scan.diffraction, pf.read_scan(plain).diffraction)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    check_ways(packed, scan)


def test_damage_of_a_bzip2_file_is_an_os_error(tmp_path: Path, of: Truth) -> None:
    content = bz2.compress(tike(tmp_path / "a.npz", of).read_bytes())
    path = tmp_path / "a.npz.bz2"
    middle = len(content) // 2
    for damaged in (content[:middle], content[:middle] + b"????" + content[middle + 4 :]):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="can't be decompressed"):
            pf.read_scan(path)
    path.write_bytes(bz2.compress(b"row column\n"))
    with pytest.raises(OSError, match="is compressed. Decompress it first"):
        pf.read_scan(path)


def test_what_decompresses_to_far_more_than_it_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_fast.io.npz.bzip2.MOST", 2**21)
    path = tmp_path / "bomb.npz.bz2"
    path.write_bytes(bz2.compress(b"PK" + bytes(2**22)))
    with pytest.raises(ValueError, match=r"would decompress to more than 0\.00195 GiB"):
        pf.read_scan(path)


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    check_image(lambda of: pf.read_scan(tike(tmp_path / "a.npz", of)))
