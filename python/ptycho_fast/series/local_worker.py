"""What a worker of this machine does first: dask.distributed loads this module into it."""

from __future__ import annotations

import signal


def dask_setup(_: object) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes of a command.

    The command that started the worker stops it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
