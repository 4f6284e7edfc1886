"""Patches in TensorFlow, differentiable with respect to the object: tensors in and out."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_object, as_patch_positions
from ptycho_fast.patches import cpu

try:
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util
except ModuleNotFoundError as error:
    if error.name != "tensorflow":  # TensorFlow is installed but broken: its own error says how
        raise
    msg = 'TensorFlow is not installed. Install it with: pip install "ptycho_fast[tensorflow]"'
    raise ImportError(msg) from None

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

METHODS = ("auto", "xla", "iterative")

FAR = 2.0**30
"""Pixels: beyond every object, but adding a pixel number to it cannot overflow int32."""

_compiled: Callable[[Callable[..., Any]], Any] = tf.function(jit_compile=True, autograph=False)


def extract_patches(
    object: Any,
    positions: Any,
    N: int,
    *,
    method: str = "auto",
) -> Any:
    """Cut patches out of an object at sub-pixel positions, by bilinear interpolation.

    Position (x, y) lies on pixel ``[N//2, N//2]`` of its patch. Outside its bounds the object is
    0. The patches are differentiable with respect to the object, to any order, but not with
    respect to the positions.

    Parameters
    ----------
    object : tensor, variable or array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``. It is converted to complex64.
    positions : tensor, variable or array_like, (B, 2, C) or (B, 1, 2, C), real
        Positions of each channel of each group in pixels, x then y. Prefer float64: float32
        positions are used as they are, rounding errors included.
    N : int
        Pixels per side of a patch.
    method : {"auto", "xla", "iterative"}
        "xla" runs one compiled program on GPU or CPU. It needs no memory besides the patches, and
        is compiled once for each combination of shapes. "iterative" cuts one patch after another;
        it is slow, and easy to read. "auto" uses "xla" if the object is on a GPU and inside
        ``tf.function(jit_compile=True)``, else the Rust kernel on the CPU. While a ``tf.function``
        is traced, the device of its arguments is not known: pass "xla" there to stay on the GPU.

    Returns
    -------
    tensor, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If positions are not finite or have another shape, N < 1, the object is not 2-D, or the
        method is unknown. Inside a ``tf.function`` computed positions have no values yet when this
        is called. If they turn out not to be finite when the function runs, the Rust kernel raises
        an ``InvalidArgumentError``, and the other methods return patches of NaN.
    MemoryError
        If the patches do not fit in memory. TensorFlow itself raises ``ResourceExhaustedError``.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patches.tensorflow import extract_patches
    >>> image = np.arange(30.0).reshape(5, 6)
    >>> extract_patches(image, [[[2.5], [1.0]]], N=2)[0, :, :, 0].numpy().real
    array([[1.5, 2.5],
           [7.5, 8.5]], dtype=float32)
    """
    if method not in METHODS:
        msg = f"method must be 'auto', 'xla' or 'iterative', got {method!r}."
        raise ValueError(msg)
    N = as_count("N", N)
    image = _as_image(object)
    positions = _as_positions(positions)
    if method == "iterative":
        return _extract_iteratively(tf.convert_to_tensor(image), positions, N)
    # A program that XLA compiles cannot call the Rust kernel.
    compiling = control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    on_gpu = tf.is_tensor(image) and "GPU" in image.device
    if method == "xla" or on_gpu or compiling:
        return _extract_by_xla(tf.convert_to_tensor(image), positions, N)
    return _extract_by_kernel(image, positions, N)


def _as_image(object: Any) -> Any:
    """Return an object as complex64 ``(H, W)``: tensors stay tensors, all else becomes an array."""
    if not tf.is_tensor(object):
        return as_object(object)
    image = tf.convert_to_tensor(object)
    dtype = image.dtype
    if image.shape.rank != 2 or not (dtype.is_complex or dtype.is_floating or dtype.is_integer):
        msg = f"object must be (H, W) complex, got shape {image.shape} of {dtype.name}."
        raise ValueError(msg)
    return tf.cast(image, tf.complex64)


def _as_positions(positions: Any) -> Any:
    """Return positions as float64 ``(B, 2, C)``: an array, or a tensor while a graph is traced."""
    if tf.is_tensor(positions):
        positions = tf.convert_to_tensor(positions)
    if not tf.is_symbolic_tensor(positions):
        positions = as_patch_positions(positions)
        # The kernel checks all positions before it cuts; here, one pixel of an empty object.
        cpu.extract_patches(np.empty((0, 0)), positions, 1, num_threads=1)
        return positions
    shape, dtype = positions.shape, positions.dtype
    if shape.rank == 4 and shape.is_compatible_with([None, 1, 2, None]):
        positions = positions[:, 0]
    if not positions.shape.is_compatible_with([None, 2, None]) or shape.rank is None:
        msg = (
            "positions of patches must be (B, 2, C) or (B, 1, 2, C), x then y on the axis of 2, "
            f"got shape {shape}."
        )
        raise ValueError(msg)
    if not (dtype.is_floating or dtype.is_integer):
        msg = f"positions must be real numbers, got dtype {dtype.name}."
        raise ValueError(msg)
    return tf.cast(positions, tf.float64)


def _split(positions: Any, N: int) -> tuple[Any, Any, Any, Any]:
    """Return left column, top row and the fractions in x and y of each patch, ``(B, C)``.

    Both are computed in float64. In float32 ``column + x`` would round the fraction away.
    """
    whole = tf.floor(positions)
    fraction = tf.cast(positions - whole, tf.complex64)
    first = tf.cast(tf.clip_by_value(whole, -FAR, FAR), tf.int32) - N // 2
    return first[:, 0], first[:, 1], fraction[:, 0], fraction[:, 1]


def _linear(apply: Callable[[Any], Any], adjoint: Callable[[Any], Any]) -> Any:
    """Return a linear function of a tensor whose gradient is its adjoint, and vice versa.

    TensorFlow's gradient of ``y = A x`` is the conjugate transpose of A applied to the gradient
    of y. The weights of bilinear interpolation are real, so the transpose is its own conjugate.
    """

    def apply_and_adjoint(value: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return _linear(adjoint, apply)(tf.convert_to_tensor(upstream))  # may be sparse

        # If a tape recorded the compiled program, that would keep all that its gradient needs.
        return apply(tf.stop_gradient(value)), gradient

    return tf.custom_gradient(apply_and_adjoint)


# --- iterative: the reference --------------------------------------------------------------------


def _extract_iteratively(image: Any, positions: Any, N: int) -> Any:
    """Cut one patch after another; TensorFlow finds the gradient."""
    bordered = tf.pad(image, [[1, 1], [1, 1]])  # pixels outside the object are read here: 0
    height, width = tf.unstack(tf.shape(image))

    def extract_one(patch: tuple[Any, Any, Any, Any]) -> Any:
        left, top, x_fraction, y_fraction = patch
        rows = tf.clip_by_value(top + tf.range(N + 1), -1, height) + 1
        columns = tf.clip_by_value(left + tf.range(N + 1), -1, width) + 1
        window = tf.gather(tf.gather(bordered, rows), columns, axis=1)
        blended = window[:-1] * (1 - y_fraction) + window[1:] * y_fraction
        return blended[:, :-1] * (1 - x_fraction) + blended[:, 1:] * x_fraction

    B, _, C = tf.unstack(tf.shape(positions))
    one_by_one = tuple(tf.reshape(part, [B * C]) for part in _split(positions, N))
    patches = tf.map_fn(
        extract_one, one_by_one, fn_output_signature=tf.TensorSpec((N, N), tf.complex64)
    )
    return tf.transpose(tf.reshape(patches, [B, C, N, N]), [0, 2, 3, 1])


# --- xla: one compiled program -------------------------------------------------------------------


def _extract_by_xla(image: Any, positions: Any, N: int) -> Any:
    extract = _linear(
        lambda image: _gather(image, positions, N),
        lambda patches: _scatter(patches, positions, image),
    )
    return extract(image)


@_compiled
def _gather(image: Any, positions: Any, N: int) -> Any:
    """Cut patches: for each of their pixels, compute where its four neighbours are and blend them.

    XLA turns this into one loop that needs no memory besides object, positions and result.
    """
    pixels = tf.reshape(image, [-1])

    def tap(below: int, beside: int) -> Any:
        index = _flat_index(image, positions, N, tf.range(N) + below, tf.range(N) + beside)
        return tf.where(index >= 0, tf.gather(pixels, tf.maximum(index, 0)), 0)

    _, _, x_fraction, y_fraction = _by_patch(positions, N)
    upper = tap(0, 0) * (1 - x_fraction) + tap(0, 1) * x_fraction
    lower = tap(1, 0) * (1 - x_fraction) + tap(1, 1) * x_fraction
    return upper * (1 - y_fraction) + lower * y_fraction


@_compiled
def _scatter(patches: Any, positions: Any, image: Any) -> Any:
    """Add patches to an object of zeros where `_gather` cuts them: the adjoint of `_gather`.

    Each patch is first spread over the (N+1) x (N+1) pixels that it was read from, and then
    scattered once, where the gradient that TensorFlow finds scatters four times. On a CPU, XLA
    stores the values and their places, which takes 1.5 times the memory of the patches; the
    gradient that TensorFlow finds takes 6 times.
    """
    N = patches.shape[1]
    _, _, x_fraction, y_fraction = _by_patch(positions, N)
    spread = 0
    for below, row_weight in enumerate((1 - y_fraction, y_fraction)):
        for beside, column_weight in enumerate((1 - x_fraction, x_fraction)):
            shifted = [[0, 0], [below, 1 - below], [beside, 1 - beside], [0, 0]]
            spread += tf.pad(patches * (row_weight * column_weight), shifted)
    index = _flat_index(image, positions, N, tf.range(N + 1), tf.range(N + 1))
    size = tf.size(image, out_type=index.dtype)
    # Values with index -1 are dropped.
    return tf.reshape(tf.math.unsorted_segment_sum(spread, index, size), tf.shape(image))


def _by_patch(positions: Any, N: int) -> list[Any]:
    """Return the parts of `_split` as ``(B, 1, 1, C)``."""
    return [part[:, None, None] for part in _split(positions, N)]


def _flat_index(image: Any, positions: Any, N: int, rows: Any, columns: Any) -> Any:
    """Return the index in the flat object of rows and columns of each patch, -1 outside of it.

    Offsets to neighbouring pixels must be part of `rows` and `columns`: if they were added to
    ``top + rows``, XLA would keep that sum in memory on a CPU.
    """
    size = image.shape.num_elements()  # None while it is not known
    dtype = tf.int32 if size is not None and size < 2**31 else tf.int64
    height, width = tf.unstack(tf.shape(image, out_type=dtype))
    left, top, _, _ = (tf.cast(part, dtype) for part in _by_patch(positions, N))
    row = top + tf.cast(rows, dtype)[:, None, None]
    column = left + tf.cast(columns, dtype)[:, None]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return tf.where(inside, row * width + column, -1)


# --- the Rust kernel -----------------------------------------------------------------------------


def _extract_by_kernel(image: Any, positions: Any, N: int) -> Any:
    shape = (positions.shape[0], N, N, positions.shape[2])
    if not tf.is_tensor(image):  # no gradient is needed, and arrays need not enter the graph
        return _call(functools.partial(_cut, image, N=N), [positions], shape)
    extract = _linear(
        lambda image: _call(functools.partial(_cut, N=N), [image, positions], shape),
        lambda patches: _call(_add, [patches, positions, tf.shape(image)], image.shape),
    )
    return extract(image)


def _call(function: Callable[..., NDArray[Any]], inputs: list[Any], shape: Any) -> Any:
    """Call a function of arrays with tensors.

    Eager tensors are not copied: NumPy reads them in place, and DLPack makes a tensor of the
    result (in 2 microseconds for 8 MB; `tf.convert_to_tensor` copies, which takes 1300). In a
    graph TensorFlow copies the inputs, and uses the result in place if it is aligned.
    """
    if tf.executing_eagerly():
        return tf.experimental.dlpack.from_dlpack(function(*inputs).__dlpack__())
    result = tf.numpy_function(function, inputs, tf.complex64, stateful=False)
    result.set_shape(shape)
    return result


def _cut(image: Any, positions: Any, N: int) -> NDArray[np.complex64]:
    B, _, C = positions.shape
    return cpu.extract_patches(image, positions, N, out=_aligned((B, N, N, C)))


def _add(patches: Any, positions: Any, shape: Any) -> NDArray[np.complex64]:
    image = _aligned(tuple(int(side) for side in shape))
    image.fill(0)
    return cpu.add_patches(patches, positions, image)


def _aligned(shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Return a new array aligned to 64 bytes: TensorFlow copies other arrays, or aborts."""
    count = math.prod(shape)
    buffer = np.empty(count + 8, np.complex64)
    start = -buffer.ctypes.data % 64 // 8
    return buffer[start : start + count].reshape(shape)
