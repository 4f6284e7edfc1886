"""NPZ files: named arrays in a zip archive, read without running any code that is in them."""

from ptycho_fast.io.npz.archive import Archive, Member, read_array, read_arrays
from ptycho_fast.io.npz.writing import write_arrays

__all__ = ["Archive", "Member", "read_array", "read_arrays", "write_arrays"]
