"""The conformance kit: our own plugins pass it, and a plugin that breaks a promise fails the check of that promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from zoo_core import testing
from zoo_core.errors import UsageError, ZooError
from zoo_core.heads import Linear
from zoo_core.plugins import discover
from zoo_core.testing.components import Component
from zoo_core.types import FreezePlan, Phase

OURS = {"zoo-core": None, "zoo-cnn": "timm", "zoo-vit": "timm", "zoo-dino": "timm", "zoo-clip": "open_clip"}


@pytest.mark.parametrize("name", OURS)
def test_our_own_plugins(name):
    """The core's strategies and every plugin of ours keep what zoo asks of a stranger's; skips give a reason."""
    if OURS[name]:
        pytest.importorskip(OURS[name])
    results = testing.check(name)
    assert [(r.subject, r.check, r.reason) for r in results if r.outcome == "failed"] == []
    assert all(r.reason for r in results if r.outcome == "skipped")
    count = Counter(result.outcome for result in results)
    assert count["passed"] > 2 * count["skipped"]


def test_everything_is_checked(plugins):
    """Every check of a kind is made on everything of that kind that a plugin supplies, plus those of the package."""
    found = Counter(result.subject for result in testing.check("zoo-tiny", plugins))
    assert found == {
        "package zoo-tiny": len(testing.CHECKS["package"]),
        "provider tiny": len(testing.CHECKS["provider"]),
    }
    core = {case.subject for case in testing.cases("core")}
    assert {"freeze last", "freeze full", "head linear", "head mlp", "regime new-only", "package zoo-core"} <= core


@testing.parametrize("core", discover([], {}))
def test_with_pytest(check):
    """`parametrize` gives a test function each check of a plugin."""
    check()


def test_every_check_says_what_it_promises():
    """Each check is a plain function whose docstring is the promise; names are unique within a kind."""
    for kind, checks in testing.CHECKS.items():
        assert len({check.__name__ for check in checks}) == len(checks), kind
        assert all(check.__doc__.strip().endswith(".") for check in checks)


def test_totals():
    """The kit says how many checks ran, passed, failed and were skipped, and why, each reason once."""
    results = [
        testing.Result("freeze a", "x", "passed"),
        testing.Result("freeze a", "y", "skipped", "no data"),
        testing.Result("freeze b", "y", "skipped", "no data"),
        testing.Result("freeze b", "x", "failed", "wrong"),
    ]
    first, second = testing.totals(results).splitlines()
    assert first == "4 checks: 2 ran, 1 passed, 1 failed, 2 skipped."
    assert second == "  skipped freeze a y, freeze b y: no data"


def test_an_unknown_plugin():
    """Checking what is not installed is a mistake with near names."""
    with pytest.raises(UsageError, match=r"no plugin 'zoo-coer'\. Did you mean zoo-core\?"):
        testing.check("zoo-coer", discover([], {}))


def failed(kind, thing) -> dict[str, str]:
    """The checks of a kind that a thing fails, with the reasons."""
    cases = [testing.Case(kind, function, thing) for function in testing.CHECKS[kind]]
    results = [case.result() for case in cases]
    return {result.check: result.reason for result in results if result.outcome == "failed"}


@dataclass(frozen=True)
class Rising:
    """Freezes again what it trained."""

    def plan(self, stages, task):
        return FreezePlan((Phase(0, 0.5), Phase(len(stages), 0.5)), "Because.")


@dataclass(frozen=True)
class Careless:
    """Never looks at the chain."""

    def plan(self, stages, task):
        return FreezePlan((Phase(2),), "Two stages.")


@dataclass(frozen=True)
class Mute:
    """Says nothing of use."""

    def plan(self, stages, task):
        return FreezePlan((Phase(len(stages)),), "because")


@dataclass(frozen=True)
class Greedy:
    """Shares out more than there is."""

    def plan(self, stages, task):
        return FreezePlan((Phase(len(stages), 0.8), Phase(0, 0.8)), "More.")


@dataclass(frozen=True)
class Moody:
    """Depends on chance."""

    def plan(self, stages, task):
        import random

        return FreezePlan((Phase(0, lr_scale=tuple(random.random() for _ in stages)),), "As it comes.")


@dataclass
class Loose:  # noqa: D101 - it has no help line
    def plan(self, stages, task):
        return FreezePlan((Phase(len(stages)),), "All.")


@dataclass(frozen=True)
class Untypable:
    """An option whose default cannot be typed."""

    rates: dict = field(default_factory=lambda: {"a": 1})

    def plan(self, stages, task):
        return FreezePlan((Phase(len(stages)),), "All.")


FREEZES = {
    Rising: {"plan_fits_a_chain_of_50_stages": "rise"},
    Careless: {"plan_fits_a_chain_of_1_stage": "freezes [2] stages, but the backbone has 1"},
    Mute: {"gives_a_reason": "the reason 'because' is no sentence"},
    Greedy: {"shares_fit_the_budget": "[0.8, 0.8]"},
    Moody: {"is_pure": "differ"},
    Loose: {"is_a_frozen_dataclass": "frozen=True", "has_a_help_line": "Loose has no docstring"},
    Untypable: {"options_can_be_typed": "rates"},
}


@pytest.mark.parametrize("cls", FREEZES, ids=lambda cls: cls.__name__)
def test_bad_freeze_strategies(cls):
    """A plan that does not fit, rises, gives no reason, spends too much or depends on chance fails its check."""
    found = failed("freeze", Component("freeze", "bad", cls))
    for check, reason in FREEZES[cls].items():
        assert reason in found[check]


def test_a_strategy_may_refuse_a_chain():
    """A strategy that refuses a short chain with a reason is skipped there with that reason, and checked elsewhere."""

    @dataclass(frozen=True)
    class Picky:
        """Takes long chains."""

        def plan(self, stages, task):
            if len(stages) < 3:
                raise ZooError("picky needs three stages.")
            return FreezePlan((Phase(1),), "One.")

    thing = Component("freeze", "picky", Picky)
    results = [testing.Case("freeze", function, thing).result() for function in testing.CHECKS["freeze"]]
    skipped = {r.check: r.reason for r in results if r.outcome == "skipped"}
    assert list(skipped) == ["plan_fits_a_chain_of_1_stage", "plan_fits_a_chain_of_2_stages"]
    assert "picky needs three stages." in skipped["plan_fits_a_chain_of_1_stage"]
    assert not [r for r in results if r.outcome == "failed"]


@pytest.mark.parametrize("name", ["upto", "surgical"])
def test_a_strategy_that_must_be_told_a_stage(name):
    """A strategy that is not whole without a stage's name is told the last one, and checked like any other."""
    found = [case.result() for case in testing.cases("core", discover([], {})) if case.subject == f"freeze {name}"]
    assert len(found) == len(testing.CHECKS["freeze"])
    assert {result.outcome for result in found} == {"passed"}


