"""Products that ptychodus wrote, with the patterns that it simulated from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, ENERGY, OBJECT_PIXEL, PIXEL, Truth, misfit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytest.importorskip("h5py")


def moved(scan: pf.Scan) -> NDArray[np.float64]:
    """Return positions that are half a pixel off in x."""
    return np.asarray(scan.positions + np.array([0.5, 0]))


def test_a_product_explains_the_patterns_of_its_program(
    written: Callable[[str], Path], of: Truth
) -> None:
    folder = written("ptychodus")
    scan = pf.read_scan(folder / "product.h5", diffraction=f"{folder}/diffraction.h5:/patterns")
    assert scan.probe is not None
    assert scan.object is not None
    # With the object and the probe of the product, at its positions, not shifted.
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert pf.reconstruct(replace(scan, probe=of.scan.probe)).deviance < 1.05
    np.testing.assert_allclose(scan.positions - np.rint(scan.positions), 0, atol=1e-6)
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[3, 4], [20, 11]]


@pytest.mark.parametrize("product", ["product.h5", "product.npz"])
@pytest.mark.parametrize("patterns", ["diffraction.h5:/patterns", "diffraction.npz:patterns"])
def test_products_and_patterns_are_joined_by_their_indices(
    written: Callable[[str], Path], of: Truth, product: str, patterns: str
) -> None:
    folder = written("ptychodus")
    scan = pf.read_scan(folder / product, diffraction=f"{folder}/{patterns}")
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    for wrong in (moved(scan), scan.positions[:, ::-1], scan.positions[::-1]):
        assert misfit(replace(scan, positions=wrong), of) > 2
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[3, 4], [20, 11]]


def test_training_data_are_read(written: Callable[[str], Path], of: Truth) -> None:
    scan = pf.read_scan(written("ptychodus") / "training.h5")
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert misfit(replace(scan, positions=moved(scan)), of) > 2
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[3, 4], [20, 11]]


def test_the_export_for_ptychopinn_holds_counts(written: Callable[[str], Path], of: Truth) -> None:
    path = written("ptychodus") / "ptychopinn.npz"
    scan = pf.read_scan(path, counts=True, mask="bad_pixels")
    # Its positions are half a pixel from where they lie on its object.
    assert misfit(replace(scan, positions=scan.positions + 0.5), of) == pytest.approx(1, abs=0.1)
    assert misfit(scan, of) > 2
    assert misfit(replace(scan, object=None), of) == pytest.approx(1, abs=0.1)


def test_cxi_of_ptychodus_is_read(written: Callable[[str], Path], of: Truth) -> None:
    folder = written("ptychodus")
    with pytest.raises(
        KeyError, match="holds no patterns.*diffraction='FILE:/entry_1/data_1/data'"
    ):
        pf.read_scan(folder / "product.cxi")
    scan = pf.read_scan(
        folder / "product.cxi", diffraction=f"{folder}/diffraction.cxi:/entry_1/data_1/data"
    )
    order = np.random.default_rng(4).permutation(len(of.x))
    assert scan.probe is not None
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert scan.object is not None
    assert misfit(replace(scan, positions=moved(scan)), of) > 2
    for turned in (scan.positions[:, ::-1], -scan.positions, scan.positions * (1, -1)):
        assert misfit(replace(scan, positions=turned, object=None), of) > 2
    step = np.diff(of.scan.positions[order], axis=0)
    np.testing.assert_allclose(np.diff(scan.positions, axis=0), step, atol=1e-6)
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[3, 4], [20, 11]]


@pytest.mark.parametrize("name", ["product", "cxi"])
def test_ptychodus_reads_what_is_written_for_it(
    read_by: Callable[[str], Path], of: Truth, name: str
) -> None:
    theirs = np.load(read_by("ptychodus") / f"{name}.npz")
    # Its own simulation explains the patterns, with the probe and the object as it read them.
    assert theirs["misfit"] == pytest.approx(1, abs=0.1)
    good = ~theirs["bad"]
    assert np.argwhere(~good).tolist() == [[3, 4], [20, 11]]
    np.testing.assert_array_equal(theirs["patterns"], of.counts * good)
    numbers = np.arange(len(of.x)) if name == "cxi" else 7 + 2 * np.arange(len(of.x))
    np.testing.assert_array_equal(theirs["indexes"], numbers)
    np.testing.assert_array_equal(theirs["position_indexes"], numbers)
    np.testing.assert_array_equal(theirs["probe"], of.scan.probe[np.newaxis, np.newaxis])  # type: ignore[index]
    np.testing.assert_array_equal(np.squeeze(theirs["object"]), of.scan.object)
    np.testing.assert_allclose(theirs["pixel"], OBJECT_PIXEL, rtol=1e-12)
    step = np.diff(np.stack([theirs["x"], theirs["y"]], axis=1), axis=0) / OBJECT_PIXEL
    np.testing.assert_allclose(step, np.diff(of.scan.positions, axis=0), atol=1e-9)
    for key, value in (("energy", ENERGY), ("distance", DISTANCE), ("detector", PIXEL)):
        np.testing.assert_allclose(theirs[key], value, rtol=1e-6)
    metadata = np.load(read_by("ptychodus") / "cxi_metadata.npz")
    for key, value in (("energy", ENERGY), ("distance", DISTANCE), ("pixel", PIXEL)):
        np.testing.assert_allclose(metadata[key], value, rtol=1e-6)
