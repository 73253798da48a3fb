"""The grammar of freeze, head and regime: `name`, `name:value`, `name:field=value,field=value`."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest

from zoo_core import components, freeze, heads, hookimpl, regimes
from zoo_core.errors import BadOption, UnknownStrategy
from zoo_core.plugins import discover


@dataclass(frozen=True)
class Many:
    """Options of every type."""

    count: int = 1
    rate: float = 0.5
    careful: bool = False
    mode: Literal["fast", "slow"] = "fast"
    layers: tuple[int, ...] = (1, 2)
    limit: int | None = None
    bound: int | None = 9
    name: str = ""
    kind: ClassVar[str] = "no option"

    def plan(self, stages, task):
        raise NotImplementedError


@pytest.fixture
def many():
    """The core and a plugin whose strategy has options of every type."""
    module = SimpleNamespace(zoo_freeze_strategies=hookimpl(lambda: {"many": Many}))
    module.zoo_freeze_strategies.__name__ = "zoo_freeze_strategies"
    dist = SimpleNamespace(name="zoo-many", version="1")
    return discover([SimpleNamespace(name="many", value="many", dist=dist, load=lambda: module)], {})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("head-only", freeze.HeadOnly()),
        ("last", freeze.Last()),
        ("last:2", freeze.Last(stages=2)),
        ("last:stages=2", freeze.Last(stages=2)),
        ("full:layer_decay=0.9", freeze.Full(layer_decay=0.9)),
        ("zoo-core:last:3", freeze.Last(stages=3)),
        ("zoo-core:last", freeze.Last()),
        (freeze.Last(stages=4), freeze.Last(stages=4)),
    ],
)
def test_grammar(plugins, spec, expected):
    """The first field may be bare, a distribution may stand in front, an instance passes through."""
    assert components.build(plugins, "freeze", spec) == expected


def test_every_kind(plugins):
    """Heads and regimes share the grammar of freeze strategies."""
    assert components.build(plugins, "head", "linear:0.1") == heads.Linear(label_smoothing=0.1)
    assert components.build(plugins, "regime", "new-only") == regimes.NewOnly()


def test_every_type(many):
    """Fields are whole numbers, numbers, yes or no, one of several words, lists joined by `+`, or left open."""
    spec = "many:3,rate=1e-3,careful=yes,mode=slow,layers=4+5,limit=none,bound=none,name=x"
    assert components.build(many, "freeze", spec) == Many(3, 1e-3, True, "slow", (4, 5), None, None, "x")
    assert components.build(many, "freeze", "many:limit=7").limit == 7


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("many:count=two", "many:count: got 'two', expected int"),
        ("many:careful=perhaps", "many:careful: got 'perhaps', expected bool"),
        ("many:mode=quick", "many:mode: got 'quick', expected fast or slow"),
        ("many:layers=1+x", "got 'x', expected int"),
        ("many:rate=", "many:rate: got '', expected float"),
    ],
)
def test_wrong_values(many, spec, message):
    """A value of the wrong type is an error that names the field and what it expects."""
    with pytest.raises(BadOption, match=message.replace("+", r"\+")):
        components.build(many, "freeze", spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lsat:2", r"unknown freeze 'lsat'. Did you mean last or scratch or auto\?.*zoo strategies"),
        ("last:stage=2", r"freeze 'last' has no field 'stage'. Did you mean stages\? Fields of last: stages=1"),
        ("last:stages=1,2", "got '2', expected field=value"),
        ("head-only:3", "got '3', expected field=value. Fields of head-only: none"),
        ("nobody:last", "unknown freeze 'nobody'"),
    ],
)
def test_unknown_names(plugins, spec, message):
    """An unknown strategy or field gives near names and what there is."""
    with pytest.raises(UnknownStrategy, match=message):
        components.build(plugins, "freeze", spec)


@pytest.mark.parametrize("spec", ["head-only", "last", "last:stages=2", "full:layer_decay=0.9", "scratch"])
def test_spell_is_the_inverse_of_build(plugins, spec):
    """A component spelled out and built again is the same component."""
    assert components.spell(plugins, "freeze", components.build(plugins, "freeze", spec)) == spec


@pytest.mark.parametrize("component", [Many(), Many(2, 0.25, True, "slow", (3,), 4, None, "y"), Many(layers=())])
def test_spell_every_type(many, component):
    """Values of every type survive spelling and building."""
    assert components.build(many, "freeze", components.spell(many, "freeze", component)) == component


def test_spell_of_a_stranger(plugins):
    """A class that no plugin supplies cannot be spelled, and the error says how to supply it."""
    with pytest.raises(UnknownStrategy, match=r"Many is no freeze that an installed plugin supplies\..*hook"):
        components.spell(plugins, "freeze", Many())


def test_options(many):
    """The options of a component are its fields with type and default; class variables are none."""
    listed = components.options(Many)
    assert [o["name"] for o in listed] == ["count", "rate", "careful", "mode", "layers", "limit", "bound", "name"]
    assert listed[0] == {"name": "count", "type": "int", "default": 1}
