"""Many copies of one head side by side."""

from __future__ import annotations

import pytest
import torch

from zoo_core import freeze
from zoo_core.backbone import Backbone, Stage
from zoo_core.card import Card
from zoo_core.console import Console
from zoo_core.fit import Model, Schedule, Side, fit
from zoo_core.heads import Linear, Mlp
from zoo_core.regimes import NewOnly
from zoo_core.stacked import fit_stacked
from zoo_core.types import Task

TASK = Task("made up", ("a", "b", "c"), ())
RATES, SEEDS = (1e-3, 3e-2), (0, 1, 2)
SCHEDULE = Schedule(epochs=6, batch_size=8, lr=1.0)


def made(builder, seed):
    torch.manual_seed(seed)
    return builder.build(5, TASK)


@pytest.fixture
def sides():
    torch.manual_seed(7)
    labels = torch.arange(50) % 3
    features = torch.randn(50, 5) + labels[:, None]
    return (features[:38], labels[:38]), (features[38:], labels[38:])


@pytest.mark.parametrize("builder", [Linear(), Linear(label_smoothing=0.1), Mlp(hidden=4, dropout=0.0)])
@pytest.mark.parametrize("validated", [True, False])
def test_the_same_as_one_by_one(builder, sides, validated):
    """A grid of rates and seeds trained in one pass gives each head what it would become alone, to rounding."""
    train, val = sides
    val = val if validated else (val[0][:0], val[1][:0])
    heads, lowest = fit_stacked(
        builder, [made(builder, s) for s in SEEDS], RATES, SEEDS, NewOnly(), SCHEDULE, train, val
    )
    rows = torch.cat([train[0], val[0]])
    net = torch.nn.Linear(5, 5)
    body = Backbone(Card("t/one", "t", "one"), net, [Stage("one", net, ("weight", "bias"))], 5)
    plan = freeze.HeadOnly().plan(body.info(), TASK)
    for i, rate in enumerate(RATES):
        for j, seed in enumerate(SEEDS):
            model = Model(body, made(builder, seed), builder, plan)
            names = [str(k) for k in range(len(rows))]
            one = Side(names[: len(train[0])], train[1]), Side(names[len(train[0]) :], val[1])
            alone = Schedule(epochs=6, batch_size=8, lr=rate)
            history = fit(model, NewOnly(), alone, lambda n: rows[[int(k) for k in n]], *one, seed, Console())
            model.head.eval()
            torch.testing.assert_close(heads[i][j](rows), model.head(rows), rtol=1e-3, atol=1e-4)
            if validated:
                assert min(line["val_loss"] for line in history) == pytest.approx(float(lowest[i, j]), rel=1e-3)
