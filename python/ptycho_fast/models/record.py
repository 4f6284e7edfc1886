"""The record of a run (``run.json``): which scans it was trained on, and with which options.

A run is only resumed with the same scans and options; everything else would be another run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast._core import __version__
from ptycho_fast.atomic import replacing
from ptycho_fast.checks import positions_checksum
from ptycho_fast.models.storage import read_text
from ptycho_fast.notices import warn
from ptycho_fast.patterns import brought_energies, measured_energies

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

RECORD = "run.json"
FORMAT = 1

LOOKED_AT = 8
"""Number of patterns that enter the checksum with all their pixels. The others enter with their
energies only, which would be the same if all patterns were turned or shifted."""

COMPARED = {
    "n_positions": "the number of positions",
    "N": "N",
    "positions_sha256": "the checksum of the positions",
    "patterns_sha256": "the checksum of the patterns",
    "probe_sha256": "the checksum of the probe",
    "mask_sha256": "the checksum of the mask",
}
"""The entries of a scan that must agree, and what messages call them."""

SEVERAL = "scans", "validation_scans"
"""The lists of scans in ``run.json``. If there is only one scan, its entries are not in a list."""


@dataclass(frozen=True)
class ScanRecord:
    """A scan that a run was trained on, or that it held out.

    Parameters
    ----------
    file : str, optional
        The file that the scan was read from. It is not compared, because files may be moved.
    n_positions : int
        Number of scan positions.
    N : int
        Pixels per side of a pattern.
    positions_sha256, patterns_sha256, probe_sha256, mask_sha256 : str, optional
        SHA-256 checksums. That of the patterns covers the energies of all of them and the pixels
        of some. None if the scan has no probe or no mask.
    """

    file: str | None
    n_positions: int
    N: int
    positions_sha256: str
    patterns_sha256: str
    probe_sha256: str | None
    mask_sha256: str | None

    @classmethod
    def of(cls, scan: Scan, file: str | os.PathLike[str] | None) -> ScanRecord:
        """Create the record of a scan.

        Parameters
        ----------
        scan : Scan
            All its patterns are read, unless their energies are known already.
        file : path-like, optional
            The file that it was read from.
        """
        return cls(
            file=None if file is None else os.path.abspath(file),
            n_positions=len(scan),
            N=scan.N,
            positions_sha256=positions_checksum(scan.positions),
            patterns_sha256=_patterns_checksum(scan),
            probe_sha256=None if scan.probe is None else probe_checksum(scan.probe),
            mask_sha256=None if scan.mask is None else _checksum(scan.mask, "?"),
        )


@dataclass(frozen=True)
class RunRecord:
    """The scans that a run was trained on, and the options of training.

    Parameters
    ----------
    scans, validation_scans : tuple of ScanRecord
        Those that it was trained on, and those that it only scored.
    options : dict
        Options of `ptycho_fast.models.PtychoModel.train`, with defaults filled in. Those of the
        model are in its ``config.json``.
    device : str
        "cpu" or "gpu". The two compute with different precision.
    """

    scans: tuple[ScanRecord, ...]
    validation_scans: tuple[ScanRecord, ...]
    options: dict[str, Any]
    device: str

    def write(self, folder: Path) -> None:
        """Write ``run.json``. It appears whole or not at all.

        Parameters
        ----------
        folder : Path
            Created if it does not exist.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content = dataclasses.asdict(self)
        if len(self.scans) == 1 and not self.validation_scans:
            content = {**content["scans"][0], **content}
            for name in SEVERAL:
                del content[name]
        text = {"format": FORMAT, "ptycho_fast": __version__, **content}
        with replacing(folder / RECORD) as file:
            file.write((json.dumps(text, indent=2) + "\n").encode())

    def check(self, folder: Path) -> None:
        """Raise an error if the run in a folder has other scans or options.

        Parameters
        ----------
        folder : Path
            The folder of the run.

        Raises
        ------
        ValueError
            If something differs (the message lists all differences), or the record is damaged.
        OSError
            If the record is not a regular file.

        Warns
        -----
        UserWarning
            If the folder has no record, or the run was trained on another kind of device.
        """
        try:
            before = _read(folder / RECORD)
        except FileNotFoundError:
            warn(
                f"{folder} has no {RECORD}, because an older version wrote it or the file was "
                "deleted. Whether scan and options are those of that run can't be checked."
            )
            return
        differences = [
            f"{name} was {was!r} and is {now!r} now" for name, was, now in self._differences(before)
        ]
        if differences:
            msg = (
                f"{folder} contains another run: {'; '.join(differences)}.{before.files()} Resume "
                "with the scan and the options of that run, or train in another folder."
            )
            raise ValueError(msg)
        if before.device != self.device:
            warn(
                f"{folder} was trained on the {before.device} and is resumed on the {self.device}. "
                "Their convolutions have different precision, so the losses will differ from those "
                "of an uninterrupted run."
            )

    def files(self) -> str:
        """Return a sentence with the files of the scans; empty if one is not known."""
        known = [scan.file for scan in self.scans]
        told = ", ".join(str(file) for file in known[:3])
        if None in known:
            return ""
        if len(known) == 1:
            return f" The scan of that run was {told}."
        more = f" and {len(known) - 3} more" if len(known) > 3 else ""
        return f" The scans of that run were {told}{more}."

    def _differences(self, before: RunRecord) -> list[tuple[str, Any, Any]]:
        """Return what differs: its name, its value before, its value now."""
        found: list[tuple[str, Any, Any]] = []
        for name, called in zip(SEVERAL, ("scan", "held-out scan"), strict=True):
            was, now = getattr(before, name), getattr(self, name)
            found.append((f"the number of {called}s", len(was), len(now)))
            for number, (one, other) in enumerate(zip(was, now, strict=False)):
                which = "" if len(self.scans) == 1 else f" of {called} {number}"
                found += [
                    (words + which, getattr(one, entry), getattr(other, entry))
                    for entry, words in COMPARED.items()
                ]
        # An older version did not record the options that it did not have.
        found += [
            (name, before.options[name], now)
            for name, now in self.options.items()
            if name in before.options
        ]
        return [(name, _short(was), _short(now)) for name, was, now in found if was != now]


