"""The picture of a reconstructed object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.canvas import Canvas
from ptycho_fast.plot.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def draw_image(
    image: NDArray[np.complexfloating],
    coverage: NDArray[np.floating],
    *,
    title: str = "",
    origin: tuple[int, int] = (0, 0),
) -> Figure:
    """Draw the phase and the modulus of a reconstructed object.

    Parameters
    ----------
    image : ndarray, (H, W), complex
        The object, indexed ``[row=y, column=x]``.
    coverage : ndarray, (H, W), float
        How much light fell on each pixel. Pixels with less than a tenth of the median (over all
        pixels with any light) are left blank. The phase is shown relative to its mean over the
        other pixels.
    title : str
        Written above both panels.
    origin : (int, int)
        The pixel (x, y) of ``image[0, 0]`` on the grid of the positions, which the axes show.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.plot import draw_image
    >>> figure = draw_image(np.exp(1j * np.eye(32)), np.ones((32, 32)))  # needs matplotlib
    """
    figure = new_figure(figsize=(11, 5), dpi=110)
    seen = coverage > 0
    if seen.any():
        seen = coverage >= np.median(coverage[seen]) / 10
    turned = np.where(seen, image * np.exp(-1j * np.angle(image[seen].sum())), np.nan)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    extent = Canvas(origin, (image.shape[0], image.shape[1])).extent
    left, _, _, top = extent
    for axes, (name, values, colours) in zip(
        figure.subplots(1, 2),
        (("Phase, rad", np.angle(turned), "viridis"), ("Modulus", np.abs(turned), "gray")),
        strict=True,
    ):
        drawn = axes.imshow(values, cmap=colours, interpolation="nearest", extent=extent)
        figure.colorbar(drawn, ax=axes)
        if len(rows):
            axes.set_xlim(left + columns[0], left + columns[-1] + 1)
            axes.set_ylim(top + rows[-1] + 1, top + rows[0])
        axes.set(title=name, xlabel="x, pixels", ylabel="y, pixels")
    figure.suptitle(title)
    return figure
