"""A run's answers as charts and tables: precision and recall, ROC, calibration, confusion, what training did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from zoo_core.answered import Answered
from zoo_core.charts import Axis, Line, chart
from zoo_core.types import ONE_LABEL

if TYPE_CHECKING:
    from zoo_core.runs import Run

MOST_CURVES, MOST_CLASSES = 6, 20
_POINTS = 120


def ranking(run: Run, answered: Answered) -> list[Markup]:
    """ROC and precision-recall curves: of the second of two classes, or of each class against the rest."""
    from sklearn import metrics

    truth = _truth(run, answered)
    chosen = [c for c in range(len(run.classes)) if 0 < truth[:, c].sum() < len(truth)]
    if len(run.classes) == 2 and run.target.kind in ONE_LABEL:
        chosen = [c for c in chosen if c == 1]
    chosen.sort(key=lambda c: float(metrics.roc_auc_score(truth[:, c], answered.shares[:, c])))
    left_out = len(chosen) - MOST_CURVES
    chosen = chosen[:MOST_CURVES]
    if not chosen:
        return []
    roc, precision = [], []
    for c in chosen:
        y, p = truth[:, c], answered.shares[:, c]
        false, true, _ = metrics.roc_curve(y, p)
        auc = metrics.roc_auc_score(y, p)
        roc.append(Line(f"{run.classes[c]}, area {auc:.3f}", _thin(false, true)))
        exact, recall, _ = metrics.precision_recall_curve(y, p)
        area = metrics.average_precision_score(y, p)
        precision.append(Line(f"{run.classes[c]}, average precision {area:.3f}", _thin(recall, exact)))
    what = f"{run.classes[chosen[0]]} against the rest" if len(chosen) == 1 else "each class against the rest"
    what += f"; the {MOST_CURVES} hardest of {MOST_CURVES + left_out}" if left_out > 0 else ""
    chance = Line("", [(0.0, 0.0), (1.0, 1.0)], "dash")
    return [
        chart(
            "ROC curve",
            [*roc, chance],
            Axis("false positive rate", 0.0, 1.0),
            Axis("true positive rate", 0.0, 1.0),
            "; ".join(line.name for line in roc) + "; the diagonal is chance.",
            what,
        ),
        chart(
            "Precision and recall",
            precision,
            Axis("recall", 0.0, 1.0),
            Axis("precision", 0.0, 1.0),
            "; ".join(line.name for line in precision) + ".",
            what,
        ),
    ]


def calibration(run: Run, answered: Answered) -> list[Markup]:
    """How often answers of a confidence are right, with and without the temperature."""
    told = run.summary["calibration"]
    if run.target.kind == "regression" or "ece" not in told:
        return []
    truth = _truth(run, answered)
    after = _reliability(run, answered.shares, truth)
    lines = [Line("perfect", [(0.0, 0.0), (1.0, 1.0)], "dash"), Line("this run", after, "dots")]
    text = f"expected calibration error {told['ece']['after']:.3f}"
    if told["temperature"] != 1.0:
        import torch

        raw = run.target.tempered(torch.from_numpy(answered.shares), 1 / told["temperature"])  # type: ignore[union-attr]
        lines.append(
            Line(f"without temperature {told['temperature']:.2f}", _reliability(run, raw.numpy(), truth), "dots")
        )
        text += f", {told['ece']['before']:.3f} before"
    alt = "; ".join(f"said {x:.0%}, right {y:.0%}" for x, y in after)
    return [
        chart(
            "Calibration", lines, Axis("confidence", 0.0, 1.0), Axis("share that is right", 0.0, 1.0), f"{alt}.", text
        )
    ]


def numbers(run: Run, answered: Answered) -> list[Markup]:
    """Predicted against true numbers."""
    if run.target.kind != "regression":
        return []
    truth = np.array([float(text) for text in answered.truth])
    found = answered.shares[:, 0]
    some = np.linspace(0, len(truth) - 1, min(len(truth), 400)).round().astype(int)
    low, high = float(min(truth.min(), found.min())), float(max(truth.max(), found.max()))
    lines = [
        Line("test examples", list(zip(truth[some], found[some], strict=True)), "points"),
        Line("", [(low, low), (high, high)], "dash"),
    ]
    alt = f"{len(truth)} test examples; mean absolute error {run.metrics['mae']:.3g}. The diagonal is a perfect answer."
    return [chart("Predicted and true", lines, Axis("true"), Axis("predicted"), alt)]


def mixtures(found: dict[str, Any] | None) -> list[Markup]:
    """Validation accuracy by how much of the trained weights is in the mixture (WiSE-FT)."""
    if not found:
        return []
    names = {"new": "new task", "old": "old task"}
    lines = [
        Line(names[side], list(zip(found["alphas"], found[side], strict=True)), "dots")
        for side in names
        if side in found
    ]
    chosen = [(found["chosen"], min(min(found[side]) for side in names if side in found))]
    chosen.append((found["chosen"], max(max(found[side]) for side in names if side in found)))
    alt = "; ".join(f"{a:g}: {score:.3f}" for a, score in zip(found["alphas"], found["score"], strict=True))
    return [
        chart(
            "Weights before and after, mixed",
            [*lines, Line("taken", chosen, "dash")],
            Axis("share of the trained weights", 0.0, 1.0),
            Axis("validation accuracy"),
            f"Mean accuracy by share: {alt}.",
            found["why"],
        )
    ]


def training(history: Sequence[dict[str, Any]]) -> list[Markup]:
    """Loss by epoch."""
    if len(history) < 2:
        return []
    train = [(float(h["epoch"] + 1), h["train_loss"]) for h in history]
    val = [(float(h["epoch"] + 1), h["val_loss"]) for h in history if "val_loss" in h]
    lines = [Line("training side", train)] + ([Line("validation side", val)] if val else [])
    note = f"the weights of epoch {min(val, key=lambda p: p[1])[0]:.0f} were kept" if val else ""
    alt = f"training loss from {train[0][1]:.3g} to {train[-1][1]:.3g}"
    alt += f", validation loss from {val[0][1]:.3g} to {val[-1][1]:.3g}" if val else ""
    return [chart("Training", lines, Axis("epoch"), Axis("loss", low=0.0), f"{alt}.", note)]


def more_data(curve: dict[str, Any] | None) -> list[Markup]:
    """Accuracy by the number of training examples, and what twice as many may bring."""
    if not curve or len(curve["examples"]) < 2:
        return []
    known = list(zip(map(float, curve["examples"]), curve["accuracy"], strict=True))
    lines = [Line("a linear probe on the frozen features", known, "dots")]
    alt = "; ".join(f"{n:.0f} examples: {a:.3f}" for n, a in known)
    ticks = {n: f"{n:.0f}" for n, _ in known}
    note = ""
    if more := curve["twice"]:
        guess = (float(more["examples"]), more["accuracy"])
        lines.append(Line("if the trend holds", [known[-1], guess], "dash"))
        lines.append(Line("", [guess], "points", [tuple(more["interval"])]))
        ticks[guess[0]] = f"{guess[0]:.0f}"
        note = f"twice the data: {more['accuracy']:.3f} ({more['interval'][0]:.3f} to {more['interval'][1]:.3f})"
        alt += f"; {note}"
    return [
        chart(
            "Would more data help?",
            lines,
            Axis("training examples", ticks=ticks, log=True),
            Axis("test accuracy"),
            f"{alt}.",
            note,
        )
    ]


def depth(evidence: dict[str, Any] | None, stages: Sequence[str], n_train: int) -> list[Markup]:
    """What `auto` measured: held-out accuracy by how many stages stay frozen, and of a probe on each stage."""
    from scipy.stats import binomtest

    if not evidence:
        return []
    trials = sorted(evidence["trials"], key=lambda t: -t["depth"])
    points = [(float(i), t["score"]) for i, t in enumerate(trials)]
    bars = []
    for trial in trials:
        interval = binomtest(round(trial["score"] * n_train), n_train).proportion_ci(method="wilson")
        bars.append((float(interval.low), float(interval.high)))
    tried = chart(
        "Ways that were tried",
        [Line("", points, "points", bars)],
        Axis("", low=-0.5, high=len(trials) - 0.5, ticks={float(i): t["name"] for i, t in enumerate(trials)}),
        Axis("right when held out"),
        "; ".join(f"{t['name']}: {t['score']:.3f}" for t in trials) + ".",
        f"{evidence['folds']} folds of the training side",
    )
    probes = list(zip(map(float, range(len(stages))), evidence["probes"], strict=False))
    seen = chart(
        "What each stage knows",
        [
            Line("linear probe on the stage", probes, "dots"),
            Line(
                "largest class", [(0.0, evidence["majority"]), (float(len(stages) - 1), evidence["majority"])], "dash"
            ),
        ],
        Axis("", ticks=dict(zip(map(float, range(len(stages))), stages, strict=True))),
        Axis("right when held out"),
        "; ".join(f"{name}: {p:.3f}" for name, (_, p) in zip(stages, probes, strict=False)) + ".",
    )
    return [tried, seen]


def confusion(run: Run, answered: Answered) -> dict[str, Any] | None:
    """Counts [true, predicted] with the share of each row, for few classes; otherwise the commonest mix-ups."""
    if run.target.kind not in ONE_LABEL:
        return None
    classes = run.classes
    index = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for true, found in zip(answered.truth, answered.predicted, strict=True):
        counts[index[true], index[found]] += 1
    off = [
        (int(counts[i, j]), classes[i], classes[j]) for i in range(len(classes)) for j in range(len(classes)) if i != j
    ]
    mixed = [(n, a, b) for n, a, b in sorted(off, key=lambda row: -row[0])[:10] if n]
    if len(classes) > MOST_CLASSES:
        return {"classes": [], "rows": [], "mixed": mixed}
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    rows = [
        [(int(n), float(share), i == j) for j, (n, share) in enumerate(zip(counts[i], shares[i], strict=True))]
        for i in range(len(classes))
    ]
    return {"classes": list(classes), "rows": list(zip(classes, rows, strict=True)), "mixed": mixed}


def by_class(run: Run, answered: Answered) -> tuple[str, list[dict[str, Any]]]:
    """The figure of each class with its 95 % Wilson interval, the worst first."""
    from scipy.stats import binomtest

    if not run.classes:
        return "", []
    if run.target.kind == "multi-label":
        truth = _truth(run, answered)
        scores = run.metrics["average_precision"]
        rows = [
            {"name": c, "value": scores[c], "n": int(truth[:, i].sum())}
            for i, c in enumerate(run.classes)
            if c in scores
        ]
        return "average precision", sorted(rows, key=lambda row: row["value"])
    found = []
    for name in run.classes:
        hits = [p == name for t, p in zip(answered.truth, answered.predicted, strict=True) if t == name]
        if hits:
            interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
            ends = {"low": float(interval.low), "high": float(interval.high)}
            found.append({"name": name, "value": sum(hits) / len(hits), "n": len(hits)} | ends)
    return "recall", sorted(found, key=lambda row: row["value"])


def _truth(run: Run, answered: Answered) -> np.ndarray:
    """True or false for each example and class [N, classes]."""
    labels = run.target.labels(answered.truth).numpy()
    if run.target.kind == "multi-label":
        return np.asarray(labels > 0.5)
    return np.asarray(labels[:, None] == np.arange(len(run.classes)))


def _reliability(run: Run, shares: np.ndarray, truth: np.ndarray, bins: int = 10) -> list[tuple[float, float]]:
    """Mean confidence and share of right answers in equal bins that hold five answers or more."""
    if run.target.kind == "multi-label":
        confidence, hits = np.maximum(shares, 1 - shares).ravel(), ((shares >= 0.5) == truth).ravel()
    else:
        confidence, hits = shares.max(1), truth[np.arange(len(shares)), shares.argmax(1)]
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[at == b].mean()), float(hits[at == b].mean())) for b in range(bins) if (at == b).sum() >= 5
    ]


def _thin(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """A curve with few enough points for a page."""
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
    return [(float(a), float(b)) for a, b in zip(x[some], y[some], strict=True)]
