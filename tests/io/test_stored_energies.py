"""Energies that were stored are used only where they are those of the patterns beside them."""

from __future__ import annotations

import dataclasses
import logging
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.io import cache, convert
from ptycho_fast.patterns import pattern_energies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

N, n = 16, 50
SAID = "pattern_energies are not used"


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    mask = np.ones((N, N), bool)
    mask[3, 4:7] = False
    scan = dataclasses.replace(pf.simulate_scan(n_positions=n, N=N, seed=0), mask=mask)
    pf.write_scan(scan, tmp_path / "scan.npz")
    convert(tmp_path / "scan.npz", tmp_path / "converted.npz")
    return tmp_path / "converted.npz"


def mean_energy(scan: pf.Scan) -> float:
    """Mean over all channels of all groups, of the pixels that count; (N/2)**2 if that is right."""
    groups = pf.group_positions(scan.positions, 30, gridsize=2, seed=0)
    data = pf.GroupedDataset(scan, groups, normalize=True)
    (batch,) = data.batches(30)
    return float((batch["diffraction"].astype(float) ** 2).sum() / (30 * 4))


def changed(path: Path, change: Callable[[Arrays], None], save: Callable[..., None]) -> Path:
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    save(path.with_name("changed.npz"), **arrays)
    return path.with_name("changed.npz")


def brighter(arrays: Arrays) -> None:
    arrays["diff3d"] = 3 * arrays["diff3d"]


def one_pixel(arrays: Arrays) -> None:
    arrays["diff3d"][7, 8, 8] *= 400


def fewer(arrays: Arrays) -> None:
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d"):
        arrays[key] = arrays[key][::-1]


def another_mask(arrays: Arrays) -> None:
    arrays["detector_mask"][N // 2 - 3 : N // 2 + 3] = False


def no_mask(arrays: Arrays) -> None:
    del arrays["detector_mask"]


def another_key(arrays: Arrays) -> None:
    arrays["diffraction"] = 2 * arrays.pop("diff3d")


def others(arrays: Arrays) -> None:
    arrays["pattern_energies"] = 2 * arrays["pattern_energies"]


def of_unknown_patterns(arrays: Arrays) -> None:
    del arrays["pattern_energies_of"]
    arrays["pattern_energies"] = arrays["pattern_energies"][:3]


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "change",
    [brighter, one_pixel, fewer, another_mask, no_mask, another_key, others, of_unknown_patterns],
)
def test_energies_are_computed_again_after_any_change(
    converted: Path,
    change: Callable[[Arrays], None],
    save: Callable[..., None],
    load: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = changed(converted, change, save)
    with caplog.at_level(logging.INFO, logger="ptycho_fast"):
        scan = pf.read_scan(path, load=load)
    assert scan.energies is None
    assert f"{path}: {SAID}" in caplog.text
    assert mean_energy(scan) == pytest.approx((N / 2) ** 2, rel=1e-5)


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_energies_saved_again_unchanged_are_used(
    converted: Path, save: Callable[..., None], load: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def note(arrays: Arrays) -> None:
        arrays["note"] = np.array("nothing that energies depend on")

    path = changed(converted, note, save)
    with caplog.at_level(logging.INFO, logger="ptycho_fast"):
        scan, first = pf.read_scan(path, load=load), pf.read_scan(converted)
        assert mean_energy(scan) == pytest.approx((N / 2) ** 2, rel=1e-5)
    assert first.energies is not None
    np.testing.assert_array_equal(scan.energies, first.energies)
    expected = pattern_energies(first.diffraction, mask=first.mask)
    np.testing.assert_allclose(first.energies, expected, rtol=1e-12)
    assert SAID not in caplog.text
    assert "one pass" not in caplog.text


def test_a_scan_with_other_patterns_does_not_keep_its_energies(
    converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = pf.read_scan(converted)
    assert scan.energies is not None
    mask = np.ones((N, N), bool)
    mask[N // 2 - 3 : N // 2 + 3] = False
    for other in (
        dataclasses.replace(scan, diffraction=3 * scan.diffraction),
        dataclasses.replace(scan, mask=mask),
        dataclasses.replace(scan, energies=2 * scan.energies),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ptycho_fast"):
            assert mean_energy(other) == pytest.approx((N / 2) ** 2, rel=1e-5)
        assert (
            "energies stored with the scan are not those of its patterns (pattern 0" in caplog.text
        )
        # Nor are they written, and then believed.
        pf.write_scan(other, tmp_path / "other.npz")
        again = pf.read_scan(tmp_path / "other.npz")
        assert again.energies is None
        assert mean_energy(again) == pytest.approx((N / 2) ** 2, rel=1e-5)


def test_energies_travel_with_some_of_the_patterns(converted: Path) -> None:
    scan = pf.read_scan(converted).subsample(n - 1, seed=0)
    assert scan.energies is not None
    np.testing.assert_allclose(
        scan.energies, pattern_energies(scan.diffraction, mask=scan.mask), rtol=1e-12
    )


def test_a_file_of_the_same_time_and_size_is_unpacked_anew(tmp_path: Path) -> None:
    """Two compressed scans, one put in the other's place with its time: `cp -p`, an archive."""
    patterns = np.random.default_rng(0).permutation(np.arange(n * N * N, dtype=np.float32))
    stacks = [patterns.reshape(n, N, N), patterns.reshape(n, N, N)[::-1]]
    path, contents = tmp_path / "scan.npz", []
    for stack in stacks:
        np.savez_compressed(path, xcoords=np.arange(n), ycoords=np.zeros(n), diff3d=stack)
        contents.append(path.read_bytes())
    size = max(map(len, contents))
    for stack, content in zip(stacks, contents, strict=True):
        path.write_bytes(padded(content, size))
        os.utime(path, ns=(10**18, 10**18))
        found = pf.read_scan(path, load=False).diffraction
        np.testing.assert_array_equal(found[[3, 7]], stack[[3, 7]])
    assert len(cache.cached_files()) >= 2


def padded(content: bytes, size: int) -> bytes:
    """Make a ZIP file longer, by the comment that it may end with."""
    extra = size - len(content)
    assert content[-2:] == b"\0\0"
    return content[:-2] + extra.to_bytes(2, "little") + b" " * extra


def test_the_checksum_is_that_in_the_directory_of_the_file(converted: Path) -> None:
    """Nothing is read for it: the directory of the file has it."""
    with zipfile.ZipFile(converted) as archive, np.load(converted) as file:
        entry = archive.getinfo("diff3d.npy")
        assert file["pattern_energies_of"][0].tolist() == [entry.CRC, entry.file_size]
