"""The files of a model: ``config.json``, ``probe.npy`` and ``model.safetensors``.

Reading them never executes code from a file, and everything read is checked before it is used.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ptycho_fast._core import __version__
from ptycho_fast.atomic import replacing
from ptycho_fast.io.regular import open_regular
from ptycho_fast.models.light import SeenLight

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.network import ScanNetwork

FORMAT = 1
CONFIG, PROBE, WEIGHTS = "config.json", "probe.npy", "model.safetensors"

MEAN_PATTERN = "mean_pattern"
"""Name of the mean pattern among the weights. It is -1 at pixels that were not measured. Models of
older versions have none."""

MOST_TEXT = 2**24
"""Largest size of a JSON or CSV file in bytes. A run never writes a longer one."""

MOST_MODES = 256
"""Largest number of modes of a probe."""

PROBE_WEIGHTS = "probe_parts"
"""Name of the probe among the weights. It has its own file, so that other programs can read it."""


def save_model(
    folder: Path,
    config: ModelConfig,
    network: ScanNetwork,
    seen: SeenLight,
) -> None:
    """Write the three files of a model, the configuration last.

    Parameters
    ----------
    folder : Path
        Created if it does not exist. Each file appears whole or not at all.
    config : ModelConfig
    network : ScanNetwork
    seen : SeenLight
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
        if name != PROBE_WEIGHTS
    }
    if seen.mean_pattern is not None:
        counts = np.where(np.isfinite(seen.mean_pattern), seen.mean_pattern, -1).astype(np.float32)
        weights[MEAN_PATTERN] = torch.from_numpy(counts)
    parts = network.probe_parts.detach().cpu().contiguous().numpy()
    with replacing(folder / WEIGHTS) as file:
        file.write(_safetensors().save(weights))
    with replacing(folder / PROBE) as file:
        np.save(file, parts.view(np.complex64)[..., 0], allow_pickle=False)
    text = {
        "format": FORMAT,
        "ptycho_fast": __version__,
        "mean_energy": seen.mean_energy,
        "given_probes": list(seen.given_probes),
        **dataclasses.asdict(config),
    }
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(text, indent=2) + "\n").encode())


class SavedModel(NamedTuple):
    """The content of a model's configuration and probe files.

    Parameters
    ----------
    arguments : dict
        Arguments of `ptycho_fast.models.PtychoModel`, without the options of the architecture.
    options : dict
        Options of the architecture.
    seen : SeenLight
        Without the mean pattern, which is among the weights.
    probe : ndarray, (modes, N, N) or (scans, modes, N, N), complex64
    """

    arguments: dict[str, Any]
    options: dict[str, Any]
    seen: SeenLight
    probe: NDArray[np.complex64]


