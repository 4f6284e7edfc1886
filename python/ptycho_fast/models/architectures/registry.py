"""The table of architectures: those of this package, and those that users register."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Network = Callable[..., nn.Module]

OURS = {"cnn": "CNN", "fno": "FNO", "hybrid": "Hybrid", "hybrid_resnet": "HybridResNet"}
"""The class of each architecture of this package. It is in the module of the architecture's name,
which is imported when the architecture is built."""

UNROLLED = "unrolled"
"""The architecture of `ptycho_fast.models.PtychoModel.pretrained`. It takes groups of patterns and
not their features, so it is none of the others."""

MOST = 4096
"""Largest value of an option of these architectures. No machine can hold a larger network."""

registered: dict[str, Network] = {}
"""The architectures that users have registered."""


def register_architecture(name: str) -> Callable[[Any], Any]:
    """Register a network class as an architecture: a class decorator.

    `PtychoModel` calls the class with ``features`` (F), ``channels`` (C), ``N``, and the options
    that its user passed, all by keyword. The method ``forward`` receives features of shape
    ``(B, F, N, N)``, float32, as `ptycho_fast.models.inputs.make_features` calculates them. It
    returns patches of the object of shape ``(B, C, N, N)``, complex64, which should be close to 1
    before training. The network must work for every even N.

    Parameters
    ----------
    name : str
        The name to pass to ``PtychoModel(architecture=...)``.

    Returns
    -------
    callable
        The decorator. It returns the class unchanged.

    Raises
    ------
    ValueError
        If the name is taken by another class.

    Examples
    --------
    >>> import torch
    >>> from ptycho_fast.models import PtychoModel, register_architecture
    >>> @register_architecture("two_convolutions")
    ... class TwoConvolutions(torch.nn.Module):
    ...     def __init__(self, *, features, channels, N, width=16):
    ...         super().__init__()
    ...         self.layers = torch.nn.Sequential(
    ...             torch.nn.Conv2d(features, width, 5, padding=2),
    ...             torch.nn.GELU(),
    ...             torch.nn.Conv2d(width, channels, 5, padding=2),
    ...         )
    ...
    ...     def forward(self, features):
    ...         phase = self.layers(features)
    ...         return torch.polar(torch.ones_like(phase), phase)
    >>> PtychoModel(architecture="two_convolutions", N=32, width=8).architecture
    'two_convolutions'
    """

    def register(network: Network) -> Network:
        if name in {*OURS, UNROLLED} or registered.get(name, network) is not network:
            msg = f"architecture {name!r} is registered already. Choose another name."
            raise ValueError(msg)
        registered[name] = network
        return network

    return register


def list_architectures() -> tuple[str, ...]:
    """Return the names of all architectures, sorted.

    Returns
    -------
    tuple of str
    """
    return tuple(sorted({*OURS, *registered}))


def build_architecture(
    name: str, *, features: int, channels: int, N: int, **options: Any
) -> nn.Module:
    """Create a network of a named architecture.

    Parameters
    ----------
    name : str
        One of `list_architectures`.
    features, channels, N : int
        Sizes of its input and output, see `register_architecture`.
    **options
        Options of the architecture.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If there is no such architecture, or it does not take an option.
    """
    N = as_count("N", N)
    if not isinstance(name, str) or name not in list_architectures():
        msg = f"architecture must be one of {', '.join(list_architectures())}, got {name!r}."
        raise ValueError(msg)
    if name in OURS:
        module = importlib.import_module(f"ptycho_fast.models.architectures.{name}")
        network = getattr(module, OURS[name])
        options = {key: as_count(key, value, most=MOST) for key, value in options.items()}
    else:
        network = registered[name]
    try:
        made: nn.Module = network(features=features, channels=channels, N=N, **options)
    except TypeError as error:
        msg = f"architecture {name!r} does not take these options: {error}"
        raise ValueError(msg) from error
    return made
