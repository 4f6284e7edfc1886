"""Simulate shorter exposures: patterns with fewer counts, for training on dark scans."""

from __future__ import annotations

import torch
from torch import Tensor


def thin(amplitude: Tensor, least_exposure: float, generator: torch.Generator) -> Tensor:
    """Return patterns with the noise of shorter exposures, at their original brightness.

    Parameters
    ----------
    amplitude : tensor, (B, C, N, N), float32
        Square roots of counts.
    least_exposure : float
        Shortest exposure, as a fraction of the original one. The exposure of each pattern is drawn
        between this and 1, uniformly in its logarithm.
    generator : torch.Generator
        On the device of the patterns.

    Returns
    -------
    tensor, (B, C, N, N), float32
        Square roots of counts drawn from a binomial distribution and divided by the fraction.
    """
    shape = (*amplitude.shape[:2], 1, 1)
    drawn = torch.rand(shape, generator=generator, device=amplitude.device)
    share = least_exposure**drawn
    counts = torch.nan_to_num(amplitude.square()).round()  # NaN is reported later, by the loss
    kept = torch.binomial(counts, share.expand_as(counts).contiguous(), generator=generator)
    return (kept / share).sqrt()
