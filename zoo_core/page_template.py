"""The templates of pages, with one way to fill them: everything is escaped, and a name that is missing is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from zoo_core.errors import printable


@cache
def of(name: str) -> Any:
    """The template in the file of that name beside this module."""
    from jinja2 import Environment, StrictUndefined

    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)


def _finalize(value: Any) -> Any:
    """Control and direction characters in names are spelled out; markup of ours is left alone."""
    return printable(value) if type(value) is str else value
