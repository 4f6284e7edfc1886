"""What is decided before training begins: its groups and its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.canvas import canvas
from ptycho_fast.checks import as_count, check_neighbors
from ptycho_fast.dataset import GroupedDataset, held_out_block
from ptycho_fast.grouping import group_positions
from ptycho_fast.models.record import RunRecord
from ptycho_fast.models.training.options import PATTERNS_A_STEP

if TYPE_CHECKING:
    from ptycho_fast.models.config import ModelConfig
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
    neighbor_count : int
        Number of neighbours considered per centre.
    batch_size : int
        Number of groups per step and device.
    fields : tuple of str
        Fields that a batch has beside the usual ones: "good", if some patterns have pixels that
        were not measured.
    """

    data: GroupedDataset
    held_out: GroupedDataset | None
    members: int
    neighbor_count: int
    batch_size: int
    fields: tuple[str, ...]


def plan_training(scan: Scan, config: ModelConfig, options: TrainingOptions) -> TrainingPlan:
    """Draw the groups of a run and choose its batches.

    Parameters
    ----------
    scan : Scan
    config : ModelConfig
    options : TrainingOptions

    Raises
    ------
    ValueError
        If the image would not fit in memory, if there are fewer neighbours than a group has
        patterns, or fewer groups than a batch.
    """
    # A scan that cannot be imaged must be refused now, not after hours of training.
    canvas(scan.positions, scan.N)
    channels, neighbor_count = config.channels, options.neighbor_count
    check_neighbors(neighbor_count, channels)
    members = channels if channels > 1 else config.overlap
    if channels == 1:
        neighbor_count = max(neighbor_count, members, _count_partners(scan))
    validation = options.validation
    groups = group_positions(
        scan.positions,
        options.n_groups,
        group_size=members,
        n_neighbors=neighbor_count,
        seed=config.seed,
        include_center=members > 1,
        # So that no group mixes positions of training and validation.
        scan_ids=None if validation is None else held_out_block(scan.positions, validation),
    )
    data, held_out = GroupedDataset(scan, groups), None
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = max(1, min(PATTERNS_A_STEP // members, len(groups) // options.devices))
    batch_size = as_count("batch_size", batch_size)
    if len(groups) < batch_size * options.devices:
        msg = (
            f"{len(groups)} groups of a scan of {len(scan)} positions are fewer than a batch "
            f"of {batch_size * options.devices}. Lower batch_size, or use fewer devices."
        )
        raise ValueError(msg)
    if validation is not None:
        data, held_out = data.split(validation)
    fields = ("good",) if scan.may_have_bad_pixels else ()
    return TrainingPlan(data, held_out, members, neighbor_count, batch_size, fields)


def _count_partners(scan: Scan) -> int:
    """Estimate how many positions lie within `PARTNERS_WITHIN` of another, from their density."""
    width, height = np.maximum(np.ptp(scan.positions, axis=0), 1)
    around = len(scan) / (width * height) * math.pi * (PARTNERS_WITHIN * scan.N) ** 2
    return min(int(around), MOST_PARTNERS)


def record_run(scan: Scan, plan: TrainingPlan, options: TrainingOptions) -> RunRecord:
    """Return the record of a run: its scan, and the options that its results depend on.

    Parameters
    ----------
    scan : Scan
        Its patterns are read, unless their energies are known already.
    plan : TrainingPlan
    options : TrainingOptions
    """
    return RunRecord.of(
        scan,
        file=options.source,
        options={
            "neighbor_count": plan.neighbor_count,
            "n_groups": len(scan) if options.n_groups is None else options.n_groups,
            "batch_size": plan.batch_size,
            "validation": options.validation,
            "refine_probe": options.refine_probe,
            "devices": options.devices,
        },
        device=options.accelerator,
    )
