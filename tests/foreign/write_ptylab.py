"""PtyLab reads data that hold a simulated scan, and computes positions and patterns itself."""

import sys
from pathlib import Path

import h5py
import numpy as np

try:
    from PtyLab.ExperimentalData.ExperimentalData import (  # type: ignore[import-not-found]
        ExperimentalData,
    )
    from PtyLab.io.generateSimulationData import (  # type: ignore[import-not-found]
        generate_simu_hdf5,
    )
    from PtyLab.Params.Params import Params  # type: ignore[import-not-found]
    from PtyLab.Reconstruction.Reconstruction import (  # type: ignore[import-not-found]
        Reconstruction,
    )
    from PtyLab.utils.utils import fft2c  # type: ignore[import-not-found]
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

folder = Path(sys.argv[1])
given = np.load(folder / "truth.npz")
N = int(given["N"])
path = folder / "data.hdf5"
with h5py.File(path, "w") as file:
    file["ptychogram"] = given["counts"].astype("f4")
    file["encoder"] = np.stack([given["y"], given["x"]], axis=1)
    file["dxd"], file["zo"] = (float(given["pixel"]),), (float(given["distance"]),)
    file["wavelength"], file["orientation"] = (float(given["wavelength"]),), 4
    file["ptychogram"][:] = given["counts"].transpose(0, 2, 1)

data = ExperimentalData(str(path))
reconstruction = Reconstruction(data, Params())
corners = np.asarray(reconstruction.positions)
# The object of the truth, where PtyLab's first pixels of the windows put it.
moved = corners - (given["positions"][:, ::-1] - N // 2)
assert np.ptp(moved, axis=0).max() == 0, moved
rows, columns = np.ix_(*(np.arange(N),) * 2)
model = np.array([
    np.abs(fft2c(given["probe"] * given["object"][
        int(row) : int(row) + N, int(column) : int(column) + N
    ])) ** 2
    for row, column in corners - moved[0]
])  # fmt: skip
model *= data.ptychogram.sum() / model.sum()
bright = model > 5
misfit = np.mean((data.ptychogram - model)[bright] ** 2 / model[bright])
np.savez(folder / "computed.npz", misfit=misfit, corners=corners, pixel=reconstruction.dxo)

generate_simu_hdf5(folder / "simu.hdf5")
data = ExperimentalData(str(folder / "simu.hdf5"))
reconstruction = Reconstruction(data, Params())
np.savez(
    folder / "simu.npz", corners=reconstruction.positions, pixel=reconstruction.dxo,
    ptychogram=data.ptychogram,
)  # fmt: skip
