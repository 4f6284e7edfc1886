"""Pickles of plain values are read; whatever else one names is refused, and nothing runs."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import os
import pickle
import pickletools
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from ptycho_fast.io.npz.metadata import as_json, read_metadata
from ptycho_fast.io.npz.plain_pickle import loads
from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(6.0).reshape(2, 3, order="F"),
        np.array([[1 + 2j]], np.complex64),
        np.array(["a", "bcd", "\u00e9"]),
        np.array([b"a", b"bcd"]),
        np.array(3.5),
        np.zeros((0, 3), np.float16),
        np.array([True, False]),
        np.array([{"a": np.arange(3)}, None], object),
    ],
    ids=str,
)
def test_arrays_come_back(array: Any, protocol: int) -> None:
    shared = {"one": array, "same": array, "first": array.reshape(-1)[:1]}
    found = loads(pickle.dumps(shared, protocol))
    for key, expected in shared.items():
        assert type(found[key]) is np.ndarray
        assert (found[key].dtype, found[key].shape) == (expected.dtype, expected.shape)
        for one, other in zip(found[key].flat, expected.flat, strict=True):
            np.testing.assert_equal(one, other)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_of_numpy_come_back(protocol: int) -> None:
    values = [np.float32(2.5), np.int64(-3), np.bool_(True), np.complex128(1j), np.str_("a")]
    found = loads(pickle.dumps(values, protocol))
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


class Calls:
    """Pickles as a call, which leaves a trace if it is made."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = function, arguments, state

    def __reduce__(self) -> Any:
        return self.call


HOSTILE = {
    "posix.system": Calls(os.system, "touch trace"),
    "builtins.eval": Calls(eval, "open('trace', 'w')"),
    "builtins.exec": Calls(exec, "open('trace', 'w')"),
    "io.open": Calls(open, "trace", "w"),
    "builtins.getattr": Calls(getattr, 1, "real"),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", "trace"]),
    "numpy.load": Calls(np.load, "trace.npy"),
    "numpy.fromfile": np.fromfile,
    "numpy.ones": Calls(np.ones, (10**6,) * 3),
    "collections.OrderedDict": collections.OrderedDict(a=1),
    "pathlib.PosixPath": Path("/"),
    "numpy.ma.core._mareconstruct": np.ma.ones(3),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX")
def test_what_is_not_plain_is_refused_by_name(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Old protocols spell modules as Python 2 did.
    module, _, last = name.rpartition(".")
    told = rf"it names \S*{last if protocol < 3 else module + '.' + last}"
    hidden = np.array({"deep": [(1, {"a": HOSTILE[name]})]}, object)
    for value in (HOSTILE[name], [HOSTILE[name]], hidden):
        with pytest.raises(ValueError, match=told):
            loads(pickle.dumps(value, protocol))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX")
def test_no_code_of_a_scan_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pf.write_scan(pf.simulate_scan(n_positions=12, N=8, seed=0), "scan.npz")
    held = dict(np.load("scan.npz"))
    for name, value in HOSTILE.items():
        metadata = np.empty((), object)
        metadata[()] = {"nphotons": 1e9, "other": value}
        np.savez("hostile.npz", **held, _metadata=metadata)
        for read in (pf.read_scan, RawData.from_file):
            with pytest.raises(ValueError, match=f"hostile.npz: '_metadata' can't be.*{name}"):
                read("hostile.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.npz", "scan.npz"]


def array_state(shape: Any, dtype: Any, content: Any) -> Any:
    multiarray = getattr(np, "_core", None) or np.core
    reconstruct = multiarray.multiarray._reconstruct
    return Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, content))


def bomb() -> Any:
    value: Any = ["x"]
    for _ in range(40):
        value = [value, value]
    return value


