"""Pickles of plain values, read without running what they say.

A pickle is a program, and ``pickle.loads`` runs it: whatever it names is imported and called. Here
only the instructions that make numbers, text, lists, dicts and NumPy arrays are carried out, and
nothing is imported or called for them. A pickle that names anything else is refused with that name.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MOST_BYTES = 2**24
"""A longer pickle is refused."""

MOST_VALUES = 10**5
"""Values in a pickle, each counted as often as it is referred to: a few bytes can mean billions."""

DEEPEST = 50
"""How deep lists may be nested."""

SCALARS = (type(None), bool, int, float, complex, str, bytes)

KNOWN = re.compile(
    r"numpy\.(_?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|ndarray|dtype)"
    r"|_codecs\.encode|(builtins|__builtin__)\.(complex|set|frozenset|bytearray|bytes)"
)
DTYPES = re.compile(r"[biufc]\d{1,2}|[SU]\d{1,7}|O8?")


def loads(content: bytes) -> Any:
    """Return the value of a pickle, if it consists of plain values.

    Parameters
    ----------
    content : bytes
        The pickle, of any protocol.

    Returns
    -------
    None, bool, int, float, complex, str, bytes, list, tuple, set, dict, ndarray or NumPy scalar

    Raises
    ------
    ValueError
        If the pickle names anything else (the message says what), is damaged, or is too large.

    Examples
    --------
    >>> import pickle
    >>> from ptycho_fast.io.npz.plain_pickle import loads
    >>> loads(pickle.dumps({"nphotons": 1e9}))
    {'nphotons': 1000000000.0}
    """
    if len(content) > MOST_BYTES:
        msg = f"it takes more than {MOST_BYTES / 2**20:.0f} MiB"
        raise ValueError(msg)
    try:
        return _Copy().of(_Machine().run(content), 0)
    # A damaged pickle takes from an empty stack, adds to what is not a list, ...
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        msg = f"it is damaged ({type(error).__name__}: {error})"
        raise ValueError(msg) from error


def _too_large() -> ValueError:
    return ValueError(f"it holds more than {MOST_VALUES} values")


def _wrong(value: Any) -> TypeError:
    return TypeError(f"{type(value).__name__} in the wrong place")  # its text may have no end


class _Copy:
    """Copies the value that was made, without helper objects, and counts what is in it."""

    def __init__(self) -> None:
        self.count = 0
        self.arrays: dict[int, NDArray[Any]] = {}

    def of(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise _too_large()
        if depth > DEEPEST:
            msg = f"it is nested more than {DEEPEST} deep, or holds itself"
            raise ValueError(msg)
        if type(value) is bytearray:
            return bytes(value)
        if type(value) in SCALARS or isinstance(value, np.generic):
            return value
        if type(value) in (list, tuple, set):
            return type(value)(self.of(each, depth + 1) for each in value)
        if type(value) is dict:
            return {key: self.of(each, depth + 1) for key, each in value.items()}
        if isinstance(value, _Dtype):
            return value.get()
        if not isinstance(value, _Array):
            msg = f"it names {value.name}, which is not a plain value"
            raise ValueError(msg)
        if id(value) not in self.arrays:
            array = self.arrays[id(value)] = value.get()
            if array.dtype.hasobject:
                for place, each in enumerate(array.flat):
                    array.flat[place] = self.of(each, depth + 1)
        return self.arrays[id(value)]


def _keys(values: list[Any]) -> list[Any]:
    """Return the values, if they can be hashed and are not nested too deeply."""
    for value in values:
        for each in value if type(value) is tuple else [value]:
            if type(each) not in SCALARS and not isinstance(each, np.generic):
                raise _wrong(each)
    return values


@dataclass
class _Name:
    """Something that a pickle refers to by name. It is not looked up."""

    name: str


@dataclass
class _Dtype:
    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        # (version, byte order, and what only structured dtypes and dates have)
        if state[2:5] != (None, None, None) or len(state) > 8 or state[1] not in "<>=|":
            msg = f"it holds a NumPy dtype {self.code!r} of a kind that cannot be read"
            raise ValueError(msg)
        self.order = state[1]

    def get(self) -> np.dtype[Any]:
        if self.code.startswith("O"):
            return np.dtype(object)
        return np.dtype((self.order if self.order in "<>" else "=") + self.code)


@dataclass
class _Array:
    """An array that is being made; its content comes later in the pickle."""

    state: tuple[Any, ...] | None = None

    def set_state(self, state: Any) -> None:
        self.state = state

    def get(self) -> NDArray[Any]:
        if self.state is None or len(self.state) != 5:
            msg = "it holds a NumPy array without its content"
            raise ValueError(msg)
        _, shape, dtype, is_fortran, content = self.state
        kind = dtype.get()
        order: Literal["C", "F"] = "F" if is_fortran else "C"
        if any(type(length) is not int or length < 0 for length in shape):
            raise _wrong(shape)
        if kind.hasobject:
            values = np.empty(len(content), object)
            for i, value in enumerate(content):
                values[i] = value
            return values.reshape(shape, order=order)
        content = content.encode("latin1") if isinstance(content, str) else bytes(content)
        if kind.itemsize == 0 or math.prod(shape) * kind.itemsize != len(content):
            msg = f"it holds a NumPy array {shape} of {kind} in {len(content)} bytes"
            raise ValueError(msg)
        array: NDArray[Any] = np.ndarray(shape, kind, content, order=order)
        return array.copy(order="K")


class _Machine:
    """Carries out the instructions of a pickle on a stack, as the pickle protocol defines them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks before each mark."""
        self.memo: dict[int, Any] = {}
        self.made = 0
        """About how many bytes calls have made: a few instructions could double them again."""

    def run(self, content: bytes) -> Any:
        """Return the value that the pickle ends with."""
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > 4 * MOST_VALUES:
                raise _too_large()
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in PUSHED:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[int(argument)] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[int(argument)])
            elif name == "GLOBAL":
                self.stack.append(_named(*argument.split(" ", 1)))
            elif name in OTHERS:
                OTHERS[name](self)
            elif name not in ("PROTO", "FRAME"):
                msg = f"it uses the instruction {name}, which makes no plain value"
                raise ValueError(msg)
        raise IndexError(len(content))

    def marked(self) -> list[Any]:
        """Take what lies above the last mark off the stack, and return it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self, count: int) -> tuple[Any, ...]:
        """Take the last values off the stack, and return them."""
        if count > len(self.stack):
            raise IndexError(count)
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def named(self) -> None:
        self.stack.append(_named(*self.top(2)))

    def append(self, values: list[Any]) -> None:
        last = self.stack[-1]
        if type(last) is not list:
            raise _wrong(last)
        last.extend(values)

    def add(self, values: list[Any]) -> None:
        last = self.stack[-1]
        if type(last) is not set:
            raise _wrong(last)
        last.update(_keys(values))

    def set_items(self, values: list[Any]) -> None:
        last = self.stack[-1]
        if type(last) is not dict or len(values) % 2:
            raise _wrong(last)
        last.update(zip(_keys(values[::2]), values[1::2], strict=True))

    def made_dict(self) -> None:
        values = self.marked()
        self.stack.append({})
        self.set_items(values)

    def reduce(self) -> None:
        function, arguments = self.top(2)
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise _wrong(function)
        self.made += sum(len(each) for each in arguments if hasattr(each, "__len__"))
        if self.made > 4 * MOST_BYTES:
            raise _too_large()
        self.stack.append(_called(function.name, arguments))

    def build(self) -> None:
        (state,) = self.top(1)
        if not isinstance(self.stack[-1], _Array | _Dtype) or type(state) is not tuple:
            raise _wrong(self.stack[-1])
        self.stack[-1].set_state(state)


