"""The options that are suggested for a file read the scan that was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from layout_files import N, frames, is_written, line, n, nx, ny, write_h5, write_npz
from ptycho_fast.io.suggest import proposal, suggest

if TYPE_CHECKING:
    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def read_suggested(path: str, **filled: Any) -> pf.Scan:
    """Read a file as it is suggested, and what is ``?`` as it is filled in."""
    guess = suggest(path)
    unknown = {key for key, value in guess.items() if value == "?"}
    assert unknown == set(filled)
    told: dict[str, Any] = {key: value for key, value in guess.items() if value != "?"}
    for key in ("counts", "reshape", "invert_mask"):
        if key in told:
            told[key] = told[key] == "True"
    for key in ("energy_eV", "distance_m", "detector_pixel_m"):
        if key in told:
            told[key] = float(told[key])
    return pf.read_scan(path, **told, **filled)


def test_stacks_of_equal_frames_are_not_taken_one_for_all() -> None:
    parts = {f"part{k}/data": frames()[k * 4 : k * 4 + 4] for k in range(3)}
    path = write_h5(**parts, **{"part0/xy": np.zeros((4, 2))})
    assert set(suggest(path).values()) == {"?"}
    text = proposal(path)
    assert "--diffraction ? " in text
    assert "3 stacks have frames of the same size: /part0/data (4, 8, 8)" in text
    # Darks are no part of a scan.
    path = write_h5(data=frames(), dark=frames()[:4], x=line()[0], y=line()[1])
    assert suggest(path)["diffraction"] == "/data"


@pytest.mark.parametrize(
    ("unit", "factor", "known"),
    [
        ("micrometers", 1e-6, True), ("Micron", 1e-6, True), ("µm", 1e-6, True), ("nm", 1e-9, True),
        ("Millimetre", 1e-3, True), ("cm", 1e-2, False), ("inch", 0.0254, False),
        ("furlong", None, False),
    ],
)  # fmt: skip
def test_units_are_recognised_in_any_spelling(unit: str, factor: float | None, known: bool) -> None:
    x, y = line()
    pixel, distance, energy = 75e-6, 2.0, 8.8
    path = write_h5(data=frames(), x=x, y=y, pixel_size=0.0, distance=0.0, energy=energy)
    with h5py.File(path, "r+") as file:
        file["energy"].attrs["units"] = "keV"
        for key in ("x", "y", "pixel_size", "distance"):
            file[key].attrs["units"] = unit
        for key, value in {"pixel_size": pixel, "distance": distance}.items():
            file[key][()] = value / (factor or 1)
    guess = suggest(path)
    assert float(guess["energy_eV"]) == pytest.approx(8800)
    assert (guess["unit"] != "?") == known
    if factor is None:
        assert guess["distance_m"] == guess["detector_pixel_m"] == "?"
        assert "furlong" in proposal(path)
        return
    assert float(guess["distance_m"]) == pytest.approx(distance)
    assert float(guess["detector_pixel_m"]) == pytest.approx(pixel)
    if known:
        scan = read_suggested(path)
        step = np.diff(scan.positions, axis=0) * scan.metadata["object_pixel_m"]
        np.testing.assert_allclose(step, np.diff(np.stack([x, y], axis=1), axis=0) * factor)


def test_of_several_possible_distances_none_is_suggested() -> None:
    x, y = line()
    base: dict[str, Any] = {"data": frames(), "x": x, "y": y}
    path = write_npz(**base, detector_distance_m=2.0, focus_distance_m=0.0)
    assert suggest(path)["distance_m"] == "2"
    assert "not a plausible value: focus_distance_m, 0" in proposal(path)
    path = write_npz(**base, camera_distance_m=2.0, focus_distance_m=0.1)
    assert suggest(path)["distance_m"] == "?"
    assert "several candidates: camera_distance_m, 2; focus_distance_m, 0.1" in proposal(path)
    # Without a unit it can only be metres, and 450 mm are no 450 m.
    path = write_npz(**base, pixel_size=55.0)
    assert suggest(path)["detector_pixel_m"] == "?"


@pytest.mark.parametrize(
    "positions",
    [
        {"x": (n,), "y": (n,)}, {"x": (n, 1), "y": (n, 1)}, {"x": (ny, nx), "y": (ny, nx)},
        {"xy": (n, 2)}, {"xy": (2, n)}, {"xy": (1, n, 2)}, {"xy": (ny, nx, 2)},
        {"positions_yx": (n, 2)},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stack", [(n, N, N), (1, n, N, N), (ny, nx, N, N), (N, N, n)], ids=str)
@pytest.mark.parametrize("compressed", [True, False])
def test_what_is_suggested_reads_what_was_written(
    stack: tuple[int, ...], positions: dict[str, tuple[int, ...]], compressed: bool
) -> None:
    x, y = line()
    arrays: dict[str, NDArray[Any]] = {"x": x, "y": y}
    for key, shape in positions.items():
        if len(positions) == 2:
            arrays[key] = arrays[key].reshape(shape)
        else:
            pair = [y, x] if key.endswith("yx") else [x, y]
            arrays = {key: np.stack(pair, axis=0 if shape[0] == 2 else 1).reshape(shape)}
    data = frames().transpose(1, 2, 0) if stack[0] == N else frames().reshape(stack)
    path = write_npz(data=np.ascontiguousarray(data), **arrays, compressed=compressed)
    is_written(read_suggested(path, unit="px", **_of_metres(path)))
    with h5py.File("scan.h5", "w") as file:
        file["data"] = data
        for key, values in arrays.items():
            file[key] = values
            file[key].attrs["units"] = "pixels"
    is_written(read_suggested("scan.h5"))
    text = proposal("scan.h5")
    assert text.startswith("This command may read it")


def _of_metres(path: str) -> dict[str, Any]:
    """Return what metres would need, which pixels do without."""
    return dict.fromkeys(("energy_eV", "distance_m", "detector_pixel_m") & suggest(path).keys())


@pytest.mark.parametrize(("name", "turned"), [("bad_pixels", False), ("mask", True)])
def test_a_mask_is_suggested_the_way_it_counts(name: str, turned: bool) -> None:
    x, y = line()
    good = np.ones((N, N), bool)
    good[1, 2] = False
    # ptypy writes numbers of which 1 is good.
    stored = ~good if name == "bad_pixels" else good.astype("u1")
    path = write_h5(data=frames(), x=x, y=y, **{name: stored})
    with h5py.File(path, "r+") as file:
        file["x"].attrs["units"] = file["y"].attrs["units"] = "px"
    assert ("invert_mask" in suggest(path)) == turned
    np.testing.assert_array_equal(read_suggested(path).mask, good)


def test_a_failing_command_is_shown_with_its_error() -> None:
    x, y = line()
    path = write_h5(data=frames(), x=x, y=y)
    with h5py.File(path, "r+") as file:
        file["x"].attrs["units"] = file["y"].attrs["units"] = "px"
        del file["data"]
        layout = h5py.VirtualLayout((n, N, N), "u4")
        layout[:] = h5py.VirtualSource("gone.h5", "data", (n, N, N))
        file.create_virtual_dataset("data", layout)
    text = proposal(path)
    assert not text.startswith("If these")
    assert "is made of gone.h5, which is missing" in text


def test_unequal_numbers_of_frames_and_positions_are_reported() -> None:
    x, y = line()
    path = write_npz(data=frames(), x=x[:9], y=y[:9])
    assert suggest(path)["index"] == "?"
    assert "12 frames, but 9 positions in x" in proposal(path)
    assert "--first 9" in proposal(path)
