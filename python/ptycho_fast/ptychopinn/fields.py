"""Names of a record's fields, which are keys of its file, and constants that loaders read."""

local_offset_sign = -1
"""``coords_relative = local_offset_sign * (coords_nn - coords_offsets)``."""

key_coords_offsets = "coords_start_offsets"
"""The key of grouped data under which loaders find the offsets of groups."""

key_coords_relative = "coords_start_relative"
"""The key of grouped data under which loaders find the relative coordinates."""

COORDINATES = ("xcoords", "ycoords", "xcoords_start", "ycoords_start")
"""Fields with one coordinate for each position."""

FILE_KEYS = (
    *COORDINATES, "diff3d", "probeGuess", "scan_index", "objectGuess", "Y", "norm_Y_I",
)  # fmt: skip
"""All fields that are written to a file as arrays."""
