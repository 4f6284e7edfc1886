"""A scan that comes as ZMQ messages, over loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.live import ZMQSource
from ptycho_fast.live.zmq import message, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"num_threads": 1, "iterations": 2, "probe": "fixed", "prior": "none"}
READING: dict[str, Any] = {"unit": "px", "counts": True}


@pytest.fixture
def sender() -> Iterator[tuple[str, Callable[..., None]]]:
    """An address, and a function that sends a message from there."""
    zmq = pytest.importorskip("zmq")
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def send(*parts: Any) -> None:
            socket.send_multipart(list(parts))

        yield f"tcp://127.0.0.1:{port}", send


def test_a_scan_comes_as_messages(
    sender: tuple[str, Callable[..., None]], counts: NDArray[Any], scan: pf.Scan
) -> None:
    address, send = sender
    updates = pf.follow(address, final=QUICK, **READING)
    send(*message("probe", scan.probe))
    send(*message("frames", counts[90:], 90))
    send(*message("positions", scan.positions))
    assert next(updates).n == 60
    send(*message("frames", counts[:90]))
    while (update := next(updates)).n < 150:
        pass
    assert not update.final
    send(*message("end"))
    last = next(updates)
    assert last.final
    assert "The sender has said that the scan has ended." in last.image.notes
    assert np.array_equal(last.scan.diffraction, scan.diffraction)
    assert np.array_equal(last.scan.positions, scan.positions)
    made = pf.reconstruct(last.scan, **QUICK)
    assert np.array_equal(last.image.object, made.object)


def test_a_message_that_is_none_is_told_and_left_out(
    sender: tuple[str, Callable[..., None]], counts: NDArray[Any], scan: pf.Scan
) -> None:
    address, send = sender
    updates = pf.follow(address, final=QUICK, **READING)
    send(b"hello", b"")
    send(*message("frames", counts))
    send(*message("frames", counts[:10, :8, :8], 0))
    send(*message("probe", scan.probe))
    send(*message("positions", scan.positions))
    send(*message("end"))
    with pytest.warns(UserWarning, match="was left out") as told:
        *_, last = updates
    assert last.n == 150
    assert ["those before were (16, 16)" in str(one.message) for one in told] == [False, True]


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "frames", "first": 0, "shape": [2, 2], "dtype": "<u2"},
        {"kind": "frames", "first": -1, "shape": [1, 2, 2], "dtype": "<u2"},
        {"kind": "frames", "first": 0, "shape": [1, 2, 3], "dtype": "<u2"},
        {"kind": "frames", "first": 0, "shape": [1, 2, 2], "dtype": "O"},
        {"kind": "frames", "shape": [1, 2, 2], "dtype": "<u2"},
        {"kind": "positions", "first": 0, "shape": [4, 1], "dtype": "<u2"},
        {"kind": "other"},
        ["frames"],
    ],
)
def test_headers_that_do_not_fit_are_refused(header: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        parsed([json.dumps(header).encode(), bytes(8)])
    with pytest.raises(ValueError, match="3 parts instead of 2"):
        parsed([b"", b"", b""])


def test_messages_have_no_names() -> None:
    pytest.importorskip("zmq")
    with pytest.raises(ValueError, match="leave out diffraction, x"):
        ZMQSource("tcp://127.0.0.1:5555", diffraction="d", x="x", **READING)
    with pytest.raises(OSError, match="can't be connected to"):
        ZMQSource("tcp://", **READING)
