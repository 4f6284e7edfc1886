"""Build the network of a model that was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ptycho_fast.models.light import Probes
from ptycho_fast.models.network import build_network, sketch_network
from ptycho_fast.models.storage import PROBE_WEIGHTS, read_weights

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.network import PatchNetwork
    from ptycho_fast.models.storage import SavedModel


def restore_network(
    folder: Path, config: ModelConfig, saved: SavedModel
) -> tuple[PatchNetwork, NDArray[np.float64] | None]:
    """Read the weights of a model.

    Parameters
    ----------
    folder : Path
    config : ModelConfig
    saved : SavedModel
        What else was read from the folder.

    Returns
    -------
    network : PatchNetwork
        Ready for imaging.
    mean_pattern : ndarray, float64, or None
        See `ptycho_fast.models.storage.save_model`.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or of another network.
    OSError
        If it is not a regular file, or cannot be read.
    """
    # The weights are read first, so that no memory is allocated for a network whose size
    # (config.json may be damaged) does not fit them.
    expected, several = sketch_network(config).state_dict(), saved.probe.ndim == 4
    shape: tuple[int, ...] = (config.N, config.N)
    if several:
        expected["exposure"] = torch.empty(len(saved.probe))
        shape = (len(saved.probe), *shape)
    weights, mean_pattern = read_weights(folder, expected, shape)
    network = build_network(config, saved.probe[0] if several else saved.probe)
    if several:
        network.set_probes(Probes(saved.probe, weights["exposure"].numpy()))
    network.load_state_dict({**weights, PROBE_WEIGHTS: network.probe_parts.detach()})
    return network.eval(), mean_pattern
