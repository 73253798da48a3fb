"""What a plugin's hooks and classes must look like, looked at when it is loaded: each mistake has its sentence."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

from zoo_core import hookspecs
from zoo_core.errors import UsageError, near
from zoo_core.hookspecs import METHODS, SPECS

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PROTOCOLS: dict[str, Any] = {
    "provider": hookspecs.Provider,
    "freeze": hookspecs.FreezeStrategy,
    "head": hookspecs.HeadBuilder,
    "regime": hookspecs.DataRegime,
}


def supplies_of(module: Any) -> dict[str, dict[str, type]]:
    """Call each hook of one plugin, alone in a manager of its own: kind -> name -> class.

    Raises:
        UsageError: what is wrong with it; whatever the plugin raises passes through.
    """
    _check_hooks(module)
    pm = hookspecs.manager()
    pm.register(module)
    pm.check_pending()
    supplies: dict[str, dict[str, type]] = {}
    for kind, hook in SPECS.items():
        for implementation in getattr(pm.hook, hook).get_hookimpls():
            found = supplies.setdefault(kind, {})
            for name, cls in _checked(kind, hook, implementation.function()).items():
                if name in found:
                    raise UsageError(f"the {kind} {name!r} is supplied twice, by two functions that are {hook}.")
                found[name] = cls
    if not supplies:
        raise UsageError(f"it has no hook; expected one of {', '.join(SPECS.values())}, with the marker @hookimpl.")
    return supplies


def _check_hooks(module: Any) -> None:
    """pluggy ignores an unmarked or misspelt hook in silence; a user would look for it for hours."""
    for name, routine in inspect.getmembers(module, inspect.isroutine):
        marker = getattr(routine, "zoo_impl", None)
        hook = (marker or {}).get("specname") or name
        if not (marker or name.startswith("zoo_")):
            continue
        if hook not in SPECS.values():
            raise UsageError(f"{hook} is no hook. {near(hook, SPECS.values())}")
        if not marker:
            raise UsageError(f"{name} lacks the marker @hookimpl (from zoo_core import hookimpl).")
        wanted = _required(routine)
        if wanted:
            raise UsageError(f"{name}({', '.join(wanted)}) asks for arguments; expected def {name}():")


def _checked(kind: str, hook: str, result: Any) -> dict[str, type]:
    if not isinstance(result, dict):
        raise UsageError(f"{hook} returned {type(result).__name__}; expected a dict of name to class.")
    for name, cls in result.items():
        if not isinstance(name, str) or not isinstance(cls, type):
            raise UsageError(f"{hook} returned {name!r}: {cls!r}; expected a name and a class.")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{hook}: the name {name!r} cannot be typed; expected lower-case words joined by '-'.")
        _check_class(kind, hook, cls)
    return result


def _check_class(kind: str, hook: str, cls: Any) -> None:
    """The attributes and signatures that the engine relies on."""
    where = f"{hook}: {cls.__name__}"
    lacking = [m for m in METHODS[kind] if not hasattr(cls, m)]
    if lacking:
        raise UsageError(f"{where} has no {lacking[0]!r}; a {kind} needs {', '.join(METHODS[kind])}.")
    for name in METHODS[kind]:
        expected = getattr(_PROTOCOLS[kind], name, None)
        if expected is not None:
            _check_method(f"{where}.{name}", getattr(cls, name), expected)
    if kind == "provider":
        if not isinstance(cls.cards, str | Path):
            raise UsageError(f"{where}.cards is {cls.cards!r}; expected the path of a JSON file of cards.")
        return
    if not dataclasses.is_dataclass(cls):
        raise UsageError(f"{where} is no dataclass; write @dataclass(frozen=True) above it: its fields are options.")
    try:
        get_type_hints(cls)
    except Exception as error:
        raise UsageError(f"{where}: the type of a field cannot be read ({error}). Import it outside `if`.") from error


def _check_method(where: str, method: Any, expected: Any) -> None:
    names = list(inspect.signature(expected).parameters)
    try:
        signature = inspect.signature(method)
        signature.bind(*names)
    except (TypeError, ValueError) as error:
        given = f"({', '.join(signature.parameters)})" if callable(method) else "no method"
        raise UsageError(f"{where} is {given}; expected ({', '.join(names)}).") from error


def _required(routine: Any) -> list[str]:
    """Names of the arguments that a call must give."""
    empty, kinds = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(routine).parameters.values()
    return [p.name for p in parameters if p.default is empty and p.kind not in kinds]
