"""One way to read a conversation: messages with roles, as JSON. Needs no torch.

The form is the one that most tools write: a list of `{"role": ..., "content": ...}`, roles being `system`, `user`
and `assistant`. Whatever else a message holds is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from zoo_core import texts
from zoo_core.errors import BadExample, BadJson, BadOption, BadText, shown
from zoo_core.files import parse_json

Messages: TypeAlias = Sequence[dict[str, str]]

VERSION = "messages-1"
"""Version of `decode`; part of every cache key."""

ENDINGS = (".json", *texts.ENDINGS)
"""A file of one conversation; a text file is one message of the user's."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Saying:
    """How a chat model answers.

    Attributes:
        max_tokens: of one answer.
        temperature: 0 takes the most probable token each time; higher ones draw more freely.
        seed: of the draws.
    """

    max_tokens: int = 100
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0 <= self.temperature <= 10 or self.seed < 0:
            raise BadOption(
                f"got max_tokens {self.max_tokens}, temperature {self.temperature:g}, seed {self.seed}; expected 1 "
                "token or more, a temperature from 0 (most probable token) to 10, and a seed of 0 or more."
            )


def checked(value: Any) -> list[dict[str, str]]:
    """Messages with roles, their texts as they are digested and tokenised.

    Raises:
        BadText: it is no such list, or a message is empty.
    """
    if not isinstance(value, list) or not value:
        raise BadText(f"messages are {shown(value)}; expected a list of objects with role and content")
    found = []
    for message in value:
        role, content = (message.get(k) if isinstance(message, dict) else None for k in ("role", "content"))
        if role not in ROLES or not isinstance(content, str):
            raise BadText(f"a message is {shown(message)}; expected a role ({', '.join(ROLES)}) and a text as content")
        if not texts.plain(content):
            raise BadText(f"a message of the {role} is empty")
        found.append({"role": role, "content": texts.plain(content)})
    return found


def decode(path: str | Path) -> list[dict[str, str]]:
    """Read one conversation; a file that is no JSON is one message of the user's.

    Raises:
        BadExample: it is none.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        return [{"role": "user", "content": texts.decode(path)}]
    try:
        value = parse_json(texts.decode(path), str(path))
    except BadJson as error:
        raise BadText(str(error)) from error
    return checked(value.get("messages") if isinstance(value, dict) else value)


def to_train_on(value: Any) -> list[dict[str, str]]:
    """As `checked`; the assistant must say something in it."""
    found = checked(value)
    if all(message["role"] != "assistant" for message in found):
        raise BadText("the assistant says nothing in it; expected a message with the role assistant")
    return found


def to_answer(messages: Messages) -> list[dict[str, str]]:
    """What stands before the answer that is asked for: all up to the last message that is not the assistant's."""
    last = max((i for i, message in enumerate(messages) if message["role"] != "assistant"), default=-1)
    if last < 0:
        raise BadExample("nobody but the assistant says anything in it; expected a message of the user's")
    return list(messages[: last + 1])


def written(messages: Messages) -> bytes:
    """A conversation as a file: the same bytes for the same messages."""
    return json.dumps({"messages": list(messages)}, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def content_digest(messages: Messages) -> str:
    """sha256 (hex) over roles and texts."""
    return hashlib.sha256(written(messages)).hexdigest()


def look(messages: Messages) -> str:
    """Near for conversations of the same words: see `texts.look`."""
    return texts.look("\n".join(message["content"] for message in messages))
