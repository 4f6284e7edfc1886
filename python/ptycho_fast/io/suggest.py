"""A first guess at the options that read a file, which is tried and shown to be checked."""

from __future__ import annotations

import math
import os
import re
import shlex
import warnings
from typing import TYPE_CHECKING, Any

from ptycho_fast.io.formats import format_of, named, npz_scan
from ptycho_fast.io.layouts import is_complex
from ptycho_fast.io.listing import listed
from ptycho_fast.io.masks import good_pixels, names_a_mask
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.recipe import EV_METRE, NotGivenError, Recipe
from ptycho_fast.io.recipe import METRES as POSITION_UNITS
from ptycho_fast.io.scan_files import read_scan
from ptycho_fast.io.units import ELECTRONVOLTS, METRES, unit_of

if TYPE_CHECKING:
    from ptycho_fast.io.container import ArrayInfo, Container

LEAST_SIDE = 4
"""Detectors have at least so many pixels a side; positions have fewer coordinates."""

NO_FRAMES = re.compile(r"mask|dark|flat|background|bkg|white|sigma|error|std|variance|weight")
"""Stacks with such names are not the measured patterns."""

MOST_SCALARS = 12
"""If more numbers have fitting names, none of them is taken."""

FLAGS = ("reshape", "invert_mask")
"""Options without a value on the command line."""

PLAUSIBLE = {"energy_eV": (10, 1e7), "distance_m": (1e-3, 500), "detector_pixel_m": (1e-7, 5e-3)}
"""The range in which each number of the geometry must lie."""


def suggest(path: str | os.PathLike[str]) -> dict[str, str]:
    """Guess the options of `ptycho_fast.read_scan` from names, shapes, dtypes and units.

    Parameters
    ----------
    path : path
        A file.

    Returns
    -------
    dict of str to str
        Option -> value; ``"?"`` for an option that is needed, but of which the file says nothing.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open_container(path) as container:
        return _Guess(container).options


def proposal(path: str | os.PathLike[str], found: dict[str, ArrayInfo] | None = None) -> str:
    """Return a `ptycho-fast convert` command that was tried, and what should be known about it.

    Parameters
    ----------
    path : path
        A file.
    found : dict of str to ArrayInfo, optional
        What `ptycho_fast.io.list_arrays` returns for it.

    Returns
    -------
    str
        Some lines of text: the command, and a remark on each option that is uncertain.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open_container(path) as container:
        guess = _Guess(container, found)
    line, reasons = command_line(path, guess.options), list(guess.reasons)
    failed = _try(path, guess.options, reasons)
    if failed is not None:
        text = f"No command was found that reads this file. The most likely one,\n  {line}\n"
        reasons.insert(0, f"fails with: {failed}")
    else:
        text = f"This command may read it (fill in every ?, and check the rest):\n  {line}\n"
    return text + "".join(f"- {reason}\n" for reason in dict.fromkeys(reasons))


def _try(path: str | os.PathLike[str], guess: dict[str, str], reasons: list[str]) -> str | None:
    """Read the scan with the guessed options; add its warnings, and return its error, if any."""
    options = _arguments(guess)
    if "diffraction" not in options or ("x" in guess and not {"x", "y"} <= set(options)):
        return None
    # With these, the layouts can be tried although other options are unknown.
    options.setdefault("counts", True)
    if "unit" in guess and not {"unit", *(PLAUSIBLE if guess["unit"] != "px" else ())} <= set(
        options
    ):
        options["unit"] = "px"
    if guess.get("index") == "?":
        return None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read_scan(path, load=False, **options)
        except (OSError, KeyError, ValueError, ArithmeticError, MemoryError) as error:
            return str(error.args[0]) if isinstance(error, KeyError) else str(error)
    # That the file should be converted is what the command says.
    said = [str(warning.message) for warning in told]
    reasons += [text for text in said if "convert the file once" not in text]
    return None


def _arguments(guess: dict[str, str]) -> dict[str, Any]:
    """Return the guessed options that are known as arguments of `read_scan`."""
    known: dict[str, Any] = {}
    for key, value in guess.items():
        if value == "?":
            continue
        known[key] = value
        if key in PLAUSIBLE:
            known[key] = float(value)
        elif key == "crop":
            known[key] = int(value)
        elif key in FLAGS or key == "counts":
            known[key] = value == "True"
    return known


