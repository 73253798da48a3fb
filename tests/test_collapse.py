"""A training that goes wrong is noticed early, said, and begun again at a third of the rate."""

from __future__ import annotations

import json

import pytest
import torch

from zoo_core import collapse, engine
from zoo_core.collapse import Watch
from zoo_core.console import Console
from zoo_core.errors import Collapsed
from zoo_core.files import read_json
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe

LABELS = torch.tensor([0] * 14 + [1] * 6)
CONSTANT = 0.611  # nats: the entropy of 14 and 6 of 20, what the best constant answer costs


def watched(losses, majority=1.0, labels=LABELS, epochs=12, last=False) -> Watch:
    """A watch that has seen epochs with these losses, in which a share of the answers was the first class."""
    watch = Watch(labels, last)
    watch.begin(epochs)
    answers = torch.tensor([0] * round(20 * majority) + [1] * (20 - round(20 * majority)))
    for loss in losses:
        watch.saw(torch.nn.functional.one_hot(answers, 2).float())
        watch.close(loss, lr=1e-3)
    return watch


@pytest.mark.parametrize("losses", [(0.9, 0.7, 0.62, 0.63), (0.65, 0.63, 0.64), (0.8, 0.62, 0.62)])
def test_one_class_and_a_stuck_loss(losses):
    """One class for all, and a loss that is no better than a constant answer's and does not fall, is a collapse."""
    with pytest.raises(Collapsed, match=r"answers one class only and its loss .* at learning rate 0\.001. Try --lr"):
        watched(losses)


def test_a_climbing_loss():
    """A loss that rises twice in a row to half as much again as at first is a collapse, whatever is answered."""
    with pytest.raises(Collapsed, match=r"the loss rose from 0\.7 to 1\.4 in 4 epochs"):
        watched([0.7, 0.69, 0.9, 1.4], majority=0.6)
    with pytest.raises(Collapsed, match="the loss rose"):
        watched([1.0, 2.0, 4.0], labels=torch.rand(20))


@pytest.mark.parametrize(
    ("losses", "majority"),
    [
        ((0.69, 0.66, 0.63, 0.61, 0.59), 1.0),  # one class, but it falls
        ((0.6931, 0.6930, 0.6931, 0.6930), 1.0),  # nothing moved: the rate is too small
        ((0.9, 0.63, 0.64, 0.64), 0.8),  # both classes are answered
        ((0.5, 0.6, 0.6, 0.6), 1.0),  # better than any constant answer
        ((0.7, 0.65), 1.0),  # too early to say
        ((0.01, 0.02, 0.04), 0.7),  # rises, from next to nothing
    ],
)
def test_what_is_no_collapse(losses, majority):
    """A slow start, a rate too small and the noise of a loss near zero are not taken for a collapse."""
    assert watched(losses, majority).sign == ""


def test_each_phase_is_compared_with_itself():
    """A new phase may begin with a higher loss than the one before ended with."""
    watch = watched([0.7, 0.5, 0.3], majority=0.7)
    watch.begin(3)
    for loss in (0.8, 0.6, 0.4):
        watch.close(loss, lr=1e-3)
    assert watch.sign == ""


def test_the_last_attempt_is_only_noted():
    """Where there is no other attempt the sign is kept, and the training goes on."""
    assert "one class only" in watched([0.9, 0.7, 0.62, 0.63], last=True).sign


class Lines(Console):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


@pytest.fixture
def collapsing(photos, plugins, tmp_path):
    """A run of the tiny backbone at a rate so high that its loss climbs or is stuck; the run and what was said."""

    def collapsing(lr):
        given = {"data": str(photos), "backbone": "tiny/net", "device": "cpu", "freeze": "full", "epochs": 12}
        console = Lines()
        registry = load_registry(plugins)
        run = engine.finetune(Recipe(**given, lr=lr), registry, plugins, tmp_path / f"run{lr}", console=console)
        return run, [line for line in console.said if line.startswith("Collapse")]

    return collapsing


def test_a_run_begins_again(collapsing):
    """A run whose rate is too high begins again at a third of it: said, in the history, the plan and the summary."""
    run, said = collapsing(1.0)
    schedule = run.summary["schedule"]
    found = schedule["collapses"]
    assert found
    assert found[0]["lr"] == 1.0
    assert found[0]["again_at"] == 0.333
    assert len(said) == len(found) <= collapse.RETRIES + 1
    assert all("at learning rate" in line for line in said)
    if found[-1]["again_at"]:
        assert schedule["lr"] == found[-1]["again_at"]
    assert read_json(run.path / "plan.json")["schedule"]["collapses"] == found
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [note for line in lines for note in line.get("collapses", [])] == found
    assert len(lines) == schedule["epochs_run"] == 12


def test_at_most_two_retries(collapsing):
    """After two retries the last model is kept, and it is said that it collapsed too."""
    run, said = collapsing(300.0)
    rates = [(c["lr"], c["again_at"]) for c in run.summary["schedule"]["collapses"]]
    assert rates == [(300.0, 100.0), (100.0, 33.3), (33.3, None)]
    assert said[-1].endswith("kept, since no rate did better; try another --freeze")


def test_no_numbers_at_any_rate(make, photos):
    """A loss that is no number at each of the three rates is an error: which batch, and a smaller rate to try."""
    what = r"the loss became (nan|inf) in batch \d of 2 \(.*\.png and 8 more\)"
    with pytest.raises(Collapsed, match=what + r" at learning rate 1\.1.e\+29. Try --lr 3\.7e\+28"):
        make(freeze="full", lr=1e30, epochs=4)


def test_a_usual_run_is_not_stopped(make):
    """At the default rate nothing is noted."""
    run = make(freeze="full", epochs=12)
    assert run.summary["schedule"]["collapses"] == []
    assert "collapses" not in (run.path / "metrics.jsonl").read_text()


def test_trials_of_auto(photos, plugins):
    """A trial of `auto` begins again in the same way, is given the gentler rate, and says so in its row."""
    recipe = Recipe(str(photos), "tiny/net", freeze="auto", epochs=12, lr=300.0, device="cpu")
    preview = engine.prepare(recipe, load_registry(plugins), plugins, Console())
    full = next(t for t in preview.task.evidence.trials if t.depth == 0)
    assert full.note.startswith("collapsed at 300")
    assert full.lr < 300.0


def test_repeats(make):
    """Folds and seeds begin again too; what happened to them stands beside their figures."""
    found = make(freeze="full", epochs=4, folds=2, lr=300.0).summary["repeats"]
    assert all(line["lr"] <= 300.0 for line in found["collapses"])
