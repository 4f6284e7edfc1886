"""``python -m ptycho_fast.cli`` runs the command line without the installed script."""

import sys

from ptycho_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
