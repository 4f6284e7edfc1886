"""What every test starts from."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

# PyTorch's triton and TensorFlow each bring an LLVM, and the process aborts where triton's is
# loaded second. The other way round both work.
with contextlib.suppress(ImportError):
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401

# Where several processes run the tests, threads that spin while they wait slow all of them down.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True, scope="session")
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is unpacked into the folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTYCHO_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
