"""A run carried to other libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo_core as zoo
from zoo_core.card import Card, Input
from zoo_core.errors import ExportFailed, NotExportable
from zoo_core.export_formats import FORMS
from zoo_core.exporting import export, verify
from zoo_core.timm_provider import TimmProvider


def test_onnx_answers_as_the_run(make):
    """An ONNX export takes any number of images, holds labels and preprocessing, and answers as the run does."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    run = make(freeze="last:1")
    folder = run.path.parent / "run-onnx"
    found = export(run, "onnx", folder)
    assert found.worst <= 1e-4
    assert found.same == found.test == run.summary["data"]["n_test"]
    facts = {entry.key: entry.value for entry in onnx.load(folder / "model.onnx").metadata_props}
    assert json.loads(facts["labels"]) == list(run.classes)
    assert json.loads(facts["preprocessing"])["size"] == [3, 32, 32]
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        answers = session.run(None, {"pixels": np.zeros((count, 3, 32, 32), np.uint8)})[0]
        assert answers.shape == (count, 3)
        np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: " in text
    assert run.summary["data"]["digest"] in text


@pytest.mark.parametrize("to", ["torch-export", "safetensors"])
def test_torch_reads_an_export(make, installed, to):
    """A torch program and plain tensors answer as the run does; `verify` finds them whole."""
    folder = make(epochs=1).export(to)
    assert verify(folder).worst <= 1e-4


@pytest.mark.parametrize("to", ["timm", "hf"])
def test_other_libraries_open_an_export_with_labels_and_preprocessing(photos, tmp_path, to):
    """timm and transformers open a folder with their own loaders: same answers, right labels, right preprocessing."""
    if to == "hf":
        pytest.importorskip("transformers")
    card = Card("mine/small", "cnn", "test_resnet", input=Input((3, 64, 64), (0.5,) * 3, (0.3,) * 3, "bilinear"))
    body = TimmProvider().load(card, None)
    run = zoo.finetune(photos, backbone=body, epochs=1, device="cpu", out=tmp_path / "run")
    folder = run.export(to)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == list(run.classes)
    assert config["pretrained_cfg"]["mean"] == [0.5] * 3
    assert config["pretrained_cfg"]["interpolation"] == "bilinear"
    assert verify(folder).samples > 0


def test_an_export_that_has_changed_is_found(make):
    """`verify` says which file is not as it was written, and which answers differ."""
    folder = make(epochs=1).export("torch-export")
    (folder / "labels.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ExportFailed, match=r"labels\.json has sha256 .* Export it again"):
        verify(folder)


def test_a_form_that_cannot_hold_the_run_is_refused(make, tmp_path):
    """A head that timm's models do not have is refused with the form to take instead; nothing is left behind."""
    run = make(epochs=1)
    with pytest.raises(NotExportable, match="zoo export RUN --to onnx"):
        run.export("timm", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_form_that_answers_differently_is_not_kept(make, tmp_path, monkeypatch):
    """Where the written form answers differently from the run there is no export."""
    wrong = FORMS["torch-export"].__class__(
        FORMS["torch-export"].write, lambda folder: lambda pixels: np.full((len(pixels), 3), 1 / 3, np.float32), ""
    )
    monkeypatch.setitem(FORMS, "torch-export", wrong)
    with pytest.raises(ExportFailed, match="differently from the run"):
        make(epochs=1).export("torch-export", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
