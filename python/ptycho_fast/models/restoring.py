"""Build the network of a model that was saved, and take up a run where it was left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ptycho_fast.models.building import build_network, sketch_network
from ptycho_fast.models.checkpoint import count_epochs
from ptycho_fast.models.config import ModelConfig
from ptycho_fast.models.light import Probes
from ptycho_fast.models.storage import CONFIG, PROBE_WEIGHTS, read_model, read_weights
from ptycho_fast.models.training.history import read_history

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from ptycho_fast.models.light import SeenLight
    from ptycho_fast.models.network import ScanNetwork
    from ptycho_fast.models.record import RunRecord


def restore_model(folder: Path) -> tuple[ModelConfig, ScanNetwork, SeenLight]:
    """Read a model. No code in the files is executed.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    config : ModelConfig
    network : ScanNetwork
        Ready for imaging.
    seen : SeenLight

    Raises
    ------
    ValueError
        If a file is missing, damaged, or of another model.
    OSError
        If a file is not a regular file, or cannot be read.
    """
    saved = read_model(folder)
    try:
        dict(**saved.arguments, **saved.options)  # raises an error if one name is in both
        config = ModelConfig(**saved.arguments, options=saved.options)
        # The weights are read first, so that no memory is allocated for a network whose size
        # (config.json may be damaged) does not fit them.
        expected = sketch_network(config).state_dict()
    except (ArithmeticError, TypeError, ValueError) as error:
        msg = f"Cannot build the model described in {folder / CONFIG}: {error!s:.300}"
        raise ValueError(msg) from error
    several = saved.probe.ndim == 4
    shape: tuple[int, ...] = (config.N, config.N)
    if several:
        expected["exposure"] = torch.empty(len(saved.probe))
        shape = (len(saved.probe), *shape)
    weights, mean_pattern = read_weights(folder, expected, shape)
    network = build_network(config, saved.probe[0] if several else saved.probe)
    if several:
        network.set_probes(Probes(saved.probe, weights["exposure"].numpy()))
    network.load_state_dict({**weights, PROBE_WEIGHTS: network.probe_parts.detach()})
    return config, network.eval(), saved.seen._replace(mean_pattern=mean_pattern)


def continue_run(
    checkpoint: Path, config: ModelConfig, record: RunRecord, max_epochs: int
) -> tuple[ScanNetwork, SeenLight, list[dict[str, Any]]]:
    """Read a run, after checking that it can be continued and is the one that was asked for.

    Parameters
    ----------
    checkpoint : Path
        In the folder of the run.
    config : ModelConfig
        The model that was asked for.
    record : RunRecord
        The scans and options that were asked for.
    max_epochs : int

    Returns
    -------
    network : ScanNetwork
    seen : SeenLight
    rows : list of dict
        The history.

    Raises
    ------
    ValueError
        If it is the run of another model, of other scans or options, or has more epochs than
        `max_epochs`; or if files are damaged.
    OSError
        If a file is not a regular file, or cannot be read.
    """
    folder = checkpoint.parent
    before, network, seen = restore_model(folder)
    if differences := config.differences(before):
        msg = f"{folder} contains a run of another model: {differences}. Use another folder."
        raise ValueError(msg)
    record.check(folder)
    done = count_epochs(checkpoint, network)
    if max_epochs < done:
        msg = (
            f"{folder} contains a run of {done} epochs, but max_epochs={max_epochs}, which "
            f"includes them. Ask for more than {done} to continue."
        )
        raise ValueError(msg)
    return network, seen, read_history(folder, done)
