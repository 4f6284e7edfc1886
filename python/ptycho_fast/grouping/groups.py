"""`Groups`: the groups that were drawn, with the request that they answer; saved and loaded."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.cards import card, dots
from ptycho_fast.checks import as_indices, as_positions, positions_checksum
from ptycho_fast.grouping.coordinates import group_coordinates, relative_coordinates
from ptycho_fast.grouping.request import DrawRequest
from ptycho_fast.io.npz import read_array, read_arrays, write_arrays
from ptycho_fast.plot import draw_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.grouping.rules.base import Drawn
    from ptycho_fast.protocols import ScanLike

FORMAT = 1
"""Version of the files that `Groups.save` writes."""

OPTIONAL_ARRAYS = ("scan_ids", "given_centers")
"""Arrays of `Groups` that not all have."""

# Looked up once, since drawing few groups takes no longer than looking at the fields of a class.
ASKED = tuple(item.name for item in fields(DrawRequest) if item.name != "group_size")
"""Names of what `Groups` take over from the request. Their group size is that of their indices."""


@dataclass(frozen=True, eq=False)
class Members:
    """The positions in each group, and the position that each was drawn around.

    A class of its own only because these are the first two arguments of `Groups`.
    """

    indices: NDArray[np.int32]
    centers: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Groups(DrawRequest, Members):
    """Groups drawn from a scan, together with the request that they answer.

    Parameters
    ----------
    indices : ndarray, (B, C), int32
        The scan positions of each group, in channel order.
    centers : ndarray, (B,), int32
        The position that each group was drawn around.
    positions : ndarray, (n, 2), float64
        The positions of the scan, x and y, in pixels.
    n_neighbors : int
        Neighbours considered per centre (K).
    seed, epoch : int
        The draw is a function of these two.
    rule, rng, engine : str
        The rule of choosing, the random stream, and the kind of index that found the neighbours.
    include_center : bool
        Whether channel 0 is the centre.
    center_choice : {"random", "sequential", "given"}
        How the centres were chosen.
    strategy, min_distance, max_distance, groups_per_center, bounds, N, min_overlap
        As for `group_positions`.
    n_groups : int, optional
        What was asked for. There are fewer groups than that where centres were left out.
    scan_ids : ndarray, (n,), int32, optional
        The number of each position's label, labels in sorted order.
    given_centers : ndarray, int32, optional
        The centres that were given.
    left_out : mapping of str to int
        Reason -> how many of the centres have no group for it: ``"distance"`` (fewer than C
        neighbours lie within the distances), ``"quadrant"`` (a quadrant is empty), ``"overlap"``
        (no neighbour overlaps enough), ``"scan_ids"`` (fewer than C positions have its label),
        ``"bounds"`` (a given centre lies outside the bounds).
    """

    engine: str = "grid"
    group_size: int = field(init=False)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_size", int(self.indices.shape[1]))

    @classmethod
    def answer(cls, request: DrawRequest, drawn: Drawn) -> Groups:
        """Return the groups that were drawn for a request."""
        given = {name: getattr(request, name) for name in ASKED}
        given["engine"] = drawn.engine
        return cls(**given, indices=drawn.indices, centers=drawn.centers, left_out=drawn.left_out)

    @property
    def request(self) -> DrawRequest:
        """What was asked for, without what was drawn."""
        asked = {item.name: getattr(self, item.name) for item in fields(DrawRequest)}
        if asked["n_groups"] is None:
            asked["n_groups"] = len(self)
        if self.center_choice == "given" and self.given_centers is None:
            asked["given_centers"] = self.centers
        return DrawRequest(**asked)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        of = f"{len(self)} of {self.group_size} positions"
        return (
            f"Groups({of}, scan of {len(self.positions)}, K={self.n_neighbors}, "
            f"rule={self.rule!r}, seed={self.seed}, epoch={self.epoch})"
        )

    def _repr_html_(self) -> str:
        n, C = len(self.positions), self.group_size
        rows = {
            "groups": f"{len(self)} of {C} of {n} positions",
            "neighbours": f"K = {self.n_neighbors}",
            "rule": self.rule,
            "seed, epoch": f"{self.seed}, {self.epoch}",
        }
        if self.left_out:
            told = (f"{count} ({reason})" for reason, count in self.left_out.items())
            rows["centres left out"] = ", ".join(told)
        times = np.bincount(self.indices.ravel(), minlength=n).astype(np.float64)
        pictures = {
            "how often positions are in a group (light: often)": dots(self.positions, times)
        }
        return card("Groups", rows, pictures)

    def plot(self, scan: ScanLike | None = None) -> Figure:
        """Draw groups on their scan.

        - The scan positions on the phase of the object, with six groups, each member joined to the
          centre of its group (above 5000 positions, a density map of the positions);
        - a close-up of one group, with the windows from which its patches are cut;
        - a map of the light that falls on the object in all groups, with the outlines of some;
        - a histogram of the overlap within groups;
        - for a scan without an object, the mean diffraction pattern.

        Parameters
        ----------
        scan : Scan, optional
            The scan that they were drawn from. Without it, positions alone are drawn.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig("groups.png")`` writes it to a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there are no groups, or they were drawn from another number of positions.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=50, N=32, seed=0)
        >>> figure = pf.group_positions(scan.positions, seed=1).plot(scan)  # needs matplotlib
        """
        return draw_groups(self, scan)

    @cached_property
    def coords(self) -> NDArray[np.float64]:
        """The position of each channel in pixels, (B, 1, 2, C), x then y."""
        return group_coordinates(self.positions, self.indices)

    @cached_property
    def offsets(self) -> NDArray[np.float64]:
        """The mean position of each group in pixels, (B, 1, 2, 1), x then y, always float64."""
        return relative_coordinates(self.coords)[0]

    @cached_property
    def relative(self) -> NDArray[np.float64]:
        """Minus the position of each channel relative to the mean of its group, (B, 1, 2, C).

        The minus sign is the field's convention: the result is the shift that moves the object
        under a channel to the centre.
        """
        return relative_coordinates(self.coords)[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the groups to an NPZ file.

        The file appears complete or not at all. Its keys are ``indices``, ``centers``,
        ``positions`` and ``parameters`` (JSON with the arguments of the draw and the SHA-256 of
        the positions), and ``scan_ids`` and ``given_centers`` where the draw had them.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        arrays = {name: values.pop(name) for name in ("indices", "centers", "positions")}
        for name in OPTIONAL_ARRAYS:
            array = values.pop(name)
            if array is not None:
                arrays[name] = array
        parameters = {
            "format": FORMAT,
            "positions_sha256": positions_checksum(self.positions),
            **values,
            "left_out": dict(self.left_out),
            "arrays": [name for name in OPTIONAL_ARRAYS if name in arrays],
        }
        arrays["parameters"] = json.dumps(parameters)
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], positions: ArrayLike | None = None) -> Groups:
        """Read groups that `save` wrote.

        Parameters
        ----------
        path : path
            The file.
        positions : array_like, (n, 2), optional
            The positions of the scan that the groups are to be used with, in pixels. They are
            compared with those that the groups were drawn from.

        Returns
        -------
        Groups

        Raises
        ------
        OSError
            If the file is missing, damaged, or no NPZ file.
        KeyError
            If it holds no groups.
        ValueError
            If its content is inconsistent, or the groups were drawn from other positions.
        """
        name = os.fspath(path)
        arrays = read_arrays(path, ("indices", "centers", "positions", "parameters"))
        checksum, parameters = _parse_parameters(name, str(arrays["parameters"]))
        stored = as_positions(arrays["positions"])
        if positions_checksum(stored) != checksum:
            msg = f"{name} is damaged: its positions do not match their checksum."
            raise ValueError(msg)
        if positions is not None and positions_checksum(as_positions(positions)) != checksum:
            msg = (
                f"{name} was drawn from other positions ({len(stored)} of them, SHA-256 "
                f"{checksum[:12]}...). Draw the groups of this scan again."
            )
            raise ValueError(msg)
        indices = as_indices("indices", arrays["indices"], 2, len(stored))
        centers = as_indices("centers", arrays["centers"], 1, len(stored))
        if len(centers) != len(indices):
            msg = f"{name} is damaged: it holds {len(indices)} groups but {len(centers)} centres."
            raise ValueError(msg)
        for key in parameters.pop("arrays", ()):
            if key in OPTIONAL_ARRAYS:
                parameters[key] = np.asarray(read_array(path, key), np.int32)
        try:
            return cls(indices=indices, centers=centers, positions=stored, **parameters)
        except TypeError as error:
            raise ValueError(_not_ours(name, error)) from error


def _parse_parameters(name: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return the checksum of the positions, and the arguments of the draw."""
    try:
        parameters = json.loads(text)
        checksum, version = parameters.pop("positions_sha256"), parameters.pop("format")
        if (bounds := parameters.get("bounds")) is not None:
            parameters["bounds"] = tuple(map(tuple, bounds))
    # RecursionError: JSON that is nested deeper than Python calls.
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(_not_ours(name, error)) from error
    if version != FORMAT:
        msg = (
            f"{name} has format {version}, but this version of ptycho_fast reads format {FORMAT}. "
            "Draw the groups again, or update ptycho_fast."
        )
        raise ValueError(msg)
    return checksum, parameters


def _not_ours(name: str, error: Exception) -> str:
    return (
        f"{name} was not written by Groups.save, or is damaged: its 'parameters' cannot be "
        f"read ({error!r})."
    )