def test_a_required_option_is_a_skip():
    """What has no plain form, an option without a default, is skipped with the option's name."""

    @dataclass(frozen=True)
    class Until(Linear):
        """A head with an option that must be given."""

        width: int = field(kw_only=True)

    thing = Component("head", "until", Until)
    with pytest.raises(testing.Skip, match="until has no default for width"):
        testing.Case("head", testing.CHECKS["head"][-1], thing)()


@dataclass(frozen=True)
class Swapped(Linear):
    """Learns the neighbour's label."""

    def loss(self, outputs, labels):
        return super().loss(outputs, (labels + 1) % 3)


@dataclass(frozen=True)
class Unnormalised(Linear):
    """Gives scores for probabilities."""

    def probabilities(self, outputs):
        return outputs.sigmoid()


@dataclass(frozen=True)
class Averaged(Linear):
    """One loss for all."""

    def loss(self, outputs, labels):
        return super().loss(outputs, labels).mean()


@dataclass(frozen=True)
class Deaf(Linear):
    """Its weights get no gradient."""

    def loss(self, outputs, labels):
        return super().loss(outputs.detach().requires_grad_(), labels)


class Hidden(nn.Linear):
    """Keeps part of its state to itself."""

    def forward(self, x):
        if self.training:
            self.offset = 1.0
        return super().forward(x) + getattr(self, "offset", 0.0)


