"""Arrays as TensorFlow tensors, which PtychoPINN expects in two places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def as_tensor(patches: NDArray[np.complex64]) -> Any:
    """Return object patches as a tensor.

    Parameters
    ----------
    patches : ndarray, (B, N, N, C), complex64

    Returns
    -------
    tf.Tensor
    """
    import tensorflow as tf  # noqa: PLC0415  # PtychoPINN has imported it by now

    return tf.convert_to_tensor(patches)
