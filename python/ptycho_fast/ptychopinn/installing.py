"""`install` puts the drop-in into an installed PtychoPINN, `uninstall` takes it out again."""

from __future__ import annotations

import functools
from typing import Any

from ptycho_fast.ptychopinn.functions import (
    get_image_patches,
    get_neighbor_indices,
    get_relative_coords,
    normalize_data,
)
from ptycho_fast.ptychopinn.raw_data import RawData
from ptycho_fast.ptychopinn.replacement import put_in_place, take_out
from ptycho_fast.ptychopinn.tensors import as_tensor


def install(*, mirror: bool = True) -> tuple[str, ...]:
    """Let an installed PtychoPINN use the drop-in, without a change to its code.

    Call it once, anywhere before data is generated. The methods of ``ptycho.raw_data.RawData`` that
    read, group and write are replaced on that class itself; the functions beside the class are
    replaced in every loaded module that has them. So it does not matter what was imported first.
    Modules that are imported later get them too.

    Parameters
    ----------
    mirror : bool
        True keeps the numbers that callers know: for gridsize > 1 the object patches ``Y`` are read
        at mirrored positions, see `get_image_patches`. False reads them at the true positions.

    Returns
    -------
    tuple of str
        Full names of everything that was replaced. They are logged too.

    Raises
    ------
    ImportError
        If PtychoPINN cannot be imported.
    ValueError
        If its functions take other arguments than the drop-in's. Nothing is replaced then.

    Notes
    -----
    A second call starts afresh; if it is refused, the first stays in place. Under `install`,
    ``get_image_patches`` and ``Y`` are TensorFlow tensors, because PtychoPINN calls ``.numpy()`` on
    them, and the ``Y`` of a scan file is not read. `mirror` does not change ``get_image_patches``,
    which reads where its arguments say. A function that is kept elsewhere than under a name of a
    module, as a default argument or an attribute, is not replaced there.

    Examples
    --------
    >>> from ptycho_fast import ptychopinn
    >>> ptychopinn.install()  # doctest: +SKIP
    ('ptycho.raw_data.RawData.from_coords_without_pc', ...)
    """
    return put_in_place(
        "ptycho.raw_data",
        RawData,
        (
            "from_coords_without_pc",
            "from_file",
            "from_files",
            "to_file",
            "generate_grouped_data",
            "_generate_groups_efficiently",
        ),
        {
            "get_image_patches": _image_patches_as_tensor,
            "get_relative_coords": get_relative_coords,
            "get_neighbor_indices": get_neighbor_indices,
            "normalize_data": normalize_data,
        },
        {"_mirror": bool(mirror), "_installed": True},
    )


def uninstall() -> tuple[str, ...]:
    """Restore everything that `install` replaced, also in modules that were imported since.

    Returns
    -------
    tuple of str
        Full names of everything that was restored; empty if nothing was installed.

    Examples
    --------
    >>> from ptycho_fast import ptychopinn
    >>> ptychopinn.uninstall()
    ()
    """
    return take_out()


@functools.wraps(get_image_patches)
def _image_patches_as_tensor(*arguments: Any, **keywords: Any) -> Any:
    return as_tensor(get_image_patches(*arguments, **keywords))
