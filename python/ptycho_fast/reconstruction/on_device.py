"""The model of the diffraction on a CPU or on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_fast.devices import choose_device
from ptycho_fast.reconstruction.cpu import CpuModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def model_on(
    device: str,
    positions: NDArray[np.float64],
    shape: tuple[int, int],
    N: int,
    *,
    num_threads: int | None = None,
) -> Any:
    """Return the model of the diffraction on a device.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
    positions : ndarray, (n, 2), float64
        x and y in pixels of the object.
    shape : (int, int)
        Rows and columns of the object.
    N : int
        Pixels per side of a pattern.
    num_threads : int, optional
        Used on the CPU.

    Returns
    -------
    CpuModel or TorchModel

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if choose_device(device) == "gpu":
        from ptycho_fast.reconstruction.torch import TorchModel  # noqa: PLC0415

        return TorchModel(positions, shape, N, device="cuda")
    return CpuModel(positions, shape, N, num_threads=num_threads)
