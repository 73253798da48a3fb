"""What the documentation site has beside `docs/`: the README, the map, the plugins' pages, the commands' reference.

A hook of mkdocs (`mkdocs.yml`). These pages stand elsewhere in the repository, and the reference is made from the
commands themselves, so that neither is written twice. Links between all of them are turned to their places on the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from zoo_core.cli import cli

ROOT = Path(__file__).resolve().parents[1]
TOP = {"README.md": "index.md"} | {
    name: name.lower() for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
}
PLUGINS = {
    f"plugins/{path.parent.name}/README.md": f"plugins/{path.parent.name}.md"
    for path in ROOT.glob("plugins/*/README.md")
}
MOVED = TOP | PLUGINS
"""Path in the repository to path on the site, of pages outside `docs/`."""
_LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for source, target in MOVED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=_turned(text, source)))
    files.append(File.generated(config, "cli.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of the pages in `docs/` that lead out of it."""
    source = page.file.src_uri
    return markdown if source in {*MOVED.values(), "cli.md"} else _turned(markdown, f"docs/{source}")


def reference() -> str:
    """Every command with its help, examples and options."""
    parts = [
        "# Command line",
        "What `zoo COMMAND --help` prints. Results go to stdout, progress and warnings to stderr.",
    ]
    for path, command in _commands(cli, ["zoo"]):
        context = click.Context(command, info_name=" ".join(path), max_content_width=100)
        parts += [f"## {' '.join(path)}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    """A command and all below it; `ls` is `list` again."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from _commands(inner, [*path, name])


def _turned(text: str, source: str) -> str:
    """The text of a page with its links as they are on the site."""
    here = posixpath.dirname(_on_site(source))

    def turn(link: re.Match[str]) -> str:
        target = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2])))
        return f"{link[1]}{posixpath.relpath(target, here or '.')}{link[3] or ''})"

    return _LINK.sub(turn, text)


def _on_site(path: str) -> str:
    return MOVED.get(path, path.removeprefix("docs/"))
