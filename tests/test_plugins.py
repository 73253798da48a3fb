"""Finding plugins: every broken one is reported, and breaks nothing else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from zoo_core import hookimpl
from zoo_core.errors import AmbiguousName, PluginBroken, UnknownStrategy
from zoo_core.plugins import discover

GOOD = """
from zoo_core import hookimpl
from zoo_core.freeze import HeadOnly

@hookimpl
def zoo_freeze_strategies():
    return {"mine": HeadOnly}
"""
BROKEN = {
    "raises": ("raise RuntimeError('no licence file')", "RuntimeError: no licence file."),
    "exits": ("raise SystemExit(3)", "SystemExit: 3."),
    "syntax": ("def (", "SyntaxError: invalid syntax"),
    "absent": (GOOD.replace("zoo_core.freeze", "zoo_core.frieze"), "ModuleNotFoundError: No module named"),
    "signature": (
        GOOD.replace("strategies()", "strategies(stages)"),
        "zoo_freeze_strategies(stages) asks for arguments; expected def zoo_freeze_strategies():",
    ),
    "misspelt": (
        GOOD.replace("zoo_freeze_strategies", "zoo_freeze_strategy"),
        "zoo_freeze_strategy is no hook. Did you mean zoo_freeze_strategies?",
    ),
    "unmarked": (GOOD.replace("@hookimpl", ""), "zoo_freeze_strategies lacks the marker @hookimpl"),
    "none": (GOOD.replace('return {"mine": HeadOnly}', "pass"), "returned NoneType; expected a dict"),
    "instance": (GOOD.replace("HeadOnly}", "HeadOnly()}"), "expected a name and a class"),
    "methodless": (GOOD.replace("HeadOnly}", "int}"), "int has no 'plan'; a freeze needs plan"),
    "hook-raises": (GOOD.replace("return", "raise KeyError() #"), "KeyError"),
    "hook-exits": (GOOD.replace("return", "raise SystemExit() #"), "SystemExit"),
}


@dataclass(frozen=True)
class EntryPoint:
    """What `importlib.metadata` would give for one installed plugin, its module made from text."""

    name: str
    text: str = GOOD
    dist_name: str = ""

    @property
    def value(self):
        return self.name.replace("-", "_")

    @property
    def dist(self):
        return SimpleNamespace(name=self.dist_name or f"zoo-{self.name}", version="2.1")

    def load(self):
        module = ModuleType(self.value)
        exec(compile(self.text, self.name, "exec"), vars(module))
        return module


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_breaks_only_itself(name):
    """A plugin that fails in whatever way is reported with package, version and reason; the others are there."""
    text, reason = BROKEN[name]
    plugins = discover([EntryPoint("alpha"), EntryPoint(name, text), EntryPoint("zulu")], {})
    (broken,) = plugins.broken
    assert (broken.name, broken.distribution, broken.version) == (name, f"zoo-{name}", "2.1")
    assert reason in broken.error
    assert "\n" not in broken.error
    assert "Traceback" in broken.traceback
    assert broken.supplies == {}
    assert [p.distribution for p, _ in plugins.supplied("freeze")["mine"]] == ["zoo-alpha", "zoo-zulu"]
    assert plugins.get("freeze", "head-only").__name__ == "HeadOnly"


def test_asking_for_what_a_broken_plugin_supplies():
    """Asking for something of a broken plugin says that it is installed but broken, not that it is unknown."""
    plugins = discover([EntryPoint("raises", BROKEN["raises"][0])], {})
    for name in ("raises", "zoo-raises:mine"):
        with pytest.raises(PluginBroken, match=r"zoo-raises is installed but broken: RuntimeError.*zoo plugins"):
            plugins.get("freeze", name)
    with pytest.raises(UnknownStrategy, match="unknown freeze 'mine'"):
        plugins.get("freeze", "mine")


def test_prints_go_to_stderr(capfd):
    """What a plugin prints on import or in a hook goes to stderr: stdout carries results only."""
    text = "print('hello from import')\n" + GOOD.replace("    return", "    print('hello from hook')\n    return")
    plugins = discover([EntryPoint("chatty", text)], {})
    assert not plugins.broken
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello from import" in err
    assert "hello from hook" in err


def test_a_name_supplied_twice():
    """A name that two packages supply belongs to neither; `distribution:name` picks one."""
    other = GOOD.replace("return", "class Other(HeadOnly): pass\n    return").replace("HeadOnly}", "Other}")
    plugins = discover([EntryPoint("one"), EntryPoint("two", other)], {})
    with pytest.raises(
        AmbiguousName, match="two packages supply the freeze 'mine'; ask for zoo-one:mine or zoo-two:mi"
    ):
        plugins.get("freeze", "mine")
    assert plugins.get("freeze", "zoo-one:mine").__name__ == "HeadOnly"
    assert plugins.get("freeze", "zoo-two:mine").__name__ == "Other"
    assert plugins.name_of("freeze", plugins.get("freeze", "zoo-two:mine")) == "zoo-two:mine"


def test_a_plugin_may_not_hide_the_core():
    """A plugin that supplies a name of the core makes the name ambiguous; it never wins in silence."""
    plugins = discover([EntryPoint("sly", GOOD.replace('"mine"', '"last"'))], {})
    with pytest.raises(AmbiguousName, match="ask for zoo-core:last or zoo-sly:last"):
        plugins.get("freeze", "last")


def test_the_order_of_entry_points_changes_nothing():
    """Plugins come sorted, however the packages lie on disk; an entry point seen twice counts once."""
    points = [EntryPoint("b"), EntryPoint("a"), EntryPoint("c")]
    names = [p.name for p in discover(points, {}).found]
    assert names == [p.name for p in discover([*reversed(points), points[0]], {}).found] == ["core", "a", "b", "c"]


@pytest.mark.parametrize(
    ("environ", "left"),
    [
        ({}, ["safe", "trap"]),
        ({"ZOO_PLUGINS": "safe"}, ["safe"]),
        ({"ZOO_PLUGINS": "zoo-safe , unknown"}, ["safe"]),
        ({"ZOO_PLUGINS": ""}, []),
        ({"ZOO_DISABLE": "trap"}, ["safe"]),
        ({"ZOO_DISABLE": "zoo-trap"}, ["safe"]),
        ({"ZOO_DISABLE": ""}, ["safe", "trap"]),
        ({"ZOO_PLUGINS": "safe,trap", "ZOO_DISABLE": "safe,trap"}, []),
    ],
)
def test_allow_and_deny_lists_act_before_import(environ, left, monkeypatch):
    """ZOO_PLUGINS and ZOO_DISABLE decide by entry-point or package name, before any code of a plugin runs."""
    loaded = []
    monkeypatch.setattr(EntryPoint, "load", lambda self: loaded.append(self.name) or ModuleType("empty"))
    plugins = discover([EntryPoint("safe"), EntryPoint("trap")], environ)
    assert loaded == left
    assert [p.name for p in plugins.found] == ["core", *left]


def test_environment_is_read_by_default(monkeypatch):
    """Without arguments the installed packages and the process's environment decide."""
    monkeypatch.setenv("ZOO_PLUGINS", "")
    assert [p.name for p in discover().found] == ["core"]


