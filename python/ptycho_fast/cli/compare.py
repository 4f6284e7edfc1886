"""``ptycho-fast compare``: score an image against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.canvas import place
from ptycho_fast.cli.command import add_command
from ptycho_fast.io import read_scan
from ptycho_fast.io.formats.cxi_image import StoredImage, read_image
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.regular import open_regular
from ptycho_fast.metrics import score
from ptycho_fast.reconstruction.result import ARRAYS, Reconstruction

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.metrics import Scores

KINDS = (
    "a folder that reconstruct or infer wrote, a scan file with an object, an object.h5, an NPZ "
    "file with an object, or an NPY file"
)

POSITIONS = {"xcoords", "ycoords", "probe_position_x_m"}
"""An object beside one of these is that of a scan, on whose grid it lies."""

UNITS = {
    "phase_rmse": "rad",
    "amplitude_rmse": "of the reference",
    "frc": "of the Nyquist frequency",
    "shift": "pixels, along x and y",
}


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "compare",
        run,
        summary="Score an image against another: phase, amplitude, resolution.",
        example="OUT/ scan.npz",
        usage="A B [options]",
    )
    parser.add_argument("image", type=Path, metavar="A", help=f"the image: {KINDS}")
    parser.add_argument(
        "reference", type=Path, metavar="B", help="the reference that A is compared with, likewise"
    )
    parser.add_argument(
        "--scan", type=Path, metavar="FILE",
        help="scan whose positions say where the images are compared (default: the positions "
        "in B or, if it has none, in A)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    image, reference = (_read(path) for path in (arguments.image, arguments.reference))
    origins = _origin(image, reference), _origin(reference, image)
    positions, N, source = _positions(arguments, image, reference)
    values = place(
        image.values,
        (origins[0][0] - origins[1][0], origins[0][1] - origins[1][1]),
        (reference.values.shape[0], reference.values.shape[1]),
    )
    for name, path, each, (x, y) in (
        ("A", arguments.image, image, origins[0]),
        ("B", arguments.reference, reference, origins[1]),
    ):
        height, width = each.values.shape
        assumed = "" if each.origin is not None else ", as assumed"
        print(f"{name:12}{path}: {width} x {height} pixels from x = {x}, y = {y}{assumed}")
    print(f"{'positions':12}{len(positions)}, of {source}")
    _print_scores(score(values, reference.values, positions - np.array(origins[1]), N))


def _origin(image: StoredImage, other: StoredImage) -> tuple[int, int]:
    """Return where an image lies on the grid of the positions.

    A file that does not say it is taken to lie like the other image, if they have one shape, and
    to begin at the grid's origin otherwise.
    """
    if image.origin is not None:
        return image.origin
    if other.origin is not None and image.values.shape == other.values.shape:
        return other.origin
    return 0, 0


def _positions(
    arguments: argparse.Namespace, image: StoredImage, reference: StoredImage
) -> tuple[NDArray[np.float64], int, Path]:
    if arguments.scan is not None:
        scan = read_scan(arguments.scan, load=False)
        return scan.positions, scan.N, arguments.scan
    for path, each in ((arguments.reference, reference), (arguments.image, image)):
        if each.positions is not None:
            return each.positions, each.N, path
    msg = (
        f"Neither {arguments.image} nor {arguments.reference} has scan positions, which say where "
        "the images are compared. Name the scan: --scan FILE."
    )
    raise ValueError(msg)


def _read(path: Path) -> StoredImage:
    """Read an image from any file or folder that may hold one."""
    image = _read_any(path)
    values = image.values
    if values.ndim != 2 or values.dtype.kind not in "fiuc":
        msg = f"{path} holds no image: (H, W) numbers are needed, got {values.dtype} of shape "
        msg += f"{values.shape}."
        raise ValueError(msg)
    return image


def _read_any(path: Path) -> StoredImage:
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".npy":
        return StoredImage(_read_npy(path))
    with open_container(path) as container:
        if "format" in container and "coverage" in container:
            return _from_reconstruction(path)
        if (found := read_image(container)) is not None:
            return found
        keys = {key.lstrip("/") for key in container.arrays()}
        if "object" in keys and not POSITIONS & keys:
            return StoredImage(container.read("object"))
    scan = read_scan(path, load=False)
    if scan.object is None:
        msg = f"{path} is a scan without an object. Name {KINDS}."
        raise ValueError(msg)
    return StoredImage(scan.object, (0, 0), scan.positions, scan.N)


def _from_folder(folder: Path) -> StoredImage:
    if (folder / ARRAYS).exists():
        return _from_reconstruction(folder)
    if not (folder / "object.npy").exists():
        msg = f"{folder} has neither {ARRAYS} nor object.npy. Name {KINDS}."
        raise FileNotFoundError(msg)
    values, record = _read_npy(folder / "object.npy"), folder / "metrics.json"
    if not record.exists():
        return StoredImage(values)
    try:
        x, y = (int(number) for number in json.loads(record.read_text())["origin"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{record} does not say where the image lies: {error!r:.200}. Run infer again."
        raise ValueError(msg) from None
    return StoredImage(values, (x, y))


def _from_reconstruction(path: Path) -> StoredImage:
    made = Reconstruction.load(path)
    return StoredImage(made.object, made.origin, made.positions, made.probe.shape[-1])


def _read_npy(path: Path) -> NDArray[Any]:
    with open_regular(path) as file:
        try:
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            msg = f"{path} is not an NPY file, or it is damaged ({error}). Write it again."
            raise OSError(msg) from error
    return values


def _print_scores(scores: Scores) -> None:
    for name, value in scores.as_dict().items():
        if name == "twin":
            continue
        numbers = value if isinstance(value, list) else [value]
        told = ", ".join(f"{number:.4g}" for number in numbers)
        print(f"{name.replace('_', ' '):23}{told} {UNITS.get(name, '')}".rstrip())
    twin = scores.twin
    if twin is not None:
        print(f"{'of the twin':23}phase rmse {twin.phase_rmse:.4g} rad")
        if twin.phase_rmse < scores.phase_rmse:
            print("The twin of A (conjugated, turned by 180 degrees) fits B better than A does.")
