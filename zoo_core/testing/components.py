"""What the checks of freeze strategies, heads and regimes share: the thing itself, a task, the options."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from zoo_core import components
from zoo_core.testing.outcome import Skip, expect
from zoo_core.types import Example, Split, Task

CLASSES = ("a", "b", "c")


@dataclass(frozen=True)
class Component:
    """A freeze strategy, a head or a regime as it is supplied."""

    kind: str
    name: str
    cls: Any

    def make(self) -> Any:
        """One with its default options."""
        needed = [f.name for f in _fields(self.cls) if _default(f) is dataclasses.MISSING]
        if needed:
            raise Skip(f"{self.name} has no default for {', '.join(needed)}, so there is no plain one to check.")
        return self.cls()


@cache
def task() -> Task:
    """Three classes, ten examples each: six to train on, two to validate, two to test."""
    sides: tuple[Split, ...] = ("train",) * 6 + ("val",) * 2 + ("test",) * 2
    examples = tuple(
        Example(path=f"{name}/{i}.png", label=label, digest=f"{label:032x}{i:032x}", split=side)
        for label, name in enumerate(CLASSES)
        for i, side in enumerate(sides)
    )
    return Task(source="the conformance kit", classes=CLASSES, examples=examples)


def is_a_frozen_dataclass(component: Component) -> None:
    """Its fields are its options, and nothing changes them after the user chose."""
    frozen = component.cls.__dataclass_params__.frozen
    expect(frozen, f"{component.cls.__name__} can be changed; write @dataclass(frozen=True).")


def has_a_help_line(component: Component) -> str:
    """The first line of its docstring is a sentence that `zoo strategies` shows."""
    text = inspect.cleandoc(component.cls.__doc__ or "")
    line = text.splitlines()[0] if text else ""
    written = not line.startswith(f"{component.cls.__name__}(")  # what dataclass writes where nothing is
    expect(line and written, f"{component.cls.__name__} has no docstring; its first line is the help line.")
    expect(line.endswith((".", ")")), f"the help line {line!r} is no sentence; expected one that ends with a period.")
    return line


def options_can_be_typed(component: Component) -> str:
    """Every default of an option, written on the command line, gives that default again."""
    hints, found = get_type_hints(component.cls), _fields(component.cls)
    for f in found:
        default = _default(f)
        if default is not dataclasses.MISSING:
            read = components.convert(_written(default), hints[f.name], f"{component.name}:{f.name}")
            expect(read == default, f"{f.name}={_written(default)} is read as {read!r}; expected {default!r}.")
    return ", ".join(f.name for f in found) or "no options"


def _fields(cls: Any) -> list[Any]:
    return [f for f in dataclasses.fields(cls) if f.init]


def _default(f: Any) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return "none" if value is None else str(value)


CHECKS = (is_a_frozen_dataclass, has_a_help_line, options_can_be_typed)
