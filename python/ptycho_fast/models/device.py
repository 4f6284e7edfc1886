"""Where a network is computed."""

from __future__ import annotations

import torch

from ptycho_fast.models.config import DEVICES


def choose_device(device: str) -> str:
    """Return "gpu" or "cpu" for what a caller asked for.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
        "auto" is the GPU if PyTorch finds one.

    Raises
    ------
    ValueError
        If it is none of these, or a GPU was asked for and there is none.
    """
    if device not in DEVICES:
        msg = f"device must be 'auto', 'cpu' or 'gpu', got {device!r}."
        raise ValueError(msg)
    found = torch.cuda.is_available()
    if device == "gpu" and not found:
        msg = "device='gpu' was asked for, but PyTorch finds no GPU. Pass 'cpu' or 'auto'."
        raise ValueError(msg)
    return "gpu" if found and device != "cpu" else "cpu"
