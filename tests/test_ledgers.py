"""The page on forgetting says what the results say."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ledgers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ledgers

    return ledgers


def test_the_page_is_what_the_results_give(ledgers):
    """`docs/forgetting.md` holds what `benchmarks/ledgers.py` makes of `benchmarks/forgetting.jsonl`."""
    text = (ROOT / "docs" / "forgetting.md").read_text(encoding="utf-8")
    results = ledgers.forgetting.RESULTS
    assert text == ledgers.page(text, ledgers.blocks(ledgers.load(results), ledgers.load_times(results)))


def test_spread_by_hand(ledgers):
    """The interval over three seeds is the mean and 4.30 standard errors on either side."""
    found = ledgers.spread([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert ledgers.spread([1.0]).half is None


@pytest.mark.parametrize(
    ("values", "goal", "better", "said"),
    [
        ([0.0, 0.1, -0.1], -1, 1, "met"),
        ([0.0, 2.0, -3.0], -1, 1, "met in the mean; the interval does not exclude a miss"),
        ([-2.0, -2.1, -1.9], -1, 1, "**missed**"),
        ([-2.0, 1.0, -4.0], -1, 1, "**missed** in the mean; the interval holds it"),
        ([0.0], -1, 1, "met, one seed"),
        ([1.8, 1.81, 1.79], 1.3, -1, "**missed**"),
        ([1.1, 1.11, 1.09], 1.3, -1, "met"),
    ],
)
def test_a_goal_is_met_or_missed(ledgers, values, goal, better, said):
    """A goal that was missed is called so, and whether the seeds can tell."""
    assert ledgers.verdict(ledgers.spread(values), goal, better) == said
