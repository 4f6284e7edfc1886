"""What is particular to patches in TensorFlow: tensors, graphs, gradients, memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference
from patch_cases import assert_close, make_object, make_positions
from xla_memory import compiled_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

tf = pytest.importorskip("tensorflow")
from ptycho_fast.patches.tensorflow import METHODS, extract_patches  # noqa: E402

# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_objects_and_positions_may_be_tensors_and_variables(method: str) -> None:
    image, positions = make_object(9, 13), make_positions(2, 3, 6)
    positions[0] = [[3.2, 5.7, -1.1], [4.4, 1.5, 2.6]]
    expected = reference.extract_patches(image, positions, 6)
    for an_object in (
        image,
        image.tolist(),
        tf.constant(image),
        tf.Variable(image),
        image.T.copy().T,
    ):
        for where in (
            positions,
            positions[:, None],
            tf.constant(positions),
            tf.Variable(positions),
        ):
            assert_close(extract_patches(an_object, where, 6, method=method), expected, image)
    real = extract_patches(image.real, positions, tf.constant(6), method=method)
    assert_close(real, reference.extract_patches(image.real, positions, 6), image)
    narrow = positions.astype(np.float32)
    found = extract_patches(image, tf.constant(narrow), 6, method=method)
    assert_close(found, reference.extract_patches(image, narrow, 6), image)
    whole = np.round(positions).astype(np.int64)
    found = extract_patches(image, tf.constant(whole), 6, method=method)
    assert_close(found, reference.extract_patches(image, whole, 6), image)


# --- inside graphs -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("N", "gridsize", "B"), [(33, 2, 7), (64, 1, 1), (32, 3, 7)])
def test_patches_are_cut_inside_a_function_and_a_dataset(
    N: int, gridsize: int, B: int, method: str
) -> None:
    image, positions = make_object(), make_positions(B, gridsize**2, N)
    expected = reference.extract_patches(image, positions, N)

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def traced(an_object: Any, where: Any) -> Any:
        patches = extract_patches(an_object, where, N, method=method)
        assert patches.shape == expected.shape  # known before it runs
        return patches

    assert_close(traced(image, positions), expected, image)
    assert_close(traced(tf.constant(image), positions[:, None]), expected, image)

    pairs = tf.data.Dataset.from_tensors((image, positions)).repeat(2)
    for an_object in (None, image, tf.constant(image)):
        patches = pairs.map(
            lambda own, where, given=an_object: extract_patches(
                own if given is None else given, where, N, method=method
            ),
            num_parallel_calls=2,
        )
        assert patches.element_spec.shape == expected.shape
        found = list(patches)
        assert len(found) == 2
        for batch in found:
            assert_close(batch, expected, image)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_may_be_unknown_until_run_time(method: str) -> None:
    @tf.function(  # type: ignore[untyped-decorator, unused-ignore]
        input_signature=[
            tf.TensorSpec([None, None], tf.complex128),
            tf.TensorSpec([None, 1, 2, None], tf.float32),
        ]
    )
    def traced(image: Any, positions: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(image)
            patches = extract_patches(image, positions, 8, method=method)
        return patches, tape.gradient(patches, image)

    for B, C, height, width in ((3, 2, 12, 17), (1, 4, 20, 9)):
        image = make_object(height, width)
        positions = np.random.default_rng(0).uniform(-3, 20, (B, 1, 2, C)).astype(np.float32)
        patches, gradient = traced(image, positions)
        assert_close(patches, reference.extract_patches(image, positions, 8), image)
        # The sum of all weights on a pixel: real, and what is cut from ones is its total.
        ones = reference.extract_patches(np.ones_like(image), positions, 8)
        assert gradient.shape == image.shape
        assert np.abs(gradient.numpy().imag).max() == 0
        assert gradient.numpy().sum() == pytest.approx(ones.sum(), rel=1e-5)


@pytest.mark.parametrize(("side", "dtype"), [(40_000, tf.int32), (50_000, tf.int64)])
def test_pixels_beyond_int32_are_counted_in_int64(side: int, dtype: Any) -> None:
    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def traced(image: Any, positions: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(image)
            patches = extract_patches(image, positions, 4, method="xla")
        return tape.gradient(patches, image)

    program = traced.get_concrete_function(
        tf.TensorSpec((side, side), tf.complex64), tf.TensorSpec((1, 2, 1), tf.float64)
    )
    found = {
        (node.op, tf.as_dtype(node.attr["Tindices"].type))
        for function in program.graph.as_graph_def().library.function
        for node in function.node_def
        if node.op in {"GatherV2", "UnsortedSegmentSum"}
    }
    assert found == {("GatherV2", dtype), ("UnsortedSegmentSum", dtype)}


@pytest.mark.parametrize("method", METHODS)
def test_patches_are_cut_inside_a_compiled_function(method: str) -> None:
    image, positions = make_object(), make_positions(2, 4, 16)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator, unused-ignore]
    def outer(an_object: Any, where: Any) -> Any:
        inner = tf.function(lambda scaled: extract_patches(scaled, where, 16, method=method))
        return 2 * inner(an_object / 2)

    expected = reference.extract_patches(image, positions, 16)
    assert_close(outer(tf.constant(image), tf.constant(positions)), expected, image)


# --- gradients -----------------------------------------------------------------------------------


def gradient_of_loss(method: str, image: NDArray[Any], where: NDArray[Any], target: Any) -> Any:
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        patches = extract_patches(x, where, target.shape[1], method=method)
        loss = tf.reduce_sum(tf.abs(patches - target) ** 2)
    return tape.gradient(loss, x)


@pytest.mark.parametrize("shape", [(64, 2, 4), (33, 3, 9)])
@pytest.mark.parametrize("method", ["auto", "xla"])
def test_gradients_equal_that_of_the_loop(method: str, shape: tuple[int, int, int]) -> None:
    """With the one that TensorFlow finds for the loop, eager and in a function."""
    N, B, C = shape
    image, positions = make_object(dtype=np.complex64), make_positions(B, C, N)
    target = reference.extract_patches(make_object()[::-1], positions, N).astype(np.complex64)
    expected = gradient_of_loss("iterative", image, positions, target)
    scale = np.abs(expected.numpy()).max()
    assert scale > 1
    eager = gradient_of_loss(method, image, positions, target)
    traced = tf.function(lambda: gradient_of_loss(method, image, positions, target))()
    compiled = tf.function(
        lambda: gradient_of_loss(method, image, positions, target), jit_compile=True
    )()
    for found in (eager, traced, compiled):
        assert np.abs(found - expected).max() <= 2e-6 * scale


@pytest.mark.parametrize("method", ["auto", "xla"])
def test_gradients_of_gradients_equal_those_of_the_loop(method: str) -> None:
    image, positions = make_object(12, 9, np.complex64), make_positions(2, 3, 6)
    positions[0] = [[3.2, 5.7, -1.1], [4.4, 1.5, 2.6]]

    def second(method: str) -> NDArray[Any]:
        x = tf.constant(image)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                patches = extract_patches(x, positions, 6, method=method)
                loss = tf.reduce_sum(tf.abs(patches) ** 4)
            steepness = tf.reduce_sum(tf.abs(inner.gradient(loss, x)) ** 2)
        gradient: NDArray[Any] = outer.gradient(steepness, x).numpy()
        return gradient

    expected = second("iterative")
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(second(method), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_sparse_gradients_are_taken(method: str) -> None:
    """`tf.gather` hands back a sparse gradient."""
    image, positions = make_object(12, 9, np.complex64), np.full((3, 2, 1), 4.5)
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        some = tf.gather(extract_patches(x, positions, 4, method=method), [1, 1])
    assert tape.gradient(some, x).numpy().sum() == pytest.approx(2 * 4 * 4)


@pytest.mark.parametrize("method", METHODS)
def test_positions_have_no_gradient(method: str) -> None:
    positions = tf.constant([[[4.5], [3.5]]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(positions)
        patches = extract_patches(make_object(12, 9), positions, 4, method=method)
    assert tape.gradient(patches, positions) is None


# --- memory --------------------------------------------------------------------------------------


def test_the_compiled_program_needs_no_memory_besides_the_patches(record_property: Any) -> None:
    shapes = [(16, 4, 64, 600, 500), (16, 4, 256, 600, 500), (16, 4, 256, 1200, 700)]
    shapes += [(7, 9, 33, 101, 230), (1, 1, 127, 100, 100), (100, 1, 32, 300, 40)]
    programs = compiled_memory(shapes)
    for shape, extraction, gradient in zip(shapes, programs[::2], programs[1::2], strict=True):
        B, C, N, height, width = shape
        patches = 8 * B * C * N**2
        print(f"{shape}: (results, temporaries) {extraction}, gradient {gradient}")
        record_property(f"extraction {shape}", extraction)
        record_property(f"gradient {shape}", gradient)
        # No output but the patches: a tape that watches the object has nothing to keep.
        assert extraction[0] == patches
        assert extraction[1] <= 64 * B * C + 256
        assert gradient[0] == 8 * height * width
        # XLA:CPU keeps complex64 and int32 for each of the (N+1)² pixels that it scatters;
        # TensorFlow's own gradient has these four times over.
        assert gradient[1] <= 12 * B * C * (N + 1) ** 2 + 64 * B * C + 1024


def test_patches_are_aligned_so_that_tensorflow_need_not_copy() -> None:
    image = make_object(9, 13)
    for B, N, C in itertools.product((1, 2, 3), (1, 2, 3, 5), (1, 3)):
        patches = extract_patches(image, np.full((B, 2, C), 4.5), N)
        assert np.asarray(patches).ctypes.data % 64 == 0


# --- what is refused -----------------------------------------------------------------------------

GOOD = np.array([[[4.5], [3.5]]])
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"method": "rust"}, r"method must be 'auto', 'xla' or 'iterative', got 'rust'\."),
    ({"method": None}, "got None"),
    ({"object": tf.ones(3)}, r"object must be \(H, W\) complex, got shape \(3,\) of float32"),
    ({"object": tf.constant([["a"]])}, "of string"),
    ({"object": tf.constant([[True]])}, "of bool"),
    ({"positions": tf.ones((4, 3, 2))}, r"got shape \(4, 3, 2\)"),
    ({"positions": tf.ones((4, 2, 1), tf.complex64)}, "real numbers, got dtype complex64"),
]
BAD_VALUES = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS)
def test_wrong_tensors_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"object": make_object(9, 13), "positions": GOOD, "N": 4, **change}
    with pytest.raises(ValueError, match=message):
        extract_patches(**arguments)
    symbolic = [name for name, value in change.items() if tf.is_tensor(value)]
    if symbolic:  # the same where it is only a shape and a dtype
        with pytest.raises(ValueError, match=message):
            tf.function(
                lambda value: extract_patches(**{**arguments, symbolic[0]: value}), autograph=False
            )(change[symbolic[0]])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", BAD_VALUES)
def test_positions_that_are_not_finite_are_refused_or_give_nan(value: float, method: str) -> None:
    image, bad = make_object(9, 13), np.array([[[4.5], [3.5]], [[value], [3.5]]])
    sentence = "Positions of patches must be finite: row 1 is the first of 1 rows"
    for positions in (bad, tf.constant(bad)):
        with pytest.raises(ValueError, match=sentence):
            extract_patches(image, positions, 4, method=method)
    # Inside a function they are known too late to raise here; they never pass for numbers.
    traced = tf.function(lambda where: extract_patches(image, where, 4, method=method))
    if method == "auto":
        with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
            traced(bad)
    else:
        patches = traced(bad).numpy()
        assert np.isfinite(patches[0]).all()
        assert np.isnan(patches[1]).all()


def test_patches_larger_than_memory_are_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        extract_patches(make_object(9, 13), GOOD, 2**21)


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_tensorflow_is_imported_only_where_it_is_used() -> None:
    program = "import ptycho_fast, sys; print('tensorflow' in sys.modules)"
    assert run_python(program) == "False\n"


def test_without_tensorflow_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["tensorflow"] = None
try:
    import ptycho_fast.patches.tensorflow
except ImportError as error:
    print(error)
"""
    assert 'pip install "ptycho_fast[tensorflow]"' in run_python(program)


@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="no GPU")
def test_patches_of_an_object_on_a_gpu_stay_there() -> None:
    image, positions = make_object(), make_positions(7, 4, 64)
    with tf.device("GPU:0"):
        patches = extract_patches(tf.constant(image), positions, 64)
    assert "GPU" in patches.device
    assert_close(patches, reference.extract_patches(image, positions, 64), image)
