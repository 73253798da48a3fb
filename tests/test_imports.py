"""What is imported when, who may import whom, and how long a file may be."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "timm", "open_clip", "transformers", "torchvision", "sklearn", "scipy", "safetensors"}
CORE = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "zoo_core").rglob("*.py"))
}
PLUGINS = sorted((ROOT / "plugins").glob("zoo-*/zoo_*/**/*.py"))

CLI = "import sys; sys.argv[0] = 'zoo'; from zoo_core.cli import main; main()"
WATCH = """
import atexit, json, sys
out = sys.stdout
atexit.register(lambda: print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=out))
"""


def imported(code: str, *args: str) -> set[str]:
    """Top-level names of all modules that a fresh process has imported at the end."""
    command = [sys.executable, "-c", WATCH + code, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("list",),
        ("list", "*lite*", "--json"),
        ("show", "cnn/tf_efficientnet_lite0.in1k"),
        ("plugins",),
        ("strategies",),
        ("cache", "ls"),
        ("finetune", "--help"),
    ],
    ids=" ".join,
)
def test_looking_imports_no_torch(args):
    """Listing, showing, and every help page import no torch, timm, open_clip, transformers or torchvision."""
    modules = imported(CLI, *args)
    assert "zoo_core" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "code",
    [
        "import zoo_core",
        "import zoo_core; zoo_core.backbones('*'); zoo_core.Recipe; zoo_core.FreezePlan; zoo_core.ZooError",
        "from zoo_core import freeze, heads, regimes, hookimpl, TimmProvider, OpenClipProvider",
    ],
)
def test_importing_the_core_imports_no_torch(code):
    """`import zoo_core` and everything that needs no tensors imports no torch."""
    assert not imported(code) & HEAVY


@pytest.mark.parametrize("plugin", sorted({path.parent for path in PLUGINS if path.name == "__init__.py"}), ids=str)
def test_importing_a_plugin_imports_no_torch(plugin):
    """Importing a first-party plugin and calling its hooks imports no torch."""
    code = f"import sys; sys.path.insert(0, {str(plugin.parent)!r}); import {plugin.name} as p\n"
    code += "for name in dir(p):\n    if name.startswith('zoo_') and callable(getattr(p, name)): getattr(p, name)()"
    assert not imported(code) & HEAVY


def imports(path: Path) -> set[str]:
    """Modules of the core that a file imports anywhere, also inside functions; not those for type checkers only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in CORE else node.module for name in whole)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name for name in found if name.partition(".")[0] == "zoo_core"}


@pytest.mark.parametrize("name", [n for n in CORE if not n.startswith("zoo_core.cli")])
def test_dependency_rule(name):
    """cli -> engine -> the rest -> types, errors: nothing imports cli; few modules import the engine."""
    used = imports(CORE[name])
    if name != "zoo_core.__main__":
        assert not {u for u in used if u.startswith("zoo_core.cli")}
    if name not in ("zoo_core.api", "zoo_core.comparing", "zoo_core.engine", "zoo_core.streams", "zoo_core.tried"):
        assert "zoo_core.engine" not in used
    if name != "zoo_core":
        assert "zoo_core.api" not in used
    if name in ("zoo_core.types", "zoo_core.errors"):
        assert used <= {"zoo_core.errors"}


def test_no_cycles():
    """No module of the core imports, directly or not, a module that imports it at the top of the file."""
    top = {}
    for name, path in CORE.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        body = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
        module = ast.Module(body=body, type_ignores=[])
        copy = {f"{n.module}.{a.name}" for n in module.body if isinstance(n, ast.ImportFrom) for a in n.names}
        copy |= {n.module for n in module.body if isinstance(n, ast.ImportFrom) and n.module}
        top[name] = {used for used in copy if used in CORE and used not in ("zoo_core", name)}
    done: set[str] = set()
    while top:
        free = [name for name, used in top.items() if used <= done]
        assert free, f"a cycle among {sorted(top)}"
        for name in free:
            done.add(name)
            del top[name]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_use_public_names(path):
    """Plugins import from `zoo_core` itself, and only what it lists as public."""
    import zoo_core

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("zoo_core.")]
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "zoo_core":
            assert node.module == "zoo_core"
            assert {alias.name for alias in node.names} <= set(zoo_core.__all__)


@pytest.mark.parametrize("folder", ["zoo_core", "plugins", "tests", "benchmarks"])
def test_no_file_over_400_lines(folder):
    """No Python file has more than 400 lines."""
    files = (ROOT / folder).rglob("*.py")
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


CHANGES_FILES = re.compile(
    r"\bos\.(replace|rename|renames|link|unlink|remove|mkdir|makedirs|rmdir|removedirs|truncate)\(|"
    r"\bshutil\.(rmtree|move|copy\w*)\(|\.(unlink|rename|rmdir|touch|mkdir|symlink_to|hardlink_to)\(|\.replace\(path"
)


WRITES = re.compile(r"""\bopen\([^)]*["'][wxa]b?\+?["']|save_file\(|\.write_(text|bytes)\(|copyfile\(""")
ELSEWHERE = (
    'with named(path, size_bytes), open(path, "ab") as file:',
    'self._lock = open(path, "ab")  # noqa: SIM115  (held until the process ends)',
)
"""A download that goes on at its end, whose digest is compared; a lock, which holds no data."""


@pytest.mark.parametrize("name", CORE)
def test_one_module_changes_files(name):
    """Only `files.py` renames, links, removes and makes folders; what others write goes into a path that it gave."""
    text = CORE[name].read_text(encoding="utf-8")
    if name != "zoo_core.files":
        found = [m[0] for m in CHANGES_FILES.finditer(text) if m[0] != "shutil.copyfile("]
        assert found == []
    for line in text.splitlines():
        if WRITES.search(line) and not line.lstrip().startswith(("def ", "from ")):
            assert re.search(r"\btemp\b", line) or line.strip() in ELSEWHERE, line
