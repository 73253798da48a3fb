"""The Python front door."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo_core as zoo
from zoo_core.errors import BadRecipe, UnknownBackbone, UnknownStrategy


def test_public_names():
    """Every public name resolves, and only public names are listed; others are attribute errors."""
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None, name
    assert set(dir(zoo)) == set(zoo.__all__)
    with pytest.raises(AttributeError, match="module 'zoo_core' has no attribute 'fintune'"):
        zoo.fintune  # noqa: B018


def test_backbones(installed):
    """`backbones` gives cards by pattern."""
    (card,) = zoo.backbones("tiny/*")
    assert isinstance(card, zoo.Card)
    assert card.input.size == (3, 32, 32)
    assert len(zoo.backbones("*lite*")) > 3
    assert zoo.registry().get("tiny/net") == card


def test_load_backbone(installed):
    """`load_backbone` gives a chain of stages with pretrained weights, random ones only for `weights=None`."""
    body = zoo.load_backbone("tiny/net")
    assert isinstance(body, zoo.Backbone)
    assert body.pretrained
    prefix, tail = body.cut(depth=2)
    x = torch.zeros(1, *body.card.input.size)
    assert torch.equal(tail(prefix(x)), body(x))
    assert not zoo.load_backbone("tiny/net", weights=None).pretrained
    with pytest.raises(UnknownBackbone, match=r"Did you mean tiny/net or"):
        zoo.load_backbone("tiny/nett")


def test_finetune(installed, photos):
    """`finetune` takes names or instances, puts the run under runs/, and the run predicts."""
    run = zoo.finetune(photos, backbone="tiny/net", freeze=zoo.freeze.Last(stages=2), head="linear", epochs=1)
    assert isinstance(run, zoo.Run)
    assert run.path == Path("runs") / run.recipe.run_name
    assert run.recipe.freeze == "last:stages=2"
    (answer,) = run.predict(photos / "red" / "00.png")
    assert answer.label in ("red", "green", "blue")
    assert run.metrics["n"] == 6
    reopened = zoo.Run(run.path)
    assert [p.probabilities for p in reopened.predict([photos / "red" / "00.png"])] == [answer.probabilities]


def test_a_loaded_backbone_stays_as_it_is(installed, photos):
    """A loaded backbone may be given: a copy of it is trained, and the result is that of its name."""
    body = zoo.load_backbone("tiny/net")
    before = body.digest()
    run = zoo.finetune(photos, backbone=body, freeze="full", epochs=1, out="a")
    assert body.digest() == before
    assert all(p.requires_grad for p in body.model.parameters())
    named = zoo.finetune(photos, backbone="tiny/net", freeze="full", epochs=1, out="b")
    assert run.metrics == named.metrics
    assert run.recipe.digest == named.recipe.digest


def test_recipe_fields(installed, photos):
    """The recipe's other fields are keyword arguments; an unknown one is an error with near names."""
    run = zoo.finetune(photos, backbone="tiny/net", epochs=1, seed=4, lr=0.5, val_share=0.0)
    assert (run.recipe.seed, run.recipe.lr, run.recipe.val_share) == (4, 0.5, 0.0)
    with pytest.raises(BadRecipe, match=r"unknown field 'epoch'. Did you mean epochs\?"):
        zoo.finetune(photos, backbone="tiny/net", epoch=1)
    with pytest.raises(UnknownStrategy, match="unknown freeze 'lost'"):
        zoo.finetune(photos, backbone="tiny/net", freeze="lost")
