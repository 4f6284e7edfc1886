"""The arguments of batches are the same for every way to get them."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

import ptycho_fast as pf
from ptycho_fast.batches.options import BatchArguments, BatchOptions


@pytest.mark.parametrize("method", ["batches", "to_tensorflow", "to_torch"])
def test_signatures_show_every_option_with_its_default(method: str) -> None:
    shown = inspect.signature(getattr(pf.GroupedDataset, method)).parameters
    for field in fields(BatchOptions)[1:]:
        own = {"layout": "channels_first"} if method == "to_torch" else {}
        assert shown[field.name].default == own.get(field.name, field.default)
        assert shown[field.name].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(shown)[:2] == ["self", "batch_size"]


def test_type_checkers_know_the_same_options() -> None:
    names = {field.name for field in fields(BatchOptions)} - {"batch_size", "layout"}
    assert set(BatchArguments.__annotations__) == names


def test_a_feed_has_the_defaults_of_its_method() -> None:
    pytest.importorskip("torch")
    feeds = pytest.importorskip("ptycho_fast.feeds.torch")
    own: dict[str, Any] = dict(inspect.signature(feeds.TorchFeed.__init__).parameters)
    for name, parameter in inspect.signature(pf.GroupedDataset.to_torch).parameters.items():
        if name in own and name != "self":
            assert own[name].default == parameter.default, name


def test_options_are_checked_where_they_are_made() -> None:
    options = BatchOptions(4, shuffle=True, seed=3, fields=["Y"], layout="channels_first")
    assert options.fields == ("Y",)
    assert options.channels_first
    assert options.at_epoch(5) == BatchOptions(
        4, shuffle=True, seed=3, epoch=5, fields=["Y"], layout="channels_first"
    )
    assert BatchOptions(4, seed=-1).seed == -1  # unused without shuffling
    with pytest.raises(ValueError, match="seed must be a whole number"):
        BatchOptions(4, shuffle=True, seed=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'start_batch'"):
        BatchOptions(4, start_batch=1)  # type: ignore[call-arg]


def test_open_ranks_are_those_of_a_single_process() -> None:
    options = BatchOptions(4).of_this_process()
    assert (options.rank, options.world_size) == (0, 1)
    assert options.of_this_process() == options
