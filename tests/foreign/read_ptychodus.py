"""Ptychodus reads what this package wrote, and simulates the patterns of what it read."""

import sys
from pathlib import Path

import numpy as np

try:
    from ptychodus.api.io import (  # type: ignore[import-not-found]
        load_diffraction_data,
        load_product,
    )
    from ptychodus.api.product import Product  # type: ignore[import-not-found]
    from ptychodus.api.simulate.diffraction import (  # type: ignore[import-not-found]
        generate_diffraction_data,
    )
    from ptychodus.plugins.cxi_file import (  # type: ignore[import-not-found]
        CXIDiffractionFileReader,
        CXIProductFileIO,
    )
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

folder = Path(sys.argv[1])


def report(
    name: str, product: Product, indexes: np.ndarray, patterns: np.ndarray, bad: np.ndarray
) -> None:
    """Save what was read, and how well the product explains the patterns."""
    simulated = generate_diffraction_data(product)
    order = np.argsort(simulated.get_indexes())
    model = simulated.get_patterns()[order].astype(float)[:, ~bad]
    kept = patterns[np.argsort(indexes)].astype(float)[:, ~bad]
    assert np.array_equal(np.sort(indexes), np.sort(simulated.get_indexes()))
    model *= kept.sum() / model.sum()
    bright = model > 5
    positions = product.probe_positions
    geometry = product.object_.get_geometry()
    np.savez(
        folder / f"{name}.npz",
        misfit=np.mean((kept - model)[bright] ** 2 / model[bright]),
        patterns=patterns, bad=bad, indexes=indexes,
        position_indexes=positions.get_indexes(),
        x=positions.get_coordinates_x_m(), y=positions.get_coordinates_y_m(),
        probe=product.probes.get_array(), object=product.object_.get_array(),
        pixel=(geometry.pixel_width_m, geometry.pixel_height_m),
        energy=product.metadata.photon_energy_eV, distance=product.metadata.detector_distance_m,
        detector=(
            simulated.get_pixel_geometry().width_m, simulated.get_pixel_geometry().height_m,
        ),
    )  # fmt: skip


product = load_product(folder / "product.h5")
diffraction = load_diffraction_data(folder / "diffraction.h5")
sides = diffraction.get_pixel_geometry()
assert (sides.width_m, sides.height_m) == tuple(np.load(folder / "truth.npz")["pixel"] * [1, 1])
report(
    "product", product, diffraction.get_indexes(), diffraction.get_patterns(),
    diffraction.get_bad_pixels(),
)  # fmt: skip

product = CXIProductFileIO().read(folder / "scan.cxi")
dataset = CXIDiffractionFileReader().read(folder / "scan.cxi")
bad_pixels = dataset.get_bad_pixels()
assert bad_pixels is not None
(array,) = list(dataset)
report("cxi", product, array.get_indexes(), array.get_patterns(), bad_pixels)
metadata = dataset.get_metadata()
np.savez(
    folder / "cxi_metadata.npz", energy=metadata.photon_energy_eV,
    distance=metadata.detector_distance_m, pixel=metadata.detector_pixel_geometry.width_m,
)  # fmt: skip
