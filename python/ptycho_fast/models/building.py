"""Build the network of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptycho_fast.models.architectures.registry import UNROLLED
from ptycho_fast.models.network import PatchNetwork
from ptycho_fast.models.unrolled import UnrolledNetwork
from ptycho_fast.reconstruction.learned import trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.network import ScanNetwork

PRETRAINED: dict[str, Any] = {
    "architecture": UNROLLED,
    "stages": 1,
    "overlap": 64,
    "learning_rate": 1e-5,
}
"""The options of a pretrained model."""

DOT = np.ones((1, 1, 1), np.complex64)
"""A probe of one pixel."""


def build_network(config: ModelConfig, probe: NDArray[np.complex64]) -> ScanNetwork:
    """Create the untrained network of a model. PyTorch's global random state does not change.

    Parameters
    ----------
    config : ModelConfig
    probe : ndarray, (modes, N, N), complex64
        Scaled to the patterns.

    Raises
    ------
    ValueError
        If the architecture does not take the options in `config`.
    """
    if config.architecture == UNROLLED:
        if config.channels > 1:
            msg = (
                f"architecture {UNROLLED!r} images all patterns of a scan together: gridsize must "
                f"be 1, got {config.gridsize}."
            )
            raise ValueError(msg)
        if config.options:
            msg = f"architecture {UNROLLED!r} has no options, got {', '.join(config.options)}."
            raise ValueError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if config.architecture == UNROLLED:
            return UnrolledNetwork(probe=probe, stages=config.stages)
        return PatchNetwork(
            config.architecture,
            N=config.N,
            channels=config.channels,
            probe=probe,
            stages=config.stages,
            **config.options,
        )


def pretrained_network(config: ModelConfig) -> ScanNetwork:
    """Return the network of a pretrained model, with a probe of one pixel that stands for none.

    Parameters
    ----------
    config : ModelConfig
        With the options `PRETRAINED`.
    """
    network = build_network(config, DOT)
    network.stages[0].load_state_dict(trained().state_dict())
    return network.eval()


def sketch_network(config: ModelConfig) -> ScanNetwork:
    """Create a network to ask for the names and shapes of its weights, if possible without memory.

    Parameters
    ----------
    config : ModelConfig

    Raises
    ------
    ValueError
        If the architecture does not take the options in `config`.
    """
    try:
        with torch.device("meta"):
            return build_network(config, DOT)
    except Exception:
        # A user's network may need real numbers while it is built. If something else was wrong,
        # the same error is raised again here.
        return build_network(config, DOT)
