"""What is particular to patches in PyTorch: tensors, pieces, gradients, adding, devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import reference
from patch_cases import assert_close, make_object, make_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

torch = pytest.importorskip("torch")
import ptycho_fast.patches.torch as module  # noqa: E402
from ptycho_fast.patches.torch import METHODS, add_patches, extract_patches  # noqa: E402

# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_objects_and_positions_may_be_tensors(method: str) -> None:
    image, positions = make_object(9, 13), make_positions(2, 3, 6)
    positions[0] = [[3.2, 5.7, -1.1], [4.4, 1.5, 2.6]]
    expected = reference.extract_patches(image, positions, 6)
    tensor, frozen = torch.from_numpy(image), image.astype(np.complex64)
    frozen.flags.writeable = False
    for an_object in (
        image,
        image.tolist(),
        frozen,
        tensor,
        tensor.T.contiguous().T,
        tensor.conj_physical().conj(),  # a conjugate that PyTorch puts off
    ):
        for where in (
            positions,
            positions[:, None],
            torch.from_numpy(positions),
            torch.from_numpy(positions).requires_grad_(),
        ):
            with torch.no_grad():
                assert_close(extract_patches(an_object, where, 6, method=method), expected, image)
    real = extract_patches(tensor.real, positions, 6, method=method)
    assert_close(real, reference.extract_patches(image.real, positions, 6), image)
    narrow = positions.astype(np.float32)
    found = extract_patches(image, torch.from_numpy(narrow), 6, method=method)
    assert_close(found, reference.extract_patches(image, narrow, 6), image)
    whole = np.round(positions)
    expected = reference.extract_patches(image, whole, 6)
    for dtype in (torch.int64, torch.bfloat16):  # whole numbers this small are exact in both
        where = torch.from_numpy(whole.clip(-20, 20)).to(dtype)
        expected = reference.extract_patches(image, whole.clip(-20, 20), 6)
        assert_close(extract_patches(image, where, 6, method=method), expected, image)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_object_has_an_empty_gradient(method: str) -> None:
    image = make_object(9, 13)
    assert extract_patches(image, np.empty((0, 2, 3)), 6, method=method).shape == (0, 6, 6, 3)
    nothing = torch.from_numpy(image[:0]).requires_grad_()
    patches = extract_patches(nothing, [[[1.0], [2.0]]], 6, method=method)
    assert patches.shape == (1, 6, 6, 1)
    assert not patches.detach().numpy().any()
    torch.autograd.backward(patches.abs().sum())
    assert nothing.grad.shape == (0, 13)


@pytest.mark.parametrize("piece", [1, 500, 2000])
def test_the_size_of_pieces_does_not_affect_results(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 groups of 3 patches of 12 x 12: one at a time, one, and three."""
    image, positions = make_object(dtype=np.complex64), make_positions(5, 3, 11)

    def run() -> tuple[Any, Any]:
        x = torch.from_numpy(image).requires_grad_()
        patches = extract_patches(x, positions, 11, method="torch")
        torch.autograd.backward((patches.abs() ** 2).sum())
        return patches.detach(), x.grad

    patches, gradient = run()
    monkeypatch.setattr(module, "PIECE", piece)
    in_pieces, gradient_in_pieces = run()
    assert torch.equal(patches, in_pieces)
    torch.testing.assert_close(gradient, gradient_in_pieces)


