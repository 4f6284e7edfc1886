"""Every framework's feed, under one interface, and the threads that feeds must not leave."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Framework:
    """What the contract asks of a feed; a new feed is a line in `FRAMEWORKS`."""

    name: str
    method: str
    """Of `GroupedDataset`."""

    errors: Callable[[Any], type[Exception]]
    """From the framework, the exception that an error while a batch is made arrives as."""

    length: Callable[[Any], int]
    """From a feed, the number of its batches."""

    def feed(
        self,
        data: pf.GroupedDataset,
        batch_size: int,
        *,
        layout: str = "channels_last",
        **options: Any,
    ) -> Any:
        return getattr(data, self.method)(batch_size, layout=layout, **options)

    def error(self) -> type[Exception]:
        return self.errors(pytest.importorskip(self.name))


FRAMEWORKS = [
    Framework(
        "tensorflow",
        "to_tensorflow",
        errors=lambda tensorflow: tensorflow.errors.OpError,
        length=lambda feed: int(feed.cardinality()),
    ),
    Framework("torch", "to_torch", errors=lambda _: OSError, length=len),
]


@pytest.fixture(params=FRAMEWORKS, ids=lambda framework: framework.name)
def framework(request: pytest.FixtureRequest) -> Framework:
    found: Framework = request.param
    pytest.importorskip(found.name)
    return found


@pytest.fixture(scope="session")
def arrays() -> Callable[[Any], dict[str, NDArray[Any]]]:
    """A function that returns a batch of any framework as arrays."""
    return lambda batch: {name: np.asarray(tensor) for name, tensor in batch.items()}


@pytest.fixture(scope="session")
def threads() -> Callable[[], list[threading.Thread]]:
    """A function that returns the threads that make batches now."""
    return lambda: [t for t in threading.enumerate() if t.name == "ptycho_fast-batches"]


@pytest.fixture(scope="session")
def assert_no_thread_is_left(
    threads: Callable[[], list[threading.Thread]],
) -> Callable[[], None]:
    """A function that waits until no thread makes batches any more."""

    def wait() -> None:
        gc.collect()
        waited_until = time.monotonic() + 10
        while threads():
            assert time.monotonic() < waited_until, "a thread still makes batches"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def make_data() -> Callable[..., pf.GroupedDataset]:
    """A function that returns groups of a scan whose planned positions are not the true ones."""

    def make(n_groups: int = 50, seed: int = 0, *, normalize: bool = False) -> pf.GroupedDataset:
        scan = pf.simulate_scan(n_positions=130, N=16, seed=seed)
        groups = pf.group_positions(scan.positions, n_groups, gridsize=2, seed=seed)
        return pf.GroupedDataset(scan, groups, normalize=normalize)

    return make


@pytest.fixture(scope="session")
def data(make_data: Callable[..., pf.GroupedDataset]) -> pf.GroupedDataset:
    return make_data()
