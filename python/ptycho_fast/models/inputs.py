"""The input of a network: diffraction patterns, propagated back to the plane of the object.

In that plane a feature lies on the pixel of the patch that it tells about, so convolutions can use
it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptycho_fast.models.physics import far_field, near_field

EACH = 3
"""Number of features per pattern. One more, the probe, is shared by the patterns of a group."""

FLOOR = 0.05
"""Fraction of the probe's peak intensity that is added before dividing by the intensity, because
where the probe is darker than that, the patterns say little about the object."""


def count_features(channels: int) -> int:
    """Return the number of features (F) of a group of patterns.

    Parameters
    ----------
    channels : int
        Number of patterns in a group (C).

    Returns
    -------
    int
    """
    return EACH * channels + 1


def make_features(amplitude: Tensor, probe: Tensor) -> Tensor:
    """Calculate the features of groups of patterns.

    The first two features of a pattern are a rough estimate of the object. The measured amplitudes
    A get the phases that the far field of the probe P would have without an object, are propagated
    back to the object and divided by the probe:
    ``conj(P) F^-1(A exp(i arg F P)) / (|P|**2 + floor)``. The estimate for an empty object is
    subtracted. The third feature is the autocorrelation of the exit wave, which is the inverse
    Fourier transform of the intensity and needs no assumption about phases. The modulus of the
    probe is added once per group.

    Parameters
    ----------
    amplitude : tensor, (B, C, N, N), float32
        Square roots of counts.
    probe : tensor, (modes, N, N) or (B, modes, N, N), complex64
        One for all groups, or one for each, scaled to the patterns. Its strongest mode is used to
        propagate them back.

    Returns
    -------
    tensor, (B, 3 C + 1, N, N), float32
        Real parts of the C estimates, their imaginary parts, the C autocorrelations, and the
        probe's modulus (of all modes, 0..1).
    """
    probes = probe if probe.ndim == 4 else probe.unsqueeze(0)
    intensity = probes.abs().square()
    strongest = intensity.sum(dim=(-2, -1)).argmax(dim=1, keepdim=True)
    main = probes.take_along_dim(strongest[..., None, None], dim=1)
    total = intensity.sum(dim=1, keepdim=True)
    peak = total.amax(dim=(-2, -1), keepdim=True)
    floor = FLOOR * peak
    empty = far_field(main)
    wave = near_field(amplitude * torch.polar(torch.ones_like(empty.real), empty.angle()))
    seen = main.conj() * wave / (total + floor)
    correlation = near_field(amplitude.square().to(torch.complex64)).real
    correlation = correlation / correlation.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    modulus = (total / peak).sqrt()
    return torch.cat(
        [
            seen.real - total / (total + floor),
            seen.imag,
            # The root makes the values far from the centre larger.
            correlation.sign() * correlation.abs().sqrt(),
            modulus.expand(len(amplitude), -1, -1, -1),
        ],
        dim=1,
    )
