"""Settings of PtychoPINN that stand in for arguments a caller leaves out."""

from __future__ import annotations

import sys
from typing import Any


def setting(name: str, default: Any) -> Any:
    """Look up a setting in ``ptycho.params.cfg`` if that module is loaded; it is never imported.

    Parameters
    ----------
    name : str
        Key of ``cfg``.
    default : Any
        Returned if the module is not loaded, or the setting is missing or None.

    Returns
    -------
    Any
    """
    value = getattr(sys.modules.get("ptycho.params"), "cfg", {}).get(name)
    return default if value is None else value
