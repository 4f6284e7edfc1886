"""Image a scan with a trained network: patches, stitching, refinement, scores."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptycho_fast.canvas import overhang, place
from ptycho_fast.grouping import group_positions
from ptycho_fast.models.physics import diffract, light_share
from ptycho_fast.models.reconstruction import Reconstruction
from ptycho_fast.models.refinement import refine as refined
from ptycho_fast.models.stitching import Stitcher
from ptycho_fast.models.unrolled import UnrolledNetwork
from ptycho_fast.notices import warn
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.reconstruction.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.canvas import Canvas
    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.network import ScanNetwork
    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

AT_ONCE = 32
"""Number of groups that pass through the network at a time."""


def choose_rows(
    scan: Scan, config: ModelConfig, *, n_groups: int | None, neighbor_count: int
) -> NDArray[np.integer]:
    """Return the groups of scan positions that are imaged together.

    Parameters
    ----------
    scan : Scan
    config : ModelConfig
    n_groups : int, optional
        Number of groups, around positions drawn at random; by default one around every position.
    neighbor_count : int
        Number of neighbours considered per centre, at least gridsize².

    Returns
    -------
    ndarray, (B, C), int
        Indices of scan positions; the first of each group is its centre.
    """
    if config.channels == 1 and n_groups is None:
        return np.arange(len(scan))[:, np.newaxis]
    groups = group_positions(
        scan.positions,
        n_groups,
        gridsize=config.gridsize,
        n_neighbors=1 if config.channels == 1 else neighbor_count,
        seed=config.seed,
        include_center=config.channels > 1,
        centers="sequential" if n_groups is None else "random",
    )
    return groups.indices


def image_scan(
    network: ScanNetwork,
    scan: Scan,
    rows: NDArray[np.integer],
    *,
    area: Canvas,
    bare: NDArray[np.complex64],
    exposure: float,
    stitching: bool,
    refine: int,
    device: torch.device,
) -> Reconstruction:
    """Pass groups of patterns through a network, and make an image of the patches.

    Parameters
    ----------
    network : ScanNetwork
        Afterwards it is on the device, in the mode, and has the mask, as before.
    scan : Scan
    rows : ndarray, (B, C), int
        Indices of the positions of each group (`choose_rows`).
    area : Canvas
        The canvas of the scan.
    bare : ndarray, (modes, N, N), complex64
        The probe of the scan, as bright as those of the network
        (`ptycho_fast.models.probes.choose_probe`).
    exposure : float
        By what factor the amplitudes are larger than this probe gives.
    stitching : bool
        False to return the patches.
    refine : int
        Number of iterations (`ptycho_fast.models.refinement`) that follow.
    device : torch.device

    Returns
    -------
    Reconstruction

    Raises
    ------
    MemoryError
        If the GPU has too little memory.
    """
    on_canvas = area.local(scan.positions)
    with _on_device(network, device, scan.mask):
        if isinstance(network, UnrolledNetwork):
            probe = network.scaled(torch.from_numpy(bare).to(device)) * exposure
            some = np.unique(rows)
            made = _image_together(network, scan, some, probe, area=area, stitching=stitching)
            return _finish(made, scan, probe, refine) if stitching else made
        lit = torch.from_numpy(bare).to(device).unsqueeze(0)
        probe = network.scaled(lit[0]) * exposure
        weight = light_share(lit)[0].cpu().numpy()
        stitcher = Stitcher(area, scan.positions, weight) if stitching else None
        correlation = _Correlation()
        kept: list[NDArray[np.complex64]] = []
        for some in (rows[first : first + AT_ONCE] for first in range(0, len(rows), AT_ONCE)):
            amplitude, good = _patterns(scan, some, device)
            where = on_canvas[some].transpose(0, 2, 1)
            made = network(amplitude / exposure, where, good, lit)[-1]
            modelled = diffract(made, probe).sqrt()
            correlation.add(amplitude, modelled, network.mask if good is None else good)
            patches = made.flatten(0, 1).cpu().numpy()
            if stitcher is None:
                kept.append(patches)
            else:
                stitcher.add(some.reshape(-1), patches)
    metrics: dict[str, Any] = {"pattern_correlation": correlation.value()}
    if stitcher is None:
        positions = scan.positions[rows.reshape(-1)].copy()
        return Reconstruction(None, None, metrics, np.concatenate(kept), positions)
    made = Reconstruction(stitcher.image(), stitcher.coverage, metrics, origin=area.origin)
    return _finish(made, scan, probe, refine)


def _image_together(
    network: UnrolledNetwork,
    scan: Scan,
    rows: NDArray[np.integer],
    probe: Tensor,
    *,
    area: Canvas,
    stitching: bool,
) -> Reconstruction:
    """Make one image of all patterns that are asked for."""
    if len(rows) < len(scan):
        scan = scan.subset(rows)
    run = Run(
        replace(scan, probe=probe.cpu().numpy()),
        seed=0,
        device="gpu" if probe.is_cuda else "cpu",
        num_threads=None,
        progress=None,
    )
    run.start(None, modes=1, diameter=None, fixed=True)
    model, lit = run.model, run.model.to_numpy(run.unknowns.probe)
    image = network.images(model, run.counts, run.unknowns)[-1].cpu().numpy()
    correlation = _Correlation()
    for some, counts, good in run.counts.blocks():
        numbers = np.arange(some.start, some.stop)
        expected = model.intensity(model.asarray(image), run.unknowns.probe, rows=numbers)
        measured, modelled = np.sqrt(counts), np.sqrt(model.to_numpy(expected))
        known = (
            None if good is None else torch.from_numpy(np.broadcast_to(good, counts.shape).copy())
        )
        correlation.add(torch.from_numpy(measured), torch.from_numpy(modelled), known)
    metrics: dict[str, Any] = {"pattern_correlation": correlation.value()}
    if not stitching:
        where = model.positions[:, :, np.newaxis]
        patches = extract_patches(image, where, scan.N)[..., 0]
        return Reconstruction(None, None, metrics, patches, scan.positions)
    light = model.to_numpy(model.light(run.unknowns.probe))
    peak = np.square(np.abs(lit)).sum(axis=0).max()
    # Some of the patterns may have a smaller canvas.
    offset = (run.canvas.origin[0] - area.origin[0], run.canvas.origin[1] - area.origin[1])
    coverage = place((light / peak).astype(np.float32), offset, area.shape)
    image = np.where(coverage > 0, place(image, offset, area.shape), 0).astype(np.complex64)
    return Reconstruction(image, coverage, metrics, origin=area.origin)


def _finish(made: Reconstruction, scan: Scan, probe: Tensor, refine: int) -> Reconstruction:
    """Refine an image if that is asked for, and score it."""
    image, coverage = made.object, made.coverage
    assert image is not None
    assert coverage is not None
    if refine:
        found = refined(
            scan,
            probe.cpu().numpy(),
            iterations=refine,
            object=np.where(coverage > 0, image, 1).astype(np.complex64),
            device="gpu" if probe.is_cuda else "cpu",
        )
        image = np.where(coverage > 0, found.object, 0).astype(np.complex64)
    metrics = {**made.metrics, **_scores(image, made.origin, scan)}
    return replace(made, object=image, metrics=metrics)


@contextlib.contextmanager
def _on_device(
    network: ScanNetwork, device: torch.device, mask: NDArray[np.bool_] | None
) -> Iterator[None]:
    """Evaluate a network on a device without gradients; then put it back as it was."""
    before = next(network.parameters()).device
    trained, masked = network.training, network.mask
    network.set_mask(mask)
    network.to(device).eval()
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        msg = f"The GPU has too little memory to image this scan. Pass device='cpu'. ({error})"
        raise MemoryError(msg) from error
    finally:
        network.mask = masked
        network.to(before).train(trained)


def _patterns(
    scan: Scan, rows: NDArray[np.integer], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return the amplitudes of groups, (B, C, N, N), and which pixels of them were measured."""
    patterns, counted = scan.measured(rows.reshape(-1))
    shape = (*rows.shape, *patterns.shape[1:])
    amplitude = torch.from_numpy(np.asarray(patterns, np.float32).reshape(shape)).to(device)
    if counted is None or not scan.may_have_bad_pixels:
        return amplitude, None
    good = torch.from_numpy(np.broadcast_to(counted, patterns.shape).copy())
    return amplitude, good.reshape(shape).to(device)


