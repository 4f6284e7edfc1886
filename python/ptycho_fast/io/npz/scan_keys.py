"""The names of the arrays in an NPZ scan; `ptycho_fast.read_scan` says what each holds."""

PATTERN_KEYS = ("diff3d", "diffraction")
"""Two names for the patterns. Where a file has both, they must agree, and the first is read."""

POSITION_KEYS = ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index")

BAD_PIXEL_KEYS = ("bad_pixel_starts", "bad_pixel_numbers")
"""`starts` and `pixels` of `ptycho_fast.bad_pixels.BadPixels`."""

ENERGIES_OF = "pattern_energies_of"
"""Checksums of what the energies were computed from, and of the energies themselves."""

ENERGY_SOURCES = (*PATTERN_KEYS, "detector_mask", *BAD_PIXEL_KEYS, "pattern_energies")
"""The arrays whose checksums `ENERGIES_OF` holds."""

SCAN_KEYS = (
    "xcoords", "ycoords", *PATTERN_KEYS, "probeGuess", "objectGuess",
    "xcoords_start", "ycoords_start", "scan_index", "detector_mask", "pattern_energies",
    *BAD_PIXEL_KEYS, ENERGIES_OF,
)  # fmt: skip

METADATA_KEY = "_metadata"
"""What a file says about itself; see `ptycho_fast.io.npz.metadata`."""
