"""Can this test side tell two models apart? Both answered the same examples, so their differences are paired."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_POWER = 1.96 + 0.84  # two-sided 5 %, found in 80 % of cases
_GOAL = 0.02  # a difference in a share that people ask for


def told_apart(ours: np.ndarray, theirs: np.ndarray, rival: str) -> dict[str, Any]:
    """Whether a difference is more than chance, and how many examples it would take.

    Args:
        ours, theirs: how good each answer is [N], in one order: 1 and 0 for right and wrong, or minus an error.
        rival: name of the other model.

    Returns:
        `difference` of the means; `p_value`, of the exact McNemar test for right and wrong, else of the paired t-test;
        `told_apart` at 5 %; `smallest`, the difference that so many examples would show in 4 of 5 cases;
        `needed`, how many examples one as large as the difference found would take (null without a difference);
        for right and wrong also `needed_for_2_points`.
    """
    from scipy import stats

    gap = ours - theirs
    n, mean = len(gap), float(gap.mean())
    shares = bool(np.isin(gap, (-1, 0, 1)).all())
    if shares:
        wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
        p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        # one disagreement each way more: few examples without any must not look certain
        spread = math.sqrt((float(((gap - mean) ** 2).sum()) + 2) / (n + 2))
    else:
        spread = float(gap.std(ddof=1)) if n > 1 else 0.0
        p = float(stats.ttest_1samp(gap, 0).pvalue) if spread > 0 else 1.0
    found = {
        "rival": rival,
        "n": n,
        "difference": mean,
        "p_value": p,
        "told_apart": p < 0.05,
        "smallest": _POWER * spread / math.sqrt(n),
        "needed": math.ceil((_POWER * spread / mean) ** 2) if abs(mean) > 1e-12 else None,
    }
    return found | ({"needed_for_2_points": math.ceil((_POWER * spread / _GOAL) ** 2)} if shares else {})


def sentence(found: dict[str, Any], name: str, unit: str, plural: str = "images") -> str:
    """The warning for the user; empty where the test side is large enough for the difference found."""
    if found["told_apart"]:
        return ""
    text = (
        f"{found['n']} test {plural} cannot tell this run from {name} "
        f"({found['difference']:+.3g} {unit}, p = {found['p_value']:.2g}): only differences over "
        f"{found['smallest']:.2g} show"
    )
    if found["needed"]:
        text += f", one like this takes about {_round(found['needed']):,}"
    if "needed_for_2_points" in found:
        text += f", 2 points about {_round(found['needed_for_2_points']):,}"
    return text


def _round(n: int) -> int:
    """Two leading digits: no more is known."""
    unit = int(10 ** max(0, len(str(n)) - 2))
    return -(-n // unit) * unit