def read_model(folder: Path) -> SavedModel:
    """Read the configuration and the probe of a model. `read_weights` reads the rest.

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
    OSError
        If one is not a regular file, or cannot be read.
    """
    if folder.is_file():
        msg = f"{folder} is a file. Name the folder of a trained model, as train writes it."
        raise ValueError(msg)
    text = _present(folder, CONFIG)
    try:
        config = json.loads(text)
        found = config.pop("format")
        del config["ptycho_fast"]
        mean_energy = float(config.pop("mean_energy"))
        if not 0 < mean_energy < math.inf:
            raise ValueError(f"mean_energy is {mean_energy}")
        given = tuple(config.pop("given_probes", ()))
        if not all(one is None or isinstance(one, str) for one in given):
            raise ValueError("given_probes contains something else than checksums")
        options = dict(config.pop("options"))
        N = config["N"]
    except (
        ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise _damaged(folder / CONFIG, error) from None
    if found != FORMAT:
        msg = (
            f"{folder / CONFIG} has format {found!r:.50}, this version reads {FORMAT}. Update "
            "ptycho_fast."
        )
        raise ValueError(msg)
    probe = _read_probe(folder, N, len(given))
    return SavedModel(config, options, SeenLight(given, mean_energy), probe)


def _read_probe(folder: Path, N: Any, scans: int) -> NDArray[np.complex64]:
    """Read the probe of one scan, or those of several."""
    path = folder / PROBE
    # The size of the file is checked before memory is allocated for a probe of side N.
    side = N if isinstance(N, int) and 0 < N < 2**15 else 1
    content = _present(folder, PROBE, most=max(1, scans) * MOST_MODES * 8 * side**2 + 2**16)
    several = (scans,) if scans > 1 else ()
    try:
        shape, dtype = _header(content)
        modes = shape[len(several) : len(several) + 1]
        if dtype != np.complex64 or shape != (*several, *modes, N, N) or modes == (0,):
            told = f" and there are {scans} scans" if several else ""
            raise ValueError(f"it contains {dtype} of shape {shape}, but N={N!r:.50}{told}")
        probe: NDArray[np.complex64] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise _damaged(path, error) from None
    if not (np.isfinite(probe).all() and probe.any()):
        raise _damaged(path, "the probe is dark or not finite")
    return probe


def _header(content: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype in the header of an NPY file, checked against its length."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is not an NPY file of version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(
            f"it has {len(content)} bytes, which does not fit {dtype} of shape {shape}"
        )
    return shape, dtype


def read_weights(
    folder: Path, expected: Mapping[str, Tensor], shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], NDArray[np.float64] | None]:
    """Read the weights of a model, and the mean patterns of its training.

    Parameters
    ----------
    folder : Path
    expected : mapping of tensor
        The weights of the network by name. Only shapes and dtypes are used, so the tensors can be
        on the meta device.
    shape : tuple of int
        That of the mean pattern: (N, N), or (scans, N, N) for several scans.

    Returns
    -------
    weights : dict of tensor
        All weights in `expected` except the probe.
    mean_pattern : ndarray, float64, or None
        See `ptycho_fast.models.light.SeenLight`.

    Raises
    ------
    ValueError
        If the file is missing or damaged, if it contains the weights of another network, or
        numbers that are not finite.
    OSError
        If it is not a regular file, or cannot be read.
    """
    path, load = folder / WEIGHTS, _safetensors().load
    expected = {name: tensor for name, tensor in expected.items() if name != PROBE_WEIGHTS}
    needed = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    most = needed + 4 * math.prod(shape) + 1024 * len(expected) + 2**16
    content = _present(folder, WEIGHTS, most=most)
    if len(content) < needed:
        raise _damaged(
            path,
            f"it has {len(content)} bytes, but the weights of the network in {folder / CONFIG} "
            f"need {needed} bytes",
        )
    try:
        weights: dict[str, Tensor] = load(content)
        held = weights.pop(MEAN_PATTERN, None)
        check_weights(weights, expected)
        if held is None:
            return weights, None
        check_weights({MEAN_PATTERN: held}, {MEAN_PATTERN: torch.empty(shape)})
    except Exception as error:  # safetensors raises many kinds for damaged files
        raise _damaged(path, error) from None
    counts = held.double().numpy()
    return weights, np.where(counts < 0, np.nan, counts)


def check_weights(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raise an error if weights do not fit a network.

    Parameters
    ----------
    found : mapping of tensor
        The weights that were read, by name.
    expected : mapping of tensor
        The weights of the network. Only names, shapes and dtypes are used.

    Raises
    ------
    ValueError
        If names, shapes or dtypes differ, or numbers are not finite. The file is not named.
    """
    for what, names in (
        ("lacks", expected.keys() - found.keys()),
        ("contains, beside the weights of the network,", found.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"it {what} {sorted(map(str, names))[0]!r:.99} ({len(names)} in all)")
    for name, tensor in expected.items():
        its = found[name]
        shape, dtype = tuple(tensor.shape), tensor.dtype
        if not isinstance(its, torch.Tensor) or (tuple(its.shape), its.dtype) != (shape, dtype):
            kind = repr(its)[:99]
            if isinstance(its, torch.Tensor):
                kind = f"{its.dtype} of shape {tuple(its.shape)}"
            raise ValueError(f"{name!r} is {kind}, but this network has {dtype} of shape {shape}")
        if not bool(torch.isfinite(its).all()):
            raise ValueError(f"{name!r} contains NaN or infinity")


def read_text(path: Path) -> str:
    """Read a JSON or CSV file of a run.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OSError
        If it is missing, not a regular file, or cannot be read.
    ValueError
        If it is longer than any file of a run, or is not text. The file is not named.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_TEXT:
            raise ValueError(f"it has {size} bytes, more than the {MOST_TEXT} that are possible")
        return file.read().decode()


def _safetensors() -> Any:
    # Imported here, because it is not needed if nothing is saved.
    try:
        from safetensors import torch as safetensors  # noqa: PLC0415
    except ModuleNotFoundError as error:
        msg = f'safetensors is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
        raise ImportError(msg) from None
    return safetensors


def _present(folder: Path, name: str, most: int = MOST_TEXT) -> bytes:
    path = folder / name
    try:
        file = open_regular(path)
    except FileNotFoundError:
        msg = f"{path} is missing. {folder} is not the folder of a trained model."
        raise ValueError(msg) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise _damaged(path, f"it has {size} bytes, more than the {most} that are possible")
        return file.read()


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged: {why!s:.300}. Train again, or copy the folder again.")
