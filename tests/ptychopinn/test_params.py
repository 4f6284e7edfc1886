"""Arguments that are left out are looked up in `ptycho.params`, if that is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ptycho_fast.ptychopinn import get_image_patches
from records import make_object, make_record, run_script, set_params, tolerance

if TYPE_CHECKING:
    from pathlib import Path


def test_gridsize_comes_from_a_loaded_params_module(monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(30)
    assert "ptycho.params" not in sys.modules
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 1)
    set_params(monkeypatch, gridsize=2)
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 4)
    assert record.generate_grouped_data(8, nsamples=3, gridsize=1)["nn_indices"].shape == (3, 1)
    set_params(monkeypatch)  # a cfg without the key
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 1)


def test_patches_take_n_and_gridsize_from_a_loaded_params_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offsets, relative = np.full((2, 1, 2, 1), 40.0), np.zeros((2, 1, 2, 4))
    with pytest.raises(ValueError, match="N is not known"):
        get_image_patches(make_object(), offsets, relative)
    set_params(monkeypatch, N=16, gridsize=2)
    assert get_image_patches(make_object(), offsets, relative).shape == (2, 16, 16, 4)
    assert get_image_patches(make_object(), offsets, relative, N=5).shape == (2, 5, 5, 4)
    set_params(monkeypatch, N=16, gridsize=3)
    with pytest.raises(ValueError, match="gridsize=3 means 9 channels, but local_offsets has 4"):
        get_image_patches(make_object(), offsets, relative)


def test_a_setting_chooses_patches_by_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    from ptycho_fast.patches import tensorflow  # noqa: PLC0415

    rng = np.random.default_rng(4)
    obj, offsets = make_object(), rng.uniform(0, 90, (3, 1, 2, 1))
    relative = rng.normal(0, 5, (3, 1, 2, 4))
    calls = []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(keywords["method"])
        return original(*arguments, **keywords)

    original = tensorflow.extract_patches
    monkeypatch.setattr(tensorflow, "extract_patches", counted)
    batched = get_image_patches(obj, offsets, relative, N=16, gridsize=2)
    set_params(monkeypatch, use_batched_patch_extraction=True)
    np.testing.assert_array_equal(get_image_patches(obj, offsets, relative, N=16), batched)
    assert calls == []
    set_params(monkeypatch, use_batched_patch_extraction=False)
    looped = get_image_patches(obj, offsets, relative, N=16, gridsize=2)
    assert calls == ["iterative"]
    assert type(looped) is np.ndarray
    assert looped.dtype == np.complex64
    np.testing.assert_allclose(looped, batched, rtol=0, atol=tolerance(obj))


def test_neither_tensorflow_nor_ptycho_is_imported(tmp_path: Path) -> None:
    package = tmp_path / "ptycho"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "params.py").write_text("cfg = {'gridsize': 2}")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import numpy as np
from ptycho_fast.ptychopinn import RawData
x, y = np.random.default_rng(0).uniform(0, 50, (2, 20))
record = RawData(x, y, x, y, np.ones((20, 8, 8), np.float32), None, None, np.ones((60, 60)))
record.generate_grouped_data(8, nsamples=25, gridsize=2, enable_oversampling=True)
assert record.generate_grouped_data(8, nsamples=5)["Y"].shape == (5, 8, 8, 1)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"tensorflow", "torch", "ptycho"}}))
"""
    assert run_script(script).strip() == "[]"
