"""Scans that come as ZMQ messages.

The sender binds a PUSH socket, and the source connects a PULL socket to it, so nothing is lost. A
message has two parts: a header in JSON, and the numbers as raw bytes.

========================================================  ==========================================
header                                                    bytes
========================================================  ==========================================
``{"kind": "frames", "first": 0, "shape": [k, H, W],``    frames number first ... first + k - 1
``"dtype": "<u2"}``
``{"kind": "positions", "first": 0, "shape": [k, 2],``    x and y of these frames
``"dtype": "<f8"}``
``{"kind": "probe", "shape": [N, N], "dtype": "<c8"}``    the probe, or its modes (m, N, N)
``{"kind": "mask", "shape": [H, W], "dtype": "|b1"}``     True for good pixels; before the frames
``{"kind": "end"}``                                       none: the scan has ended
========================================================  ==========================================

`message` makes the two parts. Messages may come in any order, except for the mask.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.recipe import as_recipe
from ptycho_fast.live.source import News, ScanSource
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

KINDS = {"frames": (3, "fiu"), "positions": (2, "fiu"), "probe": (None, "fiuc"), "mask": (2, "b")}
"""Kinds of messages with numbers: how many axes they have, and which dtypes."""

MOST_BYTES = 2**26
"""Bytes that are taken at a time."""


def message(kind: str, values: ArrayLike | None = None, first: int = 0) -> list[bytes]:
    """Return the two parts of a message, for ``socket.send_multipart``.

    Parameters
    ----------
    kind : {"frames", "positions", "probe", "mask", "end"}
    values : array_like, optional
        The numbers; none for "end".
    first : int
        The number of the first frame or position.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.live.zmq import message
    >>> message("positions", np.zeros((1, 2)), first=7)[0]
    b'{"kind": "positions", "first": 7, "shape": [1, 2], "dtype": "<f8"}'
    """
    if values is None:
        return [json.dumps({"kind": kind}).encode(), b""]
    array = np.ascontiguousarray(values)
    header = {"kind": kind, "first": first, "shape": list(array.shape), "dtype": array.dtype.str}
    return [json.dumps(header).encode(), array.tobytes()]


class ZMQSource(ScanSource):
    """A scan that comes as ZMQ messages.

    Parameters
    ----------
    address : str
        ``tcp://HOST:PORT`` or ``ipc://PATH`` of the sender.
    **reading
        Arguments of `ptycho_fast.read_scan` that say what the numbers mean; names of arrays are
        refused.

    Raises
    ------
    ImportError
        If pyzmq is not installed.
    """

    def __init__(self, address: str, **reading: Any) -> None:
        try:
            import zmq  # noqa: PLC0415  # an optional dependency
        except ImportError as error:
            msg = f'{address} needs pyzmq ({error}): pip install "ptycho_fast[live]"'
            raise ImportError(msg) from error
        self.name, self.recipe = address, as_recipe(**reading)
        names = ("diffraction", "x", "y", "probe", "mask", "index")
        if named := self.recipe.given(*names):
            msg = f"Messages have no names of arrays, so leave out {', '.join(named)}."
            raise ValueError(msg)
        self._again: type[Exception] = zmq.Again
        self._no_wait = zmq.NOBLOCK
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            msg = f"{address} can't be connected to: {error}."
            raise OSError(msg) from error
        self._ended = ""
        self._frame: tuple[tuple[int, ...], np.dtype[Any]] | None = None

    def poll(self) -> News:
        """Return what the messages since the last call hold."""
        found: dict[str, list[tuple[int, NDArray[Any]]]] = {kind: [] for kind in KINDS}
        taken = 0
        while taken < MOST_BYTES:
            try:
                parts = self._socket.recv_multipart(self._no_wait)
            except self._again:
                break
            taken += sum(map(len, parts))
            try:
                kind, first, values = parsed(parts)
                self._check(kind, values)
            except (KeyError, TypeError, ValueError) as error:
                warn(f"{self.name}: a message of {taken} bytes was left out: {error}")
                continue
            if kind == "end":
                self._ended = "The sender has said that the scan has ended."
            elif values is not None:
                found[kind].append((first, values))
        frames = [values for _, values in found["frames"]]
        points = [values for _, values in found["positions"]]
        xy = np.concatenate(points) if points else np.empty((0, 2))
        return News(
            frames=_numbers(found["frames"]),
            patterns=np.concatenate(frames) if frames else None,
            places=_numbers(found["positions"]),
            x=xy[:, 0].astype(np.float64),
            y=xy[:, 1].astype(np.float64),
            probe=found["probe"][-1][1] if found["probe"] else None,
            mask=found["mask"][-1][1] if found["mask"] else None,
            ended=self._ended,
        )

    def _check(self, kind: str, values: NDArray[Any] | None) -> None:
        """Refuse frames that are not like the first ones."""
        if kind != "frames" or values is None:
            return
        frame = values.shape[1:], values.dtype
        self._frame = self._frame or frame
        if frame != self._frame:
            shape, dtype = self._frame
            msg = f"its frames are {frame[0]} of {frame[1]}, those before were {shape} of {dtype}."
            raise ValueError(msg)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()


def parsed(parts: list[bytes]) -> tuple[str, int, NDArray[Any] | None]:
    """Return kind, first number and numbers of a message; None for "end".

    Raises
    ------
    ValueError
        If the message has another form; or KeyError or TypeError.
    """
    if len(parts) != 2:
        msg = f"it has {len(parts)} parts instead of 2."
        raise ValueError(msg)
    header = json.loads(parts[0])
    kind = header["kind"]
    if kind == "end":
        return kind, 0, None
    if kind not in KINDS:
        msg = f"its kind is {kind!r}, and not one of {', '.join(KINDS)} or end."
        raise ValueError(msg)
    axes, dtypes = KINDS[kind]
    shape, dtype, first = tuple(map(int, header["shape"])), np.dtype(header["dtype"]), 0
    if kind in {"frames", "positions"}:
        first = int(header["first"])
    fits = len(shape) in ((2, 3) if axes is None else (axes,)) and min(shape) >= 0 <= first
    fits = fits and (kind != "positions" or shape[1] == 2)
    if not fits or dtype.kind not in dtypes or math.prod(shape) * dtype.itemsize != len(parts[1]):
        msg = f"{kind} {first} ... of shape {shape}, {dtype}, don't fit {len(parts[1])} bytes."
        raise ValueError(msg)
    return kind, first, np.frombuffer(parts[1], dtype).reshape(shape)


def _numbers(found: list[tuple[int, NDArray[Any]]]) -> NDArray[np.int64]:
    runs = [np.arange(first, first + len(values)) for first, values in found]
    return np.concatenate([np.empty(0, np.int64), *runs])