class _Guess:
    """Guessed options, and a remark on each that is uncertain."""

    def __init__(self, container: Container, found: dict[str, ArrayInfo] | None = None) -> None:
        self.container = container
        self.reasons: list[str] = []
        self.options: dict[str, str] = {}
        self.found: dict[str, ArrayInfo] = {}
        if (asked := _asked_for(container)) is not None:
            self.options = dict.fromkeys(asked, "?")
            beside = os.path.join(os.path.dirname(container.path), "diffraction.h5")
            if "diffraction" in asked and os.path.exists(beside):
                self.options["diffraction"] = f"{beside}:/patterns"
            # A stack has no name, and an NPZ scan calls its patterns by this one.
            patterns = "diffraction" if "diffraction" in container else ""
            if "counts" in asked and container.info(patterns).dtype.kind in "iu":
                self.options["counts"] = "True"
            return
        self.found = container.arrays() if found is None else found
        self.options = dict.fromkeys(("diffraction", "counts", "x", "y", "unit"), "?")
        stack = self._stack()
        if stack is not None:
            frames_last = self._positions(stack)
            self._detector(stack, frames_last=frames_last)
            if "index" in self.options:  # last of what must be filled in
                self.options["index"] = self.options.pop("index")
            self._unit()
        if self.options["unit"] != "px":
            self._geometry()

    def _stack(self) -> str | None:
        """Return the name of the patterns; None if they cannot be told."""
        stacks = {
            key: data
            for key, data in self.found.items()
            if data.dtype.kind in "fiu"
            and not NO_FRAMES.search(_last(key))
            and (detector := _detector_of(data.shape)) is not None
            and min(detector) >= LEAST_SIDE
        }
        if not stacks:
            self.reasons.append(
                f"No array of the file is a stack of frames (n, rows, columns). It has: "
                f"{listed(self.found)}."
            )
            return None
        key = max(stacks, key=lambda key: math.prod(stacks[key].shape))
        equal = {
            name: data
            for name, data in stacks.items()
            if _detector_of(data.shape) == _detector_of(stacks[key].shape)
        }
        if len(equal) > 1:
            self.reasons.append(
                f"diffraction: {len(equal)} stacks have frames of the same size: {listed(equal)}. "
                "If they are parts of one scan, join them and their positions (in HDF5 by virtual "
                "data sets); otherwise name the one you mean."
            )
            return None
        if others := {name: data for name, data in stacks.items() if name != key}:
            self.reasons.append(
                f"diffraction: {key} is the largest stack; there are also {listed(others)}."
            )
        self.options["diffraction"] = key
        return key

    def _detector(self, key: str, *, frames_last: bool) -> None:
        """Find what has the size of a frame: the mask and the probe."""
        data = self.found[key]
        detector = data.shape[:2] if frames_last else _detector_of(data.shape)
        assert detector is not None
        # Counts are whole numbers, and whole numbers are hardly ever amplitudes.
        if data.dtype.kind in "iu":
            self.options["counts"] = "True"
        else:
            self.reasons.append(
                f"counts: {key} has dtype {data.dtype}; it may hold counts or their square roots."
            )
        for name, other in self.found.items():
            frame = other.shape[-2:]
            if name == key or (frame != detector and other.shape[:2] != detector):
                continue
            if len(other.shape) == 2 and names_a_mask(name) and other.dtype.kind in "biuf":
                self.options.setdefault("mask", name)
            elif is_complex(other.dtype) and re.search("probe|illumination", name.lower()):
                self.options.setdefault("probe", name)
        if detector[0] != detector[1]:
            self.options["crop"] = str(min(detector))
        if "mask" in self.options:
            self._mask(self.options["mask"], (1, *detector))

    def _mask(self, key: str, shape: tuple[int, ...]) -> None:
        """Reverse the meaning of a mask that would leave little of the detector."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                good_pixels(key, self.container.read_named(key), shape)
            except ValueError as error:
                told.append(error)  # type: ignore[arg-type]
        if told:
            said = told[-1]
            self.reasons.append(str(getattr(said, "message", said)))
            self.options["invert_mask"] = "True"

    def _positions(self, stack: str) -> bool:
        """Find two arrays whose names differ by x and y, or one array that holds both.

        They must have one entry for each frame. Returns whether their number is that of the last
        axis of the stack, and not that of its first.
        """
        shape = tuple(side for side in self.found[stack].shape[:-2] if side != 1) or (1,)
        n = math.prod(shape)
        last = self.found[stack].shape
        turned = last[2] if len(last) == 3 and last[0] == last[1] else None
        for count, grid in ((n, shape), (turned, ())):
            if count is not None and (found := self._pairs(count)):
                self.options.update(found[0])
                if len(found) > 1:
                    others = "; ".join(f"{pair['x']}, {pair['y']}" for pair in found[1:4])
                    self.reasons.append(f"x and y: other candidates are {others}.")
                is_grid = self._is_grid(found[0]["x"])
                if is_grid != (len(grid) == 2):
                    self.options["reshape"] = "True"
                    which = "frames" if len(grid) == 2 else "positions"
                    self.reasons.append(
                        f"reshape: the {which} are a grid, which is taken row by row."
                    )
                return count != n
        if found := self._pairs(None):
            x = found[0]["x"]
            count = math.prod(self.found[_base(x)].shape)
            self.options.update(found[0], index="?")
            self.reasons.append(
                f"index: there are {n} frames, but {count} positions in {x}. Name the array that "
                "says which belong together; or, if frame i belongs to position i, pass "
                f"--first {min(n, count)} instead."
            )
        else:
            self.reasons.append(
                f"x and y: no pair of arrays has one position for each of {n} frames."
            )
        return False

    def _is_grid(self, key: str) -> bool:
        """Tell whether the positions of this name are a grid (ny, nx)."""
        shape = self.found[_base(key)].shape
        return key.count(":") == 2 or (key in self.found and len(shape) == 2 and 1 not in shape)

    def _pairs(self, n: int | None) -> list[dict[str, str]]:
        """Return pairs of arrays, or parts of one, with n entries; of any length if n is None."""
        real = {key: data for key, data in self.found.items() if data.dtype.kind in "fiu"}
        lines = {key: data.shape for key, data in real.items() if _is_line(data.shape, n)}
        pairs = []
        for key, shape in lines.items():
            for place, letter in enumerate(key):
                if letter in "xX":
                    other = key[:place] + ("y" if letter == "x" else "Y") + key[place + 1 :]
                    if lines.get(other) == shape:
                        pairs.append({"x": key, "y": other})
                        break
        if n is None:
            return pairs
        for key, data in real.items():
            if key == self.options["diffraction"]:
                continue
            picks = _columns(data.shape, n)
            if picks is None:
                continue
            rows_first = re.search(r"yx|row_?col|(?<![a-z])rc(?![a-z])", _last(key)) is not None
            first, second = reversed(picks) if rows_first else picks
            pairs.append({"x": f"{key}{first}", "y": f"{key}{second}"})
            if not rows_first:
                self.reasons.append(
                    f"x and y: it is a guess which part of {key} is x. If rows come first, as in "
                    "many programs, add --swap-xy."
                )
        return pairs

    def _unit(self) -> None:
        """Guess the unit of the positions."""
        said = {}
        for axis in ("x", "y"):
            key = _base(self.options[axis])
            if key in self.found:
                ending = re.split(r"[_\s]", _last(key))[-1]
                by_name = ending if unit_of([ending]) != "?" and ending != _last(key) else None
                said[axis] = unit_of([self.found[key].unit, by_name])
        units = set(said.values())
        unit = units.pop() if len(units) == 1 else None
        if unit in (*POSITION_UNITS, "px"):
            self.options["unit"] = str(unit)
        elif said:
            written = self.found[_base(self.options["x"])].unit
            self.reasons.append(
                f"unit: {self.options['x']} says {written!r}, which is not one of "
                f"{', '.join(POSITION_UNITS)} or px."
                if written
                else f"unit: the file does not say the unit of {self.options['x']}: "
                f"{', '.join(POSITION_UNITS)} or px."
            )

    def _geometry(self) -> None:
        """Find photon energy, distance and detector pixel among arrays of one number."""
        self.options.update(dict.fromkeys(PLAUSIBLE, "?"))
        words = {
            key: option
            for key, data in self.found.items()
            if math.prod(data.shape) == 1
            and data.dtype.kind in "fiu"
            and (option := _quantity(_last(key))) is not None
        }
        for option, (least, most) in PLAUSIBLE.items():
            keys = [key for key, meant in words.items() if meant == option]
            if len(keys) > MOST_SCALARS:
                self.reasons.append(f"{option}: {len(keys)} numbers have a fitting name.")
                continue
            known: dict[str, float] = {}
            refused = []
            for key, value in self.container.numbers(keys).items():
                number = self._in_si(option, key, value)
                if number is None or not least <= number <= most:
                    refused.append(f"{key}, {value:g} ({self.found[key].unit or 'no unit'})")
                else:
                    known[key] = number
            if refused:
                self.reasons.append(f"{option}: not a plausible value: {'; '.join(refused)}.")
            of_detector = {key: value for key, value in known.items() if "det" in key.lower()}
            chosen = of_detector if len(of_detector) == 1 else known
            numbers = list(chosen.values())
            if numbers and max(numbers) - min(numbers) <= 1e-6 * max(numbers):
                self.options[option] = f"{numbers[0]:.7g}"
            elif numbers:
                several = "; ".join(f"{key}, {value:g}" for key, value in chosen.items())
                self.reasons.append(f"{option}: there are several candidates: {several}.")

    def _in_si(self, option: str, key: str, value: float) -> float | None:
        """Return a number in electronvolts or metres; None if its unit is unknown."""
        ending = re.split(r"[_\s]", _last(key))[-1]
        by_name = ending if unit_of([ending]) != "?" and ending != _last(key) else None
        unit = unit_of([self.found[key].unit, by_name])
        if option == "energy_eV" and "wavelength" not in _last(key):
            return value * ELECTRONVOLTS[unit] if unit in ELECTRONVOLTS else None
        # Without a unit it is taken for metres; the caller checks whether that is plausible.
        metres = 1.0 if unit is None else METRES.get(unit)
        if metres is None or not value > 0:
            return None
        return EV_METRE / (value * metres) if option == "energy_eV" else value * metres


def _asked_for(container: Container) -> tuple[str, ...] | None:
    """Return the options that a file of a known format needs; None if it is of none."""
    form = format_of(container, Recipe())
    if form is named or form is npz_scan:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form.read(container, Recipe())
    except NotGivenError as error:
        return error.options
    except (OSError, KeyError, ValueError):
        return None
    return ()


def _last(key: str) -> str:
    return key.rpartition("/")[2].lower()


def _base(key: str) -> str:
    """Return the key of the array in a name like ``KEY[:,0]``."""
    return key.partition("[")[0]


def _detector_of(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return rows and columns of the frames of a stack; None if the shape is not a stack's."""
    if len(shape) == 4 and shape[3] == 1:
        return shape[1], shape[2]
    if len(shape) in (3, 4) and 0 not in shape:
        return shape[-2], shape[-1]
    return None


