"""Names of older code that are not offered any more: asking for one says what to use instead."""

from __future__ import annotations

from typing import NoReturn

GONE = {
    "_find_all_valid_groups": 'ptycho_fast.group_positions(strategy="group-then-sample")',
    "_generate_cache_filename": "ptycho_fast.groups_cache.cache_path",
    "_compute_dataset_checksum": "ptycho_fast.checks.positions_checksum",
    "_save_groups_cache": "ptycho_fast.groups_cache.write",
    "_load_groups_cache": "ptycho_fast.groups_cache.read",
    "get_neighbor_diffraction_and_positions": "RawData.generate_grouped_data",
    "get_neighbor_self_indices": "numpy.arange(n)[:, numpy.newaxis]",
    "sample_rows": "ptycho_fast.group_positions",
}
"""Names that older code calls, and what to use instead."""


def gone(name: str) -> AttributeError:
    """Return the error for a name that is not offered any more.

    Parameters
    ----------
    name : str
        One of `GONE`.

    Returns
    -------
    AttributeError
    """
    return AttributeError(f"{name} is gone: use {GONE[name]} (docs/migration.md says more).")


class Gone:
    """A class attribute that is not offered any more: reading it raises the error of `gone`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise gone(self.name)
