"""Layouts that other programs write: read rightly where one reading fits, else asked for.

The oracle is the scan that was written: whatever its layout, the scan that is read is equal.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from layout_files import STACKS, N, frames, is_written, line, n, nx, ny, read, write_h5, write_npz
from ptycho_fast.io.layouts import as_complex_numbers, as_layer, as_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("shape", [(n,), (n, 1), (1, n)])
@pytest.mark.parametrize("layout", STACKS)
def test_the_only_possible_reading_is_taken(
    layout: str, shape: tuple[int, ...], load: bool
) -> None:
    stack, (x, y) = STACKS[layout](frames()), (axis.reshape(shape) for axis in line())
    write_h5(data=stack, x=x, y=y)
    with h5py.File("chunked.h5", "w") as file:
        chunks = tuple(max(1, side // 2) for side in stack.shape)
        file.create_dataset("data", data=stack, chunks=chunks, compression="gzip")
        file["x"], file["y"] = x, y
    write_npz(data=stack, x=x, y=y)
    np.savez_compressed("compressed.npz", data=stack, x=x, y=y)
    np.savez("fortran.npz", data=np.asfortranarray(stack), x=x, y=y)
    for path in ("scan.h5", "chunked.h5", "scan.npz", "compressed.npz", "fortran.npz"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*cost .* times its bytes")
            scan = read(path, load=load)
        is_written(scan)
        np.testing.assert_array_equal(
            scan.diffraction[[7, 2, 3, 2]], scan.diffraction[:][[7, 2, 3, 2]]
        )
    known = write_npz(xcoords=x, ycoords=y, diff3d=stack)
    is_written(pf.read_scan(known, load=load, counts=True))


def test_a_grid_is_read_row_by_row_where_patterns_and_positions_are_one() -> None:
    grid = frames().reshape(ny, nx, N, N)
    x, y = (axis.reshape(ny, nx) for axis in line())
    with h5py.File("chunked.h5", "w") as file:
        file.create_dataset("data", data=grid, chunks=(2, 3, N, N))
        file["x"], file["y"] = x, y
    for path in (write_h5(data=grid, x=x, y=y), "chunked.h5", write_npz(data=grid, x=x, y=y)):
        is_written(read(path))
        scan = read(path, load=False)
        rows = np.array([2, 3, 4, 5, 11, 0])
        np.testing.assert_array_equal(scan.diffraction[rows], np.sqrt(frames()[rows], dtype="f4"))
    is_written(pf.read_scan(write_npz(xcoords=x, ycoords=y, diff3d=grid), counts=True))


@pytest.mark.parametrize("grid_of", ["frames", "positions"])
def test_a_grid_of_patterns_or_positions_alone_needs_an_option(grid_of: str) -> None:
    stack, (x, y) = frames(), line()
    if grid_of == "frames":
        stack = stack.reshape(ny, nx, N, N)
    else:
        x, y = x.reshape(ny, nx), y.reshape(ny, nx)
    for path in (write_h5(data=stack, x=x, y=y), write_npz(data=stack, x=x, y=y)):
        with pytest.raises(ValueError, match=r"row by row.*reshape=True \(--reshape\)"):
            read(path)
        is_written(read(path, reshape=True))
    known = write_npz(xcoords=x, ycoords=y, diff3d=stack)
    with pytest.raises(ValueError, match="--reshape"):
        pf.read_scan(known, counts=True)
    is_written(pf.read_scan(known, counts=True, reshape=True))


def test_a_cube_is_read_by_its_first_axis_with_a_warning() -> None:
    cube = frames(N)
    x, y = np.arange(float(N)), np.arange(float(N)) ** 2
    paths = [
        write_h5(data=cube, x=x, y=y, xcoords=x, ycoords=y),
        write_npz(data=cube, x=x, y=y, compressed=True),
    ]
    turned = cube.transpose(2, 0, 1)
    for path in paths:
        with pytest.warns(UserWarning, match=r"first was taken.*frames_axis=0 or frames_axis=2"):
            np.testing.assert_array_equal(read(path).diffraction, np.sqrt(cube, dtype="f4"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # One after the other, so that what is unpacked for one is not taken for the other.
            for axis, stack in ((0, cube), (2, turned), (0, cube)):
                scan = read(path, frames_axis=axis, load=False)
                np.testing.assert_array_equal(
                    scan.diffraction[3:5], np.sqrt(stack[3:5], dtype="f4")
                )
    known = write_npz(xcoords=x, ycoords=y, diff3d=cube)
    with pytest.warns(UserWarning, match="frames_axis"):
        pf.read_scan(known, counts=True)
    scan = pf.read_scan(known, counts=False, frames_axis=2)
    np.testing.assert_array_equal(scan.diffraction, turned.astype("f4"))


def test_arrays_that_are_no_stack_are_refused() -> None:
    path = write_h5(data=frames(), flat=np.zeros((n, N)), x=line()[0], y=line()[1])
    with pytest.raises(ValueError, match=r"must be frames \(n, rows, columns\)"):
        read(path, diffraction="flat")
    with pytest.raises(ValueError, match="frames_axis must be 0 or 2, got 1"):
        read(path, frames_axis=1)
    grid = write_h5(data=frames().reshape(ny, nx, N, N), x=line()[0], y=line()[1])
    with pytest.raises(ValueError, match="frames_axis=2 cannot be right"):
        read(grid, frames_axis=2, reshape=True)


# --- how many ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_frames", "n_positions"), [(n, n - 2), (n - 2, n)])
@pytest.mark.parametrize("load", [True, False])
def test_unequal_numbers_of_frames_and_positions_need_an_option(
    n_frames: int, n_positions: int, load: bool
) -> None:
    x, y = (axis[:n_positions] for axis in line())
    counter = np.arange(n_positions) + 100
    fewer = min(n_frames, n_positions)
    path = write_h5(data=frames()[:n_frames], x=x, y=y)
    known = write_npz(
        xcoords=x, ycoords=y, diff3d=frames()[:n_frames], scan_index=counter,
        Y=np.ones((n_positions, N, N), complex),
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"first={fewer} \(--first {fewer}\)"):
        read(path)
    with pytest.raises(ValueError, match=rf"first={fewer} \(--first {fewer}\)"):
        pf.read_scan(known, counts=True)
    for first in (fewer, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            is_written(read(path, first=first, load=load), slice(first))
            scan = pf.read_scan(known, counts=True, first=first, load=load)
        is_written(scan, slice(first))
        np.testing.assert_array_equal(scan.scan_index, counter[:first])
        assert scan.metadata["Y"].shape == (first, N, N)
        plain = pf.read_scan(known, counts=False, first=first, load=load)
        np.testing.assert_array_equal(plain.diffraction[:], frames()[:first].astype("f4"))
    for asked in (fewer + 1, 0, -1):
        with pytest.raises(ValueError, match="first"):
            read(path, first=asked)


def test_all_arrays_follow_the_positions_that_are_kept() -> None:
    x, y = line()
    x[[2, 7]] = np.nan
    path = write_npz(
        xcoords=x, ycoords=y, xcoords_start=x + 1, ycoords_start=y + 2, diff3d=frames(),
        scan_index=np.arange(n) % 3, objectGuess=np.ones((80, 80), complex),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="2 of 12 frames"):
        scan = pf.read_scan(path, counts=True)
    kept = np.delete(np.arange(n), [2, 7])
    is_written(scan, kept)
    np.testing.assert_array_equal(scan.scan_index, kept % 3)
    np.testing.assert_array_equal(scan.positions_start, scan.positions + np.array([1, 2]))
    assert scan.object is not None


# --- indexes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["positions", "frames"])
def test_an_index_that_seems_to_count_from_1_is_refused(of: str) -> None:
    order = np.random.default_rng(2).permutation(n)
    x, y = line()
    given = order if of == "positions" else np.argsort(order)
    # More frames than positions, or the other way round, tells for which of them the index is.
    path = write_h5(data=frames(), x=x[order], y=y[order], index=order + 1, zero=order)
    if of == "frames":
        more = np.append(x[order], 0.0), np.append(y[order], 0.0)
        path = write_h5(
            data=frames(),
            x=np.roll(more[0], 1),
            y=np.roll(more[1], 1),
            index=given + 2,
            zero=given + 1,
        )
        with pytest.warns(UserWarning, match="1 of 13 positions no frame"):
            is_written(read(path, index="zero"))
        with pytest.warns(UserWarning, match="1 of 13 positions no frame"):
            is_written(read(path, index="index", index_base=1))
        return
    is_written(read(path, index="zero"))
    with pytest.raises(ValueError, match=r"holds 1 \.\. 12.*index_base=1 \(--index-base 1\)"):
        read(path, index="index")
    is_written(read(path, index="index", index_base=1))
    with pytest.warns(UserWarning, match="1 of 12 frames have no position"):
        assert len(read(path, index="index", index_base=0)) == n - 1


def test_several_positions_of_a_frame_are_averaged_on_request() -> None:
    x, y = line()
    index = np.repeat(np.arange(n), 3)[::-1].copy()
    jitter = np.array([-0.5, 0.25, 0.25])
    many_x = (x[index] + np.tile(jitter, n)).copy()
    many_y = (y[index] - np.tile(jitter, n)).copy()
    path = write_h5(data=frames(), x=many_x, y=many_y, index=index)
    with pytest.raises(ValueError, match=r"3 positions belong to frame 0.*average_positions=True"):
        read(path, index="index")
    scan = read(path, index="index", average_positions=True)
    np.testing.assert_allclose(scan.positions, np.stack([x, y], axis=1), rtol=1e-12)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(frames(), dtype="f4"))
    with pytest.raises(ValueError, match="needs index=KEY"):
        read(write_h5(data=frames(), x=x, y=y), average_positions=True)


# --- probes and objects -----------------------------------------------------------------------


def complex_probe(modes: int = 3) -> NDArray[np.complex128]:
    drawn = np.random.default_rng(3).normal(size=(2, modes, N, N))
    return np.asarray(drawn[0] + 1j * drawn[1])


def pairs(values: NDArray[Any], names: tuple[str, str], dtype: str) -> NDArray[Any]:
    made = np.empty(values.shape, [(name, dtype) for name in names])
    made[names[0]], made[names[1]] = values.real, values.imag
    return made


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (complex_probe()[0], complex_probe()[0]),
        (complex_probe()[:1, None], complex_probe()[0]),
        (complex_probe()[None], complex_probe()),
        (complex_probe()[:, None], complex_probe()),
        (np.moveaxis(complex_probe(), 0, 2), complex_probe()),
    ],
    ids=["N,N", "1,1,N,N", "1,modes,N,N", "modes,1,N,N", "N,N,modes"],
)
@pytest.mark.parametrize("names", [None, ("re", "im"), ("Real", "Imag"), ("r", "i")])
def test_probes_of_every_layout_are_read(
    written: NDArray[Any], expected: NDArray[Any], names: tuple[str, str] | None
) -> None:
    x, y = line()
    stored = written if names is None else pairs(written, names, "f8")
    known: dict[str, Any] = {"xcoords": x, "ycoords": y, "diff3d": frames()}
    for scan in (
        read(write_h5(data=frames(), x=x, y=y, probe=stored), probe="probe"),
        pf.read_scan(write_npz(**known, probeGuess=stored), counts=True),
    ):
        np.testing.assert_array_equal(scan.probe, expected)


def test_wrong_probes_and_objects_are_refused_with_the_way_out() -> None:
    x, y = line()
    known: dict[str, Any] = {"xcoords": x, "ycoords": y, "diff3d": frames()}
    with pytest.raises(ValueError, match=r"scan\.npz: 'probeGuess': .*\(2, 3, 8, 8\).*probe\[0\]"):
        pf.read_scan(write_npz(**known, probeGuess=np.ones((2, 3, N, N), complex)), counts=True)
    with pytest.raises(ValueError, match=r"scan\.npz: 'objectGuess': .*\(2, 9, 9\).*one layer"):
        pf.read_scan(write_npz(**known, objectGuess=np.ones((2, 9, 9), complex)), counts=True)
    with pytest.raises(ValueError, match=r"scan\.h5: 'probe': .*\(2, 3, 8, 8\)"):
        read(write_h5(data=frames(), x=x, y=y, probe=np.ones((2, 3, N, N), complex)), probe="probe")
    object_ = complex_probe()[:1]
    scan = pf.read_scan(
        write_npz(**known, objectGuess=pairs(object_, ("re", "im"), "f4")), counts=True
    )
    np.testing.assert_array_equal(scan.object, object_[0].astype("c8"))


def test_other_fields_than_complex_numbers_stay_as_they_are() -> None:
    other = np.zeros(3, [("a", "f4"), ("b", "f4")])
    assert as_complex_numbers(other) is other
    with pytest.raises(ValueError, match="complex is needed"):
        as_probe("probe", other, (N, N))
    with pytest.raises(ValueError, match="complex is needed"):
        as_layer("object", other)


def test_parts_of_arrays_are_read_by_name() -> None:
    x, y = line()
    path = write_h5(
        data=frames(), one=np.stack([x, y], axis=1)[None], rows=np.stack([x, y]),
        grid=np.stack([x, y], axis=1).reshape(ny, nx, 2),
    )  # fmt: skip
    is_written(read(path, x="one[0,:,0]", y="one[0,:,1]"))
    is_written(read(path, x="rows[0]", y="rows[1,:]"))
    is_written(read(path, x="grid[:,:,0]", y="grid[:,:,1]", reshape=True))
    with pytest.raises(ValueError, match=r"Name one row: x='rows\[0\]'"):
        read(path, x="rows", y="rows")
    with pytest.raises(ValueError, match=r"Cannot select 'rows\[2\]': 'rows' has shape \(2, 12\)"):
        read(path, x="rows[2]", y="rows[0]")


def test_an_npz_detector_that_is_not_square_is_cropped() -> None:
    x, y = line()
    stack = frames(width=N + 4)
    path = write_npz(
        xcoords=x, ycoords=y, diff3d=stack, probeGuess=complex_probe()[0],
        detector_mask=np.arange(N * (N + 4)).reshape(N, N + 4) != 40,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=rf"{N} rows x {N + 4} columns. Pass crop={N} \(--crop {N}\)"
    ):
        pf.read_scan(path, counts=True)
    scan = pf.read_scan(path, counts=True, crop=N)
    expected = np.sqrt(stack[:, :, 2 : N + 2], dtype="f4")
    expected[:, 3, 2] = 0  # pixel 40 of 12 columns is in row 3, column 4
    np.testing.assert_array_equal(scan.diffraction, expected)
    assert scan.mask is not None
    assert not scan.mask[3, 2]
    assert scan.mask.sum() == N * N - 1
    np.testing.assert_array_equal(scan.probe, complex_probe()[0])
