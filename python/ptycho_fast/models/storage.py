"""A model on disk: a readable configuration, the probe, and the weights as safetensors."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ptycho_fast._core import __version__
from ptycho_fast.io.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.models.model import ModelConfig
    from ptycho_fast.models.network import PatchNetwork

try:
    from safetensors import SafetensorError
    from safetensors.torch import load, save
except ModuleNotFoundError as error:
    msg = f'safetensors is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

FORMAT = 1
CONFIG, PROBE, WEIGHTS = "config.json", "probe.npy", "model.safetensors"

MEAN_PATTERN = "mean_pattern"
"""Kept with the weights, -1 where nothing was measured; older models have none."""

PROBE_WEIGHTS = "probe_parts"
"""The probe is a file of its own, which other programs read."""


def save_model(
    folder: Path,
    config: ModelConfig,
    network: PatchNetwork,
    mean_energy: float,
    mean_pattern: NDArray[np.float64] | None = None,
) -> None:
    """Write a model's three files, the configuration last.

    Parameters
    ----------
    folder : Path
    config : ModelConfig
    network : PatchNetwork
    mean_energy : float
        Counts of a pattern in the mean, which the probe is scaled to.
    mean_pattern : ndarray, (N, N), float64, optional
        Where on the detector they fell; NaN where nothing was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if name != PROBE_WEIGHTS
    }
    if mean_pattern is not None:
        counts = np.where(np.isfinite(mean_pattern), mean_pattern, -1).astype(np.float32)
        weights[MEAN_PATTERN] = torch.from_numpy(counts)
    parts = network.probe_parts.detach().cpu().contiguous().numpy()
    with replacing(folder / WEIGHTS) as file:
        file.write(save(weights))
    with replacing(folder / PROBE) as file:
        np.save(file, parts.view(np.complex64)[..., 0], allow_pickle=False)
    text = {
        "format": FORMAT,
        "ptycho_fast": __version__,
        "mean_energy": mean_energy,
        **dataclasses.asdict(config),
    }
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(text, indent=2) + "\n").encode())


class SavedModel(NamedTuple):
    """What the files of a model hold.

    Parameters
    ----------
    arguments : dict
        Of `ptycho_fast.models.PtychoModel`.
    mean_energy : float
        As of `save_model`.
    probe : ndarray, (modes, N, N), complex64
    weights : dict of tensor
        By name; `put_weights` takes them.
    mean_pattern : ndarray, (N, N), float64, or None
        As of `save_model`.
    """

    arguments: dict[str, Any]
    mean_energy: float
    probe: NDArray[np.complex64]
    weights: dict[str, Tensor]
    mean_pattern: NDArray[np.float64] | None = None


def read_model(folder: Path) -> SavedModel:
    """Read a model's three files.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    SavedModel

    Raises
    ------
    ValueError
        If a file is missing or damaged.
    """
    text, probe_bytes, weight_bytes = (_read(folder, name) for name in (CONFIG, PROBE, WEIGHTS))
    try:
        config = json.loads(text)
        found = config.pop("format")
        del config["ptycho_fast"]
        mean_energy = float(config.pop("mean_energy"))
        if not 0 < mean_energy < math.inf:
            raise ValueError(f"mean_energy is {mean_energy}")
        arguments = {**config, **config.pop("options")}
        del arguments["options"]
        N = arguments["N"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / CONFIG, error) from None
    if found != FORMAT:
        msg = f"{folder / CONFIG} has format {found}, this version reads {FORMAT}: update it."
        raise ValueError(msg)
    try:
        probe = np.load(io.BytesIO(probe_bytes), allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise _damaged(folder / PROBE, error) from None
    if not isinstance(probe, np.ndarray):
        raise _damaged(folder / PROBE, "it holds several arrays")
    if probe.dtype != np.complex64 or probe.shape[1:] != (N, N) or not probe.size:
        raise _damaged(folder / PROBE, f"it holds {probe.dtype} of shape {probe.shape}, N={N!r}")
    if not (np.isfinite(probe).all() and probe.any()):
        raise _damaged(folder / PROBE, "the probe is dark or not finite")
    try:
        weights = load(weight_bytes)
    except SafetensorError as error:
        raise _damaged(folder / WEIGHTS, error) from None
    held = weights.pop(MEAN_PATTERN, None)
    if held is None:
        return SavedModel(arguments, mean_energy, probe, weights)
    counts = held.double().numpy()
    if counts.shape != (N, N) or not np.isfinite(counts).all():
        raise _damaged(folder / WEIGHTS, f"the mean pattern has shape {counts.shape}, N={N!r}")
    pattern = np.where(counts < 0, np.nan, counts)
    return SavedModel(arguments, mean_energy, probe, weights, pattern)


def put_weights(network: PatchNetwork, weights: dict[str, Tensor], folder: Path) -> None:
    """Put what was read into a network.

    Parameters
    ----------
    network : PatchNetwork
    weights : dict of tensor
    folder : Path
        Where they are from, for the message.

    Raises
    ------
    ValueError
        If they are those of another network.
    """
    probe = {PROBE_WEIGHTS: network.probe_parts.detach()}
    try:
        network.load_state_dict({**weights, **probe})
    except RuntimeError as error:
        raise _damaged(folder / WEIGHTS, error) from None


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        msg = f"{folder / name} is missing: {folder} is not the folder of a trained model."
        raise ValueError(msg) from None


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged: {why}. Train again, or copy the folder again.")
