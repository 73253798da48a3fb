"""Heads of the core: what each computes, from the build to a run that predicts."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.nn import functional as F

from zoo_core import fit, heads, instance_heads, leave_one_out, solvers, testing
from zoo_core.errors import BadOption
from zoo_core.head_modules import positions
from zoo_core.runs import Run
from zoo_core.types import Task

TASK = Task("", ("blue", "green", "red"), ())


@pytest.fixture
def clusters():
    """Features [60, 12] of three overlapping clusters, and their labels [60]."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    x = torch.randn(60, 12)
    x[torch.arange(60), labels] += 2
    return x, labels


@pytest.mark.parametrize(
    "head",
    [
        "cosine",
        "cosine:scale=20,learnt=false",
        "prototype",
        "knn",
        "knn:k=3,temperature=0.2",
        "attentive",
        "attentive:queries=3",
    ],
)
@pytest.mark.parametrize("fields", [{}, {"augment": "light", "views": 2}], ids=["plain", "views"])
def test_a_run_of_each_head(make, plugins, head, fields):
    """Every head trains, is saved, is opened again, and predicts what it wrote down."""
    run = make(head=head, **fields)
    with open(run.path / "predictions.csv", newline="") as file:
        written = list(csv.DictReader(file))
    predicted = list(Run(run.path, plugins).predict([row["path"] for row in written]))
    for row, prediction in zip(written, predicted, strict=True):
        assert prediction.probabilities["red"] == pytest.approx(float(row["p:red"]), abs=1e-4)
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    assert run.summary["head"] == head


@pytest.mark.parametrize("freeze", ["last:2", "full"])
def test_attention_above_trained_stages(make, plugins, freeze):
    """A head that reads positions also stands above stages that train; the last stage is passed over."""
    run = make(head="attentive", freeze=freeze)
    with open(run.path / "predictions.csv", newline="") as file:
        row = next(iter(csv.DictReader(file)))
    (prediction,) = Run(run.path, plugins).predict([row["path"]])
    assert prediction.probabilities["red"] == pytest.approx(float(row["p:red"]), abs=1e-4)


def test_all_go_through_the_kit():
    """Every head of the core passes the same checks as anyone's."""
    cases = [case for case in testing.cases("core") if case.subject.startswith("head ")]
    assert {case.subject.removeprefix("head ") for case in cases} >= {"cosine", "prototype", "knn", "attentive", "mlp"}
    assert [r for r in (case.result() for case in cases) if r.outcome == "failed"] == []


def test_cosine_ignores_length(clusters):
    """A cosine head gives the same answer for features of any length; its scale is learnt or stands still."""
    x, labels = clusters
    module = heads.Cosine(scale=5).build(12, TASK)
    assert torch.allclose(module(x), module(100 * x), atol=1e-5)
    assert module(x).abs().max() <= 5
    heads.Cosine().loss(module(x), labels).mean().backward()
    assert module.scale.grad is not None
    assert [n for n, _ in heads.Cosine(learnt=False).build(12, TASK).named_parameters()] == ["weight"]


def test_prototype_is_the_nearest_centroid(clusters):
    """The prototype head decides as scikit-learn's nearest centroid does on standardised features."""
    x, labels = clusters
    head = instance_heads.Prototype().build(12, TASK)
    how = instance_heads.Prototype().solve(head, x, labels, ())
    z = ((x - x.mean(0)) / x.std(0)).numpy()
    expected = NearestCentroid().fit(z, labels.numpy()).predict(z)
    assert head(x).argmax(1).tolist() == expected.tolist()
    assert how.startswith("nearest class mean")


def test_prototype_without_examples_of_a_class(clusters):
    """A class that has no training example is never predicted; a class of one is no problem."""
    x, labels = clusters
    rows = [i for i in range(60) if labels[i] < 1] + [1]
    solved = solvers.nearest_mean(x[rows], labels[rows], 3)
    outputs = x @ solved.weight.T + solved.bias
    assert outputs.isfinite().all()
    assert 2 not in outputs.argmax(1).tolist()


def test_knn_is_scikit_learns(clusters):
    """The neighbours head gives scikit-learn's weighted vote, and says what it keeps."""
    x, labels = clusters
    builder = instance_heads.Knn(k=7, temperature=0.1)
    head = builder.build(12, TASK)
    assert head(x).softmax(1)[0].tolist() == pytest.approx([1 / 3] * 3)
    how = builder.solve(head, x[:40], labels[:40], ())
    assert how == f"7 nearest of 40 examples, which are kept: {4 * 40 * (12 + 3):,} bytes"
    model = KNeighborsClassifier(7, metric="cosine", weights=lambda d: torch.from_numpy(1 - d).div(0.1).exp().numpy())
    expected = model.fit(F.normalize(x[:40]), labels[:40]).predict_proba(F.normalize(x[40:]))
    found = builder.probabilities(head(x[40:]))
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=5e-4)


