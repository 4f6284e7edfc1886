"""Whether a mask marks good or bad pixels: one rule for every format.

- A mask whose name says bad (``bad_pixels``, ``dead``, ``hot``, ``invalid``) marks bad pixels by
  True or by numbers other than 0; one whose name says good (``good_pixels``, ``valid``) marks good
  pixels in the same way.
- An array in an NPY or TIFF file has the name of the file.
- With any other name, True marks good pixels in a mask of bools, and 0 marks them in a mask of
  numbers (the bit fields of NeXus and CXI).
- ``invert_mask=True`` reverses the meaning of any of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe

SAYS_BAD = re.compile(r"(?<![a-z])(bad|dead|hot|invalid|defect|broken)")
SAYS_GOOD = re.compile(r"(?<![a-z])(good|valid)")
SAYS_MASK = re.compile(r"(?<![a-z])mask|mask(?![a-z])")

OF_FILE = re.compile(r"(\.(?:npy|tiff?)):(?:data)?(?:\[.*\])?$", re.IGNORECASE)
"""The array of a file that holds one, which has no name of its own."""


def names_a_mask(key: str) -> bool:
    """Tell whether an array of this name is likely to be a mask."""
    name = _last(key)
    return any(says.search(name) for says in (SAYS_BAD, SAYS_GOOD, SAYS_MASK))


def good_pixels(
    key: str, values: NDArray[Any], shape: tuple[int, ...], *, invert: bool = False
) -> NDArray[np.bool_]:
    """Return True for good pixels.

    Parameters
    ----------
    key : str
        The name of the mask, which may say whether it marks good or bad pixels.
    values : ndarray, (H, W), or (n, H, W) for a mask of each frame, bool or numbers
        The mask as it is stored.
    shape : tuple of int, (n, H, W)
        Of the frames.
    invert : bool
        It has the opposite of the meaning that the rule gives it.

    Returns
    -------
    ndarray, (H, W) or (n, H, W), bool

    Raises
    ------
    ValueError
        If the shape does not fit, or no pixel is good.

    Warns
    -----
    UserWarning
        If fewer than half of the pixels are good.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.masks import good_pixels
    >>> good_pixels("bad_pixels", np.array([[True, False]]), (9, 1, 2))
    array([[False,  True]])
    """
    if values.shape == (1, *shape[1:]):  # a TIFF file of one page
        values = values[0]
    if values.shape not in (shape, shape[1:]) or values.dtype.kind not in "fiub":
        msg = (
            f"The mask {key!r} must be bools or numbers of shape {shape[1:]}, one for each pixel "
            f"of the detector, got shape {values.shape} of {values.dtype}."
        )
        raise ValueError(msg)
    name = _last(key)
    marked: NDArray[np.bool_] = values != 0
    if SAYS_BAD.search(name):
        good, rule = ~marked, f"its name says that pixels that are {_set(values)} are bad"
    elif SAYS_GOOD.search(name):
        good, rule = marked, f"its name says that pixels that are {_set(values)} are good"
    elif values.dtype.kind == "b":
        good, rule = marked, "in a mask of bools, True means good"
    else:
        good, rule = ~marked, "in a mask of numbers, 0 means good"
    if invert:
        good, rule = ~good, f"invert_mask reverses the usual meaning ({rule})"
    count = np.count_nonzero(good)
    share = f"{count} of {good.size} pixels ({count / max(1, good.size):.2%})"
    if not count:
        msg = (
            f"The mask {key!r} leaves none of {good.size} pixels: {rule}. If it means the "
            f"opposite, pass invert_mask={not invert} ("
            f"{'leave out ' if invert else ''}--invert-mask)."
        )
        raise ValueError(msg)
    if count < good.size / 2:
        warn(
            f"The mask {key!r} leaves {share}: {rule}. If it means the opposite, "
            f"pass invert_mask={not invert} ({'leave out ' if invert else ''}--invert-mask)."
        )
    return good


def read_mask(
    container: Container, recipe: Recipe, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Read the mask that the caller names.

    Parameters
    ----------
    container : Container
        The file, in which a mask without ``FILE:`` lies.
    recipe : Recipe
        Its `mask` and `invert_mask` are used.
    shape : tuple of int, (n, H, W)
        Of the frames.

    Returns
    -------
    ndarray, (H, W) or (n, H, W), bool, or None
        True for good pixels; None if no mask is named.

    Raises
    ------
    ValueError
        If `invert_mask` is given without a mask; or as `good_pixels`.
    """
    if recipe.mask is None:
        if recipe.invert_mask:
            msg = "invert_mask reverses the meaning of a mask, so it needs mask=KEY."
            raise ValueError(msg)
        return None
    values = container.read_named(recipe.mask)
    return good_pixels(recipe.mask, values, shape, invert=recipe.invert_mask)


def _last(key: str) -> str:
    """Return the last part of the name; of a file that holds one array, that of the file."""
    key = OF_FILE.sub(r"\1", key)
    return re.split(r"[/:]", key)[-1].lower()


def _set(values: NDArray[Any]) -> str:
    return "True" if values.dtype.kind == "b" else "not 0"
