"""A learned prior: a small network that has seen what objects look like improves an image.

It was trained on simulated scans (``training/learned_prior.py``, docs/learned_prior.md).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import torch
    from safetensors import torch as safetensors
except ImportError as error:
    msg = (
        f"The learned prior needs PyTorch ({error}). Install it with: pip install "
        '"ptycho_fast[torch]"'
    )
    raise ImportError(msg) from None

# isort: split
from torch import nn

from ptycho_fast.reconstruction.fit import refit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.reconstruction.objective import Unknowns

WEIGHTS = "learned_prior.safetensors"
"""The file of the network's weights, beside this one."""

WIDTHS = (24, 48, 72)
"""Channels of the network at full, half and a quarter of the resolution."""

BLOCKS = (1, 1, 2)
"""Residual blocks there, on the way down and on the way up."""

COARSEST = 2 ** (len(WIDTHS) - 1)
"""Sides of what the network is given must be multiples of this."""

TILE, MARGIN = 512, 64
"""Large images are improved in squares of this many pixels a side. They are cut with so many pixels
around them, which is more than the network looks from a pixel."""

DARK = 0.02
"""Pixels with less than this fraction of the brightest light are dark."""

SOFT = 3.0
"""Differences of more than so many standard deviations are shortened."""

STAGES = 2
"""How many times such a fit and the network follow each other."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network is given of a reconstruction.

    Parameters
    ----------
    object : ndarray, (H, W), complex64
        A fit. Its mean intensity is 1 where there is light.
    gained : ndarray, (H, W), complex64
        By how much it differs from what was expected, in units of `sigma`; large differences are
        shortened.
    light : ndarray, (H, W), float32
        Counts that an object of modulus 1 would have, from each of its pixels.
    sigma : ndarray, (H, W), float32
        The error that the smooth prior expects of each pixel, at most 1.
    size : float
        By which the object of the reconstruction was divided.
    """

    object: NDArray[np.complex64]
    gained: NDArray[np.complex64]
    light: NDArray[np.float32]
    sigma: NDArray[np.float32]
    size: float

    def channels(self) -> NDArray[np.float32]:
        """Return the channels of the network, (7, H, W)."""
        return np.stack(
            [
                self.object.real,
                self.object.imag,
                self.gained.real,
                self.gained.imag,
                np.log10(np.maximum(self.light, 1e-3)) / 3,
                np.log10(self.sigma),
                self.light > DARK * brightest(self.light),
            ]
        ).astype(np.float32)


def see(model: Any, counts: Any, unknowns: Unknowns, mu: float) -> Seen:
    """Fit an image anew, and return what the network is given of that.

    The network removes noise better than bias, and `refit` leaves more noise and less bias.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
        The counts that were fitted.
    unknowns : Unknowns
        With the image that is expected.
    mu : float
        Weight of the smooth prior, above 0.

    Returns
    -------
    Seen
    """
    found = refit(model, counts, unknowns, mu)
    expected, image = model.to_numpy(unknowns.object), model.to_numpy(found.object)
    light = model.to_numpy(model.light(unknowns.probe))
    share = light / light.sum(dtype=np.float64)
    size = float(np.sqrt((share * np.abs(image) ** 2).sum()))
    light = (light * size**2).astype(np.float32)
    sigma = expected_error(light, mu * size**2)
    gained = (image - expected) / (size * sigma)
    gained /= np.sqrt(1 + np.abs(gained / SOFT) ** 2)
    return Seen(
        (image / size).astype(np.complex64), gained.astype(np.complex64), light, sigma, size
    )


def brightest(light: NDArray[np.float32]) -> float:
    """Return the light that 2 % of the pixels exceed."""
    return float(np.quantile(light, 0.98))


def expected_error(light: NDArray[np.float32], mu: float) -> NDArray[np.float32]:
    """Return the error that is expected of each pixel under the smooth prior, at most 1.

    Its square is the mean over all spatial frequencies w of ``1 / (light + mu w**3)``: noise, and
    what the prior keeps from the image.

    Parameters
    ----------
    light : ndarray, (H, W), float32
    mu : float

    Returns
    -------
    ndarray, (H, W), float32
    """
    axis = 2 * np.pi * np.fft.fftfreq(64)
    penalty = np.hypot(axis[:, np.newaxis], axis) ** 3
    ratios = 10.0 ** np.arange(-8, 9, 0.25)
    means = [(1 / (ratio + penalty)).mean() for ratio in ratios]
    ratio = np.log(np.maximum(light, 1e-6) / mu)
    variance = np.exp(np.interp(ratio, np.log(ratios), np.log(means))) / mu
    error: NDArray[np.float32] = np.minimum(np.sqrt(variance), 1).astype(np.float32)
    return error


