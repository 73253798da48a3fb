"""JSON objects that carry the sha256 of their own content, so that a flipped bit in a number is not believed."""

from __future__ import annotations

import json
from typing import Any

SEAL = "x-sha256"


def seal(value: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The object with its seal, which holds under that name only."""
    return value | {SEAL: _digest(value, name)}


def is_sealed(value: Any, name: str = "") -> bool:
    """Whether an object has its own seal."""
    return isinstance(value, dict) and SEAL in value and value[SEAL] == _digest(value, name)


def is_broken(value: Any, name: str = "") -> bool:
    """Whether an object has a seal that is not its own. People write some files too, and need not seal them."""
    return isinstance(value, dict) and SEAL in value and not is_sealed(value, name)


def unsealed(value: dict[str, Any]) -> dict[str, Any]:
    """The object without its seal."""
    return {key: part for key, part in value.items() if key != SEAL}


def _digest(value: dict[str, Any], name: str) -> str:
    import hashlib

    text = json.dumps(unsealed(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
