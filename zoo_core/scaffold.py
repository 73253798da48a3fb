"""Writing a new plugin: a complete package that installs and passes the conformance kit before a line is changed."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
from pathlib import Path
from string import Template

from zoo_core.errors import BadPluginName, FolderExists
from zoo_core.files import write_text
from zoo_core.layers import SCHEMA
from zoo_core.plugins import Plugins
from zoo_core.templates import CARD, CI, GITIGNORE, MODULES, PYPROJECT, README, TEST, USES

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_WHAT = {
    "provider": "a backbone provider",
    "freeze": "a freeze strategy",
    "head": "a head",
    "regime": "a data regime",
}


def write_plugin(name: str, kind: str, folder: Path, plugins: Plugins | None = None) -> list[str]:
    """Write the package `name` into `folder`; returns its files, relative to the folder, sorted.

    What it supplies is called as the package without a leading `zoo-`.

    Args:
        name: of the distribution, e.g. `zoo-share`.
        kind: `provider`, `freeze`, `head` or `regime`.
        folder: must not be there, or be empty.
        plugins: what is installed, so that no name is taken that somebody supplies.

    Raises:
        BadPluginName, FolderExists.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderExists(f"{folder} is already there. Give another folder with --out.")
    files = plugin_files(name, kind)
    short = _short(name)
    for plugin, _ in plugins.supplied(kind).get(short, []) if plugins else ():
        if plugin.distribution != name:
            raise BadPluginName(f"the {kind} {short!r} is supplied by {plugin.distribution}. Choose another name.")
    for path, text in files.items():
        write_text(folder / path, text)
    return sorted(files)


def plugin_files(name: str, kind: str) -> dict[str, str]:
    """Path to text of every file of a new plugin.

    Raises:
        BadPluginName: it cannot be a package's name, or would hide a module that is installed.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or name == "zoo-" or keyword.iskeyword(module):
        raise BadPluginName(f"{name!r}: expected lower-case letters and digits joined by '-', e.g. zoo-share.")
    if not name.startswith("zoo-") and importlib.util.find_spec(module):
        raise BadPluginName(f"a Python module {module!r} is installed already. Choose another name, e.g. zoo-{name}.")
    short = _short(name)
    words = {
        "name": name,
        "module": module,
        "short": short,
        "cls": "".join(word.capitalize() for word in short.split("-")) + kind.capitalize(),
        "what": _WHAT[kind],
        "kind": kind,
    }
    words["use"] = Template(USES[kind]).substitute(words)
    words["data"] = f'\n[tool.setuptools.package-data]\n{module} = ["cards.json"]\n' if kind == "provider" else ""
    templates = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        ".gitignore": GITIGNORE,
        ".github/workflows/test.yml": CI,
        f"{module}/__init__.py": MODULES[kind],
        f"tests/test_{module}.py": TEST,
    }
    files = {path: Template(text).substitute(words) for path, text in templates.items()}
    if kind == "provider":
        card = CARD | {"provider": short, "package": name}
        cards = {"schema": SCHEMA, "cards": {f"{short}/small": card}}
        files[f"{module}/cards.json"] = json.dumps(cards, indent=2, sort_keys=True) + "\n"
    return files


def _short(name: str) -> str:
    """What the plugin supplies is called."""
    return name.removeprefix("zoo-")
