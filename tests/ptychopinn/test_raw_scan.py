"""A scan file under its own names, and its groups, against NumPy and the record they stand for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from ptycho_fast.ptychopinn import RawData

pytest.importorskip("torch")  # the package of the networks, where these are public, needs it

from ptycho_fast.models import RawScan, group_raw_npz, load_raw_npz

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N, POSITIONS = 16, 60


def contents(**others: Any) -> dict[str, NDArray[Any]]:
    scan = pf.simulate_scan(n_positions=POSITIONS, N=N, seed=2)
    assert scan.probe is not None
    assert scan.object is not None
    return {
        "xcoords": scan.positions[:, 0],
        "ycoords": scan.positions[:, 1],
        "diffraction": scan.diffraction,
        "probeGuess": scan.probe,
        "objectGuess": scan.object,
        "scan_index": np.arange(POSITIONS) // 7,
        **others,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "scan.npz", **contents(note=np.array("gold")))  # type: ignore[arg-type]
    return tmp_path / "scan.npz"


def test_a_raw_scan_has_the_arrays_of_its_file(path: Path) -> None:
    raw = load_raw_npz(path)
    assert isinstance(raw, RawScan)
    with np.load(path) as held:
        for name in ("xcoords", "ycoords", "probeGuess", "objectGuess", "scan_index"):
            found = getattr(raw, name)
            assert np.array_equal(found, held[name])
            assert found.dtype == held[name].dtype
        assert np.array_equal(raw.diffraction[:], held["diffraction"])
        assert raw.diffraction.dtype == held["diffraction"].dtype
    assert raw.metadata["note"] == "gold"
    assert raw.xcoords.flags.c_contiguous
    assert raw.ycoords.flags.c_contiguous


def test_what_the_file_does_not_hold_is_none(tmp_path: Path) -> None:
    held = contents()
    for name in ("probeGuess", "objectGuess", "scan_index"):
        del held[name]
    np.savez(tmp_path / "bare.npz", **held)  # type: ignore[arg-type]
    raw = load_raw_npz(str(tmp_path / "bare.npz"))
    assert raw.probeGuess is raw.objectGuess is raw.scan_index is None
    data = group_raw_npz(raw, N=N, gridsize=2, neighbor_count=4, n_groups=5, seed=0)
    assert data["Y"] is None
    assert data["diffraction"].shape == (5, N, N, 4)


def test_files_that_are_no_scans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.npz"):
        load_raw_npz(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises((ValueError, OSError), match=r"text\.npz"):
        load_raw_npz(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("gridsize", "neighbor_count", "n_groups"),
    [(1, 1, 20), (1, 6, POSITIONS), (2, 4, 25), (2, 7, 9)],
)
def test_groups_are_those_of_the_record(
    path: Path, gridsize: int, neighbor_count: int, n_groups: int
) -> None:
    found = group_raw_npz(
        load_raw_npz(path),
        N=N,
        gridsize=gridsize,
        neighbor_count=neighbor_count,
        n_groups=n_groups,
        seed=11,
    )
    with np.load(path) as held:
        names = ("xcoords", "ycoords", "diffraction", "probeGuess", "scan_index", "objectGuess")
        x, y, stack, probe, labels, image = (held[name] for name in names)
    record = RawData(x, y, None, None, stack, probe, labels, image)
    expected = record.generate_grouped_data(
        N, K=neighbor_count, nsamples=n_groups, seed=11, gridsize=gridsize
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None
        else:
            assert np.array_equal(found[name], value), name
            assert found[name].dtype == value.dtype
    # And by the definition: the groups of the seed, and their patterns.
    C = gridsize**2
    positions = np.stack([x, y], axis=1)
    _, indices = reference.legacy_groups(positions, n_groups, C, neighbor_count, 11)
    assert np.array_equal(found["nn_indices"], indices)
    assert np.array_equal(found["diffraction"], stack[indices].transpose(0, 2, 3, 1))
    assert np.array_equal(found["coords_nn"], positions[indices].transpose(0, 2, 1)[:, None])


def test_too_few_neighbours_are_refused(path: Path) -> None:
    raw = load_raw_npz(path)
    with pytest.raises(ValueError, match=r"neighbor_count=3 must be at least gridsize² = 4"):
        group_raw_npz(raw, N=N, gridsize=2, neighbor_count=3, n_groups=5)
    for name, value in (("gridsize", 0), ("neighbor_count", 0), ("n_groups", 0), ("N", N + 2)):
        arguments: dict[str, Any] = {"N": N, "gridsize": 1, "neighbor_count": 1, "n_groups": 5}
        with pytest.raises(ValueError, match=f"(?i){name}|nsamples|{N}"):
            group_raw_npz(raw, **{**arguments, name: value})


@pytest.mark.parametrize("seed", [None, 3])
def test_numpys_stream_is_neither_read_nor_changed(path: Path, seed: int | None) -> None:
    raw = load_raw_npz(path)
    arguments: dict[str, Any] = {"N": N, "gridsize": 2, "neighbor_count": 6, "n_groups": 30}

    def run() -> NDArray[np.int32]:
        np.random.seed(5)  # noqa: NPY002
        before = np.random.get_state(legacy=False)  # noqa: NPY002
        found: NDArray[np.int32] = group_raw_npz(raw, seed=seed, **arguments)["nn_indices"]
        after = np.random.get_state(legacy=False)  # noqa: NPY002
        assert before["state"]["pos"] == after["state"]["pos"]
        assert np.array_equal(before["state"]["key"], after["state"]["key"])
        return found

    # Without a seed the same state of the stream gives other groups each time.
    assert np.array_equal(run(), run()) == (seed is not None)


def test_the_record_is_not_changed(path: Path) -> None:
    raw, untouched = load_raw_npz(path), load_raw_npz(path)
    group_raw_npz(raw, N=N, gridsize=2, neighbor_count=5, n_groups=30, seed=1)
    for name in ("xcoords", "ycoords", "probeGuess", "objectGuess", "scan_index"):
        assert np.array_equal(getattr(raw, name), getattr(untouched, name))
    assert np.array_equal(raw.diffraction[:], untouched.diffraction[:])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_more_groups_than_positions_become_one_around_each(path: Path, gridsize: int) -> None:
    """Every point is a centre once, in its order, as the record does it at gridsize 1."""
    raw = load_raw_npz(path)
    arguments: dict[str, Any] = {"N": N, "gridsize": gridsize, "neighbor_count": 5, "seed": 3}
    with pytest.warns(UserWarning, match=r"n_groups=61 exceeds the 60 positions") as warned:
        found = group_raw_npz(raw, n_groups=POSITIONS + 1, **arguments)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    positions = np.stack([raw.xcoords, raw.ycoords], axis=1)
    _, expected = reference.legacy_groups(positions, POSITIONS, gridsize**2, 5, 3)
    assert np.array_equal(found["nn_indices"], expected)
    all_of_them = group_raw_npz(raw, n_groups=POSITIONS, **arguments)
    assert np.array_equal(found["X_full"], all_of_them["X_full"])


NOTHING_READ = """
import sys, types
import numpy as np

