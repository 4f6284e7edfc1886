"""What a run was trained on and how, kept beside it: it goes on only as itself."""

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
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

RECORD = "run.json"
FORMAT = 1

LOOKED_AT = 8
"""So many patterns go into the checksum whole: turned or shifted ones have the same energies."""


COMPARED = {
    "n_positions": "the number of positions",
    "N": "N",
    "positions_sha256": "the checksum of the positions",
    "patterns_sha256": "the checksum of the patterns",
    "probe_sha256": "the checksum of the probe",
    "mask_sha256": "the checksum of the mask",
}
"""Of a record, with the words for it."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was trained on, and the options that its results depend on.

    Parameters
    ----------
    file : str, optional
        Where the scan was read from. It is told, not compared: a file may be moved.
    n_positions : int
    N : int
        Pixels per side of a pattern.
    positions_sha256, patterns_sha256, probe_sha256, mask_sha256 : str, optional
        Checksums: of the patterns, their energies and some of them whole. None: there is none.
    options : dict
        Of `ptycho_fast.models.PtychoModel.train`, as they took effect. Those of the model are in
        its ``config.json``.
    device : str
        "cpu" or "gpu", whose precision is another.
    """

    file: str | None
    n_positions: int
    N: int
    positions_sha256: str
    patterns_sha256: str
    probe_sha256: str | None
    mask_sha256: str | None
    options: dict[str, Any]
    device: str

    @classmethod
    def of(
        cls,
        scan: Scan,
        *,
        file: str | os.PathLike[str] | None,
        options: Mapping[str, Any],
        device: str,
    ) -> RunRecord:
        """Record a run that is to begin or to go on.

        Parameters
        ----------
        scan : Scan
            All its patterns are read, unless their energies are known.
        file, options, device
            As they are kept.
        """
        return cls(
            file=None if file is None else os.path.abspath(file),
            n_positions=len(scan),
            N=scan.N,
            positions_sha256=positions_checksum(scan.positions),
            patterns_sha256=_patterns_checksum(scan),
            probe_sha256=_checksum(scan.probe, "<c8"),
            mask_sha256=_checksum(scan.mask, "?"),
            options=dict(options),
            device=device,
        )

    def write(self, folder: Path) -> None:
        """Write ``run.json``, whole or not at all.

        Parameters
        ----------
        folder : Path
            Made if it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = {"format": FORMAT, "ptycho_fast": __version__, **dataclasses.asdict(self)}
        with replacing(folder / RECORD) as file:
            file.write((json.dumps(text, indent=2) + "\n").encode())

    def check(self, folder: Path) -> None:
        """Refuse to go on with a run that was another one.

        Parameters
        ----------
        folder : Path
            Of the run.

        Raises
        ------
        ValueError
            If it was, with each difference; or if the record is damaged.
        OSError
            If the record is no regular file.

        Warns
        -----
        UserWarning
            If the folder has no record, or the run was trained on another kind of device.
        """
        try:
            before = _read(folder / RECORD)
        except FileNotFoundError:
            warn(
                f"{folder} has no {RECORD}: it is from before runs were recorded, and whether this "
                "is the scan and these are the options of that run can't be checked."
            )
            return
        differences = [
            f"{name} was {was!r}, is {now!r} now" for name, was, now in self._differences(before)
        ]
        if differences:
            known = "" if before.file is None else f", which was read from {before.file}"
            msg = (
                f"{folder} holds another run: {'; '.join(differences)}. Go on with the scan and "
                f"the options of that run{known}, or train in another folder."
            )
            raise ValueError(msg)
        if before.device != self.device:
            warn(
                f"{folder} was trained on the {before.device} and goes on on the {self.device}: "
                "the precision of convolutions differs, so the losses are not those of a run that "
                "was never stopped."
            )

    def _differences(self, before: RunRecord) -> list[tuple[str, Any, Any]]:
        """Return what differs, as it was and as it is."""
        found = [
            (words, getattr(before, name), getattr(self, name)) for name, words in COMPARED.items()
        ]
        # An option that is not recorded is one that there was not.
        found += [
            (name, before.options[name], now)
            for name, now in self.options.items()
            if name in before.options
        ]
        return [(name, _short(was), _short(now)) for name, was, now in found if was != now]


def _short(value: Any) -> Any:
    """Return the beginning of a checksum, which tells as much."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _read(path: Path) -> RunRecord:
    try:
        held = json.loads(read_text(path))
        found = held.pop("format")
        del held["ptycho_fast"]
        record = RunRecord(**held)
        plain = [held[name] for name in (*COMPARED, "file", "device")]
        if not isinstance(record.options, dict) or any(isinstance(v, dict | list) for v in plain):
            raise ValueError("its entries are not those of a run")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        msg = (
            f"{path} is damaged: {error!r:.200}. Copy the folder again, or delete the file to go "
            "on without a check of what the run was trained on."
        )
        raise ValueError(msg) from None
    if found != FORMAT:
        msg = f"{path} has format {found!r:.50}, this version reads {FORMAT}: update ptycho_fast."
        raise ValueError(msg)
    return record


def _checksum(array: NDArray[Any] | None, dtype: str) -> str | None:
    if array is None:
        return None
    return hashlib.sha256(np.ascontiguousarray(array, dtype).data).hexdigest()


def _patterns_checksum(scan: Scan) -> str:
    """SHA-256 of the patterns' energies, and of some of the patterns themselves."""
    energies = brought_energies(scan)
    if energies is None:
        energies = measured_energies(scan)
    rows = np.unique(np.linspace(0, len(scan) - 1, LOOKED_AT).astype(np.int64))
    patterns, _ = scan.measured(rows)
    with np.errstate(over="ignore"):
        # Of single precision: in the last bits of a double machines and files may differ.
        kept = [np.asarray(part).astype("<f4").tobytes() for part in (energies, patterns)]
    return hashlib.sha256(b"".join(kept)).hexdigest()
