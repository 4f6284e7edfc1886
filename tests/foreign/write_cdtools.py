"""Cdtools computes the patterns of a simulated scan in its own geometry, and writes CXI."""

import sys
from pathlib import Path

import numpy as np

try:
    import torch
    from cdtools.datasets import Ptycho2DDataset  # type: ignore[import-not-found]
    from cdtools.tools.initializers import exit_wave_geometry  # type: ignore[import-not-found]
    from cdtools.tools.interactions import (  # type: ignore[import-not-found]
        pixel_to_translations,
        ptycho_2D_round,
        translations_to_pixel,
    )
    from cdtools.tools.propagators import far_field  # type: ignore[import-not-found]
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

folder = Path(sys.argv[1])
given = np.load(folder / "truth.npz")
N, pixel = int(given["N"]), float(given["pixel"])
wavelength, distance = float(given["wavelength"]), float(given["distance"])
corners = torch.as_tensor(given["positions"][:, ::-1] - N // 2)
probe, image = (torch.as_tensor(given[key]) for key in ("probe", "object"))
bad = np.zeros((N, N), bool)
bad[3, 4] = True
# Rows down and columns to the left, as CXI has it, and a detector that is turned.
turned = {"plain": [[0, -pixel, 0], [-pixel, 0, 0]], "turned": [[pixel, 0, 0], [0, -pixel, 0]]}
for name, axes in turned.items():
    basis = torch.tensor(axes, dtype=torch.float64).T
    wave_basis = exit_wave_geometry(basis.float(), (N, N), wavelength, distance).double()
    translations = pixel_to_translations(wave_basis, corners)
    pixels = translations_to_pixel(wave_basis, translations)
    assert torch.allclose(pixels, corners, atol=1e-3)
    waves = far_field(ptycho_2D_round(probe, image, pixels))
    model = waves.abs().numpy().astype(float) ** 2
    model *= 3e5 * len(model) / model.sum()
    counts = np.random.default_rng(8).poisson(model).astype("f4")
    counts[:, bad] = 9e5
    dataset = Ptycho2DDataset(
        translations.numpy(), counts, wavelength=wavelength, mask=~bad,
        detector_geometry={
            "distance": distance, "basis": basis.numpy(), "corner": None,
        },
    )  # fmt: skip
    dataset.to_cxi(folder / f"{name}.cxi")
