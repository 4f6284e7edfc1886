"""Files that keep the pool of group-then-sample, and the command that removes them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from ptycho_fast import groups_cache
from ptycho_fast.cli import main
from ptycho_fast.grouping import Pool, pool_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KEY = (11, 12)


def positions_of(n: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 50, (n, 2))


def pool_of(positions: NDArray[np.float64], C: int, K: int) -> Pool:
    """Every C of the K nearest neighbours of every position, from the definition."""
    near = reference.nearest_neighbors(positions, np.arange(len(positions)), K)
    if near.shape[1] < C:
        near = np.column_stack([near, np.arange(len(positions))])
    first: dict[tuple[int, ...], int] = {}
    for center, row in enumerate(near.tolist()):
        for members in itertools.combinations(row, C):
            first.setdefault(tuple(sorted(members)), center)
    sets = sorted(first)
    centers = np.array([first[members] for members in sets], np.int32)
    return Pool(np.array(sets, np.int32), centers, np.empty(0, np.int32))


# --- a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scan", "name"),
    [
        ("scan.npz", "scan.g2k7.groups_cache.npz"),
        ("scan.cxi", "scan.cxi.g2k7.groups_cache.npz"),
        ("run.1", "run.1.g2k7.groups_cache.npz"),
    ],
)
def test_the_file_lies_beside_the_scan(tmp_path: Path, scan: str, name: str) -> None:
    assert groups_cache.cache_path(tmp_path / scan, 2, 7) == tmp_path / name


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(4, 20),
    gridsize=st.integers(1, 2),
    extra=st.integers(0, 3),
    compress=st.booleans(),
)
def test_a_pool_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, n: int, gridsize: int, extra: int, compress: bool
) -> None:
    positions, C = positions_of(n), gridsize**2
    K = C + extra
    pool = pool_of(positions, C, K)
    path = groups_cache.cache_path(tmp_path_factory.mktemp("cache") / "scan.npz", gridsize, K)
    groups_cache.write(path, pool, positions, gridsize, K, key=KEY, compress=compress)
    again = groups_cache.read(path, positions.copy(), gridsize, K, key=KEY)
    assert again is not None
    for found, expected in zip(again, pool, strict=True):
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)
    assert list(path.parent.iterdir()) == [path]
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {
            "all_groups", "centers", "without_group", "dataset_checksum", "gridsize",
            "overlap_factor",
        }  # fmt: skip
        assert (file["gridsize"], file["overlap_factor"]) == (gridsize, K)
        np.testing.assert_array_equal(file["all_groups"], pool.groups)


def written(folder: Path, K: int = 7, n: int = 20) -> tuple[Path, NDArray[np.float64]]:
    positions, path = positions_of(n), folder / "pool.npz"
    groups_cache.write(path, pool_of(positions, 4, min(K, 7)), positions, 2, K, key=KEY)
    return path, positions


def test_the_log_says_whether_a_file_was_created_or_reused(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pool.npz"
    assert groups_cache.read(path, positions_of(20), 2, 7, key=KEY) is None
    path, positions = written(tmp_path)
    pool = groups_cache.read(path, positions, 2, 7, key=KEY)
    assert pool is not None
    absent, created, reused = log.messages
    assert absent == f"groups cache: {path} does not exist yet"
    assert created.startswith(f"groups cache: {path} created: {len(pool.groups)} groups, 0.0 MB")
    assert reused == f"groups cache: {path} reused: {len(pool.groups)} groups"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"positions": positions_of(20, seed=2)}, "dataset_checksum is"),
        ({"positions": positions_of(20) + 1e-12}, "dataset_checksum is"),
        ({"gridsize": 3}, "gridsize is 2, not 3"),
        ({"n_neighbors": 6}, "overlap_factor is 7, not 6"),
        ({"filters": "max_distance=3"}, "dataset_checksum is"),
    ],
)
def test_a_file_made_for_another_draw_is_rejected(
    tmp_path: Path, log: pytest.LogCaptureFixture, other: dict[str, Any], why: str
) -> None:
    path, positions = written(tmp_path)
    same: dict[str, Any] = {"positions": positions, "gridsize": 2, "n_neighbors": 7}
    assert groups_cache.read(path, **same, key=KEY) is not None
    assert groups_cache.read(path, **same | other, key=KEY) is None
    assert f"{path} rejected: {why}" in log.messages[-1]


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("K", [7, 8, 9])
def test_the_seed_matters_where_sets_are_drawn(tmp_path: Path, n: int, K: int) -> None:
    path, positions = written(tmp_path, K, n)
    slots = min(K, n - 1)
    listed = math.comb(slots, 4) <= 50
    pool = groups_cache.read(path, positions, 2, K, key=(11, 13))
    assert (pool is not None) == listed


@pytest.mark.parametrize("length", [0, 100, -10])
def test_a_damaged_file_is_rejected(
    tmp_path: Path, log: pytest.LogCaptureFixture, length: int
) -> None:
    path, positions = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert groups_cache.read(path, positions, 2, 7, key=KEY) is None
    assert "rejected: " in log.messages[-1]
    assert "damaged" in log.messages[-1]


def test_a_folder_of_that_name_is_rejected(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    assert groups_cache.read(tmp_path, positions_of(20), 2, 7, key=KEY) is None
    assert log.messages == [
        f"groups cache: {tmp_path} rejected: {tmp_path} is a folder. Name a file in it."
    ]


def test_a_flipped_bit_is_rejected(tmp_path: Path) -> None:
    path, positions = written(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"all_groups") + 300] ^= 1
    path.write_bytes(whole)
    assert groups_cache.read(path, positions, 2, 7, key=KEY) is None


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("all_groups", np.full((3, 4), 20)),  # no such position
        ("all_groups", np.full((3, 4), 0.5)),
        ("all_groups", np.zeros((3, 5), int)),
        ("all_groups", np.zeros(4, int)),
        ("centers", np.array([0, 1])),
        ("centers", None),
        ("without_group", np.array([-1])),
        ("gridsize", np.array([2, 2])),
        ("dataset_checksum", None),
        ("all_groups", np.array([None])),  # would need unpickling
    ],
)
def test_files_that_others_wrote_are_rejected(
    tmp_path: Path, log: pytest.LogCaptureFixture, entry: str, value: Any
) -> None:
    path, positions = written(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays[entry] = value
    if value is None:
        del arrays[entry]
    np.savez(path, **arrays)
    assert groups_cache.read(path, positions, 2, 7, key=KEY) is None
    assert "rejected: " in log.messages[-1]


def test_a_file_that_can_not_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, positions = written(tmp_path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, K=6)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert groups_cache.read(path, positions, 2, 7, key=KEY) is not None


def test_a_large_file_warns_and_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool_file.LARGE == 100e6
    monkeypatch.setattr(pool_file, "LARGE", 1000)
    pool, positions = pool_of(positions_of(20), 4, 7), positions_of(20)
    with pytest.warns(UserWarning, match=rf"for {len(pool.groups)} groups\. compress=True"):
        groups_cache.write(tmp_path / "a.npz", pool, positions, 2, 7, key=KEY)
    groups_cache.write(tmp_path / "b.npz", pool, positions, 2, 7, key=KEY, compress=True)
    assert (tmp_path / "b.npz").stat().st_size < (tmp_path / "a.npz").stat().st_size


# --- a draw with one ---------------------------------------------------------------------------


def draw(positions: NDArray[np.float64], **arguments: Any) -> pf.Groups:
    return pf.group_positions(positions, strategy="group-then-sample", **arguments)


DRAWS: list[dict[str, Any]] = [
    {},
    {"n_neighbors": 12, "epoch": 1},
    {"group_size": 9, "n_groups": 20},
    {"gridsize": 1, "n_groups": 20},
    {"max_distance": 9.0},
    {"min_distance": 3.0, "bounds": ((0.0, 0.5), (0.25, 1.0))},
    {"scan_ids": np.array(["b"] * 77 + ["a"] * 3), "n_neighbors": 4},
]


@pytest.mark.filterwarnings("ignore:n_groups=")
@pytest.mark.parametrize("arguments", DRAWS, ids=[str(i) for i in range(len(DRAWS))])
@pytest.mark.parametrize("compress", [False, True])
def test_groups_are_the_same_with_a_file_and_without(
    tmp_path: Path, log: pytest.LogCaptureFixture, arguments: dict[str, Any], compress: bool
) -> None:
    positions, scan = positions_of(80), tmp_path / "scan.npz"
    plain = draw(positions, seed=5, **arguments)
    path = groups_cache.cache_path(scan, {1: 1, 4: 2, 9: 3}[plain.group_size], plain.n_neighbors)
    for did in ("created", "reused"):
        kept = draw(positions, seed=5, cache=scan, compress=compress, **arguments)
        np.testing.assert_array_equal(kept.indices, plain.indices)
        np.testing.assert_array_equal(kept.centers, plain.centers)
        assert kept.left_out == plain.left_out
        assert f"{path} {did}: " in log.messages[-1]
    assert list(tmp_path.iterdir()) == [path]


def test_one_file_serves_other_samples_of_a_listed_pool(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    positions, scan = positions_of(80), tmp_path / "scan.npz"
    draw(positions, seed=1, cache=scan)
    for other in ({"seed": 2}, {"seed": 1, "epoch": 3}, {"seed": 1, "n_groups": 7}):
        kept, plain = draw(positions, cache=str(scan), **other), draw(positions, **other)
        np.testing.assert_array_equal(kept.indices, plain.indices)
        assert "reused" in log.messages[-1]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2, "n_neighbors": 12},
        {"max_distance": 9.0},
        {"max_distance": 8.5},
        {"min_distance": 1.0},
        {"bounds": ((0.0, 0.5), (0.0, 1.0))},
        {"scan_ids": np.arange(80) // 40},
    ],
)
def test_a_pool_of_other_neighbors_is_made_anew(
    tmp_path: Path, log: pytest.LogCaptureFixture, other: dict[str, Any]
) -> None:
    positions, scan = positions_of(80), tmp_path / "scan.npz"
    draw(positions, seed=1, n_neighbors=other.get("n_neighbors", 7), cache=scan)
    kept = draw(positions, **{"seed": 1, **other}, cache=scan)
    rejected, created = log.messages[-2:]
    assert "rejected: dataset_checksum is" in rejected
    assert "created" in created
    plain = draw(positions, **{"seed": 1, **other})
    np.testing.assert_array_equal(kept.indices, plain.indices)
    draw(positions, **{"seed": 1, **other}, cache=scan)
    assert "reused" in log.messages[-1]


def test_groups_are_returned_where_the_disk_is_full(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    positions = positions_of(80)
    monkeypatch.setattr(np, "savez", full)
    kept = draw(positions, seed=1, cache=tmp_path / "scan.npz")
    np.testing.assert_array_equal(kept.indices, draw(positions, seed=1).indices)
    assert log.records[-1].levelname == "WARNING"
    assert "scan.g2k7.groups_cache.npz can't be written: " in log.messages[-1]
    assert "No space left on device" in log.messages[-1]
    assert not list(tmp_path.iterdir())


def test_a_draw_without_groups_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_distance=0.001 leaves out all 80 centres"):
        draw(positions_of(80), seed=1, max_distance=1e-3, cache=tmp_path / "scan.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cache": True, "strategy": "group-then-sample"}, r"Pass the scan's file: cache='scan"),
        ({"cache": "scan.npz"}, "cache= keeps the pool of strategy='group-then-sample'"),
        (
            {"compress": True, "strategy": "group-then-sample"},
            "compress=True compresses the file of cache=",
        ),
        ({"cache": "a.npz", "strategy": "group-then-sample", "group_size": 5}, "group_size=5"),
    ],
)
def test_arguments_that_do_not_go_with_a_file_are_refused(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        pf.group_positions(positions_of(80), seed=1, **arguments)


def test_the_command_keeps_the_pool_beside_the_scan(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    scan = tmp_path / "scan.npz"
    pf.write_scan(pf.simulate_scan(40, 8, seed=0), scan)
    argv = ["group", str(scan), "--strategy", "group-then-sample", "--seed", "3", "--cache"]
    assert main([*argv, "-o", str(tmp_path / "a.npz")]) == 0
    path = tmp_path / "scan.g2k7.groups_cache.npz"
    assert f"{path} created: " in log.text
    assert main([*argv, "-o", str(tmp_path / "b.npz")]) == 0
    assert f"{path} reused: " in log.text
    a, b = pf.Groups.load(tmp_path / "a.npz"), pf.Groups.load(tmp_path / "b.npz")
    np.testing.assert_array_equal(a.indices, b.indices)
    expected = draw(pf.read_scan(scan).positions, seed=3)
    np.testing.assert_array_equal(a.indices, expected.indices)


# --- clean-cache ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three such files, the largest below, and much that is none."""
    below = tmp_path / "scans" / "below"
    below.mkdir(parents=True)
    for path, size in {
        below.parent / "a.g1k4.groups_cache.npz": 10,
        below.parent / "a.g2k7.groups_cache.npz": 20,
        below / "b.g2k7.groups_cache.npz": 3 * 2**20,
        below.parent / "a.npz": 5,
        below / "groups_cache.npz.txt": 5,
    }.items():
        path.write_bytes(bytes(size))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.g2k7.groups_cache.npz").write_bytes(b"kept")
    (below / "link").symlink_to(elsewhere)
    return below.parent


def all_files(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.rglob("*") if path.is_file()}


def test_clean_cache_removes_pool_files_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean-cache", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"Removed 3 files, 3.0 MiB, from {folder}."
    assert all_files(folder) == {"a.npz", "groups_cache.npz.txt", "c.g2k7.groups_cache.npz"}
    assert main(["clean-cache", str(folder)]) == 0
    assert capsys.readouterr().out == f"Removed 0 files, 0.0 MiB, from {folder}.\n"


def test_a_dry_run_removes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = all_files(folder)
    assert main(["clean-cache", str(folder), "--dry-run"]) == 0
    *listed, total = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in listed] == [
        str(path) for path, _ in groups_cache.find(folder)
    ]
    assert "3.0 MiB" in listed[-1]
    assert total == f"Would remove 3 files, 3.0 MiB, from {folder}."
    assert all_files(folder) == before


def test_clean_cache_refuses_what_is_not_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean-cache", str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path / 'nowhere'} is not a folder. Name the folder" in capsys.readouterr().err
