"""Patches in TensorFlow against the float64 oracle, and what XLA's program keeps in memory."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

tf = pytest.importorskip("tensorflow")
from ptycho_fast.patches.tensorflow import METHODS, extract_patches  # noqa: E402

HEIGHT, WIDTH = 150, 210


def make_object(
    height: int = HEIGHT, width: int = WIDTH, dtype: type = np.complex128
) -> NDArray[Any]:
    rng = np.random.default_rng(height)
    shape = (2, height, width)
    real, imaginary = rng.normal(size=shape)
    image: NDArray[Any] = (real + 1j * imaginary).astype(dtype)
    return image


def make_positions(B: int, C: int, N: int, seed: int = 0) -> NDArray[np.float64]:
    """Positions of which many straddle a border and some lie beyond it, all different."""
    rng = np.random.default_rng([seed, B, C, N])
    x = rng.uniform(-0.7 * N, WIDTH + 0.7 * N, (B, C))
    y = rng.uniform(-0.7 * N, HEIGHT + 0.7 * N, (B, C))
    return np.stack([x, y], axis=1)


def tolerance(image: NDArray[Any]) -> float:
    """CONTRACT section 5."""
    bordered = np.pad(image, 1)
    steps = max(float(np.abs(np.diff(bordered, axis=axis)).max()) for axis in (0, 1))
    return 1e-6 * float(np.abs(image).max()) + 1e-4 * steps


def assert_close(found: Any, expected: NDArray[Any], image: NDArray[Any]) -> None:
    assert found.dtype == tf.complex64
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max(initial=0) <= tolerance(image)


# --- values --------------------------------------------------------------------------------------

CASES = [
    (N, gridsize, B)
    for N, gridsize, B in itertools.product((32, 33, 64, 127, 256), (1, 2, 3), (1, 7, 100))
    if B * N**2 * gridsize**2 <= 100 * 127**2  # 100 patches of 256 x 256 are one case, below
]


@pytest.mark.parametrize(("N", "gridsize", "B"), [*CASES, (256, 1, 100)])
def test_every_method_follows_the_definition(N: int, gridsize: int, B: int) -> None:
    C = gridsize**2
    image = make_object(dtype=np.complex64 if (N + C + B) % 2 else np.complex128)
    positions = make_positions(B, C, N)
    expected = reference.extract_patches(image, positions, N)
    found = {
        method: extract_patches(tf.constant(image), tf.constant(positions), N, method=method)
        for method in METHODS
        if method != "iterative" or B * C <= 100  # 2 ms a patch
    }
    for patches in found.values():
        assert_close(patches, expected, image)
    for one, other in itertools.combinations(found.values(), 2):
        assert_close(one, other.numpy(), image)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("N", [32, 33])
def test_across_every_border_and_outside(N: int, method: str) -> None:
    def crossings(size: int) -> list[float]:
        near = [-N / 2 - 1, -N / 2, -N // 2 + 0.25, -1.0, -0.5, 0.0, 0.5, 2.75]
        far = [-1e18, -1e9, -3.1 * N, size + 1e5, 2.0**32 + size / 3, 1e18]
        return [size / 3, *far, *near, *(size - x for x in near)]

    xs, ys = crossings(WIDTH), crossings(HEIGHT)
    positions = np.array([(x, y) for x in xs for y in ys]).reshape(len(xs), len(ys), 2)
    positions = positions.transpose(0, 2, 1)
    image = make_object()
    patches = extract_patches(image, positions, N, method=method)
    assert_close(patches, reference.extract_patches(image, positions, N), image)
    assert patches.numpy()[0, :, :, 0].all()
    assert not patches.numpy()[1:7].any()
    assert not patches.numpy()[..., 1:7].any()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_position(method: str, data: st.DataObject) -> None:
    coordinate = st.one_of(
        st.floats(-20, 30),
        st.integers(-20, 30).map(float),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    values = data.draw(st.lists(coordinate, min_size=12, max_size=12))
    positions = np.array(values).reshape(2, 2, 3)
    image = make_object(11, 17)
    patches = extract_patches(image, positions, 5, method=method)
    assert_close(patches, reference.extract_patches(image, positions, 5), image)


@pytest.mark.parametrize("method", METHODS)
def test_the_fraction_is_taken_in_float64(method: str) -> None:
    image = make_object(4, 120_000)
    positions = np.array([[[100_000.123, 99_999.877], [1.5, 2.25]]])
    patches = extract_patches(image, positions, 4, method=method)
    assert_close(patches, reference.extract_patches(image, positions, 4), image)
    # A float32 position is the number that it holds, here 0.002 pixels off.
    narrow = positions.astype(np.float32)
    patches = extract_patches(image, tf.constant(narrow), 4, method=method)
    assert_close(patches, reference.extract_patches(image, narrow, 4), image)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_taken_as_an_object_and_as_positions(method: str) -> None:
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
    whole = np.round(positions).astype(np.int64)
    found = extract_patches(image, tf.constant(whole), 6, method=method)
    assert_close(found, reference.extract_patches(image, whole, 6), image)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_cut_or_to_cut_from(method: str) -> None:
    image = make_object(9, 13)
    assert extract_patches(image, np.empty((0, 2, 3)), 6, method=method).shape == (0, 6, 6, 3)
    patches = extract_patches(image[:0], [[[1.0], [2.0]]], 6, method=method)
    assert patches.shape == (1, 6, 6, 1)
    assert not patches.numpy().any()


# --- inside graphs -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("N", "gridsize", "B"), [(33, 2, 7), (64, 1, 1), (32, 3, 7)])
def test_inside_a_function_and_a_dataset(N: int, gridsize: int, B: int, method: str) -> None:
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
def test_shapes_known_only_at_run_time(method: str) -> None:
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
def test_inside_a_compiled_function(method: str) -> None:
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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float64])
def test_the_gradient_is_what_finite_differences_say(method: str, dtype: type) -> None:
    """In TensorFlow the gradient of a real loss is dL/d(real) + i dL/d(imaginary)."""
    rng = np.random.default_rng(5)
    image = make_object(6, 5)
    image = image.real if dtype is np.float64 else image.astype(dtype)
    positions = rng.uniform(-3, 8, (2, 2, 3))
    positions[0, :, 0] = 1e18
    target = (rng.normal(size=(2, 4, 4, 3)) + 1j * rng.normal(size=(2, 4, 4, 3))).astype(
        "complex64"
    )

    def loss(image: NDArray[Any]) -> float:
        patches = reference.extract_patches(image, positions, 4)
        return float((np.abs(patches - target) ** 2).sum())

    expected = np.zeros(image.shape, np.complex128)
    for pixel in np.ndindex(*image.shape):
        for step in (0.5, 0.5j):  # the loss is quadratic: central differences are exact
            change = np.zeros(image.shape, np.complex128)
            change[pixel] = step
            expected[pixel] += (loss(image + change) - loss(image - change)) * step / 0.5
    assert np.abs(expected).max() > 1
    found = gradient_of_loss(method, image, positions, target)
    assert found.dtype.as_numpy_dtype is dtype
    real = dtype is np.float64
    np.testing.assert_allclose(found.numpy(), expected.real if real else expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(64, 2, 4), (33, 3, 9)])
@pytest.mark.parametrize("method", ["auto", "xla"])
def test_gradients_agree(method: str, shape: tuple[int, int, int]) -> None:
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
def test_gradients_of_gradients_agree(method: str) -> None:
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
def test_the_gradient_of_some_of_the_patches(method: str) -> None:
    """`tf.gather` hands back a sparse gradient."""
    image, positions = make_object(12, 9, np.complex64), np.full((3, 2, 1), 4.5)
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        some = tf.gather(extract_patches(x, positions, 4, method=method), [1, 1])
    assert tape.gradient(some, x).numpy().sum() == pytest.approx(2 * 4 * 4)


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_with_respect_to_positions(method: str) -> None:
    positions = tf.constant([[[4.5], [3.5]]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(positions)
        patches = extract_patches(make_object(12, 9), positions, 4, method=method)
    assert tape.gradient(patches, positions) is None


# --- memory --------------------------------------------------------------------------------------

COMPILE = """
import json, sys
import tensorflow as tf
from ptycho_fast.patches.tensorflow import extract_patches
for B, C, N, height, width in json.loads(sys.argv[1]):
    image = tf.ones((height, width), tf.complex64)
    positions = tf.fill((B, 2, C), tf.constant(20.5, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(image)
        patches = extract_patches(image, positions, N, method="xla")
    tape.gradient(patches, image)
"""


def compiled_memory(shapes: list[tuple[int, int, int, int, int]]) -> list[tuple[int, int]]:
    """Bytes of results and of temporaries of the compiled programs, from XLA's own account.

    Two programs for each (B, C, N, H, W): the extraction, recorded by a tape, and its gradient.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        subprocess.run(
            [sys.executable, "-c", COMPILE, repr([list(shape) for shape in shapes])],
            env={**os.environ, "XLA_FLAGS": flags, "CUDA_VISIBLE_DEVICES": "-1"},
            check=True,
            capture_output=True,
        )
        reports = sorted(Path(folder).glob("module_*buffer-assignment.txt"))
        names = [name for _ in shapes for name in ("_gather", "_scatter")]
        assert [re.search("_gather|_scatter", path.name)[0] for path in reports] == names  # type: ignore[index]
        texts = [path.read_text() for path in reports]
    sizes = [
        [
            sum(int(size) for size in re.findall(rf"allocation \d+: size (\d+), {kind}", text))
            for kind in (".*maybe-live-out", "preallocated-temp")
        ]
        for text in texts
    ]
    return [(results, temporaries) for results, temporaries in sizes]


def test_the_compiled_program_needs_no_memory(record_property: Any) -> None:
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


def test_results_begin_where_tensorflow_reads_without_a_copy() -> None:
    image = make_object(9, 13)
    for B, N, C in itertools.product((1, 2, 3), (1, 2, 3, 5), (1, 3)):
        patches = extract_patches(image, np.full((B, 2, C), 4.5), N)
        assert np.asarray(patches).ctypes.data % 64 == 0


# --- what is refused -----------------------------------------------------------------------------

GOOD = np.array([[[4.5], [3.5]]])
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"method": "rust"}, r"method must be 'auto', 'xla' or 'iterative', got 'rust'\."),
    ({"method": None}, "got None"),
    ({"N": 0}, r"N must be a whole number in 1\.\.2147483647, got 0\."),
    ({"N": 2.5}, r"N must be .*, got 2\.5\."),
    ({"object": np.ones(3)}, r"object must be \(H, W\) complex, got shape \(3,\)"),
    ({"object": tf.ones(3)}, r"object must be \(H, W\) complex, got shape \(3,\) of float32"),
    ({"object": tf.constant([["a"]])}, "of string"),
    ({"object": tf.constant([[True]])}, "of bool"),
    ({"positions": np.ones((4, 2))}, r"\(B, 2, C\) or \(B, 1, 2, C\).* got shape \(4, 2\)"),
    ({"positions": tf.ones((4, 3, 2))}, r"got shape \(4, 3, 2\)"),
    ({"positions": tf.ones((4, 2, 1), tf.complex64)}, "real numbers, got dtype complex64"),
]
BAD_VALUES = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(("change", "message"), BAD_ARGUMENTS)
def test_a_bad_argument_is_a_sentence(change: dict[str, Any], message: str) -> None:
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
def test_positions_that_are_not_finite(value: float, method: str) -> None:
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


def test_too_large_for_memory() -> None:
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


def test_without_tensorflow() -> None:
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
def test_on_a_gpu_nothing_leaves_it() -> None:
    image, positions = make_object(), make_positions(7, 4, 64)
    with tf.device("GPU:0"):
        patches = extract_patches(tf.constant(image), positions, 64)
    assert "GPU" in patches.device
    assert_close(patches, reference.extract_patches(image, positions, 64), image)
