"""The image of a scan that a model has made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.plot import draw_image, write_png

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The image of a scan, as `PtychoModel.infer` returns it.

    Parameters
    ----------
    object : ndarray, (H, W), complex64, optional
        The reconstructed object, indexed ``[row=y, column=x]``, on the canvas of the scan
        (`ptycho_fast.canvas.canvas`). It is 0 where no patch lies, and None if the patches were
        not stitched.
    coverage : ndarray, (H, W), float32, optional
        How much probe intensity fell on each pixel; 1 is the peak of the probe at one position.
    metrics : dict
        ``pattern_correlation`` is Pearson's correlation of measured and modelled amplitudes. If
        the scan has an object, the values of `ptycho_fast.metrics.Scores` are there too, computed
        where image and object overlap.
    patches : ndarray, (k, N, N), complex64, optional
        The patches, if they were not stitched (``stitching=False``).
    positions : ndarray, (k, 2), float64, optional
        The positions of these patches.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions and of ``scan.object``.
        ``ptycho_fast.canvas.place(made.object, made.origin, scan.object.shape)`` brings the image
        onto the object's own grid.
    """

    object: NDArray[np.complex64] | None
    coverage: NDArray[np.float32] | None
    metrics: dict[str, Any]
    patches: NDArray[np.complex64] | None = None
    positions: NDArray[np.float64] | None = None
    origin: tuple[int, int] = (0, 0)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``object.npy``, ``coverage.npy``, ``metrics.json`` and ``image.png``.

        ``metrics.json`` also holds the `origin`.

        Parameters
        ----------
        folder : path-like
            Created if it does not exist. Each file appears whole or not at all.

        Raises
        ------
        ValueError
            If the patches were not stitched.
        """
        if self.object is None or self.coverage is None:
            msg = "There is no image to save, because the patches were not stitched. Call infer "
            msg += "with stitching=True."
            raise ValueError(msg)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("object", self.object), ("coverage", self.coverage)):
            with replacing(folder / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        with replacing(folder / "metrics.json") as file:
            text = json.dumps({**self.metrics, "origin": list(self.origin)}, indent=2)
            file.write((text + "\n").encode())
        figure = draw_image(self.object, self.coverage, origin=self.origin)
        write_png(figure, folder / "image.png")