def _named(module: Any, name: Any) -> _Name:
    full = f"{module}.{name}"
    if not KNOWN.fullmatch(full):
        msg = f"it names {full[:200]}, which would have to be run"
        raise ValueError(msg)
    return _Name(full)


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return what a function that pickles of NumPy call would make of plain arguments."""
    last = name.rpartition(".")[2]
    if last == "_reconstruct":
        if not (isinstance(arguments[0], _Name) and arguments[0].name == "numpy.ndarray"):
            raise _wrong(arguments[0])
        return _Array()
    if last == "_frombuffer":  # of protocol 5
        content, dtype, shape, order = arguments
        return _Array((1, shape, dtype, order == "F", content))
    if last == "dtype":
        if not (isinstance(arguments[0], str) and DTYPES.fullmatch(arguments[0])):
            msg = f"it holds a NumPy dtype {arguments[0]!r} of a kind that cannot be read"
            raise ValueError(msg)
        return _Dtype(arguments[0])
    if last == "scalar":
        dtype, content = arguments
        if dtype.get().hasobject:
            raise _wrong(dtype)
        return _Array((1, (), dtype, False, content)).get()[()]
    if last == "encode":
        text, encoding = arguments
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise _wrong(encoding)
        return text.encode("latin1")
    if last == "complex":
        real, imaginary = arguments
        if type(real) is not float or type(imaginary) is not float:
            raise _wrong(real)
        return complex(real, imaginary)
    if last in ("set", "frozenset") and type(arguments[0]) is list:
        return set(_keys(arguments[0]))
    if last in ("bytes", "bytearray"):
        return bytes(*(each for each in arguments[:1] if type(each) is bytes))
    raise _wrong(name)


PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
"""Instructions that carry their value."""

CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip

OTHERS: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.mark,
    "POP": lambda machine: machine.top(1) if machine.stack else machine.marked(),
    "POP_MARK": _Machine.marked,
    "DUP": lambda machine: machine.push(machine.stack[-1]),
    "MEMOIZE": _Machine.memoize,
    "STACK_GLOBAL": _Machine.named,
    "APPEND": lambda machine: machine.append([*machine.top(1)]),
    "APPENDS": lambda machine: machine.append(machine.marked()),
    "ADDITEMS": lambda machine: machine.add(machine.marked()),
    "SETITEM": lambda machine: machine.set_items([*machine.top(2)]),
    "SETITEMS": lambda machine: machine.set_items(machine.marked()),
    "LIST": lambda machine: machine.push(machine.marked()),
    "TUPLE": lambda machine: machine.push(tuple(machine.marked())),
    "FROZENSET": lambda machine: machine.push(set(_keys(machine.marked()))),
    "DICT": _Machine.made_dict,
    "TUPLE1": lambda machine: machine.push(machine.top(1)),
    "TUPLE2": lambda machine: machine.push(machine.top(2)),
    "TUPLE3": lambda machine: machine.push(machine.top(3)),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
