"""Where an object lies in metres, as ptychodus says it: by the centre of its array."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ptycho_fast.notices import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ObjectGrid(NamedTuple):
    """The pixels of an object.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.formats.object_grid import ObjectGrid
    >>> grid = ObjectGrid.of((100, 80), (1e-8, 1e-8), 32)
    >>> x, y = grid.metres(np.array([[20.0, 31.5]]))
    >>> np.stack(grid.places(x, y, 32), axis=1).round(9)
    array([[20. , 31.5]])
    """

    shape: tuple[int, int]
    """Rows and columns of the object."""
    pixel: tuple[float, float]
    """Width and height of a pixel, in metres."""
    centre: tuple[float, float]
    """x and y of the middle of the array, in metres."""

    @classmethod
    def of(cls, shape: tuple[int, int], pixel: tuple[float, float], N: int) -> ObjectGrid:
        """Return the grid on which positions in metres are those in pixels times the pixel."""
        height, width = shape
        return cls(
            shape,
            pixel,
            (
                ((width - 1) / 2 + _middle(N)) * pixel[0],
                ((height - 1) / 2 + _middle(N)) * pixel[1],
            ),
        )

    def places(
        self, x: NDArray[np.float64], y: NDArray[np.float64], N: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x and y of pixel N // 2 of each window in pixels of the object, given metres."""
        height, width = self.shape
        return (
            (x - self.centre[0]) / self.pixel[0] + (width - 1) / 2 + _middle(N),
            (y - self.centre[1]) / self.pixel[1] + (height - 1) / 2 + _middle(N),
        )

    def metres(
        self, positions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x and y in metres of positions on the grid that `of` made."""
        return positions[:, 0] * self.pixel[0], positions[:, 1] * self.pixel[1]


def _middle(N: int) -> float:
    """Return how far pixel N // 2 is from the middle of a window, which ptychodus takes."""
    return N // 2 - (N - 1) / 2


def one_layer(path: str, object_: NDArray[np.generic]) -> NDArray[np.generic] | None:
    """Return the layer of an object, (H, W) or (layers, H, W); None if there are several.

    Warns
    -----
    UserWarning
        If there are several layers.
    """
    if object_.ndim == 3 and len(object_) == 1:
        object_ = object_[0]
    if object_.ndim != 2:
        warn(
            f"{path}: the object has {len(object_)} layers, and patches are cut from "
            "one; it was left out.",
        )
        return None
    return object_
