"""The one grammar for freeze, head and regime: `name` or `name:field=value,field=value`.

The first field may be given bare: `last:2` is `last:stages=2`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zoo_core.errors import BadOption, UnknownStrategy, near, shown
from zoo_core.plugins import Plugins


def build(plugins: Plugins, kind: str, spec: Any) -> Any:
    """A component from its spelling; an instance passes through.

    Example: `build(plugins, "freeze", "last:stages=2")` gives `Last(stages=2)`.
    """
    if not isinstance(spec, str):
        return spec
    name, options = _split(plugins, kind, spec)
    cls = plugins.get(kind, name)
    hints, fields = get_type_hints(cls), [f for f in dataclasses.fields(cls) if f.init]
    values: dict[str, Any] = {}
    for i, option in enumerate(part for part in options.split(",") if part):
        key, equals, text = option.partition("=")
        if not equals:
            if i or not fields:
                raise UnknownStrategy(
                    f"{kind} {shown(spec)}: got {shown(option)}, expected field=value. {_usage(name, cls)}"
                )
            key, text = fields[0].name, option
        if key not in {f.name for f in fields}:
            hint = near(key[:100], [f.name for f in fields])
            raise UnknownStrategy(f"{kind} {name!r} has no field {shown(key)}. {hint} {_usage(name, cls)}")
        values[key] = convert(text, hints[key], f"{name}:{key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise BadOption(f"{kind} {spec!r}: {error}. {_usage(name, cls)}") from error


def spell(plugins: Plugins, kind: str, component: Any) -> str:
    """The spelling of a component, with the fields that differ from their defaults."""
    if isinstance(component, str):
        return component
    name = plugins.name_of(kind, type(component))
    parts = [
        f"{f.name}={_text(getattr(component, f.name))}"
        for f in dataclasses.fields(component)
        if f.init and getattr(component, f.name) != f.default
    ]
    return f"{name}:{','.join(parts)}" if parts else name


def convert(text: str, kind: Any, where: str) -> Any:
    """Text to a value of a type hint: str, int, float, bool, a Literal, or a tuple joined by `+`."""
    origin, args = get_origin(kind), get_args(kind)
    try:
        if origin is Literal:
            if text not in args:
                raise ValueError
            return text
        if origin is tuple:
            return tuple(convert(part, args[0], where) for part in text.split("+") if text)
        if type(None) in args:  # Optional[X]
            inner = next(a for a in args if a is not type(None))
            return None if text in ("", "none", "auto") else convert(text, inner, where)
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        expected = " or ".join(map(str, args)) if origin is Literal else getattr(kind, "__name__", str(kind))
        raise BadOption(f"{where}: got {shown(text)}, expected {expected}.") from None


def options(cls: type) -> list[dict[str, Any]]:
    """The fields of a component class as plain data: name, type, default."""
    hints = get_type_hints(cls)
    return [
        {
            "name": f.name,
            "type": getattr(hints[f.name], "__name__", str(hints[f.name])),
            "default": None if f.default is dataclasses.MISSING else f.default,
        }
        for f in dataclasses.fields(cls)
        if f.init
    ]


def _split(plugins: Plugins, kind: str, spec: str) -> tuple[str, str]:
    """Name and options; `distribution:name:options` is recognised by its distribution."""
    first, _, rest = spec.partition(":")
    if first in {p.distribution for p in plugins.found} and first not in plugins.supplied(kind):
        second, _, options_text = rest.partition(":")
        return f"{first}:{second}", options_text
    return first, rest


def _usage(name: str, cls: type) -> str:
    listed = ", ".join(f"{o['name']}={_text(o['default'])}" for o in options(cls))
    return f"Fields of {name}: {listed or 'none'}."


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_text, value))
    return "none" if value is None else str(value)
