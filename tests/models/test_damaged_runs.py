"""Damaged files in the folder of a run are named, with their cause, and never executed."""

from __future__ import annotations

import io
import os
import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

from hostile import MakesFolder  # noqa: E402
from ptycho_fast.models import PtychoModel  # noqa: E402
from small_runs import EPOCHS, FILES, contents, make_model, put, resume, train  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_is_refused_at_once(
    run: Path, filed_scan: Any, name: str
) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(OSError, match=f"{re.escape(str(run / name))} is a pipe"):
        resume(run, filed_scan)
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(OSError, match=re.escape(str(run / name))):
        resume(run, filed_scan)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["pickle", "torch", "in a checkpoint", "numpy"])
def test_resuming_executes_no_code(
    run: Path, filed_scan: Any, tmp_path: Path, name: str, way: str
) -> None:
    hostile = MakesFolder(tmp_path / "touched")
    file = io.BytesIO()
    if way == "pickle":
        pickle.dump(hostile, file)
    elif way == "numpy":
        np.save(file, np.array([hostile], object))
    elif way == "torch":
        torch.save(hostile, file)
    else:
        held = torch.load(run / "last.ckpt", weights_only=True)
        torch.save({**held, "callbacks": {"Watch": hostile}}, file)
    # It is a file that would: PyTorch and NumPy run it where they are told that they may.
    file.seek(0)
    if way in ("torch", "in a checkpoint"):
        torch.load(file, weights_only=False)
    else:
        np.load(file, allow_pickle=True) if way == "numpy" else pickle.load(file)
    (tmp_path / "touched").rmdir()
    (run / name).write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=re.escape(str(run / name))):
        resume(run, filed_scan)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_and_flipped_bits_are_harmless_or_named(
    run: Path, filed_scan: Any, name: str
) -> None:
    """Whatever comes of it: the file works, or is named in one sentence."""
    whole = (run / name).read_bytes()
    rng = np.random.default_rng(len(name))
    spoiled = [whole[:length] for length in rng.integers(0, len(whole), 6)]
    # Half of them at the ends, where headers and directories are.
    places = rng.integers(0, len(whole), 12)
    places[:3], places[3:6] = places[:3] % 200, -1 - places[3:6] % 400
    for place in places:
        turned_over = bytearray(whole)
        turned_over[place] ^= 1 << int(rng.integers(8))
        spoiled.append(bytes(turned_over))
    kept = contents(run)
    for content in spoiled:
        (run / name).write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                resume(run, filed_scan, EPOCHS)
        except (KeyError, OSError, ValueError) as error:
            assert len(str(error)) < 1000  # noqa: PT017
            assert name in str(error) or "contains" in str(error), error  # noqa: PT017
        for other, its in kept.items():
            (run / other).write_bytes(its)


def test_a_file_in_place_of_a_folder_is_refused(
    file: Path, filed_scan: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"gold\.npz is a file. Name the folder of a trained"):
        PtychoModel.load(file)
    with pytest.raises(ValueError, match=r"gold\.npz is a file. Name a folder for the run"):
        train(make_model(), filed_scan, output=file)
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        PtychoModel.load(tmp_path)


def edit_history(change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "history.csv"
        with path.open(newline="") as file:
            text = file.read()
        path.write_bytes(change(text).encode())

    return damage


HISTORIES: list[tuple[str, Callable[[Path], None]]] = [
    ("begin", edit_history(lambda text: "")),
    ("begin", edit_history(lambda text: text.replace("loss", "cost"))),
    ("begin", edit_history(lambda text: text[:-3])),
    ("consecutive", edit_history(lambda text: text.splitlines(keepends=True)[0])),
    ("ends with epoch 0", edit_history(lambda text: "".join(text.splitlines(keepends=True)[:2]))),
    ("consecutive", edit_history(lambda text: text + text.splitlines(keepends=True)[1])),
    ("columns", edit_history(lambda text: text + "2,0.5\r\n")),
    ("columns", edit_history(lambda text: text + "2,0.5,,,0.1,1e-3,1,7,8\r\n")),
    ("could not convert", edit_history(lambda text: text + "2,much,,,0.1,1e-3,1\r\n")),
    ("could not convert", edit_history(lambda text: text + "2,,,,0.1,1e-3,1\r\n")),
    ("invalid literal", edit_history(lambda text: text + "2.5,1,,,0.1,1e-3,1\r\n")),
    ("field larger than field limit", edit_history(lambda text: text + "9" * 200_000 + "\r\n")),
    ("can't decode", put("history.csv", b"\xff\xfe\0\n")),
    ("bytes", put("history.csv", b"\n" * (2**24 + 1))),
]


@pytest.mark.parametrize(("message", "damage"), HISTORIES)
def test_a_damaged_history_is_refused_with_its_cause(
    run: Path, filed_scan: Any, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"history\.csv is damaged: .*{message}"):
        resume(run, filed_scan)
    assert contents(run) == before
