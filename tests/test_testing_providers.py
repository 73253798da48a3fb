"""The conformance kit on providers and packages: each broken promise fails the check of that promise."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from torch import nn
from zoo_tiny import TinyProvider

from zoo_core import api, testing
from zoo_core.backbone import Backbone, chain_from_modules
from zoo_core.cli import main
from zoo_core.plugins import Plugin, Plugins
from zoo_core.scaffold import plugin_files
from zoo_core.testing.provider import Subject


class Shortcut(TinyProvider):
    """A chain that computes something else than its model."""

    def load(self, card, weights):
        body = super().load(card, weights)
        body.model.register_forward_hook(lambda module, args, out: out + 1)
        return body


class Partial(TinyProvider):
    """A tensor in no stage."""

    def load(self, card, weights):
        body = super().load(card, weights)
        body.model.register_buffer("table", torch.ones(3))
        return body


class Thawed(nn.Module):
    """A stage with a counter that no freeze stops."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if torch.is_grad_enabled():
            self.seen += 1
        return self.inner(x)


class Drifting(TinyProvider):
    """A first stage that counts images wherever it stands."""

    def load(self, card, weights):
        net = super().load(card, weights).model
        net[0] = Thawed(net[0])
        parts = [("stem", net[0]), ("block", net[1]), ("neck", net[2])]
        return Backbone(card, net, chain_from_modules(parts, net), 32)


class Awake(TinyProvider):
    """Hands over a model in training mode."""

    def load(self, card, weights):
        body = super().load(card, weights)
        body.model.train()
        return body


class Dicing(TinyProvider):
    """Weights from the clock."""

    def load(self, card, weights):
        torch.seed()
        return super().load(card, weights)


class Renaming(TinyProvider):
    """Wraps the network, so that its tensors have names of their own."""

    def load(self, card, weights):
        inner = super().load(card, weights).model
        net = nn.Sequential(inner)
        parts = [("stem", inner[0]), ("block", inner[1]), ("neck", inner[2])]
        return Backbone(card, net, chain_from_modules(parts, net), 32)


class Misnaming(TinyProvider):
    """Other stages than its card says."""

    def load(self, card, weights):
        net = super().load(card, weights).model
        return Backbone(card, net, chain_from_modules([("all", net)], net), 32)


PROVIDERS = {
    TinyProvider: {},
    Shortcut: {"chain_equals_the_whole": "the chain's output is not the model's"},
    Partial: {"every_tensor_is_in_one_stage": "no stage holds table"},
    Drifting: {"frozen_stages_stay": "a frozen stage changed"},
    Awake: {"loads_with_random_weights": "in training mode; expected eval mode"},
    Dicing: {"loads_the_same_again": "loaded twice with one seed, the weights differ"},
    Renaming: {"names_are_upstreams": "0.0.weight, 0.1.bias and"},
    Misnaming: {"loads_with_random_weights": "its stages are ('all',); the card says ('stem', 'block', 'neck')"},
}


def failed(cls, cards=None) -> dict[str, str]:
    """The checks that a provider fails, with the reasons."""
    plugin = Plugin("tiny", "zoo-tiny", "1.0", {"provider": {"tiny": cls}}, module="zoo_tiny")
    thing = Subject(plugin, "tiny", cls)
    results = [testing.Case("provider tiny", function, thing).result() for function in testing.CHECKS["provider"]]
    return {result.check: result.reason for result in results if result.outcome == "failed"}


@pytest.mark.parametrize("cls", PROVIDERS, ids=lambda cls: cls.__name__)
def test_bad_providers(cls):
    """A chain that differs, drifts, dices, leaves tensors out or renames them fails; the tiny plugin passes."""
    found = failed(cls)
    assert (found == {}) is (PROVIDERS[cls] == {})
    for check, reason in PROVIDERS[cls].items():
        assert reason in found[check]


CARDS = {
    "unknown field": ({"licence": "MIT"}, "cards_are_valid", "unknown field 'licence'"),
    "another provider": ({"provider": "other"}, "cards_are_valid", "no card of"),
    "another package": (
        {"package": "zoo-tyni"},
        "cards_name_this_package",
        "the package of tiny/net is not 'zoo-tiny'",
    ),
    "another width": ({"feature_dim": 33}, "loads_with_random_weights", "it gives 32 features; the card says 33"),
}


@pytest.mark.parametrize("mistake", CARDS)
def test_bad_cards(mistake, tmp_path):
    """A card that does not fit the schema, its provider, its package or its backbone fails."""
    changes, check, reason = CARDS[mistake]

    class Other(TinyProvider):
        cards = tmp_path / "cards.json"

    data = copy.deepcopy(json.loads(TinyProvider.cards.read_text()))
    data["cards"]["tiny/net"] |= changes
    Other.cards.write_text(json.dumps(data))
    assert reason in failed(Other)[check]


