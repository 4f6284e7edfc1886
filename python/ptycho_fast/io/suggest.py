"""A first guess at which array of a file is what, for somebody to check."""

from __future__ import annotations

import math
import os
import re
import shlex
from typing import TYPE_CHECKING

from ptycho_fast.io import hdf5, named, ptychodus
from ptycho_fast.io.prepare import EV_METRE, METRES

if TYPE_CHECKING:
    from ptycho_fast.io.hdf5 import DataSet

ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3, "j": 1 / 1.602176634e-19}

UNITS = {"µm": "um", "μm": "um", "micron": "um", "pixel": "px", "pixels": "px"}
"""Other names of units."""


def suggest(path: str | os.PathLike[str]) -> dict[str, str]:
    """Guess the options of `ptycho_fast.read_scan` from names, shapes, dtypes and units.

    Parameters
    ----------
    path : path
        A file.

    Returns
    -------
    dict of str to str
        Option -> value; ``"?"`` where something is needed of which the file tells nothing.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    if hdf5.is_hdf5(path):
        with hdf5.open_file(path) as file:
            if ptychodus.recognises(file):  # which lacks nothing but its patterns
                beside = os.path.join(os.path.dirname(path), "diffraction.h5")
                return {"diffraction": f"{beside}:/patterns" if os.path.exists(beside) else "?"}
    found = named.members(path)
    guess = dict.fromkeys(("diffraction", "counts", "x", "y", "unit"), "?")
    stacks = {key: data for key, data in found.items() if len(data.shape) == 3 and _is_real(data)}
    if stacks:
        key = max(stacks, key=lambda key: math.prod(stacks[key].shape))
        guess["diffraction"] = key
        n, *detector = stacks[key].shape
        # Counts are whole; whole numbers are hardly ever amplitudes.
        guess["counts"] = "True" if stacks[key].dtype.kind in "iu" else "?"
        for option, words in (("mask", ("mask", "bad")), ("probe", ("probe", "illumination"))):
            for name, data in found.items():
                fits = list(data.shape[-2:]) == detector and name != key
                fits &= (data.dtype.kind == "c") == (option == "probe")
                fits &= len(data.shape) == 2 or (option == "probe" and len(data.shape) == 3)
                if fits and any(word in name.lower() for word in words):
                    guess.setdefault(option, name)
        if detector[0] != detector[1]:
            guess["crop"] = str(min(detector))
    else:
        n = None
    guess.update(_positions(found, n))
    if guess["x"] in found:
        unit = (found[guess["x"]].unit or "?").strip()
        unit = UNITS.get(unit, unit)
        guess["unit"] = unit if unit in (*METRES, "px") else "?"
    if guess["unit"] != "px":
        guess.update(_geometry(path, found))
    return guess


def _is_real(data: DataSet) -> bool:
    return data.dtype.kind in "fiu"


def _positions(found: dict[str, DataSet], n: int | None) -> dict[str, str]:
    """Find two arrays whose names differ by x and y, preferably with one value a frame."""
    lines = [key for key, data in found.items() if len(data.shape) == 1 and _is_real(data)]
    lines.sort(key=lambda key: found[key].shape != (n,))
    for key in lines:
        for place, letter in enumerate(key):
            if letter in "xX":
                other = key[:place] + ("y" if letter == "x" else "Y") + key[place + 1 :]
                if other in lines and found[other].shape == found[key].shape:
                    pair = {"x": key, "y": other}
                    return pair if found[key].shape == (n,) else {**pair, "index": "?"}
    for key, data in found.items():
        if len(data.shape) == 2 and _is_real(data) and n in data.shape:
            if data.shape[0] == n and data.shape[1] in (2, 3):
                return {"x": f"{key}[:,0]", "y": f"{key}[:,1]"}
            if data.shape[1] == n and data.shape[0] in (2, 3):
                return {"x": f"{key}[0]", "y": f"{key}[1]"}
    return {}


def _geometry(path: str | os.PathLike[str], found: dict[str, DataSet]) -> dict[str, str]:
    """Find photon energy, distance and detector pixel among the single numbers."""
    guess = dict.fromkeys(("energy_eV", "distance_m", "detector_pixel_m"), "?")
    for key, data in found.items():
        if math.prod(data.shape) != 1 or not _is_real(data):
            continue
        name = key.rpartition("/")[2].lower()
        value = float(named.array(path, key).reshape(-1)[0])
        length = value * METRES.get(UNITS.get(data.unit or "m", data.unit or "m"), 1.0)
        # What a name ends in may be its unit.
        unit = (data.unit or re.split(r"[_\s]", name)[-1]).lower()
        if "wavelength" in name and value > 0:
            metres = length * (1e-10 if unit in ("angstrom", "a", "å") else 1)
            guess["energy_eV"] = f"{EV_METRE / metres:.7g}"
        elif "energy" in name and unit in ELECTRONVOLTS:
            guess["energy_eV"] = f"{value * ELECTRONVOLTS[unit]:.7g}"
        elif "distance" in name:
            guess["distance_m"] = f"{length:.7g}"
        elif "pixel" in name and "size" in name:
            guess["detector_pixel_m"] = f"{length:.7g}"
    return guess


def command_line(path: str | os.PathLike[str], guess: dict[str, str]) -> str:
    """Return the `ptycho-fast convert` line of a guess."""
    words = ["ptycho-fast", "convert", _quoted(os.fspath(path))]
    words.append(_quoted(os.path.splitext(os.path.basename(path))[0] + "_converted.npz"))
    for option, value in guess.items():
        if option == "counts":
            words.append("--counts" if value == "True" else "(--counts or --amplitude)")
        else:
            words += [f"--{option.replace('_', '-')}", _quoted(value)]
    return " ".join(words)


def _quoted(word: str) -> str:
    return word if word == "?" else shlex.quote(word)
