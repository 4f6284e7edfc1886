"""A drop-in for the data path of PtychoPINN: the names, keys and numbers that its callers expect.

Everything is computed by the package's own engine. It differs from the native API in three ways,
because callers depend on them: groups follow NumPy's legacy random stream, object patches of
groups are read at mirrored positions (see `get_image_patches`), and arguments that are left out
are looked up in ``ptycho.params.cfg`` where a module of that name is already loaded. It is never
imported.

`install` lets an installed PtychoPINN use all of this without a change to its code.
"""

from typing import Any

from ptycho_fast.ptychopinn.deprecated import calculate_relative_coords, group_coords
from ptycho_fast.ptychopinn.fields import (
    key_coords_offsets,
    key_coords_relative,
    local_offset_sign,
)
from ptycho_fast.ptychopinn.functions import (
    get_image_patches,
    get_neighbor_indices,
    get_relative_coords,
    normalize_data,
)
from ptycho_fast.ptychopinn.gone import GONE, gone
from ptycho_fast.ptychopinn.installing import install, uninstall
from ptycho_fast.ptychopinn.raw_data import RawData

__all__ = [
    "GONE",
    "RawData",
    "calculate_relative_coords",
    "get_image_patches",
    "get_neighbor_indices",
    "get_relative_coords",
    "group_coords",
    "install",
    "key_coords_offsets",
    "key_coords_relative",
    "local_offset_sign",
    "normalize_data",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name in GONE:
        raise gone(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
