"""Neural networks that reconstruct a scan, trained on its diffraction patterns alone.

Needs PyTorch: ``pip install "ptycho_fast[torch]"``. Nothing here uses global state.
"""

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
