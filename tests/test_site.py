"""The documentation site builds without a warning, every link on it leads somewhere, every command is on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zoo_core.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with warnings as errors."""
    pytest.importorskip("material", reason="the site needs mkdocs-material: pip install 'zoo-core[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_builds(site):
    """Pages from `docs/`, from the top of the repository and from the plugins are there, links checked."""
    for page in ("index.html", "registry.html", "architecture.html", "plugins/zoo-lda.html", "cli.html"):
        assert (site / page).is_file()


def test_every_command_is_on_it(site):
    """The reference of the command line has every command with its help."""
    text = (site / "cli.html").read_text(encoding="utf-8")
    for name in (*COMMANDS, "plugins new", "plugins check"):
        assert name == "ls" or f">zoo {name}<" in text.replace('<a class="headerlink"', "<"), name


def test_it_loads_nothing_from_elsewhere(site):
    """No page asks another host for a script, a style, a font or a picture."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, page
        assert "fonts.googleapis" not in text, page
