"""What every test starts from."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

# One thread for each framework. More would share the processors with other processes that run tests
# and spin while they wait; and a run repeats another to the bit only with equally many threads.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ[variable] = "1"

# PyTorch's triton and TensorFlow each bring an LLVM, and the process aborts where triton's is
# loaded second. The other way round both work.
with contextlib.suppress(ImportError):
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="session")
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is unpacked into the folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTYCHO_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
