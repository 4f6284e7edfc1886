"""What can be asked of batches: defined, documented and checked here for every way to get them."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from ptycho_fast.batches.processes import ranks_of_torch
from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ptycho_fast.scan import Scan

FIELDS = ("Y", "probe", "scan_id", "good")
LAYOUTS = ("channels_last", "channels_first")

Method = TypeVar("Method", bound="Callable[..., Any]")


class BatchArguments(TypedDict, total=False):
    """The arguments of `BatchOptions` that have the same default everywhere, for type checkers."""

    shuffle: bool
    seed: int
    epoch: int
    drop_last: bool | None
    pad: bool
    rank: int | None
    world_size: int | None
    fields: Sequence[str]


@dataclass(frozen=True)
class BatchOptions:
    """How the groups of a data set are divided into batches, and what each batch contains.

    A *global batch* is the next ``world_size * batch_size`` groups in the order of the epoch. Rank
    q of a distributed run takes the q-th `batch_size` of them, so all ranks get equally many
    batches.

    Parameters
    ----------
    batch_size : int
        Groups per batch and rank.
    shuffle : bool
        Visit the groups in a random order, which depends only on `seed` and `epoch`. By default
        they come in the order in which they were drawn.
    seed : int
        Seed of the shuffled order, 0..2**128-1. The groups themselves have a seed of their own,
        in `ptycho_fast.group_positions`.
    epoch : int
        Epoch whose order is used, 0..2**32-1; for a feed, the epoch of its first iteration. It
        does not change the groups: `GroupedDataset.at_epoch` draws others.
    drop_last : bool, optional
        Leave out the last global batch if it is incomplete. By default this is done only if there
        is more than one rank.
    pad : bool
        Complete the last global batch with groups from the start of the epoch's order instead.
    rank, world_size : int, optional
        Number of this process and of all processes in a distributed run. By default those of
        ``torch.distributed`` if it is initialised, else 0 and 1.
    fields : sequence of {"Y", "probe", "scan_id", "good"}
        Further keys of each batch. ``Y``: patches of the object at the true positions, complex64,
        in the shape of ``diffraction``. ``probe``: the probe of each group's scan. ``scan_id``:
        the number of that scan, int32. ``good``: bool in the shape of ``diffraction``, False for
        pixels that hold 0 because nothing was measured there.
    layout : {"channels_last", "channels_first"}
        Shape of patterns and patches: ``(B, N, N, C)`` or ``(B, C, N, N)``.

    Raises
    ------
    ValueError
        If an argument is out of range, or two of them contradict each other.

    Examples
    --------
    >>> from ptycho_fast.batches.options import BatchOptions
    >>> BatchOptions(32, shuffle=True, fields=["Y"]).fields
    ('Y',)
    """

    batch_size: int
    _: KW_ONLY
    shuffle: bool = False
    seed: int = 0
    epoch: int = 0
    drop_last: bool | None = None
    pad: bool = False
    rank: int | None = None
    world_size: int | None = None
    fields: Sequence[str] = ()
    layout: str = "channels_last"

    def __post_init__(self) -> None:
        if (self.rank is None) != (self.world_size is None):
            msg = (
                "Pass both rank and world_size, or neither: got "
                f"rank={self.rank!r} and world_size={self.world_size!r}."
            )
            raise ValueError(msg)
        object.__setattr__(self, "batch_size", as_count("batch_size", self.batch_size))
        object.__setattr__(self, "fields", tuple(self.fields))
        unknown = [name for name in self.fields if name not in FIELDS]
        if unknown:
            msg = f"fields must be among {FIELDS}, got {unknown}."
            raise ValueError(msg)
        if self.layout not in LAYOUTS:
            msg = f"layout must be one of {LAYOUTS}, got {self.layout!r}."
            raise ValueError(msg)
        if self.pad and self.drop_last:
            msg = (
                "pad=True completes the last batch and drop_last=True leaves it out: choose one "
                "of them."
            )
            raise ValueError(msg)
        if self.shuffle:  # in the groups' own order neither has a meaning
            for name, bits in (("seed", 128), ("epoch", 32)):
                count = as_count(name, getattr(self, name), least=0, most=2**bits - 1)
                object.__setattr__(self, name, count)

    @property
    def channels_first(self) -> bool:
        """Whether patterns and patches are ``(B, C, N, N)``."""
        return self.layout == "channels_first"

    def at_epoch(self, epoch: int) -> BatchOptions:
        """Return the same options for another epoch."""
        return replace(self, epoch=epoch)

    def of_this_process(self) -> BatchOptions:
        """Return the same options with `rank` and `world_size` as numbers.

        Those that were left open are looked up in ``torch.distributed`` now.
        """
        rank, world_size = self.rank, self.world_size
        if rank is None or world_size is None:
            rank, world_size = ranks_of_torch()
        world_size = as_count("world_size", world_size)
        rank = as_count("rank", rank, least=0, most=world_size - 1)
        return replace(self, rank=rank, world_size=world_size)

    def check_scans(self, scans: Sequence[Scan]) -> None:
        """Refuse `fields` that one of the scans has no data for."""
        for field, attribute in (("Y", "object"), ("probe", "probe")):
            missing = [i for i, scan in enumerate(scans) if getattr(scan, attribute) is None]
            if field in self.fields and missing:
                msg = (
                    f"{field!r} needs scan.{attribute}, which scan {missing[0]} does not have. "
                    f"Leave {field!r} out of fields, or add the {attribute} to the scan."
                )
                raise ValueError(msg)


def with_batch_options(method: Method) -> Method:
    """Show the arguments of `BatchOptions` in the signature of a method that takes ``**options``.

    Otherwise ``help`` and Jupyter would show ``**options`` and hide what can be asked for.
    """
    signature = inspect.signature(method)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    taken = {parameter.name for parameter in own}
    further = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for field in dataclasses.fields(BatchOptions)
        if field.name not in taken
    ]
    shown = signature.replace(parameters=[*own, *further])
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method