@dataclass(frozen=True)
class Forgetful(Linear):
    """Saves half of what it knows."""

    def build(self, feature_dim, task):
        return Hidden(feature_dim, len(task.classes))


@dataclass(frozen=True)
class Unseeded(Linear):
    """Draws from elsewhere."""

    def build(self, feature_dim, task):
        head = super().build(feature_dim, task)
        nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(np.random.randint(1 << 30)))
        return head


HEADS = {
    Swapped: {"labels_are_kept": "0% of three well separated clusters"},
    Unnormalised: {"probabilities_sum_to_1": "miss 1 by"},
    Averaged: {"shapes_are_right": "the loss has shape (); expected (30,)"},
    Deaf: {"gradients_reach_the_weights": "no gradient reaches weight, bias"},
    Forgetful: {"state_survives_saving": "expected all of its state in state_dict()"},
    Unseeded: {"first_weights_follow_the_seed": "weight differ between two heads"},
}


@pytest.mark.parametrize("cls", HEADS, ids=lambda cls: cls.__name__)
def test_bad_heads(cls):
    """A head that mixes up labels, loses state, learns nothing or gives no probabilities fails its check."""
    found = failed("head", Component("head", "bad", cls))
    for check, reason in HEADS[cls].items():
        assert reason in found[check]


@dataclass(frozen=True)
class Mixing:
    """Mixes old examples in, one for each new one."""

    needs_old: ClassVar[bool] = True
    ratio: float = 0.5

    def batches(self, n_new, n_old, batch_size, rng):
        old = n_new + rng.integers(0, n_old, size=round(n_new * self.ratio / (1 - self.ratio)))
        order = rng.permutation(np.concatenate([np.arange(n_new), old]))
        return list(np.array_split(order, -(-len(order) // batch_size)))


@dataclass(frozen=True)
class Overreaching(Mixing):
    """Counts from one."""

    def batches(self, n_new, n_old, batch_size, rng):
        return [batch + 1 for batch in super().batches(n_new, n_old, batch_size, rng)]


@dataclass(frozen=True)
class Lossy(Mixing):
    """Loses the last batch."""

    def batches(self, n_new, n_old, batch_size, rng):
        return super().batches(n_new, n_old, batch_size, rng)[:-1] or [np.zeros(1, int)]


@dataclass(frozen=True)
class Random(Mixing):
    """Has its own dice."""

    def batches(self, n_new, n_old, batch_size, rng):
        return super().batches(n_new, n_old, batch_size, np.random.default_rng())


@dataclass(frozen=True)
class Mistaken(Mixing):
    """Reads the ratio as old to new."""

    def batches(self, n_new, n_old, batch_size, rng):
        return Mixing(self.ratio / (1 + self.ratio)).batches(n_new, n_old, batch_size, rng)


REGIMES = {
    Mixing: {},
    Overreaching: {"indices_are_in_range": "expected 0 to", "every_new_example_is_seen": "1 of"},
    Lossy: {"every_new_example_is_seen": "new examples are in no batch"},
    Random: {"follows_the_seed": "draw from `rng` alone"},
    Mistaken: {"share_of_old_is_kept": "33.3% of an epoch are old examples; expected 50.0%"},
}


@pytest.mark.parametrize("cls", REGIMES, ids=lambda cls: cls.__name__)
def test_bad_regimes(cls):
    """A regime that leaves its range, loses examples, ignores the seed or misses its share fails; a good one passes."""
    found = failed("regime", Component("regime", "bad", cls))
    assert found.keys() == REGIMES[cls].keys()
    for check, reason in REGIMES[cls].items():
        assert reason in found[check]
