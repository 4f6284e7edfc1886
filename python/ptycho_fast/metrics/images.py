"""The two images and the mask that every score starts from: accepted, checked, and cropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Image = NDArray[np.complex128]
    Mask = NDArray[np.bool_]

FEWEST = 64
"""Fewer pixels than this are too few to compare two images on."""

FLAT = 1e-6
"""An image that varies by less than this fraction of its size is constant, up to float32 rounding.
"""


def as_pair(image: ArrayLike, reference: ArrayLike) -> tuple[Image, Image]:
    """Return two images of one shape as complex128, or raise a ValueError."""
    pair = []
    for name, values in (("image", image), ("reference", reference)):
        array = np.asarray(values)
        if array.ndim != 2 or array.dtype.kind not in "fiuc":
            msg = f"{name} must be (H, W) complex, got shape {array.shape} of {array.dtype}."
            raise ValueError(msg)
        pair.append(array.astype(np.complex128))
    if pair[0].shape != pair[1].shape:
        msg = (
            f"The image is {pair[0].shape} and the reference {pair[1].shape}. Bring both to one "
            "pixel grid, that of the positions (ptycho_fast.canvas.place does this)."
        )
        raise ValueError(msg)
    return pair[0], pair[1]


def as_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Mask:
    """Return a mask of the images' shape with enough pixels, or raise a ValueError."""
    array = np.asarray(mask)
    if array.shape != shape or array.dtype != np.bool_:
        msg = f"mask must be {shape} bool like the images, got {array.shape} of {array.dtype}."
        raise ValueError(msg)
    count = np.count_nonzero(array)
    if count < FEWEST:
        msg = f"The mask has {count} pixels, but {FEWEST} are needed to compare two images."
        raise ValueError(msg)
    return array


def check_values(image: Image, reference: Image, mask: Mask) -> None:
    """Raise a ValueError if an image is not finite, or 0 everywhere, in the mask."""
    for name, values in (("image", image[mask]), ("reference", reference[mask])):
        bad = len(values) - np.count_nonzero(np.isfinite(values))
        if bad:
            msg = f"The {name} is not finite at {bad} of the {len(values)} pixels of the mask."
            raise ValueError(msg)
        if not values.any():
            msg = (
                f"The {name} is 0 at all {len(values)} pixels of the mask, so there is nothing to "
                "compare. Was the mask made from the scan positions of this image?"
            )
            raise ValueError(msg)


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Return the smallest box, as slices of rows and columns, that contains a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
