"""The files of a model: what was saved comes back, and damage is named."""

from __future__ import annotations

import json
import math
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from hostile import MakesFolder, pickled  # noqa: E402
from ptycho_fast.models import PtychoModel  # noqa: E402
from small_models import FILES, N, infer, make_model, same_weights, train  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def test_a_loaded_model_equals_the_saved_one(model: PtychoModel, scan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "model"
    model.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    loaded = PtychoModel.load(folder)
    assert loaded.model_config == model.model_config
    assert loaded.n_parameters == model.n_parameters
    assert repr(loaded) == repr(model)
    assert same_weights(model, loaded)
    assert np.array_equal(np.asarray(loaded.probe), np.asarray(model.probe))
    one, other = infer(model, scan), infer(loaded, scan)
    assert np.array_equal(one.object, other.object)
    assert np.array_equal(one.coverage, other.coverage)
    assert one.metrics == other.metrics
    # The files are readable by other programs.
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "cnn"
    assert config["N"] == N
    assert config["options"] == {"width": 8}
    energy = np.mean(np.sum(scan.diffraction.astype(float) ** 2, axis=(1, 2)))
    assert config["mean_energy"] == pytest.approx(energy, rel=1e-5)
    probe = np.load(folder / "probe.npy", allow_pickle=False)
    assert probe.shape == (1, N, N)
    assert probe.dtype == np.complex64
    # It can be trained further.
    first = train(loaded, scan, 1)
    assert first[0]["loss"] < 400
    # Saving again replaces the files.
    loaded.save(folder)
    assert same_weights(PtychoModel.load(folder), loaded)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_all_options_and_a_learned_probe_survive_saving(scan: Any, tmp_path: Path) -> None:
    model = make_model(
        "hybrid", gridsize=2, seed=5, stages=1, modes=3, trainable_probe=True, loss="amplitude"
    )
    train(model, scan, 1, output=tmp_path / "run")
    loaded = PtychoModel.load(tmp_path / "run")
    assert loaded.model_config == model.model_config
    assert same_weights(model, loaded)
    assert np.array_equal(infer(model, scan).object, infer(loaded, scan).object)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_loading_a_model_executes_no_code(
    model: PtychoModel, tmp_path: Path, name: str, way: str
) -> None:
    model.save(tmp_path)
    bad = pickled(
        MakesFolder(tmp_path / "was here"),
        "numpy" if (way, name) == ("pickle", "probe.npy") else way,
    )
    if way == "pickle" and name != "probe.npy":
        pickle.loads(bad)  # it would
        (tmp_path / "was here").rmdir()
    (tmp_path / name).write_bytes(bad)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name)) + " is damaged"):
        PtychoModel.load(tmp_path)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", FILES)
def test_missing_and_truncated_model_files_are_named(
    model: PtychoModel, tmp_path: Path, name: str
) -> None:
    model.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    named = re.escape(str(tmp_path / name))
    for length in (0, 1, 7, 8, 9, 60, len(whole) // 2, len(whole) - 3):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{named} is damaged"):
            PtychoModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{named} is missing"):
        PtychoModel.load(tmp_path)
    with pytest.raises(ValueError, match="missing"):
        PtychoModel.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"format": None}, "has format None"),
        ({"N": None}, "."),
        ({"N": "16"}, "N='16'"),
        ({"N": N + 2}, "."),
        ({"gridsize": 2}, "."),
        ({"stages": 3}, "."),
        ({"architecture": "fno"}, "."),
        ({"architecture": "gone"}, "architecture must be one of .* got 'gone'"),
        ({"architecture": None}, "architecture"),
        ({"loss": "none"}, "loss must be"),
        ({"learning_rate": "fast"}, "."),
        ({"options": {"width": 16}}, "."),
        ({"options": {"depth": 16}}, "depth"),
        ({"options": None}, "."),
        ({"options": []}, "."),
        ({"mean_energy": None}, "."),
        ({"mean_energy": "much"}, "."),
        ({"mean_energy": -1.0}, "."),
        ({"mean_energy": 0.0}, "."),
        ({"mean_energy": math.nan}, "."),
        ({"surprise": 1}, "."),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_its_path(
    model: PtychoModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """The message names the file."""
    model.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as refused:
        PtychoModel.load(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "{}", "{", "\xff"])
def test_a_file_that_is_no_configuration_is_called_damaged(
    model: PtychoModel, tmp_path: Path, text: str
) -> None:
    model.save(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        PtychoModel.load(tmp_path)


@pytest.mark.parametrize(
    "probe",
    [
        np.ones((N, N), np.complex64),
        np.ones((1, N, N), np.complex128),
        np.ones((1, N + 2, N + 2), np.complex64),
        np.ones((0, N, N), np.complex64),
        np.full((1, N, N), np.nan, np.complex64),
        np.zeros((1, N, N), np.complex64),
    ],
    ids=["no modes", "complex128", "another N", "no mode", "nan", "dark"],
)
def test_a_probe_that_does_not_fit_is_called_damaged(
    model: PtychoModel, tmp_path: Path, probe: NDArray[Any]
) -> None:
    model.save(tmp_path)
    np.save(tmp_path / "probe.npy", probe)
    with pytest.raises(ValueError, match=r"probe\.npy is damaged"):
        PtychoModel.load(tmp_path)