class _Correlation:
    """Pearson's correlation of two sets of numbers that arrive in pieces."""

    def __init__(self) -> None:
        self._sums = np.zeros(6)

    def add(self, a: Tensor, b: Tensor, mask: Tensor | None) -> None:
        """Add a piece; a mask of the last axes says which of its numbers count."""
        if mask is not None:
            a, b = a[..., mask], b[..., mask]
        parts = (a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())
        self._sums += [a.numel(), *(float(part) for part in parts)]

    def value(self) -> float:
        """Return the correlation; 0 if one of the two is constant."""
        n, a, b, aa, bb, ab = self._sums
        spread = (aa - a * a / n) * (bb - b * b / n)
        return float((ab - a * b / n) / math.sqrt(spread)) if spread > 0 else 0.0


def _scores(image: NDArray[np.complex64], origin: tuple[int, int], scan: Scan) -> dict[str, Any]:
    """Score an image against the object of the scan, where the two overlap."""
    if scan.object is None:
        return {}
    shape = (scan.object.shape[0], scan.object.shape[1])
    if beyond := overhang(scan.positions, scan.N, shape):
        warn(
            f"The scan's object of {shape[0]} x {shape[1]} pixels is too small: the windows reach "
            f"beyond it, {beyond}. The image contains all windows; it is scored where it overlaps "
            "the object."
        )
    # Only here: SciPy takes a while to import.
    from ptycho_fast.metrics import score  # noqa: PLC0415

    try:
        return score(place(image, origin, shape), scan.object, scan.positions, scan.N).as_dict()
    except ValueError as error:  # too small to be scored, but an image all the same
        logger.warning("The image was not scored: %s", error)
        return {}
