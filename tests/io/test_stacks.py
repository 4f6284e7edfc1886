"""Stacks of patterns in NPY and TIFF files, and positions in text files."""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import (
    DISTANCE,
    ENERGY,
    OBJECT_PIXEL,
    PIXEL,
    N,
    Truth,
    check_image,
    check_ways,
    misfit,
    n,
    truth,
)
from ptycho_fast.io.suggest import proposal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GEOMETRY: dict[str, Any] = {
    "unit": "um", "energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL,
    "counts": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def table(path: Path, of: Truth, header: str = "", delimiter: str = ",") -> Path:
    """Write number, x and y of each position, in micrometres."""
    rows = np.stack([np.arange(n), of.x * 1e6, of.y * 1e6], axis=1)
    np.savetxt(path, rows, delimiter=delimiter, header=header, comments="", fmt="%.9g")
    return path


def stack(path: Path, of: Truth, kind: str) -> Path:
    """Write the counts; the kinds of TIFF are those that are read in different ways."""
    if kind == "npy":
        np.save(path / "a.npy", of.counts)
        return path / "a.npy"
    tifffile = pytest.importorskip("tifffile")
    kinds: dict[str, dict[str, Any]] = {
        "plain": {}, "big": {"bigtiff": True}, "motorola": {"byteorder": ">"},
        "imagej": {"imagej": True}, "packed": {},
    }  # fmt: skip
    compression = "zlib" if kind == "packed" else None
    with tifffile.TiffWriter(path / "a.tif", **kinds[kind]) as file:
        file.write(of.counts, photometric="minisblack", compression=compression)
    return path / "a.tif"


@pytest.mark.parametrize("kind", ["npy", "plain", "big", "motorola", "imagej", "packed"])
@pytest.mark.parametrize("load", [True, False])
def test_a_stack_and_a_table_make_a_scan(tmp_path: Path, of: Truth, kind: str, load: bool) -> None:
    path, positions = stack(tmp_path, of, kind), table(tmp_path / "pos.csv", of)
    scan = pf.read_scan(path, load=load, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction[:], np.sqrt(of.counts, dtype="f4"))
    np.testing.assert_array_equal(scan.diffraction[[7, 3]], np.sqrt(of.counts[[7, 3]], dtype="f4"))
    if load:
        check_ways(path, scan, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)
    swapped = pf.read_scan(path, x=f"{positions}:2", y=f"{positions}:1", **GEOMETRY)
    assert misfit(swapped, of) > 10


@pytest.mark.parametrize(
    ("header", "delimiter", "x", "y"),
    [
        ("index,x (um),y (um)", ",", "x (um)", "y (um)"),
        ("index,x,y", ",", "1", "2"),
        ("# measured on a Monday\n% at night\n", " ", "1", "2"),
        ("frame;x;y", ";", "x", "y"),
        ("\ufeffframe\tx\ty", "\t", "x", "y"),
    ],
)
def test_columns_have_names_or_numbers(
    tmp_path: Path, of: Truth, header: str, delimiter: str, x: str, y: str
) -> None:
    path = stack(tmp_path, of, "npy")
    positions = table(tmp_path / "pos.txt", of, header, delimiter)
    scan = pf.read_scan(path, x=f"{positions}:{x}", y=f"{positions}:{y}", **GEOMETRY)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)


def test_a_table_may_number_the_frames(tmp_path: Path, of: Truth) -> None:
    order = np.random.default_rng(0).permutation(n)[:50]
    shuffled = Truth(of.scan, of.counts, of.x, of.y)
    positions = table(tmp_path / "pos.csv", shuffled)
    lines = positions.read_text().splitlines()
    positions.write_text("\n".join(lines[row] for row in order))
    path = stack(tmp_path, of, "npy")
    with pytest.warns(UserWarning, match="10 of 60 frames have no position"):
        scan = pf.read_scan(
            path, x=f"{positions}:1", y=f"{positions}:2", index=f"{positions}:0", **GEOMETRY
        )
    assert misfit(scan, of, np.sort(order)) == pytest.approx(1, abs=0.1)


def test_positions_may_be_in_an_npy_file(tmp_path: Path, of: Truth) -> None:
    path = stack(tmp_path, of, "npy")
    np.save(tmp_path / "pos.npy", np.asfortranarray(of.scan.positions))
    scan = pf.read_scan(
        path, x=f"{tmp_path / 'pos.npy'}:[:,0]", y=f"{tmp_path / 'pos.npy'}:[:,1]", unit="px",
        counts=True,
    )  # fmt: skip
    np.testing.assert_array_equal(scan.positions, of.scan.positions)


