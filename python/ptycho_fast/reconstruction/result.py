"""The result of a reconstruction, and the files that it is saved to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast._core import __version__
from ptycho_fast.atomic import replacing
from ptycho_fast.canvas import Canvas
from ptycho_fast.cards import SIDE, card
from ptycho_fast.io.formats.cxi_image import write_image
from ptycho_fast.io.npz import Archive, write_arrays
from ptycho_fast.plot import draw_image
from ptycho_fast.reconstruction import report
from ptycho_fast.reconstruction.charts import Chart, history_chart, resolution_chart
from ptycho_fast.reconstruction.history import STEP, Step
from ptycho_fast.reconstruction.pictures import (
    amplitude_picture,
    map_picture,
    phase_picture,
    probe_picture,
)
from ptycho_fast.reconstruction.resolution import (
    FIXED,
    HALF_BIT,
    LIT,
    Resolution,
    length_text,
    lit,
)

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

ARRAYS = "reconstruction.npz"
"""The file that `Reconstruction.load` reads."""

FORMAT = 1

SOMETIMES = {"phase_sigma.png", "frc.svg", "history.svg"}
"""Files that not every reconstruction has."""


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """An image of a scan, with what is known of its quality.

    Parameters
    ----------
    object : ndarray, (H, W), complex64
        The object, indexed ``[row=y, column=x]``.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions.
        ``ptycho_fast.canvas.place(made.object, made.origin, scan.object.shape)`` brings the image
        onto the grid of a known object.
    probe : ndarray, (modes, N, N), complex64
        The modes of the probe, scaled to counts: an object of modulus 1 gives the measured counts.
    positions : ndarray, (n, 2), float64
        The scan positions x and y, as refined, in pixels of the object.
    coverage : ndarray, (H, W), float32
        How much light fell on each pixel: the intensity of the probe, summed over the positions.
    deviance : float
        Poisson deviance of all counts, divided by what noise alone would give. It is close to 1 if
        the model explains the counts.
    mu : float
        Weight of the smooth prior; 0 if there was none.
    prior : str
        Which prior made the image: "smooth", "learned" or "none".
    pixel_size : float, optional
        Side of a pixel in metres, if it is known.
    phase_sigma, amplitude_sigma : ndarray, (H, W), float32, optional
        Standard deviations of phase (in radians) and modulus, if they were asked for.
    resolution : Resolution, optional
        The Fourier ring correlation of two images from half the counts each.
    history : tuple of Step
        How the deviance fell.
    seconds : float
        How long it took.
    notes : tuple of str
        What was odd, or had to be assumed: one sentence each.

    Raises
    ------
    ValueError
        If a shape does not fit the others, or the size of a pixel is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.result import Reconstruction
    >>> made = Reconstruction(
    ...     object=np.ones((20, 30), np.complex64), origin=(-4, 0),
    ...     probe=np.ones((1, 8, 8), np.complex64), positions=np.array([[3.0, 5.5], [20.0, 9.0]]),
    ...     coverage=np.ones((20, 30), np.float32), deviance=1.02, mu=20.0,
    ... )
    >>> made
    Reconstruction(30 x 20 pixels from 2 patterns of 8 x 8, deviance 1.02)
    >>> made.canvas
    Canvas(origin=(-4, 0), shape=(20, 30))
    """

    object: NDArray[np.complex64]
    origin: tuple[int, int]
    probe: NDArray[np.complex64]
    positions: NDArray[np.float64]
    coverage: NDArray[np.float32]
    deviance: float
    mu: float
    prior: str = "smooth"
    pixel_size: float | None = None
    phase_sigma: NDArray[np.float32] | None = None
    amplitude_sigma: NDArray[np.float32] | None = None
    resolution: Resolution | None = None
    history: tuple[Step, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, axes in (("object", 2), ("probe", 3), ("positions", 2)):
            if np.ndim(getattr(self, name)) != axes:
                msg = f"{name} must have {axes} axes, got shape {np.shape(getattr(self, name))}."
                raise ValueError(msg)
        for name in ("coverage", "phase_sigma", "amplitude_sigma"):
            values = getattr(self, name)
            if values is not None and values.shape != self.object.shape:
                msg = f"{name} has shape {values.shape}, but {self.object.shape} is needed."
                raise ValueError(msg)
        if self.pixel_size is not None and not 0 < self.pixel_size < np.inf:
            msg = f"pixel_size must be a length in metres or None, got {self.pixel_size!r}."
            raise ValueError(msg)
        # What was passed as a list is frozen too.
        for name in ("history", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def __repr__(self) -> str:
        return f"Reconstruction({self._summary()})"

    def _repr_html_(self) -> str:
        picture = phase_picture(self.object, self.coverage, SIDE)
        return card("Reconstruction", self._numbers(), {"phase": picture})

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
        """
        return draw_image(self.object, self.coverage, title=self._summary(), origin=self.origin)

    def _summary(self) -> str:
        (height, width), N = self.object.shape, self.probe.shape[-1]
        parts = [f"{width} x {height} pixels from {len(self.positions)} patterns of {N} x {N}"]
        parts += [f"{len(self.probe)} probe modes"] if len(self.probe) > 1 else []
        parts += [f"deviance {self.deviance:.4g}"]
        parts += [] if self.resolution is None else [f"resolution {self.resolution.text()}"]
        return ", ".join(parts)

    @property
    def canvas(self) -> Canvas:
        """Where the object lies on the grid of the positions."""
        return Canvas(self.origin, (self.object.shape[0], self.object.shape[1]))

    def on(self, scan: Scan) -> Scan:
        """Return a scan with this image: its object, its probe and its positions.

        `ptycho_fast.write_scan` writes it for other programs.

        Parameters
        ----------
        scan : Scan
            The scan that was reconstructed.

        Returns
        -------
        Scan
            With the object and the probe of the reconstruction, and with its positions in pixels of
            that object. The patterns are those of `scan`, in memory or in their file.

        Raises
        ------
        ValueError
            If it is another scan: of another number of patterns, or of patterns of another size,
            or with positions that lie elsewhere or in another order.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=64, N=16, seed=0)
        >>> image = pf.reconstruct(scan, iterations=3)
        >>> image.on(scan)
        Scan(64 positions, N=16, float32, probe (16, 16), object (31, 31))
        """
        n, N = len(self.positions), self.probe.shape[-1]
        if (len(scan), scan.N) != (n, N):
            msg = (
                f"The image is of {n} patterns of {N} x {N} pixels, but the scan has {len(scan)} "
                f"of {scan.N} x {scan.N}. Pass the scan that was reconstructed."
            )
            raise ValueError(msg)
        farthest = float(np.abs(self.positions - scan.positions).max())
        if not farthest <= N:
            msg = (
                f"A position of the image is {farthest:.4g} pixels from that of the scan, farther "
                f"than a window of {N} pixels. Pass the scan that was reconstructed."
            )
            raise ValueError(msg)
        spread, moved = (
            float(np.sqrt(each.var(axis=0).sum()))
            for each in (self.positions, self.positions - scan.positions)
        )
        if moved > spread / 2:  # of a scan in random order, 1.4 times the spread
            msg = (
                f"Each position of the image is {moved:.4g} pixels from that of the scan (RMS, "
                f"beside a common shift), but they spread over no more than {spread:.4g}. Is the "
                "scan in another order? Pass the scan that was reconstructed."
            )
            raise ValueError(msg)
        origin = np.array(self.origin, np.float64)
        return replace(
            scan,
            positions=self.positions - origin,
            positions_start=scan.positions_start - origin,
            probe=self.probe[0] if len(self.probe) == 1 else self.probe,
            object=self.object,
        )

    def save(self, folder: str | os.PathLike[str], *, command: str = "") -> None:
        """Write the image, pictures of it and a report to a folder.

        ======================================  ====================================================
        file                                    content
        ======================================  ====================================================
        ``reconstruction.npz``                  all arrays and numbers, for `load`
        ``object.h5``                           object, probe and positions in CXI, for other
                                                programs; not written where h5py is not installed
        ``phase.png``, ``amplitude.png``,       pictures, a pixel of the object each
        ``probe.png``, ``phase_sigma.png``
        ``frc.svg``, ``history.svg``            the Fourier ring correlation; the deviance
        ``report.html``                         pictures and numbers on one page
        ======================================  ====================================================

        Parameters
        ----------
        folder : path-like
            Created if it does not exist. Each file appears whole or not at all.
        command : str
            What made the reconstruction, for the report.

        Raises
        ------
        OSError
            If a file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from ptycho_fast.reconstruction.result import Reconstruction
        >>> made = Reconstruction(
        ...     object=np.ones((20, 30), np.complex64), origin=(0, 0),
        ...     probe=np.ones((1, 8, 8), np.complex64), positions=np.array([[4.0, 5.5]]),
        ...     coverage=np.ones((20, 30), np.float32), deviance=1.02, mu=20.0,
        ... )
        >>> folder = tempfile.mkdtemp()
        >>> made.save(folder)
        >>> Reconstruction.load(folder).object.shape
        (20, 30)
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / ARRAYS, self._arrays())
        lacking = self._save_cxi(folder / "object.h5")
        figures, charts = self._figures(), self._charts()
        files = {f"{name}.png": figure.picture.png for name, figure in figures.items()}
        files |= {f"{name}.svg": chart.svg.encode() for name, chart in charts.items()}
        page = report.page(
            title=self._summary(),
            figures=list(figures.values()),
            charts=list(charts.values()),
            numbers=self._numbers(),
            notes=[*self.notes, *lacking],
            command=command,
        )
        files["report.html"] = page.encode()
        for name, content in files.items():
            with replacing(folder / name) as file:
                file.write(content)
        # What an earlier reconstruction left here would be taken for a part of this one.
        for name in SOMETIMES - files.keys():
            (folder / name).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Reconstruction:
        """Read a reconstruction that `save` has written.

        Parameters
        ----------
        folder : path-like
            The folder, or the file ``reconstruction.npz`` in it.

        Returns
        -------
        Reconstruction

        Raises
        ------
        OSError
            If the file is missing or damaged.
        ValueError
            If it is another NPZ file, or a newer version has written it.
        """
        path = Path(folder)
        path = path / ARRAYS if path.is_dir() else path
        with Archive(path) as archive:
            held = archive.read(list(archive.members))
        absent = {"format", "object", "probe", "positions", "coverage"} - held.keys()
        if absent:
            msg = f"{path} is not a reconstruction: it lacks {', '.join(sorted(absent))}."
            raise ValueError(msg)
        if (found := int(held["format"])) != FORMAT:
            msg = f"{path} has format {found}, this version reads {FORMAT}. Update ptycho_fast."
            raise ValueError(msg)
        size = None if "pixel_size" not in held else float(held["pixel_size"])
        resolution = None
        if "frc_frequencies" in held:
            resolution = Resolution(
                held["frc_frequencies"], held["frc_correlation"], held["frc_half_bit"], size
            )
        columns = (held[f"history_{name}"].tolist() for name in STEP)
        x, y = held["origin"].tolist()
        return cls(
            object=held["object"],
            origin=(x, y),
            probe=held["probe"],
            positions=held["positions"],
            coverage=held["coverage"],
            deviance=float(held["deviance"]),
            mu=float(held["mu"]),
            # Earlier versions, which had no learned prior, do not say.
            prior=str(held.get("prior", "smooth" if held["mu"] > 0 else "none")),
            pixel_size=size,
            phase_sigma=held.get("phase_sigma"),
            amplitude_sigma=held.get("amplitude_sigma"),
            resolution=resolution,
            history=tuple(
                Step(iteration, mu, deviance, None if np.isnan(held_out) else held_out)
                for iteration, mu, deviance, held_out in zip(*columns, strict=True)
            ),
            seconds=float(held["seconds"]),
            notes=tuple(held["notes"].tolist()),
        )

    def _arrays(self) -> dict[str, Any]:
        """Return what the NPZ file holds; what is None is not written."""
        frc = self.resolution
        names = ("object", "origin", "probe", "positions", "coverage", "deviance", "mu",
                 "prior", "pixel_size", "phase_sigma", "amplitude_sigma", "seconds")  # fmt: skip
        return {
            "format": FORMAT,
            "ptycho_fast": __version__,
            **{name: getattr(self, name) for name in names},
            "frc_frequencies": None if frc is None else frc.frequencies,
            "frc_correlation": None if frc is None else frc.correlation,
            "frc_half_bit": None if frc is None else frc.half_bit,
            "notes": np.array(self.notes, np.str_),
            "history_iteration": np.array([step.iteration for step in self.history], np.int64),
            **{
                f"history_{name}": np.array([getattr(step, name) for step in self.history], float)
                for name in ("mu", "deviance", "held_out")
            },
        }

    def _save_cxi(self, path: Path) -> list[str]:
        """Write the CXI file; return what has to be said of it."""
        try:
            write_image(
                path,
                self.object,
                origin=self.origin,
                probe=self.probe,
                positions=self.positions,
                seen=self.coverage > 0,
                pixel_size=self.pixel_size,
                maps={
                    "coverage": self.coverage,
                    "phase_sigma": self.phase_sigma,
                    "amplitude_sigma": self.amplitude_sigma,
                },
                creator=f"ptycho_fast {__version__}",
            )
        except ImportError as error:
            path.unlink(missing_ok=True)  # that of an earlier reconstruction
            told = f"{path.name} was not written: {error}"
            logger.info("%s", told)
            return [told]
        if self.pixel_size is None:
            return [
                f"The size of a pixel is not known, so {path.name} has positions in pixels only "
                "(image_1/positions_px) and none in metres."
            ]
        return []

    def _figures(self) -> dict[str, report.Figure]:
        """Return the pictures by the names of their files."""
        size, light = self.pixel_size, self.coverage
        figures = {
            "phase": report.Figure(
                "Phase",
                phase_picture(self.object, light),
                "rad",
                "Mean and slope are removed, since diffraction does not determine them.",
                size,
            ),
            "amplitude": report.Figure(
                "Amplitude",
                amplitude_picture(self.object, light),
                note="Modulus of the object. Its weighted mean square is 1.",
                pixel_size=size,
            ),
        }
        if self.phase_sigma is not None:
            figures["phase_sigma"] = report.Figure(
                "Uncertainty of the phase",
                map_picture(self.phase_sigma, light),
                "rad",
                "Standard deviation.",
                size,
            )
        note = "Brightness is the modulus, colour the phase."
        if len(self.probe) > 1:
            power = np.sum(np.abs(self.probe) ** 2, axis=(1, 2), dtype=np.float64)
            shares = ", ".join(f"{share:.1%}" for share in power / max(power.sum(), 1e-300))
            note += f" Shares of the modes: {shares}."
        figures["probe"] = report.Figure("Probe", probe_picture(self.probe), "", note, size)
        return figures

    def _charts(self) -> dict[str, Chart]:
        """Return the charts by the names of their files."""
        charts = {}
        if self.resolution is not None:
            charts["frc"] = resolution_chart(self.resolution)
        if self.history:
            columns = ([getattr(step, name) for step in self.history] for name in STEP)
            charts["history"] = history_chart(*columns)
        return charts

    def _numbers(self) -> dict[str, str]:
        """Return the table of the report."""
        (height, width), size = self.object.shape, self.pixel_size
        x, y = self.origin
        numbers = {}
        if self.resolution is not None:
            numbers["resolution, half-bit"] = self.resolution.text(HALF_BIT)
            numbers[f"resolution, {FIXED}"] = self.resolution.text(FIXED)
        numbers["deviance"] = f"{self.deviance:.4g} (1: noise alone)"
        bright = lit(self.coverage, LIT)
        for name, sigma, unit in (
            ("phase", self.phase_sigma, " rad"),
            ("amplitude", self.amplitude_sigma, ""),
        ):
            if sigma is not None and bright.any():
                middle = float(np.median(sigma[bright]))
                numbers[f"uncertainty, {name}"] = (
                    f"{middle:.3g}{unit} (median where there is light)"
                )
        metres = ""
        if size is not None:
            metres = f", {length_text(width * size)} x {length_text(height * size)}"
        numbers["object"] = f"{width} x {height} pixels{metres}, top left pixel at x = {x}, y = {y}"
        numbers["pixel"] = "size not known" if size is None else length_text(size)
        N = self.probe.shape[-1]
        numbers["patterns"] = f"{len(self.positions)} of {N} x {N} pixels"
        numbers["probe"] = f"{len(self.probe)} mode{'s' * (len(self.probe) > 1)}"
        weight = "" if self.prior == "none" else f", weight {self.mu:.4g}"
        numbers["prior"] = f"{self.prior}{weight}"
        if self.history:
            numbers["iterations"] = str(self.history[-1].iteration)
        numbers["time"] = f"{self.seconds:.3g} s"
        return numbers
