"""One way to read a text: UTF-8, line ends as `\n`, no blanks at its ends. Needs no torch.

The text that is digested is the text that a tokeniser gets, so a row of the cache belongs to what was read.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_core.errors import BadText, WeightsMissing
from zoo_core.files import check_plain, sha256_file

if TYPE_CHECKING:
    from zoo_core.card import Source

VERSION = "utf8-1"
"""Version of `decode`; part of every cache key."""

ENDINGS = (".txt", ".text", ".md")
MAX_BYTES = 64 << 20

_WORD = re.compile(r"\w+")


def decode(path: str | Path) -> str:
    """Read one text.

    Raises:
        BadText: it is empty, no UTF-8, or over 64 MiB.
    """
    path = Path(path)
    size = check_plain(path)
    if size > MAX_BYTES:
        raise BadText(f"{size} bytes, more than {MAX_BYTES}")
    try:
        text = plain(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadText(f"not UTF-8: {error.reason} at byte {error.start}") from error
    if not text:
        raise BadText("empty text")
    return text


def plain(text: str) -> str:
    """A text as it is digested and tokenised."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def content_digest(text: str) -> str:
    """sha256 (hex) over the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def look(text: str) -> str:
    """Equal for texts of the same words in the same order, whatever their case, blanks and punctuation.

    It starts with `=`: such looks are near only where they are equal.
    """
    words = " ".join(_WORD.findall(text.casefold()))
    return f"={hashlib.sha256(words.encode()).hexdigest()[:32]}" if words else ""


def tokenizer_file(source: Source | None, card: str, files: str = "its tokenizer.json") -> Path:
    """Where a card's tokenizer lies.

    Args:
        files: what may be put beside the weights in its place, in words.

    Raises:
        WeightsMissing: it is not on this machine.
    """
    from zoo_core import weights

    path = weights.locate(source) if source else None
    if path is None:
        where = source.uri if source else "its card names none"
        raise WeightsMissing(
            f"the tokenizer of {card} ({where}) is not on this machine. Type: zoo pull {card}, "
            f"or put {files} beside the weights."
        )
    return path


@cache
def tokenizer_digest(path: Path) -> str:
    """sha256 (hex) of a tokenizer's file, read once in a process."""
    return sha256_file(path)
