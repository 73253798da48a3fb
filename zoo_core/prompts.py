"""What is said of each class to a text tower: names in templates, from files of plain lines. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo_core.errors import BadOption, near

TEMPLATE = "a photo of a {}."
"""The one that CLIP's authors start from (Radford et al. 2021, arXiv:2103.00020, section 3.1.4)."""


def prompts_of(classes: Sequence[str], names: str = "", templates: str = "") -> list[list[str]]:
    """For each class every name of it in every template.

    Args:
        names: a file of lines `class = words`; a class may have several. One that has none is called as its label is,
            with blanks for underscores.
        templates: a file of lines such as `a photo of a {}.`.

    Raises:
        BadOption: a file cannot be read, or a line says nothing that makes sense.
    """
    called = _names(names, classes) if names else {}
    frames = _templates(templates) if templates else [TEMPLATE]
    spoken = [called.get(name, [name.replace("_", " ")]) for name in classes]
    return [[frame.replace("{}", name) for name in each for frame in frames] for each in spoken]


def _names(path: str, classes: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in _lines(path, "names"):
        label, equals, words = (part.strip() for part in line.partition("="))
        if not equals or not words:
            raise BadOption(
                f"{path}, line {number}: got {line!r}, expected class = words, such as {classes[0]} = a cat."
            )
        if label not in classes:
            hint = near(label, classes)
            raise BadOption(f"{path}, line {number}: the data have no class {label!r}. {hint}".rstrip())
        found.setdefault(label, []).append(words)
    return found


def _templates(path: str) -> list[str]:
    found = []
    for number, line in _lines(path, "templates"):
        if line.count("{}") != 1:
            raise BadOption(f"{path}, line {number}: got {line!r}, expected {{}} once, such as {TEMPLATE}")
        found.append(line)
    if not found:
        raise BadOption(f"{path} has no template; expected lines such as {TEMPLATE}")
    return found


def _lines(path: str, what: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without those that are empty or begin with `#`."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{what}={path}: {error}. Expected a text file in UTF-8, one line for each.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()
