"""How a check says what it found: it returns, it fails, or it cannot be made here."""

from __future__ import annotations


class Failed(AssertionError):
    """The plugin does not keep the promise; the text says what was found and what was expected."""


class Skip(Exception):
    """The check cannot be made here; the text is the reason, which is always shown."""


def expect(condition: object, message: str) -> None:
    """Raise `Failed` with the message unless the condition holds (`assert` is gone under `python -O`)."""
    if not condition:
        raise Failed(message)
