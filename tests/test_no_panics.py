"""Whatever is passed, the answer is a result or a sentence: never a panic, never a crash.

A PanicException is a BaseException, so it passes every `except` here and fails the test.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from ptycho_fast import _core
from ptycho_fast.patches.cpu import add_patches
from ptycho_fast.patterns import gather_patterns, pattern_energies

SCALARS: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 20),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([np.float32(2), np.int8(2), b"x", (), {}]),
)


@st.composite
def arrays(draw: Any) -> Any:
    """Arrays of any shape, dtype, stride and byte order, with NaN and infinity among them."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=5)))
    dtype = draw(st.sampled_from(
        ["f8", "f4", "f2", "g", "i4", "i8", "u2", "u1", "c8", "c16", "?", "O", "U3", "M8[s]",
         ">f8", ">u2", ">c8"]
    ))  # fmt: skip
    values = st.sampled_from([0.0, 1.0, 3.0, 1.5, -2.0, 1e18, 1e200, np.nan, np.inf])
    filled = np.empty(shape, "f8")
    for i in range(filled.size):
        filled.flat[i] = draw(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = filled.astype(dtype)
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([-2, -1, 2]))]
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


ANYTHING = st.one_of(SCALARS, arrays())


def _survives(call: Any, *arguments: Any, **keywords: Any) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError, MemoryError):
            call(*arguments, **keywords)


NAMES = ["n_groups", "gridsize", "group_size", "n_neighbors", "seed", "epoch", "rule", "centers",
         "include_center", "rng", "engine", "num_threads"]  # fmt: skip
GOOD_POSITIONS = np.arange(24.0).reshape(12, 2)


@settings(deadline=None, max_examples=400)
@given(
    positions=st.one_of(ANYTHING, st.just(GOOD_POSITIONS)),
    arguments=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
)
def test_grouping(positions: Any, arguments: dict[str, Any]) -> None:
    _survives(pf.group_positions, positions, **arguments)


@settings(deadline=None, max_examples=200)
@given(n_neighbors=ANYTHING, centers=ANYTHING, num_threads=SCALARS)
def test_neighbors(n_neighbors: Any, centers: Any, num_threads: Any) -> None:
    index = pf.ScanIndex(GOOD_POSITIONS)
    _survives(index.neighbors, n_neighbors, centers, num_threads=num_threads)


@settings(deadline=None, max_examples=400)
@given(
    image=st.one_of(ANYTHING, st.just(np.ones((4, 5))), st.just(np.ones((2, 4, 4, 3)))),
    positions=st.one_of(ANYTHING, st.just(np.ones((2, 2, 3)))),
    N=st.one_of(SCALARS, st.just(3)),
    out=st.one_of(ANYTHING, st.just(np.zeros((2, 3, 3, 3), "c8")), st.none()),
)
def test_patches(image: Any, positions: Any, N: Any, out: Any) -> None:
    _survives(pf.extract_patches, image, positions, N, out=out)
    _survives(add_patches, image, positions, out)
    _survives(add_patches, image, positions, np.zeros((4, 5), "c8"))


@settings(deadline=None, max_examples=400)
@given(
    stack=st.one_of(ANYTHING, st.just(np.ones((3, 4, 4), "f4"))),
    indices=st.one_of(ANYTHING, st.just(np.ones((2, 2), int))),
    scale=st.one_of(st.none(), st.floats(), ANYTHING),
    mask=st.one_of(st.none(), ANYTHING),
    out=st.one_of(ANYTHING, st.none()),
)
def test_patterns(stack: Any, indices: Any, scale: Any, mask: Any, out: Any) -> None:
    _survives(gather_patterns, stack, indices, scale=scale, mask=mask, out=out)
    _survives(pattern_energies, stack)


COUNTS = st.sampled_from([0, 1, 2, 3, 2**31, 2**40, 2**63, 2**64 - 1])


@settings(deadline=None, max_examples=300)
@given(n=COUNTS, m=COUNTS, k=COUNTS, c=COUNTS)
def test_the_core_alone(n: int, m: int, k: int, c: int) -> None:
    """The binding is guarded too: nothing that Python's checks let by can overflow in it."""
    index = _core.ScanIndex(GOOD_POSITIONS, "auto", 1)
    words = np.zeros(624, np.uint32)
    centers = np.array([3, 4], np.int32)
    _survives(_core.draw_centers, n, m, (1, 2), 1)
    _survives(_core.check_group, n, k, c)
    _survives(_core.draw_order, min(m, 100), (1, 2), 1)
    listed = index.neighbors(np.arange(12, dtype=np.int32), 5, 1)
    _survives(_core.draw_listed, listed, centers, k, c, False, (1, 2), 1)
    _survives(index.neighbors, centers, k, 1)
    _survives(index.draw_nearest, centers, k, c, True, (1, 2), 1)
    _survives(index.draw_legacy, None, m, k, c, words, n, 1)
    _survives(index.draw_legacy, np.array([12], np.int32), m, k, c, words, 624, 1)


def test_a_result_larger_than_memory_is_a_memory_error() -> None:
    """In a process that may have 4 GB, whatever the system promises beyond."""
    script = """
import resource, sys
import numpy as np, ptycho_fast as pf
index = pf.ScanIndex(np.random.default_rng(0).random((200_000, 2)))
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
for ask in (lambda: index.neighbors(199_999),
            lambda: pf.group_positions(index, group_size=150_000, seed=0)):
    try:
        ask()
    except MemoryError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "200000 rows of 199999 indices (159999200000 bytes) do not fit in memory. Ask for fewer.",
        "200000 rows of 150000 indices (120000000000 bytes) do not fit in memory. Ask for fewer.",
    ]
