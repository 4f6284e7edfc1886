"""Patches in PyTorch: on the tensors' device, differentiable with respect to the object."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_object, as_patch_positions
from ptycho_fast.patches import cpu

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":  # PyTorch is there, and broken: it says best how
        raise
    msg = 'PyTorch is not installed. Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

METHODS = ("auto", "torch")

FAR = 2.0**40
"""Beyond every object, and far from where adding a pixel number to it could overflow int64."""

PIECE = 2**22
"""Pixels that method "torch" takes at a time: what it needs beside the patches is 50 bytes each."""


def extract_patches(
    object: Any,
    positions: Any,
    N: int,
    *,
    method: str = "auto",
) -> Tensor:
    """Cut the patches of an object at sub-pixel positions, by bilinear interpolation.

    Position (x, y) falls on pixel ``[N//2, N//2]`` of its patch. The object is 0 outside. The
    patches are differentiable with respect to the object, to any order, but not with respect to
    the positions.

    Parameters
    ----------
    object : tensor or array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``; the patches are made on its device. complex128
        is narrowed to complex64.
    positions : tensor or array_like, (B, 2, C) or (B, 1, 2, C), real
        x, then y, of each channel of each group, in pixels. float64 says where best; a float32
        position is taken as the number that it holds. Leave them on the CPU: they are looked at
        there, and nobody has to wait for a GPU.
    N : int
        Pixels per side of a patch.
    method : {"auto", "torch"}
        "auto" takes the Rust kernel for an object on the CPU. "torch", and "auto" elsewhere, is a
        gather in PyTorch, some patches at a time, so that it needs little memory beside them.

    Returns
    -------
    tensor, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If positions are not finite or of another shape, N < 1, the object is not 2-D, or the
        method is none of these.
    MemoryError
        If the patches do not fit in memory; from PyTorch it is a ``RuntimeError``, on a GPU
        ``torch.OutOfMemoryError``.

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
    """Add patches to an object of zeros where `extract_patches` would cut them: its adjoint.

    Differentiable with respect to the patches, to any order.

    Parameters
    ----------
    patches : tensor, (B, N, N, C), complex64
        What to add; the object is made on their device.
    positions : tensor or array_like, (B, 2, C) or (B, 1, 2, C), real
        As of `extract_patches`.
    shape : (int, int)
        Rows and columns of the object (H, W); what falls outside is dropped.

    Returns
    -------
    tensor, (H, W), complex64

    Raises
    ------
    ValueError
        If shapes do not fit or positions are not finite.

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
        # NumPy knows no bfloat16.
        positions = (positions.double() if positions.is_floating_point() else positions).numpy()
    where = as_patch_positions(positions)
    # The kernel looks at every position before it cuts. Here it cuts one pixel of nothing.
    cpu.extract_patches(np.empty((0, 0)), where, 1, num_threads=1)
    return where


class _Linear(torch.autograd.Function):
    """A linear function of a tensor, which has its adjoint as gradient, and so on."""

    @staticmethod
    def forward(
        image: Tensor, function: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return function(image)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.function, ctx.adjoint = inputs

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
    """Return a tensor's memory; a conjugate that PyTorch has put off is taken first."""
    array: NDArray[np.complex64] = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array


# --- elsewhere: PyTorch ---------------------------------------------------------------------------


def _gather(image: Tensor, positions: NDArray[np.float64], N: int) -> Tensor:
    """Extract: each patch is blended from the (N+1) x (N+1) pixels under it."""
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
    """Add patches to zeros where `_gather` cuts them: its adjoint."""
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
    """Go through the groups, some at a time.

    Yields which groups, where in the flat image the (N+1) x (N+1) pixels under each patch are,
    which of them are inside (the others are led to the nearest that is), and the fractions in x
    and y as ``(b, 1, 1, C)``.
    """
    # Whole pixel and fraction are taken in float64: `column + x` in float32 would lose what the
    # fraction is made of. Not every device has float64, so that is done here.
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