def test_the_table_of_a_beamline_serves_hdf5_too(tmp_path: Path, of: Truth) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = of.counts
    positions = table(tmp_path / "pos.csv", of)
    scan = pf.read_scan(
        tmp_path / "a.h5", diffraction="/entry/data", x=f"{positions}:1", y=f"{positions}:2",
        **GEOMETRY,
    )  # fmt: skip
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(scan.metadata["object_pixel_m"], OBJECT_PIXEL)


def test_a_table_without_a_column_asks_for_one(tmp_path: Path, of: Truth) -> None:
    positions = table(tmp_path / "pos.csv", of)
    with pytest.raises(KeyError, match=r"pos\.csv has several columns: .*Name one.*csv:0"):
        pf.read_scan(stack(tmp_path, of, "npy"), x=f"{positions}", y=f"{positions}:2", **GEOMETRY)


@pytest.mark.parametrize("first", ["", "x_px\n"])
def test_a_table_of_one_column_is_named_without_it(tmp_path: Path, of: Truth, first: str) -> None:
    for axis, name in enumerate("xy"):
        lines = "\n".join(map(repr, of.scan.positions[:, axis].tolist()))
        (tmp_path / f"{name}.csv").write_text(f"{first}{lines}\n")
    scan = pf.read_scan(
        stack(tmp_path, of, "npy"), x=f"{tmp_path}/x.csv", y=f"{tmp_path}/y.csv", counts=True,
        unit="px",
    )  # fmt: skip
    np.testing.assert_array_equal(scan.positions, of.scan.positions)


@pytest.mark.parametrize("name", ["none.npz", "none.h5", "none.csv"])
def test_a_missing_file_is_told_from_a_missing_array(tmp_path: Path, of: Truth, name: str) -> None:
    arrays: dict[str, Any] = {"d": of.counts, "x.h5": of.scan.positions[:, 0]}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileNotFoundError, match=rf"{name}"):
        pf.read_scan(tmp_path / "a.npz", diffraction="d", x="x.h5", y=name, counts=True, unit="px")


def test_npy_files_are_named_without_a_key(tmp_path: Path, of: Truth) -> None:
    here = f"{tmp_path}/{{}}".format
    np.save(here("x.npy"), of.scan.positions[:, 0])
    np.save(here("xy.npy"), of.scan.positions)
    assert of.scan.probe is not None
    np.save(here("probe.npy"), of.scan.probe)
    bad = np.zeros(of.counts.shape[1:], bool)
    bad[2, 3] = True
    np.save(here("bad.npy"), bad)
    names = {"x": here("x.npy"), "y": here("xy.npy[:,1]"), "probe": here("probe.npy")}
    options: dict[str, Any] = {**names, "counts": True, "unit": "px"}
    for mask in (here("bad.npy"), here("bad.npy:data")):  # the name of the file says bad
        scan = pf.read_scan(stack(tmp_path, of, "npy"), mask=mask, **options)
        np.testing.assert_array_equal(scan.positions, of.scan.positions)
        assert scan.mask is not None
        np.testing.assert_array_equal(scan.mask, ~bad)
        assert scan.probe is not None
    with pytest.raises(ValueError, match=r"Name one column: x='.*xy\.npy\[:,0\]'"):
        pf.read_scan(stack(tmp_path, of, "npy"), **{**options, "x": here("xy.npy")})
    with pytest.raises(ValueError, match=r"Cannot select '\[:,7\]': '.*xy\.npy' has shape"):
        pf.read_scan(stack(tmp_path, of, "npy"), **{**options, "x": here("xy.npy[:,7]")})
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        pf.read_scan(stack(tmp_path, of, "npy"), **{**options, "x": here("none.npy")})


def test_a_mask_may_be_a_tiff_file_of_one_page(tmp_path: Path, of: Truth) -> None:
    tifffile = pytest.importorskip("tifffile")
    marks = np.zeros(of.counts.shape[1:], np.uint8)
    marks[2, 3] = 1
    tifffile.imwrite(tmp_path / "mask.tif", marks)
    positions = table(tmp_path / "pos.csv", of)
    scan = pf.read_scan(
        stack(tmp_path, of, "npy"), x=f"{positions}:1", y=f"{positions}:2",
        mask=f"{tmp_path / 'mask.tif'}", **GEOMETRY,
    )  # fmt: skip
    assert scan.mask is not None
    np.testing.assert_array_equal(scan.mask, marks == 0)


