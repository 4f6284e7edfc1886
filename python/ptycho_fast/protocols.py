"""What modules below `ptycho_fast.scan` and `ptycho_fast.grouping` ask of a scan and of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


class ScanLike(Protocol):
    """A `ptycho_fast.Scan`, as those see it that it calls."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """(n, 2), x and y in pixels of the object."""

    @property
    def diffraction(self) -> Any:
        """Amplitudes (n, N, N), in memory or in their file."""

    @property
    def probe(self) -> NDArray[np.complexfloating] | None:
        """(N, N) or (modes, N, N)."""

    @property
    def object(self) -> NDArray[np.complexfloating] | None:
        """(H, W)."""

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(N, N), False for bad pixels."""

    @property
    def energies(self) -> NDArray[np.float64] | None:
        """(n,), sums of squares."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else the file holds."""

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern."""

    @property
    def bad_pixels(self) -> Any:
        """`BadPixels` of single patterns, besides those that patterns in a file know; or None."""

    @property
    def may_have_bad_pixels(self) -> bool:
        """Whether some patterns may have bad pixels that others have not."""

    def __len__(self) -> int:
        """Return the number of positions."""

    def fill(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Read some patterns into an array."""

    def measured(
        self, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read some patterns."""


class GroupsLike(Protocol):
    """`ptycho_fast.Groups`, as those see them that they call."""

    @property
    def indices(self) -> NDArray[np.int32]:
        """(B, C), the members."""

    @property
    def centers(self) -> NDArray[np.int32]:
        """(B,), the position that each was drawn around."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """(n, 2), those of the scan."""

    @property
    def group_size(self) -> int:
        """C."""

    @property
    def n_neighbors(self) -> int:
        """K."""

    @property
    def seed(self) -> int:
        """With the epoch, what was drawn."""

    @property
    def epoch(self) -> int:
        """Number of the epoch."""

    def __len__(self) -> int:
        """Return the number of groups."""
