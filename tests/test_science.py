"""The science page says what the results say, and the rules are scored by what they could know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def regret(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import regret

    return regret


def cell(way, accuracy: float, **more):
    """One finished training."""
    freeze, head, lr = way
    right = "1" * round(100 * accuracy) + "0" * round(100 - 100 * accuracy)
    base = {"data": "digits", "n": 40, "seed": 0, "freeze": freeze, "head": head, "lr": lr}
    return base | {"accuracy": accuracy, "right": right, "cpu_seconds": 10.0} | more


@pytest.fixture
def group(regret):
    """Every way of the default grid, all at 0.80 but two; and trials that favour ridge on all stages."""
    ways = {*regret.science.CHEAP, *regret.science.CORE, *regret.science.MORE}
    found = {way: cell(way, 0.8) for way in ways}
    found[regret.RIDGE] = cell(regret.RIDGE, 0.9, cpu_seconds=0.5)
    found[regret.GENTLE] = cell(regret.GENTLE, 0.85)
    trials = [
        {"name": regret.ALL_STAGES, "depth": 9, "head": "multi-stage", "lr": None, "correct": "1" * 38 + "00"},
        {"name": "last 2 of 9", "depth": 7, "head": "linear", "lr": 1e-3, "correct": "1" * 10 + "0" * 30},
        {"name": regret.FULL, "depth": 0, "head": "linear", "lr": 3e-4, "correct": "1" * 8 + "0" * 32},
    ]
    trials = [t | {"cpu_seconds": 5.0, "averaged": {"accuracy": 0.88}} for t in trials]
    evidence = {"trials": trials, "probes": [0.5] * 9, "majority": 0.2, "folds": 2, "probe_cpu_seconds": 1.0}
    found[regret.FOLDS] = {"data": "digits", "n": 40, "seed": 0} | evidence
    return found


def test_the_page_is_what_the_results_give(regret):
    """`docs/science.md` holds what `benchmarks/regret.py` makes of `benchmarks/science.jsonl`, no more and no less."""
    text = (ROOT / "docs" / "science.md").read_text(encoding="utf-8")
    assert text == regret.page(text, regret.blocks(regret.load(regret.science.RESULTS)))


def test_regret_is_points_behind_the_best_in_hindsight(regret, group):
    """A rule's regret is how far its choice lies behind the best way; `auto` chooses from the trials alone."""
    found = regret.regrets({("digits", 40, 0): group})
    assert found["always all stages, ridge"] == pytest.approx([0.0])
    assert found["always full, 3e-4"] == pytest.approx([5.0])
    assert found["auto, prefer accuracy"] == pytest.approx([0.0])
    assert regret.cost(group, "always full, 3e-4") == 1.0
    assert regret.cost(group, "auto, prefer accuracy") == pytest.approx((0.5 + 15.0 + 1.0) / 10.0)


def test_groups_that_are_not_whole_are_left_out(regret, group):
    """Regret counts groups with the whole grid; training from scratch is not asked for."""
    assert regret.whole({1: group}) == {1: group}
    del group[regret.LP_FT]
    assert regret.whole({1: group}) == {}


def test_finished_cells_are_not_run_again(regret, tmp_path):
    """A cell is known by its key; a line that was cut off counts for nothing."""
    path = tmp_path / "results.jsonl"
    one, other = list(regret.science.grid(False))[:2]
    path.write_text(json.dumps({"key": one.key}) + '\n{"key": "cut o')
    assert regret.science.done(path) == {one.key}
    assert one.key != other.key