def _short(value: Any) -> Any:
    """Shorten a checksum to its first digits."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _read(path: Path) -> RunRecord:
    try:
        held = json.loads(read_text(path))
        found = held.pop("format")
        del held["ptycho_fast"]
        if SEVERAL[0] not in held:
            alone = {name: held.pop(name) for name in ("file", *COMPARED)}
            held = {**dict(zip(SEVERAL, ([alone], []), strict=True)), **held}
        for name in SEVERAL:
            held[name] = tuple(ScanRecord(**scan) for scan in held[name])
        record = RunRecord(**held)
        scans = (*record.scans, *record.validation_scans)
        plain = [value for scan in scans for value in vars(scan).values()]
        plain.append(record.device)
        if not isinstance(record.options, dict) or any(isinstance(v, dict | list) for v in plain):
            raise ValueError("its entries are not those of a run")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        msg = (
            f"{path} is damaged: {error!r:.200}. Copy the folder again, or delete the file to "
            "resume without checking scan and options."
        )
        raise ValueError(msg) from None
    if found != FORMAT:
        msg = f"{path} has format {found!r:.50}, this version reads {FORMAT}. Update ptycho_fast."
        raise ValueError(msg)
    return record


def probe_checksum(probe: NDArray[Any]) -> str:
    """Return the SHA-256 of a probe, as complex64.

    Parameters
    ----------
    probe : ndarray, (N, N) or (modes, N, N), complex
    """
    return _checksum(probe, "<c8")


def _checksum(array: NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype).data).hexdigest()


def _patterns_checksum(scan: Scan) -> str:
    """Return the SHA-256 of the energies of all patterns and of the pixels of some."""
    energies = brought_energies(scan)
    if energies is None:
        energies = measured_energies(scan)
    rows = np.unique(np.linspace(0, len(scan) - 1, LOOKED_AT).astype(np.int64))
    patterns, _ = scan.measured(rows)
    with np.errstate(over="ignore"):
        # In float32, because the last bits of a float64 may differ between machines and files.
        kept = [np.asarray(part).astype("<f4").tobytes() for part in (energies, patterns)]
    return hashlib.sha256(b"".join(kept)).hexdigest()
