"""Random parts of the counts: shorter exposures, and counts that the network does not see."""

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


def halves(amplitude: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return two patterns with half of the counts each, whose noise is independent.

    A network that is told one half and judged by the other gains nothing by copying noise.

    Parameters
    ----------
    amplitude : tensor, (B, C, N, N), float32
        Square roots of counts.
    generator : torch.Generator
        On the device of the patterns.

    Returns
    -------
    tensor, tensor, (B, C, N, N), float32
        Square roots of counts. Each count is in the first with probability 1/2, else in the second;
        what is no whole count is divided. NaN is NaN in the second.
    """
    counts = amplitude.square()
    whole = torch.nan_to_num((counts + 1e-3).floor())  # squares are not quite whole numbers
    rest = torch.nan_to_num(counts - whole) / 2
    drawn = torch.binomial(whole, torch.full_like(whole, 0.5), generator=generator)
    first = (drawn + rest).clamp(min=0)
    return first.sqrt(), (counts - first).clamp(min=0).sqrt()
