"""Values of any kind, for tests that whatever is passed is used or refused, and never crashes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from hypothesis import strategies as st

SCALARS: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 20),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([np.float32(2), np.int8(2), b"x", (), {}]),
)


@st.composite
def arrays(draw: Any) -> Any:
    """Arrays of any shape, dtype, stride and byte order, with NaN and infinity among them."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=5)))
    dtype = draw(st.sampled_from(
        ["f8", "f4", "f2", "g", "i4", "i8", "u2", "u1", "c8", "c16", "?", "O", "U3", "M8[s]",
         ">f8", ">u2", ">c8"]
    ))  # fmt: skip
    values = st.sampled_from([0.0, 1.0, 3.0, 1.5, -2.0, 1e18, 1e200, np.nan, np.inf])
    filled = np.empty(shape, "f8")
    for i in range(filled.size):
        filled.flat[i] = draw(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = filled.astype(dtype)
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([-2, -1, 2]))]
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


ANYTHING = st.one_of(SCALARS, arrays())
GOOD_POSITIONS = np.arange(24.0).reshape(12, 2)
