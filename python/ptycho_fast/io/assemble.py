"""Frames and positions are joined to a scan whose positions are pixels of the object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.checks import as_count
from ptycho_fast.io.amplitudes import PreparedFrames, Shifted
from ptycho_fast.io.geometry import OBJECT_PIXEL, Geometry, told
from ptycho_fast.io.recipe import EV_METRE, METRES, Recipe
from ptycho_fast.io.scale import odd_scale
from ptycho_fast.notices import warn
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames, Window


def scaled(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    recipe: Recipe,
    part: Window,
    shape: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float] | None]:
    """Convert positions to metres or, for the unit ``px``, to pixels of the object.

    Cropping the detector makes the pixels of the object larger, so positions in pixels shrink.

    Parameters
    ----------
    x, y : ndarray, (n,), float64
        In the unit that `recipe` names; ``px`` are pixels of the object of the uncropped pattern.
    recipe : Recipe
        Its `unit`, `energy_eV`, `distance_m` and `detector_pixel_m` are used.
    part : Window
        What is kept of the detector.
    shape : tuple of int, (n_frames, H, W)
        Of the frames as they are stored.

    Returns
    -------
    x, y : ndarray, (n,), float64
        In metres; for the unit ``px``, in pixels of the object.
    object_pixel : tuple of float, or None
        Width and height of a pixel of the object, in metres; None for the unit ``px``.

    Raises
    ------
    ValueError
        If the unit is not given, or the geometry that it needs.
    """
    side = part.N * part.bin
    if recipe.unit == "px":
        return x * (side / shape[2]), y * (side / shape[1]), None
    needed = ("energy_eV", "distance_m", "detector_pixel_m")
    missing = [name for name in needed if getattr(recipe, name) is None]
    if recipe.unit is None:
        msg = f"In which unit are x and y? Pass unit=, one of {', '.join(METRES)} or px."
        raise ValueError(msg)
    if missing:
        msg = (
            f"Positions in {recipe.unit} become pixels of the object by wavelength * distance / (N "
            f"* detector pixel). Pass {', '.join(f'{name}=' for name in missing)} too."
        )
        raise ValueError(msg)
    assert recipe.energy_eV is not None
    assert recipe.distance_m is not None
    assert recipe.detector_pixel_m is not None
    metres = METRES[recipe.unit]
    pixel = EV_METRE / recipe.energy_eV * recipe.distance_m / (side * recipe.detector_pixel_m)
    return x * metres, y * metres, (pixel, pixel)


def as_first(first: object, n_frames: int, n_positions: int) -> int:
    """Return `first` as a number of frames and positions, if there are as many of both."""
    count = as_count("first", first)
    if count > min(n_frames, n_positions):
        msg = f"first={count}, but there are {n_frames} frames and {n_positions} positions."
        raise ValueError(msg)
    return count


def join(
    n_frames: int,
    n_positions: int,
    frame_ids: NDArray[np.int64] | None = None,
    position_ids: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the position of each frame: the one with the same number.

    Parameters
    ----------
    n_frames, n_positions : int
        How many frames and how many positions there are.
    frame_ids, position_ids : ndarray, (n_frames,) and (n_positions,), int64, optional
        The number of each; 0, 1, 2, ... if not given. Negative numbers have no partner.

    Returns
    -------
    frames, positions : ndarray, (n,), int64
        Indices of frames and positions that belong together, by ascending frame.

    Raises
    ------
    ValueError
        If there are more frames than positions, or the reverse, and no numbers say what belongs
        together; or if two positions have the same number.
    """
    if frame_ids is None and position_ids is None:
        if n_frames != n_positions:
            fewer = min(n_frames, n_positions)
            msg = (
                f"There are {n_frames} frames, but {n_positions} positions. If frame i belongs to "
                f"position i, first={fewer} (--first {fewer}) leaves out the others. If an array "
                "says which belong together, name it: index=KEY (--index KEY)."
            )
            raise ValueError(msg)
        return np.arange(n_frames), np.arange(n_positions)
    frame_ids = np.arange(n_frames) if frame_ids is None else frame_ids
    position_ids = np.arange(n_positions) if position_ids is None else position_ids
    known = np.flatnonzero(position_ids >= 0)
    order = known[np.argsort(position_ids[known], kind="stable")]
    ordered = position_ids[order]
    repeated = np.flatnonzero(np.diff(ordered) == 0)
    if len(repeated):
        number = ordered[repeated[0]]
        times = np.count_nonzero(ordered == number)
        msg = (
            f"{times} positions belong to frame {number} ({len(repeated)} positions too many in "
            "all). To use the mean position of each frame, pass average_positions=True "
            "(--average-positions)."
        )
        raise ValueError(msg)
    place = np.searchsorted(ordered, frame_ids)
    found = place < len(ordered)
    found[found] = ordered[place[found]] == frame_ids[found]
    frames = np.flatnonzero(found)
    return frames, order[place[frames]]