def test_no_more_memory_is_needed_than_patches_and_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that either way allocates is larger than a piece, but the patches and the object."""
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415

    sizes = []

    class Record(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.untyped_storage().nbytes())
            return out

    monkeypatch.setattr(module, "PIECE", 1000)
    positions = make_positions(50, 4, 20)
    x = torch.from_numpy(make_object(30, 30, np.complex64)).requires_grad_()
    with Record():  # type: ignore[no-untyped-call, unused-ignore]
        patches = extract_patches(x, positions, 20, method="torch")
        torch.autograd.backward(patches, patches.detach())
    own = {8 * 50 * 4 * 20**2, 8 * 30 * 30}
    assert own <= set(sizes)
    assert max(set(sizes) - own) <= 8 * 4 * 21**2  # a piece is at least one group


# --- gradients -----------------------------------------------------------------------------------


def matrix(shape: tuple[int, int], positions: NDArray[Any], N: int) -> Any:
    """The extraction as a matrix, column by column from the oracle: complex128."""
    unit = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    columns = [reference.extract_patches(pixel, positions, N).ravel() for pixel in unit]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.complex128))


def small_case() -> tuple[Any, NDArray[np.float64], int]:
    positions = np.random.default_rng(5).uniform(-3, 8, (2, 2, 3))
    positions[0, :, 0] = 1e18
    return torch.from_numpy(make_object(6, 5)), positions, 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float64])
def test_the_gradient_equals_that_of_the_matrix(method: str, dtype: Any) -> None:
    image, positions, N = small_case()
    image = image.to(dtype) if dtype.is_complex else image.real.clone()
    A = matrix(image.shape, positions, N)
    target = torch.from_numpy(make_object(A.shape[0], 1)[:, 0])

    def gradient(extract: Any) -> Any:
        x = image.clone().requires_grad_()
        loss = (extract(x).reshape(-1) - target).abs().pow(3).sum()
        (found,) = torch.autograd.grad(loss, x)
        return found

    expected = gradient(lambda x: A @ x.to(torch.complex128).reshape(-1))
    assert expected.abs().max() > 1
    found = gradient(lambda x: extract_patches(x, positions, N, method=method))
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-4, check_dtype=False)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_gradients_equal_those_of_the_matrix(method: str) -> None:
    image, positions, N = small_case()
    A = matrix(image.shape, positions, N)

    def second(extract: Any) -> Any:
        x = image.clone().requires_grad_()
        loss = extract(x).reshape(-1).abs().pow(4).sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (found,) = torch.autograd.grad(first.abs().pow(2).sum(), x)
        return found

    expected = second(lambda x: A @ x.reshape(-1))
    assert expected.abs().max() > 1
    found = second(lambda x: extract_patches(x, positions, N, method=method))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_of_pytorch_passes(method: str) -> None:
    """The function is linear, so that a long step is as exact as a short one."""
    image, positions, N = small_case()
    x = image.to(torch.complex64).requires_grad_()
    with pytest.warns(UserWarning, match="not a double precision"):
        assert torch.autograd.gradcheck(
            lambda x: extract_patches(x, positions, N, method=method), (x,), eps=1.0, atol=1e-4
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_backward_is_the_adjoint(N: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-6, 20, (2, 2, 3))
    target = rng.normal(size=(2, N, N, 3)) + 1j * rng.normal(size=(2, N, N, 3))
    upstream = torch.from_numpy(target.astype(np.complex64))
    image = make_object(11, 17, np.complex64)
    for method in METHODS:
        x = torch.from_numpy(image).requires_grad_()
        patches = extract_patches(x, positions, N, method=method)
        torch.autograd.backward(patches, upstream)
        one = (patches.detach().numpy() * target.conj()).sum(dtype=np.complex128)
        other = (image * x.grad.numpy().conj()).sum(dtype=np.complex128)
        assert abs(one - other) <= 1e-5 * np.abs(target).sum()


@pytest.mark.parametrize("shape", [(64, 2, 4), (33, 3, 9)])
def test_gradients_of_both_methods_agree(shape: tuple[int, int, int]) -> None:
    N, B, C = shape
    positions = make_positions(B, C, N)
    gradients = []
    for method in METHODS:
        x = torch.from_numpy(make_object(dtype=np.complex64)).requires_grad_()
        patches = extract_patches(x, positions, N, method=method)
        torch.autograd.backward((patches - 0.5j).abs().pow(2).sum())
        gradients.append(x.grad)
    assert gradients[0].abs().max() > 1
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_upstream_gradients_may_have_any_memory_layout(method: str) -> None:
    """A conjugate that is put off, a transpose and an expanded number come from upstream."""
    image, positions, N = small_case()
    x = image.to(torch.complex64).requires_grad_()
    patches = extract_patches(x, positions, N, method=method)
    for upstream in (
        (torch.randn(patches.shape) + 1j).conj(),
        (torch.randn(2, 3, N, N) * 1j).permute(0, 2, 3, 1),
        torch.tensor(2 + 1j).expand(patches.shape),
    ):
        (found,) = torch.autograd.grad(patches, x, upstream, retain_graph=True)
        plain = upstream.resolve_conj().clone(memory_format=torch.contiguous_format)
        (expected,) = torch.autograd.grad(patches, x, plain, retain_graph=True)
        assert expected.abs().max() > 0.1
        assert torch.equal(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_positions_have_no_gradient(method: str) -> None:
    positions = torch.tensor([[[4.5], [3.5]]], dtype=torch.float64, requires_grad=True)
    patches = extract_patches(make_object(12, 9), positions, 4, method=method)
    assert not patches.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_gradient_descent_finds_the_object(method: str) -> None:
    """The gradient points where the loss falls: patches of an object give the object back."""
    image = torch.from_numpy(make_object(12, 12, np.complex64))
    grid = np.arange(12.0)
    positions = np.stack(np.meshgrid(grid, grid)).reshape(2, -1).T[:, :, None] + 0.25
    target = extract_patches(image, positions, 4)
    x = torch.zeros_like(image).requires_grad_()
    for _ in range(200):
        loss = (extract_patches(x, positions, 4, method=method) - target).abs().pow(2).sum()
        (step,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= 0.03 * step
    assert (x - image).abs().max() < 1e-2


# --- laying patches down --------------------------------------------------------------------------


def make_patches(B: int, C: int, N: int, seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, B, C, N])
    real, imaginary = rng.normal(size=(2, B, N, N, C)).astype(np.float32)
    return torch.from_numpy(real + 1j * imaginary)


def test_adding_patches_equals_the_transpose_of_the_matrix() -> None:
    image, positions, N = small_case()
    A = matrix(image.shape, positions, N)
    patches = make_patches(2, 3, N)
    expected = (A.T @ patches.to(torch.complex128).reshape(-1)).reshape(image.shape)
    for where in (positions, positions[:, None], torch.from_numpy(positions)):
        found = add_patches(patches, where, (6, 5))
        assert found.dtype == torch.complex64
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    turned = patches.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(add_patches(turned, positions, (6, 5)), found)
    late = patches.conj_physical().conj()  # a conjugate that PyTorch puts off
    assert torch.equal(add_patches(late, positions, (6, 5)), found)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_adding_is_the_adjoint_of_extracting(N: int, B: int, seed: int) -> None:
    positions = np.random.default_rng(seed).uniform(-6, 20, (B, 2, 3))
    patches, image = make_patches(B, 3, N, seed), make_object(11, 17, np.complex64)
    laid = add_patches(patches, positions, (11, 17)).numpy()
    cut = reference.extract_patches(image, positions, N)
    one = (cut * patches.numpy().conj()).sum(dtype=np.complex128)
    other = (image * laid.conj()).sum(dtype=np.complex128)
    assert abs(one - other) <= 1e-5 * (1 + float(patches.abs().sum()))


def test_the_gradient_of_adding_is_extracting() -> None:
    image, positions, N = small_case()
    A = matrix(image.shape, positions, N)

    def slopes(add: Any, patches: Any) -> tuple[Any, Any]:
        x = patches.clone().requires_grad_()
        loss = add(x).abs().pow(4).sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.abs().pow(2).sum(), x)
        return first.detach(), second

    patches = make_patches(2, 3, N)
    found = slopes(lambda x: add_patches(x, positions, (6, 5)), patches)
    wide = patches.to(torch.complex128)
    expected = slopes(lambda x: (A.T @ x.reshape(-1)).reshape(6, 5), wide)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1
        atol = 1e-5 * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=atol, check_dtype=False)


@pytest.mark.parametrize(
    ("patches", "positions", "message"),
    [
        (make_patches(1, 1, 4), np.ones((2, 2, 1)), r"patches must be \(2, N, N, 1\) complex64"),
        (make_patches(1, 2, 4), [[[4.5], [3.5]]], r"must be \(1, N, N, 1\) .* got \(1, 4, 4, 2\)"),
        (make_patches(1, 1, 4)[:, 1:], [[[4.5], [3.5]]], r"got \(1, 3, 4, 1\) torch.complex64"),
        (make_patches(1, 1, 4)[0], [[[4.5], [3.5]]], r"got \(4, 4, 1\)"),
        (make_patches(1, 1, 4).real, [[[4.5], [3.5]]], "got .* torch.float32"),
        (make_patches(1, 1, 4).to(torch.complex128), [[[4.5], [3.5]]], "got .* torch.complex128"),
        (make_patches(1, 1, 4), np.ones((1, 1)), r"\(B, 2, C\)"),
        (make_patches(1, 1, 4), [[[np.nan], [1.0]]], "finite"),
    ],
)
def test_adding_patches_that_do_not_fit_is_refused(
    patches: Any, positions: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add_patches(patches, positions, (9, 9))


# --- other devices -------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("N", [33, 64])
def test_a_gpu_gives_the_same_patches_and_gradients(N: int) -> None:
    image, positions = make_object(dtype=np.complex64), make_positions(7, 4, N)
    expected = reference.extract_patches(image, positions, N)
    gradients = []
    for device in ("cpu", "cuda"):
        x = torch.from_numpy(image).to(device).requires_grad_()
        for where in (positions, torch.from_numpy(positions), torch.from_numpy(positions).cuda()):
            patches = extract_patches(x, where, N)
            assert patches.device == x.device
            assert_close(patches.detach().cpu(), expected, image)
        torch.autograd.backward((patches - 0.5j).abs().pow(2).sum())
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-4)
    laid = [add_patches(patches.detach().to(d), positions, x.shape) for d in ("cpu", "cuda")]
    assert laid[1].device.type == "cuda"
    torch.testing.assert_close(laid[0], laid[1].cpu(), rtol=1e-5, atol=1e-4)


# --- what is refused -----------------------------------------------------------------------------

GOOD = np.array([[[4.5], [3.5]]])
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"method": "rust"}, r"method must be 'auto' or 'torch', got 'rust'\."),
    ({"method": None}, "got None"),
    ({"object": torch.ones(3)}, r"object must be \(H, W\) complex, got shape \(3,\) of .*float32"),
    ({"object": torch.tensor([[True]])}, "of torch.bool"),
    ({"positions": torch.ones((4, 3, 2))}, r"got shape .*4, 3, 2"),
    ({"positions": torch.ones((4, 2, 1), dtype=torch.complex64)}, "real numbers, got dtype comp"),
    ({"positions": torch.ones((4, 2, 1), dtype=torch.bool)}, "real numbers, got dtype bool"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS)
def test_wrong_tensors_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"object": make_object(9, 13), "positions": GOOD, "N": 4, **change}
    with pytest.raises(ValueError, match=message):
        extract_patches(**arguments)