def test_what_a_card_leaves_open_is_a_skip(tmp_path):
    """An unknown licence and a source without a digest are skipped with the card's name: said, and no failure."""

    class Other(TinyProvider):
        cards = tmp_path / "cards.json"

    data = json.loads(TinyProvider.cards.read_text())
    del data["cards"]["tiny/net"]["openness"]
    del data["cards"]["tiny/net"]["sources"]
    Other.cards.write_text(json.dumps(data))
    thing = Subject(Plugin("tiny", "zoo-tiny", "1.0"), "tiny", Other)
    results = [testing.Case("provider tiny", function, thing).result() for function in testing.CHECKS["provider"]]
    skipped = {result.check: result.reason for result in results if result.outcome == "skipped"}
    assert skipped == {
        "licences_are_stated": "the licence of the weights of tiny/net is unknown.",
        "digests_are_pinned": "no source of tiny/net states a sha256.",
        "names_are_upstreams": "the weights of tiny/net are not on this machine, to compare names with.",
    }
    assert not [result for result in results if result.outcome == "failed"]


LISTING = """
class Late(type):
    @property
    def cards(cls):
        import inspect
        if any(frame.function == "load_registry" for frame in inspect.stack()):
            import safetensors
        return __file__.replace(".py", ".json")

class Provider(metaclass=Late):
    def load(self, card, weights):
        raise NotImplementedError

@hookimpl
def zoo_backbone_providers():
    return {"rude": Provider}
"""
"""A provider whose cards cost a heavy import when they are listed."""
PACKAGES = {
    "import safetensors": "It imports safetensors at its top",
    "import os; os.chdir('/')": "It changed the working directory to /",
    "print('hello')": "It prints while it is loaded",
    LISTING: "It imports safetensors at its top",
    "import os; os._exit(7)": "it ends the process with exit code 7",
    "raise OSError('no')": "OSError: no.",
}


@pytest.mark.parametrize("code", PACKAGES)
def test_bad_packages(code, tmp_path, monkeypatch):
    """What a plugin does on import is looked at in a process of its own, where nothing is loaded yet."""
    text = plugin_files("zoo-rude", "freeze")["zoo_rude/__init__.py"]
    (tmp_path / "zoo_rude.py").write_text(f"{text}\n{code}\n")
    (tmp_path / "zoo_rude.json").write_text('{"schema": 1, "cards": {}}')
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = Plugin("rude", "zoo-rude", "1.0", module="zoo_rude")
    results = {r.check: r for r in testing.check("rude", Plugins((plugin,)))}
    assert results["loads_cleanly_in_a_fresh_process"].outcome == "failed"
    assert PACKAGES[code] in results["loads_cleanly_in_a_fresh_process"].reason
    assert "empty dicts" in results["supplies_something"].reason  # this made-up record of the plugin holds none


def run(monkeypatch, capsys, *args) -> tuple[int, str]:
    """Exit code and stdout of `zoo` in this process."""
    monkeypatch.setattr(sys, "argv", ["zoo", *args])
    api.installed.cache_clear()
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code or 0, capsys.readouterr().out


def test_the_command(installed, monkeypatch, capsys):
    """`zoo plugins check` prints each check with its outcome and reason, then the totals; `--json` all as data."""
    code, out = run(monkeypatch, capsys, "plugins", "check", "zoo-tiny")
    lines = out.splitlines()
    assert code == 0
    assert "passed   provider tiny  cards_are_valid: 1 cards" in lines
    assert lines[-1] == f"{len(lines) - 1} checks: {len(lines) - 1} ran, {len(lines) - 1} passed, 0 failed, 0 skipped."
    code, out = run(monkeypatch, capsys, "plugins", "check", "zoo-tiny", "--json")
    answer = json.loads(out)
    assert (code, answer["plugin"], answer["failed"]) == (0, "zoo-tiny", 0)
    assert len(answer["results"]) == answer["checks"] == answer["passed"] == len(lines) - 1


def test_the_command_fails(installed, tmp_path, monkeypatch, capsys):
    """The exit code is 1 when a check fails, and the line says why."""
    info = tmp_path / "site" / "zoo_terse-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-terse\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nterse = zoo_terse\n")
    text = plugin_files("zoo-terse", "freeze")["zoo_terse/__init__.py"]
    (tmp_path / "site" / "zoo_terse.py").write_text(text.replace(", as asked.", ""))
    code, out = run(monkeypatch, capsys, "plugins", "check", "zoo-terse")
    assert code == 1
    assert "failed   freeze terse  gives_a_reason: the reason '25 of 50 stages stay frozen' is no sentence." in out
    assert out.splitlines()[-1].endswith("1 failed, 0 skipped.")