def averaged(
    x: NDArray[np.float64], y: NDArray[np.float64], ids: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return one position for each frame: the mean of its finite positions.

    Parameters
    ----------
    x, y : ndarray, (n,), float64
        Positions.
    ids : ndarray, (n,), int64
        The number of the frame of each position; positions with negative numbers are left out.

    Returns
    -------
    x, y : ndarray, (m,), float64
        Mean positions.
    ids : ndarray, (m,), int64
        The number of the frame of each, ascending.
    """
    kept = (ids >= 0) & np.isfinite(x) & np.isfinite(y)
    frames, which, counts = np.unique(ids[kept], return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    means = [np.bincount(which, values[kept], len(frames)) / counts for values in (x, y)]
    return means[0], means[1], frames


def as_ids(
    values: NDArray[Any], key: str, recipe: Recipe | None = None, n: int | None = None
) -> NDArray[np.int64]:
    """Return the numbers of frames or positions as int64, counted from 0.

    Parameters
    ----------
    values : ndarray, (n,), (n, 1), (1, n), or (ny, nx) with `reshape`
        Whole numbers, which some detectors write as floats.
    key : str
        The name of the array.
    recipe : Recipe, optional
        Its `index_base` and `reshape` are used.
    n : int, optional
        How many frames or positions they number. If given, numbers that seem to count from 1 are
        refused unless `index_base` is given.

    Raises
    ------
    ValueError
        If they are not whole numbers, or seem to count from 1.
    """
    recipe = recipe or Recipe()
    ids = np.asarray(values)
    if ids.ndim == 2 and (recipe.reshape or 1 in ids.shape):
        ids = ids.reshape(-1)
    if ids.ndim == 1 and ids.dtype.kind == "f":
        finite = np.where(np.isfinite(ids), ids, -1)
        ids = finite.astype(np.int64) if (finite == np.floor(finite)).all() else ids
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        msg = f"index={key!r} must be whole numbers (n,), got shape {ids.shape} of {ids.dtype}."
        raise ValueError(msg)
    ids = ids.astype(np.int64)
    if recipe.index_base not in (None, 0, 1):
        msg = f"index_base must be 0 or 1, got {recipe.index_base!r}."
        raise ValueError(msg)
    numbered = ids[ids >= 0]
    if recipe.index_base is None and n is not None and len(numbered):
        low, high = int(numbered.min()), int(numbered.max())
        if low > 0 and high == n:
            msg = (
                f"index={key!r} holds {low} .. {high}, but there are {n}, of which the last is "
                f"number {n - 1} if the first is 0. If the numbers count from 1, pass "
                "index_base=1 (--index-base 1), else index_base=0."
            )
            raise ValueError(msg)
    return ids - 1 if recipe.index_base == 1 else ids


@dataclass(frozen=True, eq=False)
class Given:
    """What a format found in a file.

    Parameters
    ----------
    source : Frames, (n_frames, H, W)
        What the detector recorded.
    x, y : ndarray, (n_positions,), float64
        Positions, in metres or, without `object_pixel`, in pixels of the object.
    intensity : bool
        The frames are counts.
    object_pixel : tuple of float, optional
        Width and height of a pixel of the object in metres. Positions in metres are moved so that
        the smallest x and y are ``N // 2``.
    frame_ids, position_ids : ndarray, int64, optional
        As of `join`.
    mask : ndarray, (H, W) or (n_frames, H, W), bool, optional
        True for good pixels.
    listed : BadPixels, optional
        Further pixels that are bad in some of the frames.
    probe, object : ndarray, optional
        What is known of them.
    geometry : Geometry, optional
        Of a file that says it itself.
    """

    source: Frames
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    intensity: bool
    object_pixel: tuple[float, float] | None = None
    frame_ids: NDArray[np.int64] | None = None
    position_ids: NDArray[np.int64] | None = None
    mask: NDArray[np.bool_] | None = None
    listed: BadPixels | None = None
    probe: NDArray[Any] | None = None
    object: NDArray[Any] | None = None
    geometry: Geometry | None = None


def assemble(given: Given, part: Window, recipe: Recipe) -> Scan:
    """Make a scan of frames and positions; each format brings them here.

    Parameters
    ----------
    given : Given
        What the file holds.
    part : Window
        What is kept of a frame.
    recipe : Recipe
        Its `first`, `average_positions`, `swap_xy`, `flip_x`, `flip_y`, `fftshift` and
        `bad_value` are used.

    Returns
    -------
    Scan
        Its patterns stay in the file (`PreparedFrames`).

    Raises
    ------
    ValueError
        If frames and positions do not belong together.

    Warns
    -----
    UserWarning
        If frames or positions have no partner, or the probe does not fit the patterns: they are
        left out. If the positions seem to have a wrong scale (`odd_scale`).
    """
    frames, x, y = _joined(given, recipe)
    if recipe.swap_xy:
        x, y = y, x
    # A mirrored axis keeps its extent.
    x = x.min() + x.max() - x if recipe.flip_x else x
    y = y.min() + y.max() - y if recipe.flip_y else y
    metadata = told(recipe, part)
    if given.geometry is not None:
        metadata |= given.geometry.recorded(part)
        metadata[OBJECT_PIXEL] = np.array(given.geometry.object_pixel(part))
    if given.object_pixel is not None:
        width, height = given.object_pixel
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            x = (x - x.min()) / width + part.N // 2
            y = (y - y.min()) / height + part.N // 2
        _check_finite(x, y, width, height)
        metadata[OBJECT_PIXEL] = np.array(given.object_pixel)
    positions = np.stack([x, y], axis=1)
    if said := odd_scale(positions, part.N):
        warn(said)
    probe = given.probe
    if probe is not None and (probe.ndim not in (2, 3) or probe.shape[-2:] != (part.N, part.N)):
        warn(
            f"The probe has shape {probe.shape}, which does not fit patterns of {part.N} x "
            f"{part.N}; it was left out.",
        )
        probe = None
    source, mask, listed = given.source, given.mask, given.listed
    if recipe.fftshift:
        source = Shifted(source)
        mask = None if mask is None else np.fft.fftshift(mask, axes=(-2, -1))
        listed = None if listed is None else listed.shifted(*source.shape[1:])
    if mask is not None and mask.ndim == 3:
        listed = BadPixels.of(~mask & mask.any(axis=0))
        mask = np.asarray(mask.any(axis=0))
    return Scan(
        positions=positions,
        diffraction=PreparedFrames(
            source,
            part,
            intensity=given.intensity,
            rows=None if len(frames) == len(source) else frames,
            mask=mask,
            listed=listed,
            bad_value=recipe.bad_value,
        ),
        probe=probe,
        object=given.object,
        mask=None if mask is None else part.good(mask),
        metadata=metadata,
    )


def _check_finite(
    x: NDArray[np.float64], y: NDArray[np.float64], width: float, height: float
) -> None:
    """Refuse positions that became infinite in pixels of the object."""
    if lost := np.count_nonzero(~(np.isfinite(x) & np.isfinite(y))):
        msg = (
            f"{lost} of {len(x)} positions are no finite numbers in pixels of the object, which "
            f"are {width:g} m wide and {height:g} m high. Check unit, energy, distance and "
            "detector pixel."
        )
        raise ValueError(msg)


def _joined(
    given: Given, recipe: Recipe
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the frames that have a finite position, and x and y of each."""
    x, y, frame_ids, position_ids = given.x, given.y, given.frame_ids, given.position_ids
    n_frames, n_positions = len(given.source), len(x)
    if recipe.first is not None:
        n_frames = n_positions = as_first(recipe.first, n_frames, n_positions)
        x, y = x[:n_positions], y[:n_positions]
        frame_ids = None if frame_ids is None else frame_ids[:n_frames]
        position_ids = None if position_ids is None else position_ids[:n_positions]
    if recipe.average_positions:
        if position_ids is None:
            msg = "average_positions needs index=KEY, the number of the frame of each position."
            raise ValueError(msg)
        x, y, position_ids = averaged(x, y, position_ids)
        n_positions = len(x)
    frames, rows = join(n_frames, n_positions, frame_ids, position_ids)
    finite = np.isfinite(x[rows]) & np.isfinite(y[rows])
    frames, rows = frames[finite], rows[finite]
    lost = {"frames": n_frames - len(frames), "positions": n_positions - len(np.unique(rows))}
    if not len(frames):
        msg = (
            f"None of {n_frames} frames belongs to one of {len(x)} positions. Check index= "
            "(it counts from 0, unless index_base=1) and whether x and y are finite."
        )
        raise ValueError(msg)
    if any(lost.values()):
        warn(
            f"{lost['frames']} of {n_frames} frames have no position, and {lost['positions']} "
            f"of {len(x)} positions no frame; they were left out.",
        )
    return frames, x[rows], y[rows]
