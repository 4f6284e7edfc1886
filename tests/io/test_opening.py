"""A file is opened once, whatever is read of it; names lead to arrays, parts and other files."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.io import list_arrays
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")

n, N = 12, 8
X = np.arange(float(n))
COUNTS = np.random.default_rng(0).poisson(50, (n, N, N)).astype("u4")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is opened, by Python or by h5py."""
    counter: Counter[str] = Counter()
    file_init = h5py.File.__init__

    def counting(path: Any) -> Any:
        counter[os.path.basename(path)] += 1
        return open_regular(path)

    def counting_init(self: Any, name: Any, *args: Any, **options: Any) -> None:
        if isinstance(name, str | os.PathLike):
            counter[os.path.basename(name)] += 1
        file_init(self, name, *args, **options)

    for module in ("opening", "npz.archive", "npz.stack"):
        monkeypatch.setattr(f"ptycho_fast.io.{module}.open_regular", counting)
    monkeypatch.setattr(h5py.File, "__init__", counting_init)
    return counter


@pytest.mark.parametrize("load", [True, False])
def test_a_product_and_its_patterns_are_opened_once_for_all_arrays(
    opened: Counter[str], load: bool
) -> None:
    with h5py.File("patterns.h5", "w") as file:
        file.create_dataset("patterns", data=COUNTS, chunks=(4, N, N))
        file["indexes"], file["bad_pixels"] = np.arange(n), np.zeros((N, N), bool)
    with h5py.File("product.h5", "w") as file:
        item = file.create_dataset("object", data=np.ones((1, 60, 60), complex))
        item.attrs.update(pixel_width_m=1.0, pixel_height_m=1.0, center_x_m=0.0, center_y_m=0.0)
        file["probe"] = np.ones((1, 1, N, N), complex)
        file["probe_position_indexes"] = np.arange(n)
        file["probe_position_x_m"] = file["probe_position_y_m"] = X
    opened.clear()
    scan = pf.read_scan("product.h5", diffraction="patterns.h5:/patterns", load=load)
    assert len(scan) == n
    # The first bytes are looked at, then HDF5 opens the file; the patterns keep a handle.
    assert opened == {"product.h5": 2, "patterns.h5": 3}


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("counts", [None, True])
def test_an_npz_file_is_opened_once_for_all_arrays(
    opened: Counter[str], counts: bool | None, load: bool
) -> None:
    many: dict[str, Any] = {f"m{number}": np.float64(number) for number in range(300)}
    np.savez("scan.npz", xcoords=X, ycoords=X, diff3d=COUNTS, _metadata='{"a": 1}', **many)
    scan = pf.read_scan("scan.npz", counts=counts, load=load)
    assert scan.metadata["m299"] == 299
    assert scan.metadata["_metadata"] == {"a": 1}
    # The patterns are read after the container is closed.
    assert opened["scan.npz"] <= 2


def test_names_lead_to_arrays_parts_and_other_files() -> None:
    motors = np.stack([X, -X], axis=1)
    np.savez("a.npz", x=X)
    with h5py.File("b.h5", "w") as file:
        file["m:x"] = motors
    with open_container("a.npz") as container:
        np.testing.assert_array_equal(container.read_named("x"), X)
        np.testing.assert_array_equal(container.read_named("x[3]"), X[3])
        np.testing.assert_array_equal(container.read_named("b.h5:m:x"), motors)
        np.testing.assert_array_equal(container.read_named("b.h5:/m:x[:,1]"), -X)
        assert container.shape_of_named("b.h5:m:x") == (n, 2)
        other, key = container.locate("b.h5:m:x")
        assert key in other
        assert "x" not in other
        with pytest.raises(ValueError, match=r"Cannot select 'm:x\[1,2\]': 'm:x' has shape"):
            container.read_named("b.h5:m:x[1,2]")


def test_both_kinds_of_container_answer_alike(tmp_path: Path) -> None:
    np.savez("a.npz", x=X, e=np.float32(8.5))
    with h5py.File("a.h5", "w") as file:
        file["x"], file["e"] = X, np.float32(8.5)
        file["x"].attrs["units"] = "mm"
    for name in ("a.npz", "a.h5"):
        with open_container(tmp_path / name) as container:
            assert "x" in container
            assert "y" not in container
            assert container.info("x").shape == (n,)
            assert container.numbers(["e"]) == {"e": 8.5}
            np.testing.assert_array_equal(container.read("x"), X)
            with pytest.raises(KeyError, match=r"'y'.*x \(12,\)"):
                container.info("y")
            assert container.attribute("x", "units", "?") == ("mm" if name == "a.h5" else "?")
    assert list_arrays("a.h5")["/x"].unit == "mm"
    assert list_arrays("a.npz")["x"].dtype == np.float64
