"""An NPZ file as a container."""

from __future__ import annotations

from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.listing import listed
from ptycho_fast.io.npz.archive import Archive, Member
from ptycho_fast.io.npz.stack import NPZStack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.recipe import Recipe


class NPZContainer(Container):
    """An NPZ file. Whether it is one is found out when the first array is asked for.

    Parameters
    ----------
    path, open_other
        As of `Container`.
    file : binary file
        The file, open; it is closed with the container.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        open_other: Callable[[str | os.PathLike[str]], Container],
        file: IO[bytes],
    ) -> None:
        super().__init__(path, open_other)
        self._file = file

    @cached_property
    def archive(self) -> Archive:
        """The file, with what only NPZ files have."""
        return Archive(self.path, self._file)

    def close(self) -> None:
        """Close the file and those that were opened through it."""
        super().close()
        self._file.close()

    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return key -> what is known of each array; all of them, as one pass finds them all."""
        del most
        return {
            key: ArrayInfo(member.shape, member.dtype)
            for key, member in self.archive.members.items()
        }

    def __contains__(self, key: str) -> bool:
        return key in self.archive.members

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of an array."""
        member = self._member(key)
        return ArrayInfo(member.shape, member.dtype)

    def read(self, key: str) -> NDArray[Any]:
        """Read an array."""
        return self.archive.read([key])[key]

    def frames(
        self,
        key: str,
        recipe: Recipe,
        n: int | None = None,
        grid: tuple[int, ...] = (),
    ) -> Frames:
        """Open a stack of frames, which stay in the file."""
        member = self._member(key)
        if member.dtype.kind not in "fiu":
            msg = (
                f"{self.path}: {key!r} must be frames (n, rows, columns) of real numbers, got "
                f"{member.dtype} of shape {member.shape}."
            )
            raise ValueError(msg)
        return NPZStack(self.path, key, member, recipe, n=n, grid=grid).open()

    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read arrays that hold one number each."""
        arrays = self.archive.read(list(keys))
        return {key: float(values.reshape(-1)[0]) for key, values in arrays.items()}

    def _member(self, key: str) -> Member:
        found = self.archive.members
        if key not in found:
            msg = f"{self.path} has no {key!r}. It has: {listed(found)}."
            raise KeyError(msg)
        return found[key]
