"""What several networks are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

STEEPEST = 3.0
"""Bound of the logarithm of a modulus: 1/20 to 20 times the mean. It is a soft one: beyond a hard
one nothing is learned any more, and a network that got there stays."""


class PolarNetwork(nn.Module):
    """A network that makes the logarithm of the modulus, and the phase, of each patch.

    Subclasses write `polar`. The side of what it is given is a multiple of `MULTIPLE`.
    """

    MULTIPLE = 8

    def polar(self, features: Tensor) -> Tensor:
        """Return logarithms of the moduli, then phases, ``(B, 2 C, n, n)``.

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
        # The faster layout, on processors too.
        made = self.polar(padded.contiguous(memory_format=torch.channels_last))
        modulus, phase = made[..., before : before + N, before : before + N].float().chunk(2, dim=1)
        soft = STEEPEST * torch.tanh(modulus / STEEPEST)
        patches: Tensor = torch.polar(soft.exp(), phase)
        return patches


def convolve(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution and its GELU; with a kernel of 4 and a stride of 2 it halves the side.

    Parameters
    ----------
    inside, outside : int
        Channels.
    kernel, stride : int
    """
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, padding=(kernel - stride + 1) // 2), nn.GELU()
    )


class Residual(nn.Module):
    """Two convolutions beside a straight way, which is all there is at first.

    Parameters
    ----------
    width : int
        Channels.
    mixing : module, optional
        Goes beside the first convolution.
    """

    def __init__(self, width: int, mixing: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.mixing = mixing
        self.second = start_at_zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` and what is added to it."""
        local = self.first(x)
        if self.mixing is not None:
            local = local + self.mixing(x)
        added: Tensor = self.second(functional.gelu(local))
        return x + added


class SpectralMixing(nn.Module):
    """The lowest Fourier modes of all channels, mixed: each pixel sees all others.

    Parameters
    ----------
    width : int
        Channels.
    modes : int
        Along each axis (Li et al., Fourier neural operator, ICLR 2021).
    """

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        try:
            from neuralop.layers.spectral_convolution import SpectralConv  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = f'neuraloperator is needed ({error}): pip install "ptycho_fast[torch]"'
            raise ImportError(msg) from None
        self.spectrum = SpectralConv(width, width, (modes, modes))

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels of the same side; in float32, as Fourier transforms need it."""
        with torch.autocast(x.device.type, enabled=False):
            mixed: Tensor = self.spectrum(x.float())
        return mixed.contiguous(memory_format=torch.channels_last)


class Pyramid(nn.Module):
    """The sum of what layers of several sides, each twice the one before, say about each pixel.

    A smooth phase over a whole patch hardly changes single pixels of its diffraction. Said by a
    coarse layer it is a few numbers that matter much, and is learned sooner. The last
    layer has half the side of the patch and makes four pixels of each of its own.

    Parameters
    ----------
    widths : sequence of int
        Channels of each layer, the coarsest first.
    outside : int
        Channels of the sum.
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
    """Return a convolution that gives 0 until something was learned.

    Parameters
    ----------
    layer : torch.nn.Conv2d
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def grow(x: Tensor) -> Tensor:
    """Return ``(B, C, 2n, 2n)`` with each pixel four times.

    Parameters
    ----------
    x : tensor, (B, C, n, n)
    """
    return functional.interpolate(x, scale_factor=2, mode="nearest")
