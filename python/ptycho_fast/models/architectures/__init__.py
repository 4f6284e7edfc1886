"""The networks, by name. A new one is a class under `register_architecture`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Network = Callable[..., nn.Module]

OURS = ("cnn", "fno", "hybrid", "hybrid_resnet")
"""Each in a file of its name, which is imported when it is asked for."""

MOST = 4096
"""Of an option of ours: wider or deeper networks than that no machine holds."""

_registered: dict[str, Network] = {}


def register_architecture(name: str) -> Callable[[Any], Any]:
    """Register a network under a name: a decorator for a class.

    The class is called with ``features`` (F), ``channels`` (C), ``N``, and the options that a user
    passes to `PtychoModel`, all by keyword. Its ``forward`` takes ``(B, F, N, N)`` float32
    features, as `ptycho_fast.models.inputs.make_features` makes them, and returns ``(B, C, N, N)``
    complex64 patches of the object, near 1 before anything was learned. Any even N has to do.

    Parameters
    ----------
    name : str
        What ``PtychoModel(architecture=...)`` is given.

    Returns
    -------
    callable
        The decorator, which returns the class as it is.

    Raises
    ------
    ValueError
        If another class has the name.

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
        if _registered.get(name, network) is not network:
            msg = f"architecture {name!r} is registered already. Choose another name."
            raise ValueError(msg)
        _registered[name] = network
        return network

    return register


def list_architectures() -> tuple[str, ...]:
    """Return the names there are.

    Returns
    -------
    tuple of str
    """
    return tuple(sorted({*OURS, *_registered}))


def build_architecture(
    name: str, *, features: int, channels: int, N: int, **options: Any
) -> nn.Module:
    """Make a network by name.

    Parameters
    ----------
    name : str
        One of `list_architectures`.
    features, channels, N : int
        What it takes and makes, see `register_architecture`.
    **options
        Its own.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If there is none of that name, or it does not know an option.
    """
    N = as_count("N", N)
    if name in OURS:
        importlib.import_module(f"{__name__}.{name}")
        options = {key: as_count(key, value, most=MOST) for key, value in options.items()}
    if not isinstance(name, str) or name not in _registered:
        msg = f"architecture must be one of {', '.join(list_architectures())}, got {name!r}."
        raise ValueError(msg)
    try:
        return _registered[name](features=features, channels=channels, N=N, **options)
    except TypeError as error:
        msg = f"architecture {name!r} does not take these options: {error}"
        raise ValueError(msg) from error
