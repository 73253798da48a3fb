"""A second model beside the trained one: half a say each, everywhere a run answers."""

from __future__ import annotations

import csv

import pytest
import torch

from zoo_core.errors import BadOption, NotExportable, RunDamaged
from zoo_core.exporting import verify
from zoo_core.runs import Run


@pytest.mark.parametrize("freeze", ["head-only", "last:stages=1", "full"])
def test_half_a_say_each(make, photos, freeze):
    """An ensemble answers with the mean of the trained model and of ridge on all stages, at any depth."""
    common = {"calibrate": False, "freeze": freeze}
    both = make("both", ensemble=True, **common)
    single, ridge = make("single", **common), make("ridge", head="multi-stage", calibrate=False)
    found, one, other = ([p.row for p in run.predict(photos)] for run in (both, single, ridge))
    assert torch.tensor(found).allclose((torch.tensor(one) + torch.tensor(other)) / 2, atol=1e-5)
    assert both.summary["baselines"]["alone"]["accuracy"] == single.metrics["accuracy"]
    assert both.summary["digests"] == single.summary["digests"]


def test_what_is_written_is_what_is_predicted(make):
    """The test side's answers of an ensemble, read from its folder, are those that it predicts when opened again."""
    run = make(ensemble=True, freeze="last:stages=1")
    with open(run.path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {p.path: p for p in Run(run.path, run._plugins).predict([row["path"] for row in rows])}
    for row in rows:
        assert [float(row[f"p:{c}"]) for c in run.classes] == pytest.approx(found[row["path"]].row, abs=1e-5)


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_exported_whole(make, to):
    """Forms that hold any computation hold both models, and answer as the run does."""
    run = make(ensemble=True, freeze="last:stages=1")
    assert verify(run.export(to)).worst < 1e-4


def test_a_form_for_one_model_is_refused(make):
    """A form that holds one network is refused for an ensemble, with the form that takes it."""
    run = make(ensemble=True)
    with pytest.raises(NotExportable, match=r"two models, and --to safetensors holds one. Type: .* --to onnx"):
        run.export("safetensors")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "multi-stage"}, "--head is that already"),
        ({"weights": "none"}, "needs pretrained weights"),
        ({"freeze": "scratch"}, "needs pretrained weights"),
        ({"folds": 3}, "does not go with --folds and --seeds"),
    ],
)
def test_what_it_does_not_go_with(make, fields, message):
    """What leaves an ensemble without a meaning is refused before anything is trained."""
    with pytest.raises(BadOption, match=message):
        make(ensemble=True, **fields)


def test_a_second_head_that_was_changed(make):
    """A run whose second model's file was changed predicts nothing."""
    run = make(ensemble=True)
    file = run.path / "second.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(RunDamaged, match="COMMIT says"):
        next(Run(run.path, run._plugins).predict(run.recipe.data))


def test_said(zoo, photos):
    """The terminal says that two models answer, and shows what the trained one does alone."""
    found = zoo("finetune", photos, "-b", "tiny/net", "--ensemble", "--epochs", "1", "--out", "run")
    assert found.code == 0, found.err
    assert "half of each answer is multi-stage" in found.out
    assert "the trained model alone" in found.out
