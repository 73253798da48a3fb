"""`docs/plugins.md`: what it shows is what happens."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from zoo_core import testing
from zoo_core.plugins import discover
from zoo_core.scaffold import plugin_files

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def text():
    """The page."""
    return (DOCS / "plugins.md").read_text(encoding="utf-8")


def test_the_reference_is_the_specs(text, monkeypatch):
    """The reference of the hooks is what `docs/hooks.py` writes from `hookspecs.py`."""
    monkeypatch.syspath_prepend(str(DOCS))
    import hooks

    assert hooks.page(text) == text, "type: python docs/hooks.py"
    for name in ("zoo_backbone_providers", "zoo_freeze_strategies", "zoo_head_builders", "zoo_data_regimes"):
        assert f"### `{name}() -> " in text


def test_the_files_on_the_page(text):
    """The listing of a new plugin has the files that are written, no more and no less."""
    listed = set(re.findall(r"^zoo-share/(.+)$", text, re.MULTILINE))
    assert listed == set(plugin_files("zoo-share", "freeze"))


def test_the_strategy_on_the_page(text, tmp_path, monkeypatch):
    """The freeze strategy on the page is a whole plugin, and keeps what zoo promises of one."""
    code = next(code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Share" in code)
    (tmp_path / "zoo_share.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    results = testing.check("share", discover([EntryPoint("share", "zoo_share", "zoo")], {}))
    assert {r.outcome for r in results if r.subject == "freeze share"} == {"passed"}
    shown = re.search(r"^(\d+) checks: \1 ran, \1 passed", text, re.MULTILINE)
    assert len(results) == int(shown.group(1))


def test_the_test_on_the_page(text):
    """The test file on the page is the one that a new plugin gets."""
    assert f"```python\n{plugin_files('zoo-share', 'freeze')['tests/test_zoo_share.py']}```" in text
