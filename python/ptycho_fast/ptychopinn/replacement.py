"""Replace the functions and methods of another package, and restore them.

`ptycho_fast.ptychopinn.install` uses this. The other package keeps its own class, so that
``isinstance`` still holds and objects that exist already work with the new methods. A function is
found by identity in every loaded module, so it does not matter who imported it, when, or under
which name.
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
    """What was replaced, and by what."""

    cls: type
    """The other package's class."""
    members: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """What a member of the class was before, and what it is now."""
    functions: list[tuple[Any, Any]] = field(default_factory=list)
    """What a function was before, and what it is now."""


_MISSING = object()
"""Stands for a member that the class did not have."""

_installed: list[_Installed] = []
"""At most one. It is global because what is installed concerns the whole process, as
`sys.modules` does."""


def put_in_place(
    module_name: str,
    cls: type,
    methods: tuple[str, ...],
    functions: Mapping[str, Callable[..., Any]],
    settings: Mapping[str, Any],
) -> tuple[str, ...]:
    """Replace methods of a class and functions of a module, wherever those were imported.

    What an earlier call replaced is restored first, unless this call is refused.

    Parameters
    ----------
    module_name : str
        The other package's module. It is imported if it is not loaded yet.
    cls : type
        Its methods replace those of the module's class of the same name. Its private members are
        copied too, because the methods need them.
    methods : tuple of str
        Names of the methods to replace.
    functions : mapping of str to callable
        What replaces the module's functions of these names.
    settings : mapping of str to Any
        Private members that get another value than they have in `cls`.

    Returns
    -------
    tuple of str
        Full names of everything that was replaced.

    Raises
    ------
    ImportError
        If there is no such module.
    ValueError
        If the module is an alias of the one that would replace it, or one of its methods or
        functions is missing or takes other arguments. Nothing is replaced then.
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

    Whatever others have replaced in the meantime is left as it is.

    Returns
    -------
    tuple of str
        Full names of everything that was restored; empty if nothing was installed.
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
        # Where it is an import inside that module that fails, Python's own message says it best.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        msg = (
            f"There is no module {module_name} to install into ({error}). Install PtychoPINN, or "
            "add its folder to sys.path."
        )
        raise ImportError(msg) from error


def _refuse_alias(module_name: str, module: types.ModuleType, theirs: Any, cls: type) -> None:
    if module is not sys.modules.get(cls.__module__) and theirs is not cls:
        return
    msg = (
        f"sys.modules[{module_name!r}] is {module.__name__}, whose {cls.__name__} is already that "
        f"of {cls.__module__}: there is nothing to install into, and code that imports "
        f"{module_name} gets the drop-in. Leave install() out, or remove the alias (del "
        f"sys.modules[{module_name!r}]) before anything imports it."
    )
    raise ValueError(msg)


def _original(owner: Any, name: str) -> Any:
    """Return what a name means, or meant before it was replaced; None if it does not exist."""
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
    # If a private name of ours is also one of theirs, replacing it would change their own methods.
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
            f"{module.__name__} is of a version that does not fit, so nothing was replaced: "
            f"{'; '.join(faults)}. Use a version with these signatures, or change your imports to "
            "ptycho_fast.ptychopinn instead of calling install()."
        )
        raise ValueError(msg)


def _arguments(function: Any) -> str:
    """Return names, kinds and defaults of the arguments, on which callers depend."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _private(cls: type, methods: tuple[str, ...]) -> list[str]:
    """Return the private members that the methods need of their class."""
    names = [name for name in vars(cls) if name.startswith("_") and not name.startswith("__")]
    # hasattr is False for names that only say what to use instead.
    return [name for name in names if name not in methods and hasattr(cls, name)]


def _copy(function: Callable[..., Any], module_name: str) -> Callable[..., Any]:
    """Return a function that can be told from the same one imported from the drop-in."""

    @functools.wraps(function)
    def replacement(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    replacement.__module__ = module_name  # where pickle looks for it
    return replacement


def _rebind(pairs: list[tuple[Any, Any]]) -> list[str]:
    """In every loaded module, rebind the names of the first of each pair to the second."""
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
        # Not vars(module), which would make lazy modules load. sys.modules may hold other objects.
        if isinstance(module, types.ModuleType) and id(module) not in seen:
            seen.add(id(module))
            yield name, object.__getattribute__(module, "__dict__")