def nested(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def tuples(depth: int) -> bytes:
    """A dict whose key is a tuple in a tuple in ...: to hash it overflows C's stack."""
    return b"\x80\x04}N" + b"\x85" * depth + b"Ns."


LARGE = b"x" * 2**20
AGAIN = pickle.dumps(LARGE.decode(), 2)[:-1] + b"0" + 2000 * (
    b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0"
) + b"N."  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "exhausted"),
        (b"no pickle", "."),
        (pickle.dumps([1, 2, 3])[:-3], "."),
        (b"\x80\x04.", "it is damaged"),
        (b"\x80\x04Na.", "it is damaged"),
        (b"\x80\x04h\x07.", "it is damaged"),
        (b"\x80\x04cnumpy\nndarray\n.", "names numpy.ndarray, which is not a plain value"),
        (b"\x80\x04cnumpy\nndarray\nN\x85R.", "it is damaged"),
        (b"\x80\x04cnumpy\nndarray\n)\x81.", "it uses the instruction NEWOBJ"),
        (b"\x80\x04\x82\x01.", "it uses the instruction EXT1"),
        (b"P1\n.", "it uses the instruction PERSID"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", None),  # a place of 2**31 in the memo
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "."),  # bytes that are not there
        (
            pickle.dumps(array_state((2**40,), np.dtype("f8"), b"")),
            r"\(1099511627776,\) of float64",
        ),
        (pickle.dumps(array_state((-1,), np.dtype("f8"), b"")), "it is damaged"),
        (pickle.dumps(array_state((2,), np.dtype("f8"), b"1")), r"\(2,\) of float64 in 1 bytes"),
        (pickle.dumps(array_state((2**40,), np.dtype("O"), [1])), "."),
        (pickle.dumps(array_state((2**40,), np.dtype("U0"), b"")), r"\(1099511627776,\) of <U0"),
        (pickle.dumps(np.zeros(2, "M8[s]"), 4), "dtype 'M8' of a kind that cannot be read"),
        (pickle.dumps(np.zeros(2, [("a", "f4")]), 4), "dtype 'V4' of a kind that cannot be read"),
        (pickle.dumps(bomb()), "more than 100000 values"),
        (nested(100_000), "nested more than 50 deep"),
        (tuples(300_000), "it is damaged"),
        (AGAIN, "more than 100000 values"),
        (pickle.dumps(b"x" * 2**25), "more than 16 MiB"),
    ],
)
def test_damaged_odd_and_hostile_ones_are_refused_in_little_memory(
    content: bytes, words: str | None
) -> None:
    tracemalloc.start()
    try:
        if words is None:
            assert loads(content) is None
        else:
            with pytest.raises(ValueError, match=words):
                loads(content)
        assert tracemalloc.get_traced_memory()[1] < 2e8
    finally:
        tracemalloc.stop()


def test_a_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="holds itself"):
        loads(pickle.dumps(value))


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_damage_anywhere_is_a_value_error_or_other_plain_values(data: st.DataObject) -> None:
    whole = {"a": [1, 2.5, "b"], "c": np.arange(4.0), "d": (None, True, np.float32(1))}
    content = bytearray(pickle.dumps(whole, data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        loads(bytes(content))


def test_values_read_are_those_that_pickle_reads() -> None:
    """The few instructions that are carried out mean what they mean to pickle itself."""
    value = {"nphotons": 1e9, "b": [1, (2, 3)], "c": {"d": None}}
    for protocol in PROTOCOLS:
        content = pickle.dumps(value, protocol)
        assert loads(content) == pickle.loads(content)
        assert loads(pickletools.optimize(content)) == value
    assert not hasattr(builtins, "trace")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array('{"a": [1, null]}'), {"a": [1, None]}),
        (np.array(b'{"a": 1}'), {"a": 1}),
        (np.array(["[1, 2]"]), [1, 2]),
        (np.array("beamline 2-ID"), "beamline 2-ID"),
        (np.array("[" * 100_000), "[" * 100_000),
        (np.array({"a": 1}, object), {"a": 1}),
        (np.array('{"a": 1}', object), {"a": 1}),
        (np.array(None, object), None),
        (np.array(3.5), 3.5),
    ],
    ids=lambda value: str(value)[:20],
)
def test_metadata_of_every_form_are_read(stored: Any, expected: Any) -> None:
    file = io.BytesIO()
    np.save(file, stored, allow_pickle=True)
    file.seek(0)
    assert read_metadata(file) == expected


def test_metadata_is_written_as_json() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": [None, np.str_("d")]}
    assert as_json(value) == '{"a": 0.5, "b": [0, 1, 2], "c": [null, "d"]}'
    for wrong in ({"a": object()}, {"a": 1j}, {(1, 2): 3}):
        with pytest.raises(ValueError, match="."):
            as_json(wrong)
