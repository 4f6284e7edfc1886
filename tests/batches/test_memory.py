"""Memory for large outputs: when it is reused."""

from __future__ import annotations

import gc
import importlib.util
import mmap
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast.memory
from ptycho_fast.memory import HUGE_PAGE, LARGE

if TYPE_CHECKING:
    from collections.abc import Callable

keeps = pytest.mark.skipif(not hasattr(mmap, "MADV_FREE"), reason="memory can't be offered here")


def address(array: np.ndarray[Any, Any]) -> int:
    return array.ctypes.data


@pytest.fixture
def empty() -> Callable[..., np.ndarray[Any, Any]]:
    """The function of a module that is loaded anew, so that other tests have left it no memory."""
    spec = importlib.util.find_spec("ptycho_fast.memory")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., np.ndarray[Any, Any]] = module.empty
    return function


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.complex64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 2), (9, 1025, 1025, 1), (LARGE // 2,)])
def test_the_result_is_an_ordinary_array(
    empty: Callable[..., Any], shape: tuple[int, ...], dtype: Any
) -> None:
    array = empty(shape, dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = 3
    assert (array == 3).all()
    if array.nbytes >= LARGE and hasattr(mmap, "MADV_FREE"):
        assert address(array) % HUGE_PAGE == 0


@keeps
def test_memory_is_reused_only_after_the_last_view(empty: Callable[..., Any]) -> None:
    first = empty((LARGE,), np.uint8)
    place = address(first)
    first[:] = 1
    view = first.view(np.uint32).reshape(2, -1)[:, ::2]  # its base is not `first`
    del first
    second = empty((LARGE,), np.uint8)
    second[:] = 2
    assert address(second) != place
    assert (view == 0x01010101).all()
    del view
    gc.collect()
    third = empty((LARGE,), np.uint8)
    assert address(third) == place
    third[:] = 3
    assert (second == 2).all()


@keeps
def test_memory_that_is_too_short_or_far_too_long_is_not_reused(empty: Callable[..., Any]) -> None:
    left = address(empty((2 * LARGE,), np.uint8))
    longer, shorter = empty((2 * LARGE + 3 * HUGE_PAGE,), np.uint8), empty((LARGE // 2,), np.uint8)
    smaller = empty((LARGE - 1,), np.uint8)
    assert left not in {address(longer), address(shorter), address(smaller)}
    longer[:] = 1  # all of it is there
    assert address(empty((2 * LARGE - 5,), np.uint8)) == left


@keeps
def test_at_most_four_pieces_are_kept(
    empty: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = []
    original = mmap.mmap

    def recorded(*arguments: Any, **options: Any) -> mmap.mmap:
        mapped.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(mmap, "mmap", recorded)
    arrays = [empty((LARGE,), np.uint8) for _ in range(10)]
    assert len(mapped) == 10
    del arrays
    gc.collect()
    arrays = [empty((LARGE,), np.uint8) for _ in range(10)]
    kept = 20 - len(mapped)
    assert len(arrays) == 10
    assert 0 < kept <= 4


@keeps
def test_threads_never_share_memory(empty: Callable[..., Any]) -> None:
    wrong = []

    def work(value: int) -> None:
        for _ in range(30):
            array = empty((LARGE,), np.uint8)
            array[::4096] = value
            if not (array[::4096] == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_write_into_its_parent() -> None:
    script = f"""
import os
import numpy as np
from ptycho_fast.memory import empty
kept = empty(({LARGE},), np.uint8)
kept[:] = 1
del kept
child = os.fork()
array = empty(({LARGE},), np.uint8)
array[:] = 2 if child else 3
if child:
    assert os.waitpid(child, 0)[1] == 0
assert (array == (2 if child else 3)).all()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_array_may_outlive_the_interpreter() -> None:
    script = f"import numpy, ptycho_fast.memory as m; kept = m.empty(({LARGE},), numpy.uint8)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.parametrize("rows", [2**40, 2**62])
def test_too_large_an_array_is_a_memory_error_with_a_sentence(rows: int) -> None:
    with pytest.raises(MemoryError, match=r"GB|[Uu]nable to allocate|array is too big"):
        ptycho_fast.memory.empty((rows, 2**20), np.float32)