def test_attention_of_equal_scores_is_the_mean(clusters):
    """With queries of zero the attentive head is a linear layer on the mean of the positions."""
    module = heads.Attentive(queries=5).build(12, TASK)
    module.queries.data.zero_()
    value = torch.randn(4, 12, 3, 5)
    expected = module.linear(module.norm(positions(value)).mean(1))
    assert torch.allclose(module(value), expected, atol=1e-6)


def test_positions_of_every_layout():
    """Pixels, tokens and pairs of both become rows of channels; parts that do not fit are refused."""
    assert positions(torch.zeros(2, 8, 5, 5)).shape == (2, 25, 8)
    assert positions(torch.zeros(2, 5, 5, 8)).shape == (2, 25, 8)
    assert positions(torch.zeros(2, 7, 8)).shape == (2, 7, 8)
    assert positions(torch.zeros(2, 8)).shape == (2, 1, 8)
    assert positions((torch.zeros(2, 7, 8), torch.zeros(2, 7, 3))).shape == (2, 7, 11)
    with pytest.raises(BadOption, match=r"parts of 7, 4 positions, expected as many in each\. Give --head linear"):
        positions((torch.zeros(2, 7, 8), torch.zeros(2, 4, 8)))


def test_where_the_head_stands():
    """A head that reads positions takes the place of the last stage, at every depth."""
    assert [fit.span(heads.Linear(), depth, 5) for depth in (0, 4, 5)] == [(0, 5), (4, 5), (5, 5)]
    assert [fit.span(heads.Attentive(), depth, 5) for depth in (0, 4, 5)] == [(0, 4), (4, 4), (4, 4)]


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (
            lambda: heads.Cosine(scale=0),
            "cosine:scale=0: expected more than 0, under a million. Type",
        ),
        (lambda: heads.Attentive(queries=0), "attentive:queries=0: expected 1 to 1024"),
        (lambda: instance_heads.Knn(k=0), "knn: got k=0 .*Type --head knn:k=20"),
        (lambda: instance_heads.Knn(temperature=0.0), "temperature=0; expected 1 or more, and more than 0"),
    ],
)
def test_options_out_of_range(make_one, message):
    """An option out of its range is named with what to type."""
    with pytest.raises(BadOption, match=message):
        make_one()


def test_the_memory_is_said(make):
    """A run with neighbours says in its history how many examples it keeps, and of how many bytes."""
    run = make(head="knn:k=3")
    line = json.loads((run.path / "metrics.jsonl").read_text())
    assert line["solved"] == f"3 nearest of 18 examples, which are kept: {4 * 18 * (32 + 3):,} bytes"


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_features_are_chosen_by_group(clusters, solver):
    """`keep` solves again with the features that weigh most over all outputs; the others weigh nothing."""
    x, labels = clusters
    builder = heads.MultiStage(solver, keep=0.25)
    head = builder.build(12, TASK)
    how = builder.solve(head, x, labels, [6, 6])
    assert "on 3 of 12 features" in how
    assert head.weight.norm(dim=0).nonzero().flatten().tolist() == [0, 1, 2]
    alone = getattr(solvers, solver)(x[:, :3], labels, 3, [3])
    torch.testing.assert_close(head.weight[:, :3], alone.weight)
    torch.testing.assert_close(head.bias, alone.bias)
    with pytest.raises(BadOption, match="multi-stage:keep=0: expected more than 0"):
        heads.MultiStage(keep=0)


@pytest.mark.parametrize(("rows", "columns", "outputs"), [(300, 40, 3), (60, 200, 2), (150, 30, 1)])
def test_ridge_is_that_of_scikit_learn(rows, columns, outputs):
    """Ridge takes the strength that leaving one out is best at, and gives scikit-learn's scores, up to a factor."""
    torch.manual_seed(0)
    x = torch.randn(rows, columns)
    noisy = x[:, :3] + torch.randn(rows, 3)
    labels = noisy[:, 0] if outputs == 1 else noisy[:, :outputs].argmax(1)
    widths = [columns // 2, columns - columns // 2]
    ours = solvers.ridge(x, labels, outputs, widths)
    mean, scale = solvers._scales(x, widths, 0.5)
    z = ((x - mean) * scale).double().numpy()
    aims = labels.double().numpy() if outputs == 1 else (2 * F.one_hot(labels, outputs) - 1).double().numpy()
    theirs = RidgeCV(leave_one_out.ALPHAS, scoring="neg_mean_squared_error").fit(z, aims)
    assert ours.strength == pytest.approx(theirs.alpha_)
    scores = (x @ ours.weight.T + ours.bias).double()
    expected = torch.from_numpy(theirs.predict(z)).reshape(rows, outputs)
    factor = (scores * expected).sum() / expected.square().sum()
    torch.testing.assert_close(scores, factor * expected, atol=1e-5, rtol=1e-4)
    assert outputs > 1 or float(factor) == pytest.approx(1, abs=1e-5)
