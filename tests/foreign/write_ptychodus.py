"""Ptychodus simulates the patterns of a product, and writes both in its formats."""

import sys
from pathlib import Path

import numpy as np

try:
    from ptychodus.api.assemble import AssembledDiffractionData  # type: ignore[import-not-found]
    from ptychodus.api.diffraction import (  # type: ignore[import-not-found]
        DiffractionDatasetLayoutNode,
        DiffractionMetadata,
        SimpleDiffractionArray,
        SimpleDiffractionDataset,
    )
    from ptychodus.api.geometry import (  # type: ignore[import-not-found]
        ImageExtent,
        PixelGeometry,
    )
    from ptychodus.api.io import (  # type: ignore[import-not-found]
        save_diffraction_data,
        save_product,
        save_ptychopinn_training_data,
        save_training_data,
    )
    from ptychodus.api.object import Object, ObjectCenter  # type: ignore[import-not-found]
    from ptychodus.api.probe import ProbeSequence  # type: ignore[import-not-found]
    from ptychodus.api.probe_positions import (  # type: ignore[import-not-found]
        ProbePosition,
        ProbePositionSequence,
    )
    from ptychodus.api.product import Product, ProductMetadata  # type: ignore[import-not-found]
    from ptychodus.api.reconstruct import ReconstructInput  # type: ignore[import-not-found]
    from ptychodus.api.simulate.diffraction import (  # type: ignore[import-not-found]
        generate_diffraction_data,
    )
    from ptychodus.plugins.cxi_file import (  # type: ignore[import-not-found]
        CXIDiffractionFileWriter,
        CXIProductFileIO,
    )
    from ptychodus.plugins.npz_diffraction_file import (  # type: ignore[import-not-found]
        NPZDiffractionFileIO,
    )
    from ptychodus.plugins.npz_product_file import (  # type: ignore[import-not-found]
        NPZProductFileIO,
    )
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)

folder = Path(sys.argv[1])
given = np.load(folder / "truth.npz")
N, size = int(given["N"]), given["object"].shape
pixel = float(given["wavelength"] * given["distance"] / (N * given["pixel"]))
square = PixelGeometry(width_m=pixel, height_m=pixel)
center = ObjectCenter(x_m=3e-7, y_m=-5e-7)
# Where pixel N // 2 of each window lies, in ptychodus' metres. Indices have gaps and no order.
order = np.random.default_rng(4).permutation(len(given["positions"]))
offsets = given["positions"] - N // 2 + (N - 1) / 2 - (np.array(size[::-1]) - 1) / 2
positions = [
    ProbePosition(int(7 + 2 * i), offsets[i, 0] * pixel + center.x_m,
                  offsets[i, 1] * pixel + center.y_m)
    for i in order
]  # fmt: skip


def product_of(probe: np.ndarray) -> Product:
    """Return a product with this probe."""
    return Product(
        metadata=ProductMetadata(
            name="simulated", comments="", detector_distance_m=float(given["distance"]),
            photon_energy_eV=float(given["energy"]), probe_photon_count=3e5, exposure_time_s=1.0,
            mass_attenuation_m2_per_kg=0.0, tomography_angle_deg=0.0,
        ),
        probe_positions=ProbePositionSequence(positions),
        probes=ProbeSequence(
            array=probe[np.newaxis, np.newaxis], opr_weights=None, pixel_geometry=square
        ),
        object_=Object(
            array=given["object"][np.newaxis], pixel_geometry=square, center=center,
            layer_spacing_m=[],
        ),
        losses=[],
    )  # fmt: skip


probe = given["probe"].astype(complex)
light = generate_diffraction_data(product_of(probe)).get_patterns().sum() / len(positions)
product = product_of(np.sqrt(3e5 / light) * probe)
simulated = generate_diffraction_data(product, np.random.default_rng(5))
shuffled = np.random.default_rng(6).permutation(len(positions))
bad = np.zeros((N, N), bool)
bad[3, 4] = bad[20, 11] = True
patterns = simulated.get_patterns()[shuffled]
patterns[:, bad] = 9e5
diffraction = AssembledDiffractionData(
    simulated.get_indexes()[shuffled], patterns, simulated.get_pixel_geometry(), bad
)
save_product(folder / "product.h5", product)
save_diffraction_data(folder / "diffraction.h5", diffraction)
NPZProductFileIO().write(folder / "product.npz", product)
CXIProductFileIO().write(folder / "product.cxi", product)

sides = simulated.get_pixel_geometry()
metadata = DiffractionMetadata(
    num_patterns_per_array=[len(positions)], pattern_dtype=patterns.dtype,
    detector_distance_m=float(given["distance"]), detector_extent=ImageExtent(N, N),
    detector_pixel_geometry=sides, photon_energy_eV=float(given["energy"]),
)  # fmt: skip
tree = DiffractionDatasetLayoutNode.create_root()
array = SimpleDiffractionArray("a", diffraction.get_indexes(), patterns)
dataset = SimpleDiffractionDataset(metadata, tree, [array], bad_pixels=bad)
NPZDiffractionFileIO().write(folder / "diffraction.npz", dataset)
# CXI has no indices: frames are in the order of the positions.
array = SimpleDiffractionArray("a", simulated.get_indexes(), patterns[np.argsort(shuffled)])
dataset = SimpleDiffractionDataset(metadata, tree, [array], bad_pixels=bad)
CXIDiffractionFileWriter().write(folder / "diffraction.cxi", dataset)

everything = ReconstructInput(patterns[np.argsort(shuffled)], bad, product)
save_training_data(folder / "training.h5", everything, inpaint_bad_pixels=False)
save_ptychopinn_training_data(folder / "ptychopinn.npz", everything, inpaint_bad_pixels=False)
