"""HDF5 files: their data sets, the links between them, and what was never written of them."""