@pytest.mark.parametrize("kind", ["npy", "plain"])
def test_what_a_stack_does_not_say_is_asked_for(tmp_path: Path, of: Truth, kind: str) -> None:
    path = stack(tmp_path, of, kind)
    with pytest.raises(KeyError, match="holds patterns alone. Name their positions.*csv:0'"):
        pf.read_scan(path)
    assert " --counts --x ? --y ? --unit ?" in proposal(path)
    np.save(tmp_path / "f.npy", of.counts.astype("f4"))
    assert "(--counts or --amplitude) --x ? --y ? --unit ?" in proposal(tmp_path / "f.npy")


@pytest.mark.parametrize(
    ("text", "column", "error", "sentence"),
    [
        ("x,y\n1,2\n3\n", "x", OSError, "line 1 has 2 columns, but line 3 has 1"),
        ("1,2\n3,four\n", "1", ValueError, "'four' in line 2, column '1', is no number"),
        ("x,y\n1,2\n", "z", KeyError, r"has no column 'z'. Its columns: x \(1,\), y \(1,\)"),
        ("1,2\n3,4\n", "2", KeyError, r"no column '2'.*0 \(2,\), 1 \(2,\).*counted from 0"),
        ("# nothing\n\n", "0", OSError, "holds no table"),
        ("", "0", OSError, "holds no table: all of its lines are empty"),
        ("x,y\n", "x", OSError, "has no rows: line 1 names its columns, and none follows"),
        ("x,y\n1,2\n".encode("utf-16"), "x", OSError, "no table of text in UTF-8 .byte 0"),
        ("# \u00b5m\n1,2\n".encode("latin-1"), "0", OSError, r"UTF-8 \(byte 2: .*again in UTF-8"),
        ("1.5,2", "0", ValueError, "There are 60 frames, but 1 positions"),
        ("x,x\n1,2\n", "x", ValueError, "2 columns that are called 'x'.*FILE:0 or FILE:1"),
        ("x,x,y\n1,2,3\n", "z", KeyError, r"Its columns: 0 \(1,\), 1 \(1,\), y \(1,\)"),
    ],
)
def test_wrong_tables_are_refused(
    tmp_path: Path,
    of: Truth,
    text: str | bytes,
    column: str,
    error: type[Exception],
    sentence: str,
) -> None:
    (tmp_path / "pos.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    name = f"{tmp_path / 'pos.csv'}:{column}"
    with pytest.raises(error, match=sentence):
        pf.read_scan(stack(tmp_path, of, "npy"), x=name, y=name, **GEOMETRY)


@pytest.mark.parametrize("column", ["0", "[:,0]", "x (um)"])
def test_a_file_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, of: Truth, column: str
) -> None:
    name = f"{tmp_path / 'none.csv'}:{column}"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.csv, in which"):
        pf.read_scan(stack(tmp_path, of, "npy"), x=name, y=name, **GEOMETRY)


def test_a_line_without_its_end_is_a_table(tmp_path: Path, of: Truth) -> None:
    np.save(tmp_path / "one.npy", of.counts[:1])
    (tmp_path / "pos").write_text("17,18")
    name = str(tmp_path / "pos")
    scan = pf.read_scan(tmp_path / "one.npy", x=f"{name}:0", y=f"{name}:1", unit="px", counts=True)
    np.testing.assert_array_equal(scan.positions, [[17, 18]])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10] + bytes(500))


@pytest.mark.parametrize("damage", [cut, garbled])
@pytest.mark.parametrize("kind", ["npy", "plain", "packed"])
def test_damaged_stacks_are_refused(
    tmp_path: Path, of: Truth, kind: str, damage: Callable[[Path], None]
) -> None:
    path, positions = stack(tmp_path, of, kind), table(tmp_path / "pos.csv", of)
    damage(path)
    with pytest.raises((OSError, ValueError), match="cut short|damaged"):
        pf.read_scan(path, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)


@pytest.mark.parametrize("order", ["fortran", "last"])
def test_stacks_in_another_order_are_refused(tmp_path: Path, of: Truth, order: str) -> None:
    turned = np.asfortranarray(of.counts)
    if order == "last":
        turned = np.ascontiguousarray(of.counts.transpose(1, 2, 0))
    np.save(tmp_path / "a.npy", turned)
    positions = table(tmp_path / "pos.csv", of)
    with pytest.raises(ValueError, match="numpy.ascontiguousarray"):
        pf.read_scan(tmp_path / "a.npy", x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)


