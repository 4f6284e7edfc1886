"""A scan: where the beam was, what it left on the detector, what is known of probe and object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptycho_fast.checks import as_mask, as_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scan:
    """A ptychography scan.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Centre of each patch, columns x (object columns) and y (object rows), in pixels of the
        object grid.
    diffraction : ndarray or Frames, (n, N, N), float32, float64 or uint16
        Measured **amplitude** (square root of counts) of each position, in memory or in its file.
    positions_start : ndarray, (n, 2), float64, optional
        The positions as they were planned; `positions` if not given.
    probe : ndarray, (N, N) or (modes, N, N), complex, optional
        The illumination.
    object : ndarray, (H, W), complex, optional
        The object, indexed ``object[row=y, column=x]``.
    scan_index : ndarray, (n,), optional
        A label or a frame counter for each position.
    mask : ndarray, (N, N), bool, optional
        False for dead and hot pixels of the detector.
    energies : ndarray, (n,), float64, optional
        Sum of squares of each pattern where `mask` is True, if that was computed before.
    metadata : mapping, optional
        Whatever else the file held.

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

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern and of a patch."""
        return int(self.diffraction.shape[1])


def _refuse(what: str, found: object, expected: object) -> None:
    msg = f"{what} has shape {found}, but {expected} is needed."
    raise ValueError(msg)
