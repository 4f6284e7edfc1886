"""``python -m ptycho_fast`` is ``ptycho-fast``."""

import sys

from ptycho_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
