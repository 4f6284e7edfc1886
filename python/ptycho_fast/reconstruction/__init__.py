"""An image of a scan without a network: maximum likelihood with a prior."""

from ptycho_fast.reconstruction.history import Step
from ptycho_fast.reconstruction.progress import Progress
from ptycho_fast.reconstruction.reconstruct import reconstruct
from ptycho_fast.reconstruction.result import Reconstruction

__all__ = ["Progress", "Reconstruction", "Step", "reconstruct"]
