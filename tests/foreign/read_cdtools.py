"""Cdtools reads CXI that this package wrote, and computes the patterns in its own geometry."""

import sys
from pathlib import Path

import numpy as np

try:
    import torch
    from cdtools.datasets import Ptycho2DDataset  # type: ignore[import-not-found]
    from cdtools.tools.initializers import exit_wave_geometry  # type: ignore[import-not-found]
    from cdtools.tools.interactions import (  # type: ignore[import-not-found]
        ptycho_2D_round,
        translations_to_pixel,
    )
    from cdtools.tools.propagators import far_field  # type: ignore[import-not-found]
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

folder = Path(sys.argv[1])
given = np.load(folder / "truth.npz")
dataset = Ptycho2DDataset.from_cxi(folder / "scan.cxi")
N = dataset.patterns.shape[-1]
geometry = dataset.detector_geometry
basis = torch.as_tensor(geometry["basis"], dtype=torch.float32)
wave_basis = exit_wave_geometry(basis, (N, N), dataset.wavelength, float(geometry["distance"]))
pixels = translations_to_pixel(wave_basis, dataset.translations)
# The object of the truth is where the first pixels of its windows are; cdtools' begin anywhere.
corners = torch.as_tensor(given["positions"][:, ::-1] - N // 2)
shifted = pixels - pixels.mean(dim=0) + corners.mean(dim=0)
probe, image = (torch.as_tensor(given[key]) for key in ("probe", "object"))
model = far_field(ptycho_2D_round(probe, image, shifted)).abs().numpy().astype(float) ** 2
mask = dataset.mask.numpy()
kept, model = dataset.patterns.numpy().astype(float)[:, mask], model[:, mask]
model *= kept.sum() / model.sum()
bright = model > 5
np.savez(
    folder / "cdtools.npz", misfit=np.mean((kept - model)[bright] ** 2 / model[bright]),
    patterns=dataset.patterns.numpy(), mask=mask, pixels=pixels.numpy(),
    wavelength=float(dataset.wavelength), distance=float(geometry["distance"]),
    basis=geometry["basis"],
)  # fmt: skip
