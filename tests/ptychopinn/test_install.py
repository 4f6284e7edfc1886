"""`install` and `uninstall`, on a package that has PtychoPINN's signatures and no bodies."""

from __future__ import annotations

import importlib
import inspect
import logging
import pickle
import shutil
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference
from places import SHARED
from ptycho_fast import ptychopinn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

INTERFACE = SHARED / "ptychopinn_interface"
MODULES = ("ptycho.raw_data", "ptycho.loader", "ptycho.workflows.components")
METHODS = (
    "from_coords_without_pc", "from_file", "from_files", "to_file", "generate_grouped_data",
    "_generate_groups_efficiently",
)  # fmt: skip
FUNCTIONS = ("get_image_patches", "get_relative_coords", "get_neighbor_indices", "normalize_data")
N, n = 8, 30


@pytest.fixture(autouse=True)
def ptycho(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Put the package on the path, with texts replaced in a file of it if need be."""
    if not INTERFACE.exists():
        pytest.skip(f"{INTERFACE} is missing")

    def put(**changes: tuple[str, str]) -> Path:
        folder = tmp_path / "ptychopinn"
        # Not copytree: what is shared may not be writable, and copies take that over.
        for source in INTERFACE.rglob("*.py"):
            copied = folder / source.relative_to(INTERFACE)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copied)
        path = folder / "ptycho" / "raw_data.py"
        text = path.read_text()
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    before = set(sys.modules)
    yield put
    ptychopinn.uninstall()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("ptycho", "script"):
            del sys.modules[name]


@pytest.fixture
def installed(ptycho: Callable[..., Path]) -> Any:
    ptycho()
    ptychopinn.install()
    return importlib.import_module("ptycho.raw_data")


def positions() -> NDArray[np.float64]:
    return np.random.default_rng(1).uniform(20, 80, (n, 2))


def make_object() -> NDArray[np.complex64]:
    rng = np.random.default_rng(2)
    return (rng.normal(size=(100, 90)) + 1j * rng.normal(size=(100, 90))).astype(np.complex64)


def record_of(module: Any, obj: Any = None) -> Any:
    x, y = positions().T
    stack = np.random.default_rng(3).uniform(1, 100, (n, N, N)).astype(np.float32)
    return module.RawData.from_coords_without_pc(x, y, stack, None, None, obj)


def contents() -> dict[str, list[tuple[str, int]]]:
    """What every name in the package means, by identity and in order."""
    loaded = {name: vars(sys.modules[name]) for name in MODULES}
    loaded["RawData"] = dict(vars(sys.modules["ptycho.raw_data"].RawData))
    return {
        place: [(name, id(what)) for name, what in found.items()] for place, found in loaded.items()
    }


# --- what is replaced -------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_everything_is_replaced_and_restored_exactly(
    ptycho: Callable[..., Path], caplog: pytest.LogCaptureFixture, first: bool
) -> None:
    ptycho()
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    if first:
        for name in MODULES:
            importlib.import_module(name)
        before = contents()
    replaced = ptychopinn.install()
    raw_data, loader, components = (importlib.import_module(name) for name in MODULES)
    expected = {f"ptycho.raw_data.RawData.{name}" for name in METHODS}
    expected |= {f"ptycho.raw_data.{name}" for name in FUNCTIONS}
    if first:
        expected |= {"ptycho.loader.get_image_patches", "ptycho.loader.normalize_data"}
    assert set(replaced) == expected
    assert len(replaced) == len(expected)
    assert all(name in caplog.text for name in replaced)

    # Nothing that raises is left, wherever it was imported and whenever.
    gathered = np.ones((1, 4, 4, 1))
    np.testing.assert_array_equal(
        loader.normalize_data({"diffraction": gathered}, 4), 0.5 * gathered
    )
    assert loader.normalize_data is raw_data.normalize_data
    assert loader.get_image_patches is raw_data.get_image_patches
    x, y = positions().T
    assert raw_data.get_neighbor_indices(x, y, 4).shape == (n, 5)
    assert raw_data.get_relative_coords(np.zeros((2, 1, 2, 4)))[0].shape == (2, 1, 2, 1)
    assert components.create_ptycho_data_container(record_of(raw_data), N, 7, 5)["Y"] is None

    assert set(ptychopinn.uninstall()) >= expected
    if first:
        assert contents() == before
    calls: list[Callable[[], Any]] = [
        lambda: loader.normalize_data({"diffraction": gathered}, 4),
        lambda: raw_data.get_neighbor_indices(x, y),
        lambda: record_of(raw_data).generate_grouped_data(N),
        lambda: raw_data.RawData.from_file("scan.npz"),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()


def test_a_module_imported_between_is_restored_too_under_any_name(
    ptycho: Callable[..., Path],
) -> None:
    folder = ptycho()
    (folder / "script.py").write_text(
        "from ptycho.raw_data import get_neighbor_indices as near\n"
        "from ptycho_fast.ptychopinn import get_neighbor_indices as ours\n"
    )
    ptychopinn.install()
    script: Any = importlib.import_module("script")
    theirs = script.near
    assert script.near([0.0, 1.0], [0.0, 0.0], 1).tolist() == [[0, 1], [1, 0]]
    assert "script.near" in ptychopinn.uninstall()
    with pytest.raises(NotImplementedError):
        script.near([0.0, 1.0], [0.0, 0.0], 1)
    # What was imported from here stays.
    assert script.near is not theirs
    assert script.ours is ptychopinn.get_neighbor_indices
    assert "script.near" in ptychopinn.install()


def test_the_class_stays_theirs(ptycho: Callable[..., Path]) -> None:
    ptycho()
    raw_data: Any = importlib.import_module("ptycho.raw_data")
    components: Any = importlib.import_module("ptycho.workflows.components")
    theirs, record = raw_data.RawData, record_of(raw_data)
    ptychopinn.install()
    assert raw_data.RawData is components.RawData is theirs
    assert isinstance(record_of(raw_data), theirs)
    # A record that was made before works too.
    assert record.generate_grouped_data(N, K=7, nsamples=5)["nn_indices"].shape == (5, 1)


def test_files_are_read_as_their_class(installed: Any, tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    record_of(installed).to_file(path)
    again = installed.RawData.from_file(path)
    assert type(again) is installed.RawData
    np.testing.assert_array_equal(again.diff3d, record_of(installed).diff3d)
    assert [type(each) for each in installed.RawData.from_files(path, path)] == [type(again)] * 2


def test_the_calls_of_ptychodus_give_the_groups_of_the_global_stream(installed: Any) -> None:
    pytest.importorskip("tensorflow")
    cfg = importlib.import_module("ptycho.params").cfg
    obj = make_object()
    cfg["gridsize"] = 2
    np.random.seed(4)  # noqa: NPY002
    data = record_of(installed, obj).generate_grouped_data(N, K=7, nsamples=12)
    expected = reference.legacy_groups(positions(), 12, 4, 7, seed=4)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)
    assert data["X_full"].shape == data["Y"].shape == (12, N, N, 4)
    ours = record_of(ptychopinn, obj).generate_grouped_data(N, K=7, nsamples=12, seed=4)
    assert data.keys() == ours.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(data[key], array, err_msg=key)


def test_their_own_choice_of_groups_is_gathered(installed: Any) -> None:
    class Chosen(installed.RawData):  # type: ignore[misc, name-defined, unused-ignore]
        def _generate_groups_efficiently(self, *_: Any, **__: Any) -> Any:
            return np.array([[3], [1]])

    x, y = positions().T
    record = Chosen(x, y, x, y, None, None, None)
    assert record.generate_grouped_data(N)["nn_indices"].tolist() == [[3], [1]]


def test_signatures_and_pickles_are_those_of_their_functions(installed: Any) -> None:
    for name in FUNCTIONS:
        function = getattr(installed, name)
        ours = inspect.signature(getattr(ptychopinn, name)).parameters
        assert list(inspect.signature(function).parameters) == list(ours)
        assert pickle.loads(pickle.dumps(function)) is function
    record = pickle.loads(pickle.dumps(record_of(installed)))
    assert record.generate_grouped_data(N, seed=1)["nn_indices"].shape == (1, 1)


# --- Y ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [True, False])
def test_mirror_decides_where_y_is_read(
    ptycho: Callable[..., Path], caplog: pytest.LogCaptureFixture, mirror: bool
) -> None:
    pytest.importorskip("tensorflow")
    ptycho()
    ptychopinn.install(mirror=mirror)
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    obj = make_object()
    record = record_of(importlib.import_module("ptycho.raw_data"), obj)
    data = record.generate_grouped_data(N, K=7, nsamples=12, seed=0, gridsize=2)
    at = positions()[data["nn_indices"]].transpose(0, 2, 1)
    if mirror:
        at = (2 * at.mean(axis=2, keepdims=True) - at).astype(np.float32)
    steps = max(np.abs(np.diff(np.pad(obj, 1), axis=axis)).max() for axis in (0, 1))
    atol = 1e-6 * np.abs(obj).max() + 1e-4 * steps
    np.testing.assert_allclose(data["Y"], reference.extract_patches(obj, at, N), rtol=0, atol=atol)
    assert ("mirrored" in caplog.text) == mirror
    # The drop-in itself, used beside, is not concerned.
    ours = record_of(ptychopinn, obj).generate_grouped_data(N, K=7, nsamples=12, seed=0, gridsize=2)
    assert np.array_equal(ours["Y"], data["Y"]) == mirror


def test_y_is_a_tensor(installed: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    data = record_of(installed, make_object()).generate_grouped_data(
        N, K=7, nsamples=12, seed=0, gridsize=2
    )
    assert tf.is_tensor(data["Y"])
    ours = record_of(ptychopinn, make_object()).generate_grouped_data(
        N, K=7, nsamples=12, seed=0, gridsize=2
    )
    assert isinstance(ours["Y"], np.ndarray)
    np.testing.assert_array_equal(data["Y"].numpy(), ours["Y"])
    assert data["X_full"].dtype == np.float32
    assert isinstance(data["X_full"], np.ndarray)
    assert record_of(installed).generate_grouped_data(N)["Y"] is None


@pytest.mark.parametrize("shape", [(n, N, N), (n, N, N, 1)])
def test_a_files_own_y_is_not_read(
    ptycho: Callable[..., Path], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    pytest.importorskip("tensorflow")
    ptycho()
    path = tmp_path / "scan.npz"
    record = record_of(ptychopinn, make_object())
    record.Y = np.full(shape, 5 + 5j, np.complex64)
    record.to_file(path)
    ours = ptychopinn.RawData.from_file(path)
    assert np.all(ours.generate_grouped_data(N)["Y"] == 5 + 5j)
    ptychopinn.install()
    theirs = importlib.import_module("ptycho.raw_data").RawData.from_file(path)
    assert theirs.Y is None
    found = theirs.generate_grouped_data(N, nsamples=6, seed=0)["Y"].numpy()
    record.Y = None
    expected = record.generate_grouped_data(N, nsamples=6, seed=0)["Y"]
    np.testing.assert_array_equal(found, expected)
    # What a record was given it keeps.
    theirs.Y = np.full(shape, 5 + 5j, np.complex64)
    assert np.all(theirs.generate_grouped_data(N)["Y"].numpy() == 5 + 5j)


def test_their_metadata_is_written_and_npz_is_added(installed: Any, tmp_path: Path) -> None:
    record = record_of(installed)
    record.metadata = {"physics_parameters": {"nphotons": 1e9, "N": 8}, "version": None}
    record.to_file(tmp_path / "scan.dat")
    assert [path.name for path in tmp_path.glob("*.npz")] == ["scan.dat.npz"]
    again = installed.RawData.from_file(tmp_path / "scan.dat.npz")
    assert type(again) is installed.RawData
    assert again.metadata == record.metadata


def test_patches_are_a_tensor(ptycho: Callable[..., Path]) -> None:
    tf = pytest.importorskip("tensorflow")
    ptycho()
    loader = importlib.import_module("ptycho.loader")
    ptychopinn.install()
    obj, offsets = make_object(), np.full((3, 1, 2, 1), 40.5)
    relative = np.random.default_rng(4).normal(0, 5, (3, 1, 2, 4))
    patches = loader.patches_seen_by_the_loader(obj, offsets, relative, N=N, gridsize=2)
    assert tf.is_tensor(patches)
    assert patches.dtype == tf.complex64
    ours = ptychopinn.get_image_patches(obj, offsets, relative, N=N, gridsize=2)
    np.testing.assert_array_equal(patches.numpy(), ours)
    of_tensors = loader.patches_seen_by_the_loader(
        tf.constant(obj), tf.constant(offsets), tf.constant(relative), N=N, gridsize=2
    )
    np.testing.assert_array_equal(of_tensors.numpy(), ours)


# --- twice, never, and in vain ----------------------------------------------------------------


def test_installing_twice_is_installing_the_second_time(ptycho: Callable[..., Path]) -> None:
    pytest.importorskip("tensorflow")
    ptycho()
    for name in MODULES:
        importlib.import_module(name)
    before = contents()
    replaced = ptychopinn.install(mirror=False)
    assert ptychopinn.install() == replaced
    record = record_of(sys.modules["ptycho.raw_data"], make_object())
    data = record.generate_grouped_data(N, K=7, nsamples=12, seed=0, gridsize=2)
    ours = record_of(ptychopinn, make_object())
    expected = ours.generate_grouped_data(N, K=7, nsamples=12, seed=0, gridsize=2)
    np.testing.assert_array_equal(data["Y"], expected["Y"])
    assert len(ptychopinn.uninstall()) == len(replaced)
    assert contents() == before
    assert ptychopinn.uninstall() == ()
    assert contents() == before


@pytest.mark.parametrize("attribute", ["get_neighbor_indices", "RawData"])
def test_a_second_install_that_is_refused_leaves_the_first(
    installed: Any, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MODULES:
        importlib.import_module(name)
    record = record_of(installed)
    expected = record.generate_grouped_data(N, K=7, nsamples=5, seed=1)["nn_indices"]
    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(installed, attribute, lambda xcoords: None)
        changed = contents()
        with pytest.raises(ValueError, match=f"nothing was replaced: .*{attribute}"):
            ptychopinn.install()
        assert contents() == changed
    assert contents() == before
    again = record.generate_grouped_data(N, K=7, nsamples=5, seed=1)["nn_indices"]
    np.testing.assert_array_equal(again, expected)
    assert ptychopinn.install() == tuple(ptychopinn.install())
    assert len(ptychopinn.uninstall()) >= len(METHODS) + len(FUNCTIONS)
    with pytest.raises(NotImplementedError):
        record.generate_grouped_data(N)


@pytest.mark.parametrize("whole", [True, False])
def test_an_alias_is_nothing_to_install_into(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """The name was made to mean the drop-in: by the module, or by a module that took its class."""
    alias: Any = ptychopinn
    if not whole:
        alias = types.ModuleType("ptycho.raw_data")
        alias.RawData = ptychopinn.RawData
    monkeypatch.setitem(sys.modules, "ptycho.raw_data", alias)
    kept = dict(vars(ptychopinn.RawData))
    with pytest.raises(
        ValueError,
        match=r"sys\.modules\['ptycho\.raw_data'\] is .*nothing to install into.*Leave install\(\)",
    ):
        ptychopinn.install()
    assert dict(vars(ptychopinn.RawData)) == kept
    assert ptychopinn.uninstall() == ()


def test_uninstalling_without_installing_does_nothing() -> None:
    assert ptychopinn.uninstall() == ()


def test_what_others_replaced_since_stays_theirs(installed: Any) -> None:
    def mine(*_: Any) -> str:
        return "mine"

    installed.get_neighbor_indices = mine
    installed.RawData.to_file = mine
    ptychopinn.uninstall()
    assert installed.get_neighbor_indices is mine
    assert installed.RawData.to_file is mine


def test_a_module_loaded_again_is_installed_into_again(installed: Any) -> None:
    importlib.reload(installed)
    with pytest.raises(NotImplementedError):
        record_of(installed).generate_grouped_data(N)
    ptychopinn.install()
    assert record_of(installed).generate_grouped_data(N)["nn_indices"].shape == (1, 1)
    ptychopinn.uninstall()
    with pytest.raises(NotImplementedError):
        record_of(installed).generate_grouped_data(N)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "self, N, K=4, nsamples=1",
            "self, N, K=6, nsamples=1",
            r"RawData\.generate_grouped_data takes \(self, N, K=6, nsamples=1, .*, "
            r"ours takes \(self, N, K=4, nsamples=1, ",
        ),
        ("dset, N)", "dset, size)", r"normalize_data takes \(dset, size\), ours takes \(dset, N\)"),
        (
            "K=3)",
            "*, K=3)",
            r"get_neighbor_indices takes \(xcoords, ycoords, \*, K=3\), ours takes",
        ),
        ("def get_relative_coords", "def other", r"get_relative_coords\(coords_nn\) is not there"),
        ("def from_files(train", "def other(train", r"RawData\.from_files\(.*\) is not there"),
        ("norm_Y_I=None, ", "", r"RawData takes \(.*Y=None, metadata=None\), ours takes"),
        ("class RawData", "class Other", r"RawData\(.*\) is not there.*RawData\.from_file\("),
        (
            "def _generate_groups",
            "def _positions(self): pass\n    def _generate_groups",
            r"RawData\._positions is there already",
        ),
    ],
)
def test_another_version_is_refused_before_anything_is_replaced(
    ptycho: Callable[..., Path], old: str, new: str, told: str
) -> None:
    ptycho(change=(old, new))
    raw_data = importlib.import_module("ptycho.raw_data")
    before = dict(vars(raw_data))
    members = [dict(vars(what)) for what in before.values() if inspect.isclass(what)]
    with pytest.raises(ValueError, match=f"nothing was replaced.*{told}"):
        ptychopinn.install()
    assert dict(vars(raw_data)) == before
    assert [dict(vars(what)) for what in before.values() if inspect.isclass(what)] == members
    assert ptychopinn.uninstall() == ()


def test_all_that_differs_is_told_at_once(ptycho: Callable[..., Path]) -> None:
    ptycho(one=("dset, N)", "dset)"), two=("coords_nn)", "coords)"))
    with pytest.raises(
        ValueError, match=r"get_relative_coords takes \(coords\).*normalize_data takes"
    ):
        ptychopinn.install()


def test_a_missing_ptychopinn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "ptychopinn" not in place])
    with pytest.raises(ImportError, match=r"no module ptycho\.raw_data.*Install PtychoPINN"):
        ptychopinn.install()


def test_a_ptychopinn_that_lacks_something_says_what(ptycho: Callable[..., Path]) -> None:
    ptycho(all=("local_offset_sign", "import no_such_thing\nlocal_offset_sign"))
    with pytest.raises(ModuleNotFoundError, match="^No module named 'no_such_thing'$"):
        ptychopinn.install()
