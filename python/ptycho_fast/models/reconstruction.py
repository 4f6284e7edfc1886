"""The image of a scan that a model has made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.cards import SIDE, card
from ptycho_fast.plot import draw_image, write_png
from ptycho_fast.reconstruction.pictures import phase_picture

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure
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
        image, coverage = self._stitched()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("object", image), ("coverage", coverage)):
            with replacing(folder / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        with replacing(folder / "metrics.json") as file:
            text = json.dumps({**self.metrics, "origin": list(self.origin)}, indent=2)
            file.write((text + "\n").encode())
        write_png(self.plot(), folder / "image.png")

    def plot(self) -> Figure:
        """Draw the phase and the modulus of the object, on the grid of the positions.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig("image.png")`` writes it to a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the patches were not stitched.
        """
        return draw_image(*self._stitched(), origin=self.origin)

    def _stitched(self) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Return the object and its coverage, if the patches were stitched."""
        if self.object is None or self.coverage is None:
            msg = "There is no image, because the patches were not stitched. Call infer with "
            msg += "stitching=True."
            raise ValueError(msg)
        return self.object, self.coverage

    def _repr_html_(self) -> str:
        rows, picture = {}, None
        if self.object is not None and self.coverage is not None:
            rows["object"] = f"{self.object.shape[1]} x {self.object.shape[0]} pixels"
            picture = phase_picture(self.object, self.coverage, SIDE)
        if self.patches is not None:
            rows["patches"] = " x ".join(map(str, self.patches.shape))
        rows |= {
            name.replace("_", " "): f"{value:.4g}"
            for name, value in self.metrics.items()
            if isinstance(value, float)
        }
        return card("Reconstruction", rows, {"phase": picture})