class Block(nn.Module):
    """Two convolutions, whose result is added to what they are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        _set_to_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        change: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + change


class CanvasNetwork(nn.Module):
    """A U-Net on the canvas of the object: channels of `Seen` to an error of the object.

    What it returns, (batch, 2, H, W), is in units of ``Seen.sigma``: real and imaginary part of
    what is to be added to the object. H and W are multiples of 4. Without training it is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(WIDTHS))
        self.enter = nn.Conv2d(7, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(map(_blocks, WIDTHS, BLOCKS))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, wide, 2, stride=2) for fine, wide in pairs)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(wide, fine, 2, stride=2) for fine, wide in pairs
        )
        self.up = nn.ModuleList(map(_blocks, WIDTHS[:-1], BLOCKS))
        self.leave = nn.Conv2d(WIDTHS[0], 2, 3, padding=1)
        _set_to_zero(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        """Return the error of the object."""
        x = self.enter(x)
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=False):
            kept.append(blocks(x))
            x = shrink(kept[-1])
        x = self.down[-1](x)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = blocks(kept.pop() + grow(x))
        error: Tensor = self.leave(torch.relu(x))
        return error


def _set_to_zero(layer: nn.Module) -> None:
    for values in layer.parameters():
        nn.init.zeros_(values)


def _blocks(width: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(number)))


@functools.cache
def trained() -> CanvasNetwork:
    """Return the network that the package contains, with its weights."""
    return network_of(resources.files("ptycho_fast.reconstruction").joinpath(WEIGHTS).read_bytes())


def network_of(data: bytes) -> CanvasNetwork:
    """Return a network with the weights of a safetensors file, ready for use."""
    network = CanvasNetwork()
    network.load_state_dict({name: value.float() for name, value in safetensors.load(data).items()})
    return network.eval().requires_grad_(False)


def improve(model: Any, counts: Any, unknowns: Unknowns, mu: float) -> Unknowns:
    """Improve a fit with the network that the package contains.

    Parameters
    ----------
    model, counts, unknowns, mu
        As those of `see`.

    Returns
    -------
    Unknowns
        With another object.
    """
    for _ in range(STAGES):
        image = improved(see(model, counts, unknowns, mu), trained())
        unknowns = replace(unknowns, object=model.asarray(image))
    return unknowns


def improved(seen: Seen, network: CanvasNetwork) -> NDArray[np.complex64]:
    """Return the object as a network improves it, of the size that the reconstruction's has.

    Parameters
    ----------
    seen : Seen
    network : CanvasNetwork

    Returns
    -------
    ndarray, (H, W), complex64
    """
    with torch.inference_mode():
        image: NDArray[np.complex64] = predicted(seen, network).cpu().numpy()
    return image


def predicted(seen: Seen, network: CanvasNetwork) -> Tensor:
    """Return what `improved` does, on the network's device, differentiable by its weights.

    Parameters
    ----------
    seen : Seen
    network : CanvasNetwork

    Returns
    -------
    tensor, (H, W), complex64
    """
    device = next(network.parameters()).device
    height, width = seen.light.shape
    margin = MARGIN if max(height, width) > TILE else 0
    channels = seen.channels()
    bottom, right = (-length % COARSEST for length in (height, width))
    channels = np.pad(channels, [(0, 0), (margin, margin + bottom), (margin, margin + right)])
    change = torch.empty((2, height, width), device=device)
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            rows, columns = min(TILE, height - y), min(TILE, width - x)
            some = channels[
                :,
                y : y + rows + -rows % COARSEST + 2 * margin,
                x : x + columns + -columns % COARSEST + 2 * margin,
            ]
            made = network(torch.from_numpy(np.ascontiguousarray(some[np.newaxis])).to(device))[0]
            there = made[:, margin : margin + rows, margin : margin + columns]
            change[:, y : y + rows, x : x + columns] = there
    fitted, sigma, light = (
        torch.from_numpy(values).to(device) for values in (seen.object, seen.sigma, seen.light)
    )
    image = fitted + sigma * torch.complex(change[0], change[1])
    # What the network leaves out, since it can't be known, had its part in explaining the counts.
    # The light that passes the object stays the same.
    passing = (light * image.detach().abs().square()).sum(dtype=torch.float64)
    passed = passing / light.sum(dtype=torch.float64)
    return image * (seen.size / passed.sqrt()).float()
