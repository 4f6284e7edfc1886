"""Neural networks that reconstruct a scan, trained on its diffraction patterns alone.

Needs PyTorch: ``pip install "ptycho_fast[torch]"``. Nothing here uses global state.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho_fast.models.architectures import list_architectures, register_architecture
    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.model import PtychoModel
    from ptycho_fast.models.reconstruction import Reconstruction
    from ptycho_fast.ptychopinn.raw_scan import RawScan, group_raw_npz, load_raw_npz

__all__ = [
    "ModelConfig",
    "PtychoModel",
    "RawScan",
    "Reconstruction",
    "group_raw_npz",
    "list_architectures",
    "load_raw_npz",
    "register_architecture",
]

MODULES = {
    "ModelConfig": "ptycho_fast.models.config",
    "PtychoModel": "ptycho_fast.models.model",
    "RawScan": "ptycho_fast.ptychopinn.raw_scan",
    "Reconstruction": "ptycho_fast.models.reconstruction",
    "group_raw_npz": "ptycho_fast.ptychopinn.raw_scan",
    "list_architectures": "ptycho_fast.models.architectures",
    "load_raw_npz": "ptycho_fast.ptychopinn.raw_scan",
    "register_architecture": "ptycho_fast.models.architectures",
}
"""Where each public name is defined. That module is imported when the name is first used: PyTorch
takes seconds to import, and the command line reads `ptycho_fast.models.config` without it."""


NEEDED = 'PyTorch is needed ({}). Install it with: pip install "ptycho_fast[torch]"'


def require_pytorch() -> None:
    """Say that PyTorch is missing before it is needed, without importing it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise ImportError(NEEDED.format("No module named 'torch'"))


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        value = getattr(importlib.import_module(MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(NEEDED.format(error)) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
