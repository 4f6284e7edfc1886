"""Images in CXI, the format of cxidb.org, for this and other programs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.io.formats.cxi import PROBE, TRANSLATION
from ptycho_fast.io.hdf5.links import import_h5py

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container

VERSION = 160
"""Of CXI, times 100."""

IMAGE = "/entry_1/image_1"

INVALID = 0x1
"""The bit of a CXI mask that marks a pixel as unusable."""


def write_image(
    path: str | os.PathLike[str],
    image: NDArray[np.complex64],
    *,
    origin: tuple[int, int],
    probe: NDArray[np.complex64],
    positions: NDArray[np.float64],
    seen: NDArray[np.bool_],
    pixel_size: float | None = None,
    maps: Mapping[str, NDArray[Any] | None] | None = None,
    creator: str = "ptycho_fast",
) -> None:
    """Write an object, its probe and the scan positions as CXI.

    =================================================  ==========================================
    data set                                           content
    =================================================  ==========================================
    ``/entry_1/image_1/data``                          object, (H, W), complex64;
                                                       ``/entry_1/data_1/data`` is a link to it
    ``/entry_1/image_1/mask``                          (H, W), int32; 1 where no light fell
    ``/entry_1/image_1/image_size``, ``image_center``  (x, y, z) in metres
    ``/entry_1/image_1/origin_px``, ``positions_px``   `origin` and `positions`, in pixels
    ``/entry_1/instrument_1/source_1/illumination``    probe, (N, N) or (modes, N, N), complex64
    ``/entry_1/sample_1/geometry_1/translation``       (n, 3), in metres: `positions` times
                                                       `pixel_size`
    =================================================  ==========================================

    What is in metres is left out if the size of a pixel is not known.

    Parameters
    ----------
    path : path
        The file. It appears whole or not at all.
    image : ndarray, (H, W), complex64
        The object, indexed ``[row=y, column=x]``.
    origin : (int, int)
        The pixel (x, y) of ``image[0, 0]`` on the grid of the positions.
    probe : ndarray, (modes, N, N), complex64
        One mode is written as (N, N).
    positions : ndarray, (n, 2), float64
        x and y in pixels.
    seen : ndarray, (H, W), bool
        True where light fell.
    pixel_size : float, optional
        Side of a pixel in metres.
    maps : mapping of str to ndarray, optional
        Further data sets of ``image_1``; what is None is left out.
    creator : str
        The program and its version.

    Raises
    ------
    ImportError
        If h5py is not installed.
    OSError
        If the file cannot be written.
    """
    h5py = import_h5py()
    height, width = image.shape
    entries: dict[str, Any] = {
        "cxi_version": VERSION,
        "entry_1/program_name": creator,
        f"{IMAGE}/data": image,
        f"{IMAGE}/data_space": "real",
        f"{IMAGE}/dimensionality": 2,
        f"{IMAGE}/mask": np.where(seen, 0, INVALID).astype(np.int32),
        f"{IMAGE}/origin_px": np.array(origin, np.int64),
        f"{IMAGE}/positions_px": positions,
        PROBE[0]: probe[0] if len(probe) == 1 else probe,
        **{f"{IMAGE}/{name}": values for name, values in (maps or {}).items()},
    }
    if pixel_size is not None:
        middle = (origin[0] + (width - 1) / 2, origin[1] + (height - 1) / 2, 0)
        entries[f"{IMAGE}/image_size"] = pixel_size * np.array((width, height, 0))
        entries[f"{IMAGE}/image_center"] = pixel_size * np.array(middle)
        entries[TRANSLATION[0]] = pixel_size * np.pad(positions, ((0, 0), (0, 1)))
    # h5py seeks back and forth, so the file is made in memory.
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        for key, value in entries.items():
            if value is not None:
                file[key] = value
        file["entry_1/data_1/data"] = h5py.SoftLink(f"{IMAGE}/data")
        # So that viewers for NeXus files show the image at once.
        file.attrs["default"] = "entry_1"
        file["entry_1"].attrs.update({"NX_class": "NXentry", "default": "data_1"})
        file["entry_1/data_1"].attrs.update({"NX_class": "NXdata", "signal": "data"})
    with replacing(path) as target:
        target.write(made.getbuffer())


class StoredImage(NamedTuple):
    """An image, and what its file says of the scan."""

    values: NDArray[Any]
    """(H, W), indexed ``[row=y, column=x]``."""
    origin: tuple[int, int] | None = None
    """The pixel (x, y) of ``values[0, 0]`` on the grid of the positions, if it is known."""
    positions: NDArray[np.float64] | None = None
    """(n, 2), in pixels."""
    N: int = 0
    """Pixels per side of a pattern; 0 without positions."""


def read_image(container: Container) -> StoredImage | None:
    """Read an image that `write_image` or another program has written as CXI.

    Parameters
    ----------
    container : Container
        The file.

    Returns
    -------
    StoredImage or None
        None if the file holds no image.
    """
    if f"{IMAGE}/data" not in container:
        return None
    image = container.read(f"{IMAGE}/data")
    if f"{IMAGE}/positions_px" not in container:
        return StoredImage(image)
    x, y = container.read(f"{IMAGE}/origin_px").tolist()
    N = container.info(PROBE[0]).shape[-1]
    return StoredImage(image, (x, y), container.read(f"{IMAGE}/positions_px"), N)