def test_pictures_are_no_patterns(tmp_path: Path, of: Truth) -> None:
    tifffile = pytest.importorskip("tifffile")
    positions = table(tmp_path / "pos.csv", of)
    names: dict[str, Any] = {"x": f"{positions}:1", "y": f"{positions}:2", **GEOMETRY}
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((n, N, N, 3), "u1"), photometric="rgb")
    with pytest.raises(ValueError, match="colour pages, .* with photometric='minisblack'"):
        pf.read_scan(tmp_path / "rgb.tif", **names)
    colours = {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}
    tifffile.imwrite(tmp_path / "palette.tif", of.counts.astype("u1"), **colours)
    with pytest.raises(ValueError, match="colour pages"):
        pf.read_scan(tmp_path / "palette.tif", **names)
    # Three frames are taken for the colours of one.
    tifffile.imwrite(tmp_path / "three.tif", of.counts[:3].astype("u1"), photometric="rgb")
    with pytest.raises(ValueError, match="colour pages"):
        pf.read_scan(tmp_path / "three.tif", first=3, **names)
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(np.zeros((3, 8, 8), "u2"))
        file.write(np.zeros((4, 9, 9), "u2"))
    with pytest.raises(
        ValueError, match=r"pages of one size, got 3 x 8 x 8 of uint16.*, 4 x 9 x 9"
    ):
        pf.read_scan(tmp_path / "two.tif", **names)


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_frames_that_are_written_one_by_one_are_a_stack(
    tmp_path: Path, of: Truth, described: bool, compression: str | None
) -> None:
    tifffile = pytest.importorskip("tifffile")
    metadata: Any = {} if described else None
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in of.counts:
            file.write(frame, contiguous=False, metadata=metadata, compression=compression)
    positions = table(tmp_path / "pos.csv", of)
    names: dict[str, Any] = {"x": f"{positions}:1", "y": f"{positions}:2", **GEOMETRY}
    scan = pf.read_scan(tmp_path / "a.tif", **names)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    check_ways(tmp_path / "a.tif", scan, **names)


@pytest.mark.parametrize("different", ["shape", "dtype", "compression"])
@pytest.mark.parametrize("described", [True, False])
def test_pages_that_differ_are_refused(
    tmp_path: Path, of: Truth, different: str, described: bool
) -> None:
    tifffile = pytest.importorskip("tifffile")
    metadata: Any = {} if described else None
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, frame in enumerate(of.counts):
            page, compression = frame, None
            if number == 4:
                page = frame[:8] if different == "shape" else frame
                page = frame.astype("f4") if different == "dtype" else page
                compression = "zlib" if different == "compression" else None
            file.write(page, contiguous=False, metadata=metadata, compression=compression)
    positions = table(tmp_path / "pos.csv", of)
    with pytest.raises(ValueError, match="must hold pages of one size, got .* of .* of "):
        pf.read_scan(tmp_path / "a.tif", x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_nothing_but_the_error_is_said_of_a_cut_file(
    tmp_path: Path, of: Truth, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, positions = stack(tmp_path, of, kind), table(tmp_path / "pos.csv", of)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(OSError, match=r"it ends after \d+ whole pages.*damaged or cut short"):
        pf.read_scan(path, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)
    assert not caplog.records


def test_compressed_pages_are_closed(tmp_path: Path, of: Truth) -> None:
    path, positions = stack(tmp_path, of, "packed"), table(tmp_path / "pos.csv", of)
    scan = pf.read_scan(path, load=False, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)
    np.asarray(scan.diffraction[:3])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del scan
        gc.collect()
    assert not [one for one in said if issubclass(one.category, ResourceWarning)]


def test_pages_that_were_changed_are_not_mixed(tmp_path: Path, of: Truth) -> None:
    path, positions = stack(tmp_path, of, "packed"), table(tmp_path / "pos.csv", of)
    scan = pf.read_scan(path, load=False, x=f"{positions}:1", y=f"{positions}:2", **GEOMETRY)
    os.utime(path, ns=(1, 1))
    with pytest.raises(OSError, match="was changed since it was opened"):
        scan.diffraction[3]


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    positions = tmp_path / "pos.csv"
    check_image(
        lambda of: pf.read_scan(
            stack(tmp_path, of, "npy"),
            x=f"{table(positions, of)}:1",
            y=f"{positions}:2",
            **GEOMETRY,
        )
    )
