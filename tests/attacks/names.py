"""Hostile names of files and classes: control characters, newlines, markup, options, climbing, no UTF-8."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

from beyond import Attack

LINES = (
    "audit photos",
    "audit photos --json",
    "audit photos --html audit.html",
    "finetune photos -b tiny/net --freeze last:1 --epochs 1 --device cpu --out out",
    "report out --out page.html",
    "predict out photos",
    "predict out photos --json",
    "predict out photos --out answers.csv",
    "eval out photos",
    "runs ls .",
)
NAMES: dict[str, str] = {
    "newline": "a\nb\r\nc",
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "bell-and-backspace": "ok\x07\b\b\b\bbad",
    "right-to-left": "\u202egnp.exe",
    "zero-width": "re\u200bd\u2028d",
    "script": "<script>alert(1)<&script>",
    "attribute": "\"onmouseover=alert(1) x='",
    "image": "<img src=x onerror=alert(1)>",
    "template": "{{7*7}}{% include 'x' %}${7*7}",
    "comment": "--><!--<![CDATA[",
    "style": "&lt;<style>*{display:none}<&style>",
    "formula": "=cmd|' &C calc'!A0",
    "option": "--force",
    "dots": "...",
    "quote": "\"';drop table runs;--",
    "shell": "$(touch escaped);`touch escaped`&|",
    "percent": "%s%n%00{0.__class__}",
    "toml": '"]\n[x]\na="',
    "surrogate": "caf\udce9",
    "long": "a" * 250,
    "blank": "   ",
    "pipe": "a|b",
    "combining": "Z" + "\u0301" * 100,
    "backslash": "..\\..\\escaped",
}
FORBIDDEN = {"script", "iframe", "object", "embed", "base", "form"}


def attacks() -> Iterator[Attack]:
    """Each as a class, and as a file."""
    for name, text in NAMES.items():
        yield Attack(f"class-{name}", lambda p, t=text: (p / "photos/red").rename(p / "photos" / t), LINES, check_pages)
        yield Attack(f"file-{name}", lambda p, t=text: _files(p, t), LINES, check_pages)
    yield Attack("class-folder-of-links", _links, LINES, check_pages, reads=True)  # as people link their images


def _files(project: Path, text: str) -> None:
    """All files of one class with the text in their name, so that some stand on each side."""
    for i, file in enumerate(sorted((project / "photos" / "red").iterdir())):
        file.rename(file.with_name(f"{text[:230]}{i}.png"))


def _links(project: Path) -> None:
    """A class of links: to a file outside, to themselves, to a folder above."""
    folder = project / "photos" / "red"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "a.png").symlink_to("../../../outside/secret.txt")
    (folder / "b.png").symlink_to("b.png")
    os.symlink("..", folder / "up")


class Page(HTMLParser):
    """What a page would load or run."""

    def __init__(self, text: str):
        super().__init__()
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in FORBIDDEN:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            outside = name in ("src", "href", "action", "data", "srcset") and not (value or "#").startswith(
                ("#", "data:")
            )
            if name.startswith("on") or outside:
                self.wrong.append(f"{tag} {name}={value}"[:100])


def check_pages(project: Path) -> Sequence[str]:
    """Nothing on a page comes from a name but text."""
    found = []
    for page in (project / "out" / "report.html", project / "page.html", project / "audit.html"):
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            found += [f"{page.name}: {wrong}" for wrong in Page(text).wrong]
            found += [f"{page.name}: {c!r}" for c in set(text) if not c.isprintable() and c not in "\n\t"]
    return found
