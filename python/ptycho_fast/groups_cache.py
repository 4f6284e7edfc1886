"""Files for the pool of ``group-then-sample``: their names, reading, writing, and finding them."""

from ptycho_fast.grouping.pool_file import cache_path, find, read, write
from ptycho_fast.grouping.rules.pool import Pool

__all__ = ["Pool", "cache_path", "find", "read", "write"]
