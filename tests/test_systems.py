"""Every system that the theory names, through the same verbs; and the docs' table of which test holds what."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from photos import make_photos

import zoo_core as zoo_
from zoo_core.api import installed
from zoo_core.errors import ClosedModel
from zoo_core.weights import load_backbone

ROOT = Path(__file__).resolve().parents[1]
IMAGES = {
    "ViT": ("vit/test_vit.r160_in1k", "timm"),
    "DINO": ("dino/vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", "timm"),
}
"""The smallest card of each, and the form that is asked of it."""
CARDS = {system: name for system, (name, _) in IMAGES.items()} | {
    "CLIP": "clip/PE-Core-T-16-384.meta",
    "GPT": "text/gpt2",
    "BLOOM": "text/bloom-560m",
    "Llama": "text/llama-3.2-1b",
    "Gemma": "text/gemma-3-1b",
    "CLAP": "audio/clap-htsat-unfused",
}


def small(name):
    """The backbone of a card with weights at random, for images of 64 x 64 pixels, which take a tenth of the time."""
    card = zoo_.registry().get(name)
    torch.manual_seed(0)
    return load_backbone(replace(card, input=replace(card.input, size=(3, 64, 64))), installed(), pretrained=False)


@pytest.mark.parametrize("name", CARDS.values(), ids=CARDS)
def test_each_system_is_listed_and_shown(zoo, name):
    """`zoo list` finds each system by its name, and `zoo show` says how open it is."""
    assert name in [entry["name"] for entry in zoo("list", name, "--json").json]
    shown = zoo("show", name)
    assert shown.code == 0
    assert all(word in shown.out for word in ("code", "weights", "data"))


def test_gemini_is_listed_and_refused():
    """Gemini is listed, and refused by name with the reason and the open sibling."""
    assert [card.name for card in zoo_.backbones("text/gemini")] == ["text/gemini"]
    with pytest.raises(ClosedModel, match=r"text/gemini cannot be fine-tuned: .*its open sibling can: .*gemma"):
        zoo_.load_backbone("text/gemini")


@pytest.mark.parametrize("name", [name for name, _ in IMAGES.values()], ids=IMAGES)
def test_image_systems_are_cut_anywhere(name):
    """A model of each system that reads images gives the same features wherever its chain is cut, bit for bit."""
    body = small(name)
    x = torch.randn(1, *body.card.input.size)
    with torch.inference_mode():
        whole = body(x)
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            assert torch.equal(tail(prefix(x)), whole)


@pytest.mark.parametrize(("name", "form"), IMAGES.values(), ids=IMAGES)
def test_image_systems_from_photos_to_an_export(name, form, tmp_path):
    """A model of each system that reads images is fine-tuned, predicts, and is exported; weights at random here."""
    photos = make_photos(tmp_path / "photos", each=4)
    fields = {"weights": "none", "freeze": "last:1", "epochs": 1, "device": "cpu"}
    run = zoo_.finetune(photos, backbone=small(name), out="run", **fields)
    assert len(list(run.predict(photos))) == 12
    assert (run.export(form) / "export.json").is_file()


def test_the_table_names_tests_that_exist():
    """Each cell of the table in `docs/modalities.md` names a test that is there, or says that something is not."""
    page = (ROOT / "docs" / "modalities.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| **")]
    systems = {re.match(r"\| \*\*(.+?)\*\*", row)[1] for row in rows}
    assert systems == {*CARDS, "Gemini", "chat model from a GPT"}
    known: dict[str, set[str]] = {}
    for file in [*ROOT.glob("tests/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        known.setdefault(file.stem, set()).update(n.name for n in tree.body if isinstance(n, ast.FunctionDef))
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert len(cells) == 7
        for cell in cells:
            named = re.findall(r"`(test_\w+)\.(test_\w+)`", cell)
            assert named or cell == "-"
            for module, test in named:
                assert test in known.get(module, set()), f"{module}.{test}"
