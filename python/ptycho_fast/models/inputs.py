"""What a network sees: patterns carried to the object, where its patches are."""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_fast.models.physics import far_field, near_field

EACH = 3
"""Features of a pattern; those of the probe come once more."""

FLOOR = 0.05
"""Of the probe's greatest intensity: where it is darker, little is known of the object."""


def count_features(channels: int) -> int:
    """Return how many features (F) a group of so many patterns has.

    Parameters
    ----------
    channels : int
        Patterns of a group (C).

    Returns
    -------
    int
    """
    return EACH * channels + 1


def make_features(amplitude: Tensor, probe: Tensor) -> Tensor:
    """Make the features of groups of patterns.

    A pattern, given the phases that it would have without an object, is carried back to the object
    and divided by the probe, ``conj(P) F^-1(A exp(i arg F P)) / (|P|**2 + floor)``. What no object
    at all would give there is subtracted. With it goes the autocorrelation of the exit wave, the
    inverse Fourier transform of the intensity, which assumes nothing; and the modulus of the
    probe.

    Parameters
    ----------
    amplitude : tensor, (B, C, N, N), float32
        Square root of counts.
    probe : tensor, (modes, N, N), complex64
        Scaled to the patterns. The strongest mode carries them back.

    Returns
    -------
    tensor, (B, 3 C + 1, N, N), float32
        Real parts of the C patterns, imaginary parts, autocorrelations, the probe's modulus (of
        all modes, 0..1).
    """
    intensity = probe.abs().square()
    main = probe[intensity.sum(dim=(-2, -1)).argmax()]
    total = intensity.sum(dim=0)
    floor = FLOOR * total.max()
    empty = far_field(main)
    wave = near_field(amplitude * torch.polar(torch.ones_like(empty.real), empty.angle()))
    seen = main.conj() * wave / (total + floor)
    correlation = near_field(amplitude.square().to(torch.complex64)).real
    correlation = correlation / correlation.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    modulus = (total / total.max()).sqrt()
    return torch.cat(
        [
            seen.real - total / (total + floor),
            seen.imag,
            # The root brings up what lies far from the middle.
            correlation.sign() * correlation.abs().sqrt(),
            modulus.expand(len(amplitude), 1, *modulus.shape),
        ],
        dim=1,
    )
