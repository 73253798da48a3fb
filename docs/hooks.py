"""The reference of the hooks in `docs/plugins.md`, generated from `zoo_core/hookspecs.py`.

python docs/hooks.py          write the page again
python docs/hooks.py --check  exit with 1 when the page is not what would be written
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from zoo_core import hookspecs

PAGE = Path(__file__).with_name("plugins.md")
START, END = "<!-- from here on written by docs/hooks.py -->", "<!-- to here -->"


def page(text: str) -> str:
    """The text of the page with the reference between its two marks."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{reference()}\n{END}{rest.partition(END)[2]}"


def reference() -> str:
    """Every hook: what it is for, and the class that it supplies."""
    tree = ast.parse(inspect.getsource(hookspecs))
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return "\n".join(_hook(found[name], found) for name in hookspecs.SPECS.values())


def _hook(hook: ast.AST, found: dict[str, ast.AST]) -> str:
    protocol = found[ast.unparse(hook.returns).removeprefix("dict[str, type[").removesuffix("]]")]
    parts = [f"### `{hook.name}() -> {ast.unparse(hook.returns)}`", _document(hook)]
    parts += [f"#### {protocol.name}", _document(protocol), *_members(protocol)]
    return "\n\n".join(parts) + "\n"


def _members(protocol: ast.ClassDef) -> list[str]:
    """Attributes and methods with the text that stands below each."""
    members = []
    for node, after in zip(protocol.body, [*protocol.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            members.append(f"- `{ast.unparse(node)}`: {_one_line(ast.literal_eval(after.value))}")
        if isinstance(node, ast.FunctionDef):
            signature = f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
            members.append(f"- `{signature}`: {_one_line(ast.get_docstring(node))}")
    return members


def _document(node: ast.AST) -> str:
    """A docstring as Markdown: its example becomes a block of code."""
    text, _, example = ast.get_docstring(node).partition("Example:\n")
    code = inspect.cleandoc(example)
    return text.strip() + (f"\n\n```python\n{code}\n```" if code else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(0 if page(old) == old else "docs/plugins.md is not what hookspecs.py says. Type: python docs/hooks.py")
    PAGE.write_text(page(old), encoding="utf-8")
