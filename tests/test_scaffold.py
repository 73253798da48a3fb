"""`zoo plugins new`: what it writes installs with pip, passes the kit and fine-tunes before a line is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from photos import make_photos

from zoo_core.errors import BadPluginName, FolderExists
from zoo_core.hookspecs import SPECS
from zoo_core.plugins import discover
from zoo_core.scaffold import plugin_files, write_plugin

NAMES = {"provider": "zoo-pond", "freeze": "zoo-share", "head": "zoo-normed", "regime": "zoo-often"}


@dataclass(frozen=True)
class Site:
    """A fresh virtual environment with the four new plugins, and the folder that their sources lie in."""

    python: Path
    sources: Path

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """Run its Python with these arguments."""
        environ = {n: v for n, v in os.environ.items() if not n.startswith("ZOO_")}
        environ |= {"ZOO_HOME": str(self.sources / "home"), "ZOO_CACHE": str(self.sources / "cache")}
        command = [str(self.python), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=self.sources)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Plugins of all four kinds, written by the command line, installed by pip into a fresh environment.

    The environment sees zoo and torch of this one through a path file: pip is asked for nothing but the plugins,
    builds them with the setuptools that torch requires, and needs no network.
    """
    folder = tmp_path_factory.mktemp("scaffold")
    venv.create(folder / "venv", symlinks=True, with_pip=False)
    python = next(path for path in folder.glob("venv/*/python*") if path.stem == "python")
    outer = sysconfig.get_paths()["purelib"]
    inner = sysconfig.get_paths(vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})["purelib"]
    (Path(inner) / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    site = Site(python, folder)
    for kind, name in NAMES.items():
        done = site.run("-m", "zoo_core", "plugins", "new", name, "--kind", kind)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"Next: pip install -e {name}, then zoo plugins check {name}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--quiet", *(str(folder / name) for name in NAMES.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.parametrize("kind", SPECS)
def test_the_files(kind, tmp_path):
    """A new plugin is six files: project, module, test, README, continuous integration, .gitignore; and its cards."""
    expected = {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "tests/test_zoo_mine.py",
        "zoo_mine/__init__.py",
    } | ({"zoo_mine/cards.json"} if kind == "provider" else set())
    listed = write_plugin("zoo-mine", kind, tmp_path / "new")
    written = {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert written == set(listed) == expected
    assert all(text.endswith("\n") and "$" not in text.replace("${{", "") for text in plugin_files("a", kind).values())


def test_a_newcomer_reads_it_in_a_minute():
    """The test has five lines of code, and a freeze strategy, head or regime under forty with its hook."""
    for kind in ("freeze", "head", "regime"):
        files = plugin_files("zoo-mine", kind)
        assert len([line for line in files["tests/test_zoo_mine.py"].splitlines() if line]) <= 5
        assert len(files["zoo_mine/__init__.py"].splitlines()) < 40


def test_it_is_found(site):
    """Installed by pip, each new plugin is in `zoo plugins` with package, version and what it supplies."""
    found = {p["distribution"]: p for p in json.loads(site.run("-m", "zoo_core", "plugins", "--json").stdout)}
    for kind, name in NAMES.items():
        plugin = found[name]
        assert (plugin["version"], plugin["error"], plugin["notes"]) == ("0.1.0", "", [])
        assert plugin["supplies"] == {kind: [name.removeprefix("zoo-")]}


def test_its_own_tests_pass(site):
    """The test file that comes with each new plugin runs every check of the kit, and none fails."""
    tests = [site.sources / name / "tests" for name in NAMES.values()]
    done = site.run("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed > 40
    assert "states a sha256" in done.stdout  # the example network has no weights, and the skip says so


def test_it_fine_tunes(site):
    """One run with the new backbone, strategy, head and regime together, on real files."""
    photos = make_photos(site.sources / "photos")
    strategies = ("--freeze", "share:0.7", "--head", "normed", "--regime", "often:times=3")
    options = ("-b", "pond/small", "--weights", "none", "--epochs", "2", "--device", "cpu", "--json")
    done = site.run("-m", "zoo_core", "finetune", photos, *options, *strategies)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["freeze"]["depth"] == 2
    assert summary["freeze"]["reason"] == "2 of 3 stages stay frozen, as asked."
    assert summary["frozen_digest_before"] == summary["frozen_digest_after"]
    assert (summary["head"], summary["regime"]) == ("normed", "often:times=3")


def test_the_cards_number_is_true():
    """The card of the example network states its real number of parameters."""
    files = plugin_files("zoo-mine", "provider")
    names = {"__file__": "zoo_mine/__init__.py"}
    exec(files["zoo_mine/__init__.py"], names)
    card = json.loads(files["zoo_mine/cards.json"])["cards"]["mine/small"]
    assert sum(p.numel() for p in names["network"]().parameters()) == card["parameters"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Zoo-Share", "expected lower-case letters and digits"),
        ("zoo_share", "expected lower-case letters and digits"),
        ("../share", "expected lower-case letters and digits"),
        ("zoo-", "expected lower-case letters and digits"),
        ("2zoo", "expected lower-case letters and digits"),
        ("lambda", "expected lower-case letters and digits"),
        ("random", "a Python module 'random' is installed already. Choose another name, e.g. zoo-random."),
        ("zoo-last", "the freeze 'last' is supplied by zoo-core. Choose another name."),
    ],
)
def test_names_that_cannot_be(name, reason, tmp_path):
    """A name that pip or Python cannot take, or that hides something, is refused; nothing is written."""
    with pytest.raises(BadPluginName) as error:
        write_plugin(name, "freeze", tmp_path / "new", discover([], {}))
    assert reason in str(error.value)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    """A folder that holds something is left alone; an empty one is filled."""
    (tmp_path / "new").mkdir()
    write_plugin("zoo-mine", "freeze", tmp_path / "new")
    with pytest.raises(FolderExists, match=r"new is already there\. Give another folder with --out"):
        write_plugin("zoo-mine", "freeze", tmp_path / "new")
