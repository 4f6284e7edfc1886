"""Where something is computed: on the CPU, or on a GPU through PyTorch."""

from __future__ import annotations

DEVICES = ("auto", "cpu", "gpu")
"""What can be asked for; "auto" is the GPU if PyTorch finds one."""


def choose_device(device: str) -> str:
    """Return "gpu" or "cpu" for what a caller asked for.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
        "auto" is the GPU if PyTorch is installed and finds one.

    Raises
    ------
    ValueError
        If it is none of these, or a GPU was asked for and there is none.

    Examples
    --------
    >>> from ptycho_fast.devices import choose_device
    >>> choose_device("cpu")
    'cpu'
    """
    if device not in DEVICES:
        msg = f"device must be 'auto', 'cpu' or 'gpu', got {device!r}."
        raise ValueError(msg)
    if device == "cpu":
        return "cpu"
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        if device == "auto":
            return "cpu"
        msg = (
            "device='gpu' was asked for, but PyTorch is not installed. Pass 'cpu', or install it "
            'with: pip install "ptycho_fast[torch]"'
        )
        raise ValueError(msg) from error
    found = torch.cuda.is_available()
    if device == "gpu" and not found:
        msg = "device='gpu' was asked for, but PyTorch finds no GPU. Pass 'cpu' or 'auto'."
        raise ValueError(msg)
    return "gpu" if found else "cpu"
