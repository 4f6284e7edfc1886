"""A scan: positions of the beam, diffraction patterns, and what is known of probe and object."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.cards import scan_card
from ptycho_fast.checks import as_mask, as_number, as_positions
from ptycho_fast.cropping import bins, middle, smaller_bad, smaller_patterns, smaller_probe
from ptycho_fast.frames import Frames
from ptycho_fast.notices import warn
from ptycho_fast.plot import draw_scan
from ptycho_fast.subsampling import draw_subsample, held_out_edge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ptycho_fast.frames import Window


@dataclass(frozen=True, eq=False)
class Scan:
    """A ptychography scan.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Centre of the patch of each position, columns x (object columns) and y (object rows), in
        pixels of the object.
    diffraction : ndarray or Frames, (n, N, N), of any real dtype of up to 64 bits
        Measured **amplitudes** (square roots of counts), one pattern for each position, in memory
        or in the file.
    positions_start : ndarray, (n, 2), float64, optional
        The positions as they were planned; by default the same as `positions`.
    probe : ndarray, (N, N) or (modes, N, N), complex, optional
        The illumination.
    object : ndarray, (H, W), complex, optional
        The object, indexed ``object[row=y, column=x]``.
    scan_index : ndarray, (n,), optional
        A label of each position, or the number of its frame.
    mask : ndarray, (N, N), bool, optional
        False for dead and hot pixels of the detector.
    energies : ndarray, (n,), float64, optional
        Sum of squares of each pattern over the pixels where `mask` is True, if it is known.
    metadata : mapping, optional
        What else the file holds.
    bad_pixels : BadPixels, optional
        For patterns in memory, the pixels that were not measured in some of them; pixels that were
        measured in none are False in `mask`. Patterns in a file know their own bad pixels
        (`ptycho_fast.frames.Frames.read_good`).

    Raises
    ------
    ValueError
        If a shape does not fit the others.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> scan = pf.Scan(np.array([[8.0, 9.0], [10.0, 9.0]]), np.ones((2, 4, 4), np.float32))
    >>> len(scan), scan.N
    (2, 4)
    """

    positions: NDArray[np.float64]
    diffraction: Any  # ndarray or Frames: what reads like an array is used like one
    positions_start: NDArray[np.float64] = None  # type: ignore[assignment]  # set below
    probe: NDArray[np.complexfloating] | None = None
    object: NDArray[np.complexfloating] | None = None
    scan_index: NDArray[Any] | None = None
    mask: NDArray[np.bool_] | None = None
    energies: NDArray[np.float64] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    bad_pixels: BadPixels | None = None

    def __post_init__(self) -> None:
        positions = as_positions(self.positions)
        start = positions if self.positions_start is None else as_positions(self.positions_start)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "positions_start", start)
        n, shape = len(positions), self.diffraction.shape
        if len(shape) != 3 or shape[0] != n or shape[1] != shape[2]:
            _refuse("diffraction", shape, f"({n}, N, N), one pattern for each of {n} positions")
        if start.shape != positions.shape:
            _refuse("positions_start", start.shape, positions.shape)
        if self.probe is not None and (
            self.probe.ndim not in (2, 3) or self.probe.shape[-2:] != shape[1:]
        ):
            _refuse("probe", self.probe.shape, f"{shape[1:]} or (modes, {shape[1]}, {shape[2]})")
        if self.object is not None and self.object.ndim != 2:
            _refuse("object", self.object.shape, "(H, W)")
        if self.scan_index is not None and self.scan_index.shape != (n,):
            _refuse("scan_index", self.scan_index.shape, (n,))
        if self.energies is not None and self.energies.shape != (n,):
            _refuse("energies", self.energies.shape, (n,))
        if self.mask is not None:
            as_mask(self.mask, shape[1])
        bad = self.bad_pixels
        if bad is not None and (
            len(bad) != n or (len(bad.pixels) and bad.pixels.max() >= shape[1] * shape[2])
        ):
            _refuse("bad_pixels", (len(bad),), f"lists of pixels 0..{shape[1] ** 2 - 1} for {n}")

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        patterns = str(self.diffraction.dtype)
        if isinstance(self.diffraction, Frames):
            patterns += " in a file"
        parts = [f"{len(self)} positions", f"N={self.N}", patterns]
        for name, array in (("probe", self.probe), ("object", self.object)):
            parts += [] if array is None else [f"{name} {array.shape}"]
        return f"Scan({', '.join(parts)})"

    def _repr_html_(self) -> str:
        return scan_card(self)

    def plot(self) -> Figure:
        """Draw the scan positions on the phase of the object, and the light that falls on it.

        Above 5000 positions, their density is drawn. For a scan without an object, the mean
        diffraction pattern is drawn too, for which all patterns are read.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig("scan.png")`` writes it to a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there are no positions, or some are not finite.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> figure = pf.simulate_scan(n_positions=50, N=32, seed=0).plot()  # needs matplotlib
        """
        return draw_scan(self)

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern and of a patch."""
        return int(self.diffraction.shape[1])

    def measured(
        self, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read some patterns, and return which of their pixels were measured.

        Parameters
        ----------
        rows : ndarray, (k,), int
            Which patterns.

        Returns
        -------
        patterns : ndarray, (k, N, N), of the dtype of `diffraction`
            Amplitudes, 0 where a pixel was not measured.
        good : ndarray, (k, N, N) or (1, N, N), bool, or None
            True where a pixel was measured; None if all were.

        Examples
        --------
        >>> import numpy as np
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=9, N=16, seed=0)
        >>> patterns, good = scan.measured(np.array([3, 5]))
        >>> patterns.shape, good is None
        ((2, 16, 16), True)
        """
        rows = np.asarray(rows)
        patterns = np.empty((len(rows), self.N, self.N), self.diffraction.dtype)
        good = self.fill(rows, patterns)
        if self.mask is not None:
            good = self.mask[np.newaxis] if good is None else good & self.mask
        if good is not None:
            patterns[~np.broadcast_to(good, patterns.shape)] = 0
        return patterns, good

    @property
    def may_have_bad_pixels(self) -> bool:
        """Whether some patterns may have bad pixels that others have not."""
        listed = self.bad_pixels is not None and len(self.bad_pixels.pixels) > 0
        return listed or (isinstance(self.diffraction, Frames) and self.diffraction.may_be_bad)

    def fill(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Read some patterns into an array, and return which pixels are bad in single patterns.

        Unlike `measured`, it ignores `mask`, which is the same for all patterns.

        Parameters
        ----------
        rows : ndarray, (k,), int
            Which patterns.
        out : ndarray, (k, N, N), C-contiguous, of the dtype of `diffraction`
            Filled with amplitudes, 0 where a pixel is bad in this pattern.

        Returns
        -------
        ndarray, (k, N, N), bool, or None
            False where a pixel is bad in this pattern; None if there is no such pixel.
        """
        good = None
        if isinstance(self.diffraction, Frames):
            good = self.diffraction.read_good(rows, out)
        else:
            np.take(self.diffraction, rows, axis=0, out=out, mode="clip")
        if self.bad_pixels is not None and len(self.bad_pixels.pixels):
            listed = self.bad_pixels.good(rows, self.N)
            out[~listed] = 0
            good = listed if good is None else good & listed
        return good

    def subsample(self, n_subsample: int, seed: int | None = None) -> Scan:
        """Keep some positions, drawn at random, before anything is grouped.

        The patterns that are kept are read into memory. The positions that remain are farther
        apart. To use fewer patterns of a dense scan, rather draw fewer groups from all of it.

        Parameters
        ----------
        n_subsample : int
            How many positions to keep.
        seed : int, optional
            0..2**32-1; a new random seed by default.

        Returns
        -------
        Scan
            The positions that are kept, in the order of the scan, with all that belongs to them.
            ``metadata["sample_indices"]`` (ascending) are their indices, and
            ``metadata["subsample_seed"]`` is the seed that draws them again.

        Raises
        ------
        ValueError
            If ``n_subsample < 1``, the seed is not an integer in 0..2**32-1, or positions are not
            finite.

        Warns
        -----
        UserWarning
            If there are fewer positions than that, or neighbours end up much farther apart (see
            `ptycho_fast.subsampling.draw_subsample`).

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
        >>> thinned = scan.subsample(99, seed=1)
        >>> len(thinned), thinned.metadata["sample_indices"].shape
        (99, (99,))
        """
        n = len(self)
        seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        rows = draw_subsample(self.positions, n_subsample, seed)
        metadata = {**self.metadata, "subsample_seed": seed}
        if np.shape(metadata.get("sample_indices", ())) != (n,):
            metadata["sample_indices"] = np.arange(n)
        scan, patterns = replace(self, metadata=metadata), self.diffraction
        if not isinstance(patterns, Frames):
            return scan.take(rows, patterns[rows])
        read = np.empty((len(rows), *patterns.shape[1:]), patterns.dtype)
        good = self.fill(rows, read)
        thinned = scan.take(rows, read)
        if good is None:
            return thinned
        bad = ~good if self.mask is None else ~good & self.mask
        return replace(thinned, bad_pixels=BadPixels.of(bad))

    def subset(self, rows: Any) -> Scan:
        """Return some positions with all that belongs to them.

        Parameters
        ----------
        rows : int, slice, or array_like of int or bool
            Which positions, as NumPy indexes an array: ``slice(100)`` are the first 100.

        Returns
        -------
        Scan
            Its patterns stay in their file if those of the scan do.

        Raises
        ------
        IndexError
            If there are no such positions.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
        >>> scan.subset(scan.positions[:, 0] < 20)
        Scan(60 positions, N=16, float32, probe (16, 16), object (36, 36))
        """
        chosen = np.arange(len(self))[rows].reshape(-1)
        patterns = self.diffraction
        return self.take(
            chosen, patterns.take(chosen) if isinstance(patterns, Frames) else patterns[chosen]
        )

    def split(self, validation: float = 0.1, *, margin: float | None = None) -> tuple[Scan, Scan]:
        """Hold out a block of the scan for validation, as `GroupedDataset.split` does.

        The block lies at the end of the longer side of the scan. Positions in the margin before it
        are in neither part.

        Parameters
        ----------
        validation : float
            Share of the positions in the block, between 0 and 1.
        margin : float, optional
            Pixels between the two parts; N/4 by default. From N on, the windows of the two parts
            share no pixel of the object.

        Returns
        -------
        training, validation : Scan

        Raises
        ------
        ValueError
            If share and margin leave one part without positions.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> training, validation = pf.simulate_scan(n_positions=100, N=16, seed=0).split(0.2)
        >>> len(training), len(validation)
        (60, 20)
        """
        margin = as_number("margin", self.N / 4 if margin is None else margin) or 0.0
        along, edge = held_out_edge(self.positions, validation)
        training, held_out = (
            np.flatnonzero(side) for side in (along < edge - margin, along >= edge)
        )
        if not len(training) or not len(held_out):
            msg = (
                f"validation={validation} with a margin of {margin:g} pixels leaves "
                f"{len(training)} positions to train on and {len(held_out)} to validate on. Use "
                "another share or a smaller margin."
            )
            raise ValueError(msg)
        return self.subset(training), self.subset(held_out)

    def crop(self, N: int) -> Scan:
        """Keep the N x N pixels in the middle of each pattern.

        Wide angles are lost, so the pixels of the object become larger: positions, in pixels,
        shrink by N / (N before), the probe is sampled anew, and the object is left out.

        Parameters
        ----------
        N : int
            Pixels per side that are kept. Pixel ``[N // 2, N // 2]`` remains the one that it was.

        Returns
        -------
        Scan
            Patterns and bad pixels are those of ``read_scan(path, crop=N)``, and so are positions,
            but for a shift of all of them if the file has lengths. Patterns stay in their file if
            those of the scan do.

        Raises
        ------
        ValueError
            If the patterns have fewer pixels.

        Warns
        -----
        UserWarning
            If the scan has an object, or the probe more than 1 % of its power at the angles that
            are lost.

        Examples
        --------
        >>> import dataclasses
        >>> import ptycho_fast as pf
        >>> scan = dataclasses.replace(pf.simulate_scan(100, N=32, seed=0), object=None)
        >>> scan.crop(16)
        Scan(100 positions, N=16, float32, probe (16, 16))
        """
        part = middle(self.N, N)
        return self if part.N == self.N else self._within(part)

    def bin(self, M: int) -> Scan:
        """Sum the counts of squares of M x M pixels of each pattern.

        The pixels of the object keep their size, so positions and object remain as they are. The
        window becomes smaller: the middle of the probe is kept, with a phase ramp where zero
        frequency is not in the middle of its bin.

        Parameters
        ----------
        M : int
            Pixels of the detector per side of a new pixel.

        Returns
        -------
        Scan
            Its amplitudes are float32, those of ``read_scan(path, bin=M)`` but for rounding where
            counts were read into memory: roots of the sums of squares. One bad pixel makes its
            bin bad. Patterns stay in their file if those of the scan do.

        Raises
        ------
        ValueError
            If the side of the patterns is no multiple of M.

        Warns
        -----
        UserWarning
            If more than 1 % of the probe's power lies outside the smaller window: then patterns
            vary too fast to be binned.

        Examples
        --------
        >>> import dataclasses
        >>> import ptycho_fast as pf
        >>> scan = dataclasses.replace(pf.simulate_scan(100, N=32, seed=0), probe=None)
        >>> scan.bin(2)
        Scan(100 positions, N=16, float32, object (71, 71))
        """
        part = bins(self.N, M)
        return self if part.N == self.N else self._within(part)

    def _within(self, part: Window) -> Scan:
        """Return the scan with a part of each pattern, or with its bins."""
        mask, bad = smaller_bad(self.mask, self.bad_pixels, part, self.N)
        scale = part.N * part.bin / self.N
        # Patches are cut from the object and have the size of the window.
        metadata = {key: value for key, value in self.metadata.items() if key != "Y"}
        for key, larger in (
            ("object_pixel_m", self.N / (part.N * part.bin)),
            ("detector_pixel_m", part.bin),
        ):
            if np.asarray(metadata.get(key)).dtype.kind in "fiu":
                metadata[key] = np.asarray(metadata[key]) * larger
        if self.object is not None and scale != 1:
            warn("The positions no longer lie on the object of the scan; it was left out.")
        return replace(
            self,
            positions=self.positions * scale,
            positions_start=self.positions_start * scale,
            diffraction=smaller_patterns(self.diffraction, part, mask, bad),
            probe=None if self.probe is None else smaller_probe(self.probe, part),
            object=self.object if scale == 1 else None,
            mask=mask,
            energies=None,
            metadata=metadata,
            bad_pixels=bad,
        )

    def take(self, rows: NDArray[np.integer[Any]], diffraction: Any) -> Scan:
        """Return some positions with patterns that were read or left in a file already.

        Parameters
        ----------
        rows : ndarray, (k,), int
            Which positions, in which order.
        diffraction : ndarray or Frames, (k, N, N)
            Their patterns.

        Returns
        -------
        Scan
        """
        metadata, n = dict(self.metadata), len(self)
        for key in ("Y", "sample_indices"):
            if key in metadata and np.shape(metadata[key])[:1] == (n,):
                metadata[key] = np.asarray(metadata[key])[rows]
        return replace(
            self,
            positions=self.positions[rows],
            diffraction=diffraction,
            positions_start=self.positions_start[rows],
            scan_index=None if self.scan_index is None else self.scan_index[rows],
            energies=None if self.energies is None else self.energies[rows],
            bad_pixels=None if self.bad_pixels is None else self.bad_pixels.take(rows),
            metadata=metadata,
        )


def _refuse(what: str, found: object, expected: object) -> None:
    msg = f"{what} has shape {found}, but {expected} is needed."
    raise ValueError(msg)
