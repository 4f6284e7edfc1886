"""Building blocks that several architectures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

STEEPEST = 3.0
"""Bound on the logarithm of the modulus: it stays within 1/20 to 20 times the mean. The bound is
soft (tanh), because beyond a hard bound there is no gradient, and a network could never return."""


class PolarNetwork(nn.Module):
    """Base class of networks that compute the log-modulus and the phase of each patch.

    Subclasses implement `polar`. Its input is padded so that its side is a multiple of `MULTIPLE`.
    """

    MULTIPLE = 8

    def polar(self, features: Tensor) -> Tensor:
        """Return the logarithms of the C moduli, then the C phases, ``(B, 2 C, n, n)``.

        Parameters
        ----------
        features : tensor, (B, F, n, n), float32
        """
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Return the patches, ``(B, C, N, N)`` complex64.

        Parameters
        ----------
        features : tensor, (B, F, N, N), float32
        """
        N = features.shape[-1]
        more = -N % self.MULTIPLE
        before, after = more // 2, more - more // 2
        padded = functional.pad(features, (before, after, before, after))
        # channels_last is faster, on CPUs too.
        made = self.polar(padded.contiguous(memory_format=torch.channels_last))
        modulus, phase = made[..., before : before + N, before : before + N].float().chunk(2, dim=1)
        soft = STEEPEST * torch.tanh(modulus / STEEPEST)
        patches: Tensor = torch.polar(soft.exp(), phase)
        return patches


def convolve(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution followed by a GELU. Kernel 4 and stride 2 halve the side of the image.

    Parameters
    ----------
    inside, outside : int
        Channels of input and output.
    kernel, stride : int
    """
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, padding=(kernel - stride + 1) // 2), nn.GELU()
    )


class Residual(nn.Module):
    """A residual block of two convolutions. Before training it is the identity.

    Parameters
    ----------
    width : int
        Number of channels.
    mixing : module, optional
        Its output is added to that of the first convolution.
    """

    def __init__(self, width: int, mixing: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.mixing = mixing
        self.second = start_at_zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the output of the block."""
        local = self.first(x)
        if self.mixing is not None:
            local = local + self.mixing(x)
        added: Tensor = self.second(functional.gelu(local))
        return x + added


class SpectralConvolution(nn.Module):
    """Multiplies the lowest Fourier modes of all channels by a matrix each; the others become 0.

    Computes what ``SpectralConv`` of neuraloperator 2.0 computes, bit for bit, and its parameters
    have the same names and start at the same random values. (Importing that one imports wandb and
    SciPy too.)

    Parameters
    ----------
    width : int
        Number of channels.
    modes : int
        Number of Fourier modes along each axis.
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        scale = (1 / width) ** 0.5
        # Real images have symmetric spectra, so half the columns suffice.
        weight = torch.empty(width, width, modes, modes // 2 + 1, dtype=torch.cfloat)
        self.weight = nn.ParameterDict({"tensor": weight.normal_(0, scale)})
        self.bias = nn.Parameter(scale * torch.randn(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``.

        Parameters
        ----------
        x : tensor, (B, width, n, n), float32
            n is at least the number of modes.
        """
        weight, side = self.weight["tensor"], x.shape[-2]
        rows, columns = weight.shape[-2:]
        first = side // 2 - rows // 2
        kept = (..., slice(first, first + rows), slice(columns))
        spectrum = torch.fft.fftshift(torch.fft.rfft2(x, norm="forward"), dim=-2)
        mixed = torch.zeros_like(spectrum)
        mixed[kept] = torch.einsum("bixy,ioxy->boxy", spectrum[kept], weight)
        # On an odd side, the inverse of fftshift is ifftshift, and this moves the modes by one.
        # Saved networks have learned their weights so.
        mixed = torch.fft.fftshift(mixed, dim=-2)
        made: Tensor = torch.fft.irfft2(mixed, s=x.shape[-2:], norm="forward") + self.bias
        return made


class SpectralMixing(nn.Module):
    """Mixes the lowest Fourier modes of all channels, so that each pixel sees all others.

    Parameters
    ----------
    width : int
        Number of channels.
    modes : int
        Number of Fourier modes along each axis (Li et al., Fourier neural operator, ICLR 2021).
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.spectrum = SpectralConvolution(width, modes)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``, computed in float32 (FFTs need it)."""
        with torch.autocast(x.device.type, enabled=False):
            mixed: Tensor = self.spectrum(x.float())
        return mixed.contiguous(memory_format=torch.channels_last)


class Pyramid(nn.Module):
    """Sums the predictions of layers at several resolutions, each twice as fine as the one before.

    A phase that varies smoothly over the patch hardly changes single pixels of its diffraction
    pattern. A coarse layer expresses it with a few numbers of large effect, so it is learned
    earlier. The finest layer has half the side of the patch, and predicts four pixels from each of
    its own.

    Parameters
    ----------
    widths : sequence of int
        Number of channels of each layer, the coarsest first.
    outside : int
        Number of channels of the sum.
    """

    def __init__(self, widths: Sequence[int], outside: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            start_at_zero(nn.Conv2d(width, outside, 1)) for width in widths[:-1]
        )
        self.finest = start_at_zero(nn.Conv2d(widths[-1], 4 * outside, 3, padding=1))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Return ``(B, outside, 2 n, 2 n)``.

        Parameters
        ----------
        layers : sequence of tensor, (B, width, n, n)
        """
        coarse = [head(layer).contiguous() for head, layer in zip(self.heads, layers, strict=False)]
        total = functional.interpolate(coarse[0], scale_factor=2, mode="bilinear")
        for part in coarse[1:]:
            total = functional.interpolate(total + part, scale_factor=2, mode="bilinear")
        total = functional.interpolate(total, scale_factor=2, mode="bilinear")
        return total + functional.pixel_shuffle(self.finest(layers[-1]).contiguous(), 2)


def start_at_zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Set the weights of a convolution to 0, so that its output is 0 before training.

    Parameters
    ----------
    layer : torch.nn.Conv2d
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def grow(x: Tensor) -> Tensor:
    """Double the side of an image by repeating pixels: ``(B, C, 2n, 2n)``.

    Parameters
    ----------
    x : tensor, (B, C, n, n)
    """
    return functional.interpolate(x, scale_factor=2, mode="nearest")
