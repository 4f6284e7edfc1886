"""Whatever is passed, the answer is a result or an error with a message: never a panic or a crash.

PyO3's PanicException is a BaseException, so no `except` here catches it, and the test fails.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from anything import ANYTHING, GOOD_POSITIONS, SCALARS
from ptycho_fast import _core
from ptycho_fast.patches.cpu import add_patches
from ptycho_fast.patterns import gather_patterns, pattern_energies


def _survives(call: Any, *arguments: Any, **keywords: Any) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError, MemoryError):
            call(*arguments, **keywords)


NAMES = ["n_groups", "gridsize", "group_size", "n_neighbors", "seed", "epoch", "rule", "centers",
         "include_center", "rng", "engine", "num_threads"]  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(
    positions=st.one_of(ANYTHING, st.just(GOOD_POSITIONS)),
    arguments=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
)
def test_any_groups_are_drawn_or_refused(positions: Any, arguments: dict[str, Any]) -> None:
    _survives(pf.group_positions, positions, **arguments)


@settings(deadline=None, max_examples=200)
@given(n_neighbors=ANYTHING, centers=ANYTHING, num_threads=SCALARS)
def test_any_neighbors_are_found_or_refused(
    n_neighbors: Any, centers: Any, num_threads: Any
) -> None:
    index = pf.ScanIndex(GOOD_POSITIONS)
    _survives(index.neighbors, n_neighbors, centers, num_threads=num_threads)


@settings(deadline=None, max_examples=400)
@given(
    image=st.one_of(ANYTHING, st.just(np.ones((4, 5))), st.just(np.ones((2, 4, 4, 3)))),
    positions=st.one_of(ANYTHING, st.just(np.ones((2, 2, 3)))),
    N=st.one_of(SCALARS, st.just(3)),
    out=st.one_of(ANYTHING, st.just(np.zeros((2, 3, 3, 3), "c8")), st.none()),
)
def test_any_patches_are_extracted_or_refused(image: Any, positions: Any, N: Any, out: Any) -> None:
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
def test_any_patterns_are_gathered_or_refused(
    stack: Any, indices: Any, scale: Any, mask: Any, out: Any
) -> None:
    _survives(gather_patterns, stack, indices, scale=scale, mask=mask, out=out)
    _survives(pattern_energies, stack)


COUNTS = st.sampled_from([0, 1, 2, 3, 4, 5, 2**31, 2**40, 2**63, 2**64 - 1])
# Beyond what any memory holds, so that none is taken.
MANY = st.sampled_from([0, 1, 2, 5, 2**45, 2**63, 2**64 - 1])


@settings(deadline=None, max_examples=300)
@given(n=COUNTS, m=COUNTS, k=COUNTS, c=COUNTS)
def test_the_core_draws_or_refuses_any_count(n: int, m: int, k: int, c: int) -> None:
    """The binding is guarded too: no count that Python's checks would refuse can overflow in it."""
    words = np.zeros(624, np.uint32)
    centers = np.array([3, 4], np.int32)
    _survives(_core.draw_centers, n, m, (1, 2), 1)
    _survives(_core.check_group, n, k, c)
    _survives(_core.draw_order, min(m, 100), (1, 2), 1)
    _survives(INDEX.neighbors, centers, k, 1)
    _survives(INDEX.draw_legacy, None, m, k, c, words, n, 1)
    _survives(INDEX.draw_legacy, np.array([12], np.int32), m, k, c, words, 624, 1)


INDEX = _core.ScanIndex(GOOD_POSITIONS, "auto", 1)
LISTS = INDEX.neighbors(np.arange(12, dtype=np.int32), 5, 1)
SOURCES = ("an index", "lists", "labels", "an index of another scan", "none")


@settings(deadline=None, max_examples=1800)
@given(
    rule=st.sampled_from(["nearest", "oversample", "quadrant", "overlap", "pool", "none"]),
    counts=st.tuples(COUNTS, COUNTS, MANY, MANY),
    window=st.sampled_from([0, 8, 2**63]),
    limits=st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
    least=st.floats(),
    centers=st.sampled_from([[], [3, 4], [12], [-1]]),
    source=st.sampled_from(SOURCES),
    include_center=st.booleans(),
)
def test_the_core_draws_or_refuses_any_request(
    rule: str,
    counts: tuple[int, int, int, int],
    window: int,
    limits: Any,
    least: float,
    centers: list[int],
    source: str,
    include_center: bool,
) -> None:
    other = source == "an index of another scan"
    request = {
        "rule": rule,
        "source": LISTS if source == "lists" else INDEX if source.startswith("an") else None,
        "engine": "auto",
        "positions": GOOD_POSITIONS[: 6 if other else 12],
        "centers": np.array(centers, np.int32),
        "n_neighbors": counts[0],
        "group_size": counts[1],
        "n_groups": counts[2],
        "groups_per_center": counts[3],
        "include_center": include_center,
        "limits": limits,
        "window": window,
        "min_overlap": least,
        "labels": np.arange(12, dtype=np.int32) // 5 if source == "labels" else None,
        "key": (1, 2),
        "num_threads": 1,
    }
    _survives(_core.draw, request)


@pytest.mark.parametrize("labels", [[0] * 5, [-1] * 12, [12] * 12, [11] * 12])
def test_the_core_refuses_labels_that_do_not_number_the_positions(labels: list[int]) -> None:
    request = {
        "rule": "nearest",
        "positions": GOOD_POSITIONS,
        "centers": np.array([3], np.int32),
        "n_neighbors": 4,
        "group_size": 4,
        "labels": np.array(labels, np.int32),
        "key": (1, 2),
    }
    if labels == [11] * 12:  # labels need not be dense
        assert len(_core.draw(request)[1]) == 1
        return
    with pytest.raises(ValueError, match="scan_ids"):
        _core.draw(request)


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
