"""Every way to a run: what is kept, in which numbers, which views, which head, how often."""

from __future__ import annotations

import csv

import pytest

from zoo_core.files import sha256_file
from zoo_core.runs import Run


def rows(path):
    """A CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "fields",
    [
        {"freeze": "last:1", "cache_dtype": "bf16"},
        {"freeze": "head-only", "cache_dtype": "bf16"},
        {"freeze": "last:2", "cache": "none"},
        {"freeze": "last:1", "augment": "light", "views": 2},
        {"freeze": "full", "augment": "strong", "views": 2},
        {"head": "linear:solver=lbfgs"},
        {"head": "multi-stage"},
        {"head": "multi-stage:logistic", "augment": "light", "views": 2},
        {"head": "mlp:hidden=16"},
    ],
    ids=str,
)
def test_other_ways_to_a_run(make, plugins, fields):
    """Numbers, ways of keeping, views and heads all lead to a run that predicts what it wrote down."""
    run = make(**fields)
    written = rows(run.path / "predictions.csv")
    for row, prediction in zip(written, Run(run.path, plugins).predict([r["path"] for r in written]), strict=True):
        assert prediction.probabilities[row["predicted"]] == pytest.approx(
            float(row[f"p:{row['predicted']}"]), abs=0.02
        )
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]


@pytest.mark.parametrize("mode", ["pixels", "none"])
def test_what_is_kept_changes_no_bit(make, mode):
    """However values at the cut are kept, the trained weights are the same, bit for bit."""
    kept, other = make("a", freeze="last:1"), make("b", freeze="last:1", cache=mode)
    assert sha256_file(kept.path / "model.safetensors") == sha256_file(other.path / "model.safetensors")
    assert other.summary["cache"]["mode"] == mode


def test_repeats(make):
    """Folds and seeds give the spread of the figures without looking at the test side; the model stays the same."""
    plain, repeated = make("a", freeze="last:1"), make("b", freeze="last:1", folds=3, seeds=2)
    found = repeated.summary["repeats"]
    assert len(found["accuracy"]["values"]) == 6
    assert found["accuracy"]["std"] >= 0
    assert repeated.metrics == plain.metrics
    assert sha256_file(plain.path / "model.safetensors") == sha256_file(repeated.path / "model.safetensors")
