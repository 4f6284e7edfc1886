"""Functions in the place of another package's, wherever these were imported; and out again.

`ptycho_fast.ptychopinn.install` says what for. The class stays the other package's own, so that
``isinstance`` holds and objects made before go on working; a function is looked for by identity
in every loaded module, so that it does not matter who imported it, when, or by which name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("ptycho_fast")


@dataclass
class _Installed:
    """What was put where, and what had been there."""

    cls: type
    members: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    functions: list[tuple[Any, Any]] = field(default_factory=list)


_MISSING = object()

_installed: list[_Installed] = []
"""One, or none: what is installed is a fact about the process, as `sys.modules` is."""


def put_in_place(
    module_name: str,
    cls: type,
    methods: tuple[str, ...],
    functions: Mapping[str, Callable[..., Any]],
    settings: Mapping[str, Any],
) -> tuple[str, ...]:
    """Replace methods of a module's class, and functions of it in all modules that have them.

    What an earlier call replaced is restored first, unless this one is refused.

    Parameters
    ----------
    module_name : str
        The module; it is imported if need be.
    cls : type
        Whose methods replace those of the module's class of the same name. Its private members
        go along, for the methods need them.
    methods : tuple of str
        Which methods.
    functions : mapping of str to callable
        What replaces the module's functions of these names.
    settings : mapping of str to Any
        Private members with other values than `cls` has.

    Returns
    -------
    tuple of str
        Everything that was replaced, by its full name.

    Raises
    ------
    ImportError
        If there is no such module.
    ValueError
        If the module is an alias of the one that replaces it, or a method or function is missing
        there or takes other arguments, before anything is replaced.
    """
    module = _import(module_name)
    theirs = getattr(module, cls.__name__, None)
    _refuse_alias(module_name, module, theirs, cls)
    _refuse_other_arguments(module, cls, theirs, methods, functions)
    assert isinstance(theirs, type)
    take_out()

    done = _Installed(theirs)
    _installed.append(done)
    for name in (*methods, *_private(cls, methods)):
        value = settings.get(name, vars(cls)[name])
        done.members[name] = (vars(theirs).get(name, _MISSING), value)
        setattr(theirs, name, value)
    done.functions = [
        (getattr(module, name), _copy(function, module_name))
        for name, function in functions.items()
    ]
    names = [f"{module_name}.{cls.__name__}.{name}" for name in methods]
    names += _rebind(done.functions)
    logger.info("installed, %d replaced: %s", len(names), ", ".join(names))
    return tuple(names)


def take_out() -> tuple[str, ...]:
    """Restore what `put_in_place` replaced, also in modules that were imported since.

    What somebody else has replaced meanwhile stays as it is.

    Returns
    -------
    tuple of str
        Everything that was restored, by its full name; empty if nothing was installed.
    """
    if not _installed:
        return ()
    done = _installed.pop()
    names = []
    for name, (before, after) in done.members.items():
        if vars(done.cls).get(name, _MISSING) is not after:
            continue
        if before is _MISSING:
            delattr(done.cls, name)
        else:
            setattr(done.cls, name, before)
            names.append(f"{done.cls.__module__}.{done.cls.__qualname__}.{name}")
    names += _rebind([(after, before) for before, after in done.functions])
    logger.info("uninstalled, %d restored: %s", len(names), ", ".join(names))
    return tuple(names)


def _import(module_name: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Something that it imports may be missing instead: that is best said as it is.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        msg = (
            f"There is no module {module_name} to install into ({error}). Install PtychoPINN, or "
            "put it on the path."
        )
        raise ImportError(msg) from error


def _refuse_alias(module_name: str, module: types.ModuleType, theirs: Any, cls: type) -> None:
    if module is not sys.modules.get(cls.__module__) and theirs is not cls:
        return
    msg = (
        f"sys.modules[{module_name!r}] is {module.__name__}, whose {cls.__name__} is "
        f"{cls.__module__}'s already: there is nothing to install into, and what imports "
        f"{module_name} has these functions. Leave install() out, or take the alias away (del "
        f"sys.modules[{module_name!r}]) before anything imports it."
    )
    raise ValueError(msg)


def _original(owner: Any, name: str) -> Any:
    """Return what a name means, or meant before the installing; None if nothing."""
    found = getattr(owner, name, None)
    for done in _installed:
        before, after = done.members.get(name, (None, _MISSING))
        if owner is done.cls and vars(owner).get(name) is after:
            return None if before is _MISSING else before.__get__(None, owner)
        for before, after in done.functions:
            if found is after:
                return before
    return found


def _refuse_other_arguments(
    module: types.ModuleType,
    cls: type,
    theirs: type | None,
    methods: tuple[str, ...],
    functions: Mapping[str, Callable[..., Any]],
) -> None:
    pairs: dict[str, tuple[Any, Any]] = {cls.__name__: (theirs, cls)}
    for name in methods:
        pairs[f"{cls.__name__}.{name}"] = (_original(theirs, name), getattr(cls, name))
    for name, function in functions.items():
        pairs[name] = (_original(module, name), function)
    # Private names of ours that happen to be theirs too would change what theirs do.
    faults = [
        f"{cls.__name__}.{name} is there already and may mean something else"
        for name in _private(cls, methods)
        if _original(theirs, name) is not None
    ]
    for name, (found, ours) in pairs.items():
        if found is None:
            faults.append(f"{name}{_arguments(ours)} is not there")
        elif _arguments(found) != _arguments(ours):
            faults.append(f"{name} takes {_arguments(found)}, ours takes {_arguments(ours)}")
    if faults:
        msg = (
            f"{module.__name__} is of a version that does not fit, and nothing was replaced: "
            f"{'; '.join(faults)}. Use the version that these signatures are of, or import from "
            "ptycho_fast.ptychopinn where you call them."
        )
        raise ValueError(msg)


def _arguments(function: Any) -> str:
    """Return names, kinds and defaults of arguments, which is what callers depend on."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _private(cls: type, methods: tuple[str, ...]) -> list[str]:
    """Return what the methods need of their class."""
    names = [name for name in vars(cls) if name.startswith("_") and not name.startswith("__")]
    # Names that only say that they are gone are none.
    return [name for name in names if name not in methods and hasattr(cls, name)]


def _copy(function: Callable[..., Any], module_name: str) -> Callable[..., Any]:
    """Return an object of its own, to be told from the same function imported from here."""

    @functools.wraps(function)
    def replacement(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    replacement.__module__ = module_name  # where pickle will find it
    return replacement


def _rebind(pairs: list[tuple[Any, Any]]) -> list[str]:
    """Let every name in every loaded module that means the one mean the other."""
    wanted = {id(old): new for old, new in pairs}
    names = []
    for module, namespace in _namespaces():
        for name, value in list(namespace.items()):
            if id(value) in wanted:
                namespace[name] = wanted[id(value)]
                names.append(f"{module}.{name}")
    return names


def _namespaces() -> Iterator[tuple[str, dict[str, Any]]]:
    seen = set()
    for name, module in list(sys.modules.items()):
        # Not vars(module): modules that load themselves lazily would, and what is no module may.
        if isinstance(module, types.ModuleType) and id(module) not in seen:
            seen.add(id(module))
            yield name, object.__getattribute__(module, "__dict__")