class Loud(dict):
    def __getattribute__(self, name):
        raise AssertionError(f"the settings were asked for {name}")

params = types.ModuleType("ptycho.params")
params.cfg = Loud(gridsize=3, N=64, use_batched_patch_extraction=False)
sys.modules["ptycho"], sys.modules["ptycho.params"] = types.ModuleType("ptycho"), params
from ptycho_fast.models import group_raw_npz, load_raw_npz

raw = load_raw_npz(sys.argv[1])
data = group_raw_npz(raw, N=16, gridsize=2, neighbor_count=5, n_groups=99, seed=3)
np.save(sys.argv[2], data["Y"])
assert "tensorflow" not in sys.modules
"""


def test_no_settings_are_read_and_tensorflow_is_not_imported(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NOTHING_READ, str(path), str(tmp_path / "Y.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as held:
        x, y, image = (held[name] for name in ("xcoords", "ycoords", "objectGuess"))
    positions = np.stack([x, y], axis=1)
    _, indices = reference.legacy_groups(positions, POSITIONS, 4, 5, 3)
    grouped = positions[indices].transpose(0, 2, 1)
    mirrored = 2 * grouped.mean(axis=2, keepdims=True) - grouped
    expected = reference.extract_patches(image, mirrored, N)
    np.testing.assert_allclose(np.load(tmp_path / "Y.npy"), expected, atol=1e-4)
