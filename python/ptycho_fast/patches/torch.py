"""Patches in PyTorch, differentiable with respect to the object: cut on the object's device."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_object, as_patch_positions
from ptycho_fast.patches import cpu

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":  # PyTorch is installed but broken: its own error says how
        raise
    msg = 'PyTorch is not installed. Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

METHODS = ("auto", "torch")

FAR = 2.0**40
"""Pixels: beyond every object, but adding a pixel number to it cannot overflow int64."""

PIECE = 2**22
"""Pixels that method "torch" cuts at a time; besides the patches it needs 50 bytes for each."""


def extract_patches(
    object: Any,
    positions: Any,
    N: int,
    *,
    method: str = "auto",
) -> Tensor:
    """Cut patches out of an object at sub-pixel positions, by bilinear interpolation.

    Position (x, y) lies on pixel ``[N//2, N//2]`` of its patch. Outside its bounds the object is
    0. The patches are differentiable with respect to the object, to any order, but not with
    respect to the positions.

    Parameters
    ----------
    object : tensor or array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``. It is converted to complex64; the patches are
        made on its device.
    positions : tensor or array_like, (B, 2, C) or (B, 1, 2, C), real
        Positions of each channel of each group in pixels, x then y. Prefer float64: float32
        positions are used as they are, rounding errors included. Keep them on the CPU, where they
        are checked; otherwise the CPU has to wait for the GPU.
    N : int
        Pixels per side of a patch.
    method : {"auto", "torch"}
        "auto" uses the Rust kernel if the object is on the CPU, else "torch": operations of
        PyTorch, on some patches at a time, so that little memory is needed besides the patches.

    Returns
    -------
    tensor, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If positions are not finite or have another shape, N < 1, the object is not 2-D, or the
        method is unknown.
    MemoryError
        If the patches do not fit in memory. PyTorch itself raises ``RuntimeError``, and
        ``torch.OutOfMemoryError`` on a GPU.

    Examples
    --------
    >>> import torch
    >>> from ptycho_fast.patches.torch import extract_patches
    >>> image = torch.arange(30.0).reshape(5, 6)
    >>> extract_patches(image, [[[2.5], [1.0]]], N=2)[0, :, :, 0].real
    tensor([[1.5000, 2.5000],
            [7.5000, 8.5000]])
    """
    if method not in METHODS:
        msg = f"method must be 'auto' or 'torch', got {method!r}."
        raise ValueError(msg)
    N = as_count("N", N)
    image = _as_image(object)
    where = _as_positions(positions)
    by_kernel = method == "auto" and image.device.type == "cpu"
    cut, add = (_cut, _add) if by_kernel else (_gather, _scatter)
    # The weights are real, so the adjoint is the gradient as PyTorch defines it.
    patches: Tensor = _Linear.apply(
        image,
        functools.partial(cut, positions=where, N=N),
        functools.partial(add, positions=where, shape=tuple(image.shape)),
    )
    return patches


def add_patches(patches: Tensor, positions: Any, shape: tuple[int, int]) -> Tensor:
    """Add patches to an object of zeros at the positions where `extract_patches` would cut them.

    This is the adjoint of `extract_patches`. It is differentiable with respect to the patches, to
    any order.

    Parameters
    ----------
    patches : tensor, (B, N, N, C), complex64
        The patches to add. The object is made on their device.
    positions : tensor or array_like, (B, 2, C) or (B, 1, 2, C), real
        As for `extract_patches`.
    shape : (int, int)
        Rows and columns of the object (H, W). What lies outside its bounds is dropped.

    Returns
    -------
    tensor, (H, W), complex64

    Raises
    ------
    ValueError
        If shapes do not fit, or positions are not finite.

    Examples
    --------
    >>> import torch
    >>> from ptycho_fast.patches.torch import add_patches
    >>> add_patches(torch.ones(1, 1, 1, 1) + 0j, [[[1.5], [0.0]]], (1, 4)).real
    tensor([[0.0000, 0.5000, 0.5000, 0.0000]])
    """
    where = _as_positions(positions)
    B, _, C = where.shape
    N = patches.shape[1] if patches.ndim == 4 else 0
    if patches.shape != (B, N, N, C) or patches.dtype != torch.complex64:
        msg = (
            f"patches must be ({B}, N, N, {C}) complex64 for these positions, got "
            f"{tuple(patches.shape)} {patches.dtype}."
        )
        raise ValueError(msg)
    cut, add = (_cut, _add) if patches.device.type == "cpu" else (_gather, _scatter)
    image: Tensor = _Linear.apply(
        patches,
        functools.partial(add, positions=where, shape=tuple(shape)),
        functools.partial(cut, positions=where, N=N),
    )
    return image


def _as_image(object: Any) -> Tensor:
    """Return an object as complex64 ``(H, W)``."""
    if not isinstance(object, torch.Tensor):
        image = as_object(object)
        return torch.from_numpy(image if image.flags.writeable else image.copy())
    if object.ndim != 2 or object.dtype == torch.bool:
        msg = f"object must be (H, W) complex, got shape {tuple(object.shape)} of {object.dtype}."
        raise ValueError(msg)
    return object.to(torch.complex64)


def _as_positions(positions: Any) -> NDArray[np.float64]:
    """Return positions as finite float64 ``(B, 2, C)``."""
    if isinstance(positions, torch.Tensor):
        positions = positions.detach().cpu()
        # NumPy has no bfloat16.
        positions = (positions.double() if positions.is_floating_point() else positions).numpy()
    where = as_patch_positions(positions)
    # The kernel checks all positions before it cuts; here, one pixel of an empty object.
    cpu.extract_patches(np.empty((0, 0)), where, 1, num_threads=1)
    return where


class _Linear(torch.autograd.Function):
    """A linear function of a tensor whose gradient is its adjoint, and vice versa."""

    # Without setup_context, for which PyTorch inspects signatures in each call, five times as long
    # as eight patches take.
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        function: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.function, ctx.adjoint = function, adjoint
        return function(image)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(upstream, ctx.adjoint, ctx.function), None, None


# --- on the CPU: the Rust kernel ------------------------------------------------------------------


def _cut(image: Tensor, positions: NDArray[np.float64], N: int) -> Tensor:
    return torch.from_numpy(cpu.extract_patches(_as_array(image), positions, N))


def _add(patches: Tensor, positions: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    image = np.zeros(shape, np.complex64)
    return torch.from_numpy(cpu.add_patches(_as_array(patches), positions, image))


def _as_array(tensor: Tensor) -> NDArray[np.complex64]:
    """Return a tensor's memory, after carrying out a conjugation that PyTorch has postponed."""
    array: NDArray[np.complex64] = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


# --- elsewhere: PyTorch ---------------------------------------------------------------------------


def _gather(image: Tensor, positions: NDArray[np.float64], N: int) -> Tensor:
    """Cut patches: each is blended from the (N+1) x (N+1) pixels under it."""
    B, _, C = positions.shape
    patches = image.new_zeros((B, N, N, C))
    if image.numel() == 0:
        return patches
    pixels = image.reshape(-1)
    for groups, index, inside, x_fraction, y_fraction in _pieces(image, positions, N):
        window = torch.where(inside, pixels[index], 0)
        rows = window[:, :-1] * (1 - y_fraction) + window[:, 1:] * y_fraction
        patches[groups] = rows[:, :, :-1] * (1 - x_fraction) + rows[:, :, 1:] * x_fraction
    return patches


def _scatter(patches: Tensor, positions: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
    """Add patches to an object of zeros where `_gather` cuts them: the adjoint of `_gather`."""
    image = patches.new_zeros(shape)
    if image.numel() == 0:
        return image
    N = patches.shape[1]
    for groups, index, inside, x_fraction, y_fraction in _pieces(image, positions, N):
        rows = patches.new_zeros((len(index), N, N + 1, patches.shape[3]))
        rows[:, :, :-1] = patches[groups] * (1 - x_fraction)
        rows[:, :, 1:] += patches[groups] * x_fraction
        window = patches.new_zeros(index.shape)
        window[:, :-1] = rows * (1 - y_fraction)
        window[:, 1:] += rows * y_fraction
        window = torch.where(inside, window, 0)
        image.view(-1).index_add_(0, index.reshape(-1), window.reshape(-1))
    return image


def _pieces(
    image: Tensor, positions: NDArray[np.float64], N: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Yield what is needed to cut or add the patches of some groups at a time.

    For each piece: the groups; the indices in the flat image of the (N+1) x (N+1) pixels under
    each patch; which of these pixels lie inside the image (the index of the others is that of the
    nearest pixel inside); and the fractions in x and y as ``(b, 1, 1, C)``.
    """
    # Whole pixel and fraction are computed in float64, since in float32 `column + x` would round
    # the fraction away. It is done on the CPU, because not every device has float64.
    whole = np.floor(positions)
    fraction = torch.from_numpy((positions - whole).astype(np.float32)).to(image.device)
    first = np.clip(whole, -FAR, FAR).astype(np.int64) - N // 2
    left, top = torch.from_numpy(first).to(image.device)[:, None, None].unbind(3)
    x_fraction, y_fraction = fraction[:, None, None].unbind(3)
    B, _, C = positions.shape
    height, width = image.shape
    pixel = torch.arange(N + 1, device=image.device)
    each = max(1, PIECE // ((N + 1) ** 2 * C))
    for start in range(0, B, each):
        groups = slice(start, start + each)
        row, column = top[groups] + pixel[:, None, None], left[groups] + pixel[:, None]
        inside = ((row >= 0) & (row < height)) & ((column >= 0) & (column < width))
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        yield groups, index, inside, x_fraction[groups], y_fraction[groups]
