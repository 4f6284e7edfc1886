"""An image of a scan without a network: maximum likelihood with a prior."""

from ptycho_fast.reconstruction.reconstruct import reconstruct
from ptycho_fast.reconstruction.result import Reconstruction, Step
from ptycho_fast.reconstruction.run import Progress

__all__ = ["Progress", "Reconstruction", "Step", "reconstruct"]
