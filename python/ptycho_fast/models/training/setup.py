"""What is decided before training begins: its groups and its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.canvas import canvas
from ptycho_fast.checks import as_count, check_neighbors
from ptycho_fast.dataset import GroupedDataset
from ptycho_fast.grouping import group_positions
from ptycho_fast.models.architectures.registry import UNROLLED
from ptycho_fast.models.record import RunRecord, ScanRecord
from ptycho_fast.models.training.options import PATTERNS_A_STEP
from ptycho_fast.subsampling import held_out_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.scans import NamedScan
    from ptycho_fast.models.training.options import TrainingOptions
    from ptycho_fast.scan import Scan

PARTNERS_WITHIN = 1 / 4
"""With gridsize 1, a pattern is trained together with others at most this fraction of N away.
Closer patterns contain almost the same information; those farther away overlap too little."""

MOST_PARTNERS = 64
"""Largest number of neighbours from which these others are chosen."""


@dataclass(frozen=True)
class TrainingPlan:
    """The groups of a run, and how they make batches.

    Parameters
    ----------
    data : GroupedDataset
        The groups to train on.
    held_out : GroupedDataset, optional
        The groups for validation.
    members : int
        Number of patterns in a group.
    neighbor_counts : tuple of int
        Number of neighbours considered per centre, for each scan.
    batch_size : int
        Number of groups per step and device.
    fields : tuple of str
        Fields that a batch has beside the usual ones: "good", if some patterns have pixels that
        were not measured, and "scan_id", if there are several scans.
    names : tuple of str
        What messages call the scans.
    mask : ndarray, (N, N), bool, optional
        The mask of the detector. None for several scans, whose masks are part of "good".
    """

    data: GroupedDataset
    held_out: GroupedDataset | None
    members: int
    neighbor_counts: tuple[int, ...]
    batch_size: int
    fields: tuple[str, ...]
    names: tuple[str, ...]
    mask: NDArray[np.bool_] | None


def plan_training(
    scans: Sequence[NamedScan],
    held_out: Sequence[NamedScan],
    config: ModelConfig,
    options: TrainingOptions,
) -> TrainingPlan:
    """Draw the groups of a run and choose its batches.

    Parameters
    ----------
    scans : sequence of NamedScan
        Those to train on.
    held_out : sequence of NamedScan
        Those for validation, if these are whole scans.
    config : ModelConfig
    options : TrainingOptions

    Raises
    ------
    ValueError
        If an image would not fit in memory, if there are fewer neighbours than a group has
        patterns, fewer groups than a batch, or none of a scan for training or validation.
    """
    for one in scans:
        with one.named():
            # A scan that cannot be imaged must be refused now, not after hours of training.
            canvas(one.scan.positions, one.scan.N)
    check_neighbors(options.neighbor_count, config.channels)
    members = _count_members([one.scan for one in (*scans, *held_out)], config)
    counts = tuple(_count_neighbors(one.scan, members, config, options) for one in scans)
    data = _grouped(scans, counts, members, config, options)
    validation = None
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = max(1, min(PATTERNS_A_STEP // members, len(data) // options.processes))
    batch_size = as_count("batch_size", batch_size)
    if len(data) < batch_size * options.processes:
        few = batch_size * options.processes
        msg = (
            f"{len(data)} groups of a scan of {len(scans[0].scan)} positions are fewer than a "
            f"batch of {few}. Lower batch_size, or use fewer devices."
        )
        if len(scans) > 1:
            msg = (
                f"{len(data)} groups of {len(scans)} scans are fewer than a batch of {few}. Lower "
                "batch_size, or use fewer devices."
            )
        raise ValueError(msg)
    if options.validation is not None:
        data, validation = data.split(options.validation)
        _check_sides(scans, data, validation, options.validation)
    every = [one.scan for one in (*scans, *held_out)]
    if held_out:
        whole = replace(options, n_groups=None, validation=None)
        near = tuple(_count_neighbors(one.scan, members, config, options) for one in held_out)
        validation = _grouped(held_out, near, members, config, whole)
    fields: tuple[str, ...] = ("good",) if any(scan.may_have_bad_pixels for scan in every) else ()
    mask = scans[0].scan.mask
    if len(every) > 1:
        masked = any(scan.mask is not None for scan in every)
        fields = ("scan_id", "good") if masked or fields else ("scan_id",)
        mask = None
    names = tuple(one.name for one in scans)
    return TrainingPlan(data, validation, members, counts, batch_size, fields, names, mask)


def _grouped(
    scans: Sequence[NamedScan],
    neighbor_counts: Sequence[int],
    members: int,
    config: ModelConfig,
    options: TrainingOptions,
) -> GroupedDataset:
    """Draw the groups of each scan. None has members of two scans."""
    found = []
    for one, neighbor_count in zip(scans, neighbor_counts, strict=True):
        positions, sides = one.scan.positions, None
        if options.validation is not None:  # no group mixes positions of training and validation
            sides = held_out_block(positions, options.validation)
        with one.named():
            groups = group_positions(
                positions,
                options.n_groups,
                group_size=members,
                n_neighbors=neighbor_count,
                seed=config.seed,
                include_center=members > 1,
                scan_ids=sides,
            )
            found.append(GroupedDataset(one.scan, groups))
    return found[0] if len(found) == 1 else GroupedDataset.concatenate(found)


def _check_sides(
    scans: Sequence[NamedScan], data: GroupedDataset, held_out: GroupedDataset, validation: float
) -> None:
    """Raise an error if a scan has no group on one side of the split."""
    for one, inside, outside in zip(scans, data.groups, held_out.groups, strict=True):
        if not len(inside) or not len(outside):
            msg = (
                f"{one.name}: validation={validation} leaves {len(inside)} of its groups to train "
                f"on and {len(outside)} to validate on. Use another share, leave the scan out, or "
                "hold out whole scans."
            )
            raise ValueError(msg)


def _count_members(scans: Sequence[Scan], config: ModelConfig) -> int:
    """Return the number of patterns in a group."""
    if config.channels > 1:
        return config.channels
    if config.architecture == UNROLLED:  # it images any number of patterns
        return min(config.overlap, *map(len, scans))
    return config.overlap


def _count_neighbors(
    scan: Scan, members: int, config: ModelConfig, options: TrainingOptions
) -> int:
    """Return how many neighbours of a centre are considered."""
    if config.channels > 1:
        return options.neighbor_count
    return max(options.neighbor_count, members, _count_partners(scan))


def _count_partners(scan: Scan) -> int:
    """Estimate how many positions lie within `PARTNERS_WITHIN` of another, from their density."""
    width, height = np.maximum(np.ptp(scan.positions, axis=0), 1)
    around = len(scan) / (width * height) * math.pi * (PARTNERS_WITHIN * scan.N) ** 2
    return min(int(around), MOST_PARTNERS)


def record_run(
    scans: Sequence[NamedScan],
    held_out: Sequence[NamedScan],
    plan: TrainingPlan,
    options: TrainingOptions,
) -> RunRecord:
    """Return the record of a run: its scans, and the options that its results depend on.

    Parameters
    ----------
    scans, held_out : sequence of NamedScan
        Their patterns are read, unless their energies are known already.
    plan : TrainingPlan
    options : TrainingOptions
    """
    alone = len(scans) == 1
    n_groups = options.n_groups
    if alone and n_groups is None:
        n_groups = len(scans[0].scan)
    return RunRecord(
        scans=tuple(ScanRecord.of(one.scan, one.file) for one in scans),
        validation_scans=tuple(ScanRecord.of(one.scan, one.file) for one in held_out),
        options={
            "neighbor_count": plan.neighbor_counts[0] if alone else list(plan.neighbor_counts),
            "n_groups": n_groups,
            "batch_size": plan.batch_size,
            "validation": options.validation,
            "refine_probe": options.refine_probe,
            "devices": options.processes,
        },
        device=options.accelerator,
    )