def _is_line(shape: tuple[int, ...], n: int | None) -> bool:
    """Tell whether an array may be one coordinate of n positions, as (n,) or on a grid."""
    if n is None:
        return len(shape) == 1 and shape[0] > 1
    return len(shape) in (1, 2) and math.prod(shape) == n


def _columns(shape: tuple[int, ...], n: int) -> tuple[str, str] | None:
    """Return the parts ``[...]`` of an array that are two coordinates of n positions."""
    if len(shape) < 2:
        return None
    grid = len(shape) == 3 and 1 not in shape and math.prod(shape[:2]) == n
    if grid and shape[2] in (2, 3):
        return "[:,:,0]", "[:,:,1]"
    long = [axis for axis, side in enumerate(shape) if side != 1]
    if len(long) != 2:
        return None
    for frames, pair in (long, reversed(long)):
        if shape[frames] == n and shape[pair] in (2, 3):
            picks = [
                [":" if axis == frames else str(number if axis == pair else 0)
                 for axis in range(len(shape))]
                for number in (0, 1)
            ]  # fmt: skip
            # KEY[0] is a row.
            texts = [",".join(pick) for pick in picks]
            texts = [text.removesuffix(",:") if len(shape) == 2 else text for text in texts]
            return f"[{texts[0]}]", f"[{texts[1]}]"
    return None


def _quantity(name: str) -> str | None:
    """Return the option that a number may be meant for, judging by its name."""
    if "wavelength" in name or "energy" in name:
        return "energy_eV"
    if "distance" in name:
        return "distance_m"
    if "pixel" in name and re.search("size|pitch|width|height|_m$|_um$", name):
        return None if re.search("obj|sample|recon", name) else "detector_pixel_m"
    return None


def command_line(path: str | os.PathLike[str], guess: dict[str, str]) -> str:
    """Return the `ptycho-fast convert` command with these options."""
    words = ["ptycho-fast", "convert", _quoted(os.fspath(path))]
    words.append(_quoted(os.path.splitext(os.path.basename(path))[0] + "_converted.npz"))
    for option, value in guess.items():
        if option == "counts":
            known = {"True": "--counts", "False": "--amplitude"}
            words.append(known.get(value, "(--counts or --amplitude)"))
        elif option in FLAGS:
            words.append(f"--{option.replace('_', '-')}")
        else:
            words += [f"--{option.replace('_', '-')}", _quoted(value)]
    return " ".join(words)


def _quoted(word: str) -> str:
    return word if word == "?" else shlex.quote(word)