def test_installed_packages_are_found(installed):
    """A package with an entry point of group `zoo` is found by being installed, with its version."""
    found = {p.distribution: p for p in discover().found}
    assert found["zoo-tiny"].version == "1.0"
    assert found["zoo-tiny"].supplies == {"provider": {"tiny": sys.modules["zoo_tiny"].TinyProvider}}


def test_one_module_may_supply_several_kinds():
    """One plugin may implement any of the four hooks."""

    class Provider:
        cards = Path("cards.json")

        def load(self, card, weights):
            raise NotImplementedError

    @hookimpl
    def zoo_backbone_providers():
        return {"p": Provider}

    module = ModuleType("several")
    exec(GOOD, vars(module))
    module.zoo_backbone_providers = zoo_backbone_providers
    entry = SimpleNamespace(name="several", value="several", dist=None, load=lambda: module)
    found = discover([entry], {}).found[-1]
    assert found.distribution == "unknown"
    assert {kind: list(names) for kind, names in found.supplies.items()} == {"provider": ["p"], "freeze": ["mine"]}


def test_a_ctrl_c_while_loading_stops():
    """Ctrl-C while plugins load stops the program; it is no broken plugin."""
    with pytest.raises(KeyboardInterrupt):
        discover([EntryPoint("stopped", "raise KeyboardInterrupt")], {})
