"""A backbone is a chain of stages: cutting, freezing, digesting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo_core import api
from zoo_core.backbone import Backbone, Stage, chain_from_modules, check_staged, pool
from zoo_core.card import Card
from zoo_core.errors import BadStage, UnstagedTensor
from zoo_core.stage_table import stage_table


def batch(n: int = 4, side: int = 32) -> torch.Tensor:
    """Random images."""
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_cut_at_every_depth(tiny):
    """`tail(prefix(x))` equals the whole backbone bit for bit at every depth, and the upstream model too."""
    x = batch()
    with torch.inference_mode():
        whole = tiny(x)
        assert torch.equal(whole, tiny.model(x))
        assert whole.shape == (4, tiny.feature_dim)
        for depth in range(len(tiny.stages) + 1):
            prefix, tail = tiny.cut(depth)
            assert torch.equal(tail(prefix(x)), whole), depth


def test_real_weights_cut_at_every_depth():
    """EfficientNet-Lite0 with its real weights, cut at every depth, equals timm's model bit for bit."""
    pytest.importorskip("timm")
    body = api.load_backbone("cnn/tf_efficientnet_lite0.in1k")
    assert [stage.name for stage in body.stages] == list(body.card.stages)
    x = batch(2, 64)
    with torch.inference_mode():
        whole = body.model(x)
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            assert torch.equal(tail(prefix(x)), whole), depth


@pytest.mark.parametrize("depth", [-1, 4])
def test_depth_out_of_range(tiny, depth):
    """A depth that the chain does not have is an error that names the backbone and its depths."""
    with pytest.raises(BadStage, match=f"depth {depth} asked of tiny/net, which has stages 0 to 3"):
        tiny.cut(depth)
    with pytest.raises(BadStage, match=f"depth {depth}"):
        tiny.freeze(depth)


def test_depth_of(tiny):
    """A stage's name gives the depth that freezes up to and including it; an unknown one is an error."""
    assert [tiny.depth_of(name) for name in ("stem", "block", "neck")] == [1, 2, 3]
    with pytest.raises(BadStage, match="no stage 'head' in tiny/net; its stages are stem, block, neck"):
        tiny.depth_of("head")


def test_info(tiny):
    """A freeze strategy sees names, parameter counts and running statistics."""
    assert [(s.name, s.parameters, s.norm_buffers) for s in tiny.info()] == [
        ("stem", 3 * 8 * 9 + 16, 2),
        ("block", 8 * 16 * 9 + 16 + 32, 2),
        ("neck", 16 * 32 + 32, 0),
    ]


def train_everything(tiny: Backbone) -> None:
    """Call `train()` on everything, as careless code would, and take a step with a huge rate."""
    tiny.model.train()
    for stage in tiny.stages:
        stage.module.train()
    prefix, tail = tiny.cut(tiny.frozen_depth)
    whole = nn.Sequential(prefix, tail).train()
    trainable = [p for p in tiny.model.parameters() if p.requires_grad]
    loss = whole(batch()).square().sum()
    if trainable:
        loss.backward()
        torch.optim.AdamW(trainable, lr=1.0).step()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_frozen_is_frozen(tiny, depth):
    """Frozen parameters, running statistics and dropout stand still through `train()` anywhere; the tail moves."""
    before, whole = tiny.digest(depth), tiny.digest()
    tiny.freeze(depth)
    assert tiny.frozen_depth == depth
    train_everything(tiny)
    assert tiny.digest(depth) == before
    assert (tiny.digest() == whole) is (depth == 3)
    for stage in tiny.stages[:depth]:
        assert not any(m.training for m in stage.module.modules())
    for stage in tiny.stages[depth:]:
        assert all(m.training for m in stage.module.modules())
    prefix, _ = tiny.cut(depth)
    assert torch.equal(prefix.train()(batch()), prefix.eval()(batch()))


def test_requires_grad_is_not_a_freeze(tiny):
    """Why freezing is more than `requires_grad=False`: that alone lets the running statistics drift."""
    before = tiny.digest()
    tiny.model.requires_grad_(False).train()
    tiny.model(batch())
    assert tiny.digest() != before


def test_thawing(tiny):
    """A smaller depth thaws what was frozen before; depth 0 thaws everything."""
    tiny.freeze(3)
    tiny.freeze(0)
    assert all(p.requires_grad for p in tiny.model.parameters())
    assert all(m.training for m in tiny.model.train().modules())


def test_digest(tiny):
    """The digest is over parameters and buffers of the prefix: each one changes it, those behind do not."""
    before = [tiny.digest(depth) for depth in range(4)]
    assert len(set(before)) == 4
    tiny.tensors()["1.1.running_mean"][0] += 1
    after = [tiny.digest(depth) for depth in range(4)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, False]
    assert tiny.digest() == tiny.digest(3)
    tiny.model.to(memory_format=torch.channels_last)
    assert tiny.digest() == after[3]


def net() -> nn.Sequential:
    """A stem and a neck."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_every_tensor_in_one_stage():
    """A parameter or buffer of no stage, or of two, is an error: never silently the last stage's."""
    model = net()
    with pytest.raises(
        UnstagedTensor, match=r"no stage holds 1\.bias, 1\.num_batches_tracked, 1\.running_mean and 2 mo"
    ):
        check_staged(model, chain_from_modules([("stem", model[0])], model))
    twice = [*chain_from_modules([("a", model), ("b", model[1])], model)]
    with pytest.raises(UnstagedTensor, match=r"tensor 1\.weight belongs to the stages a and b; expected one"):
        check_staged(model, twice)
    with pytest.raises(UnstagedTensor):
        Backbone(Card("x/y", "p", "a"), model, (Stage("stem", model[0], ("0.weight",)),), 4)


def test_pool():
    """A stage's value becomes one row per image: means over space or over tokens, tuples side by side."""
    maps = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert torch.equal(pool(maps), maps.mean((2, 3)))
    assert torch.equal(pool(maps.permute(0, 2, 3, 1)), maps.mean((2, 3)))
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    assert torch.equal(pool(tokens), tokens.mean(1))
    assert torch.equal(pool(tokens[:, 0]), tokens[:, 0])
    assert pool((maps, tokens)).shape == (2, 6)


def test_stage_table(tiny):
    """The stage table gives what crosses each boundary, and shares of the work that sum to 1."""
    rows = stage_table(tiny)
    assert [row["boundary"] for row in rows] == ["8x15x15", "16x7x7", "32"]
    assert [row["boundary_bytes"] for row in rows] == [8 * 15 * 15 * 4, 16 * 7 * 7 * 4, 128]
    assert sum(row["flops_share"] for row in rows) == pytest.approx(1, abs=1e-3)
    assert [row["buffers"] for row in rows] == [3, 3, 0]


def test_loading_in_inference_mode():
    """A backbone loaded inside `torch.inference_mode()` can still be traced and trained."""
    with torch.inference_mode():
        body = api.load_backbone("cnn/resnet18.a1_in1k", weights=None)
    body(torch.zeros(2, 3, 224, 224)).sum().backward()
    assert body.model.conv1.weight.grad is not None
