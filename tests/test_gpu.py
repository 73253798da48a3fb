"""The same code on an accelerator. Every test here is skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo_core import activations, data, device, engine
from zoo_core.backbone import Chain
from zoo_core.card import Card, Input
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe
from zoo_core.runs import Run
from zoo_core.stepping import to_device
from zoo_core.weights import load_backbone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture
def make(photos, plugins):
    """Make a run of the tiny backbone on the photos."""

    def make(out, **fields):
        given = {"data": str(photos), "backbone": "tiny/net", "epochs": 4, "lr": 0.01}
        return engine.finetune(Recipe(**given | fields), load_registry(plugins), plugins, Path(out))

    return make


@pytest.mark.parametrize("freeze", ["head-only", "last:1", "last:2", "full"])
def test_a_run(make, plugins, photos, freeze):
    """A recipe runs on the GPU unchanged: frozen stages keep their bits, the run predicts there and on the CPU."""
    run = make("gpu", freeze=freeze, device="cuda")
    assert run.summary["device"].startswith("cuda")
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    there = list(run.predict(photos))
    recipe = run.path / "recipe.toml"
    here = Run(run.path, plugins)
    here.__dict__["recipe"] = Recipe.load(recipe, ["device=cpu"])
    for a, b in zip(there, here.predict(photos), strict=True):
        assert a.path == b.path
        assert a.probability == pytest.approx(b.probability, abs=1e-3)


def test_auto_takes_the_gpu(make):
    """`--device auto` takes the GPU where there is one."""
    assert make("auto").summary["device"].startswith("cuda")


@pytest.mark.parametrize("depth", range(4))
def test_activations_agree_with_the_cpu(tiny, photos, tmp_path, depth):
    """The value at any cut agrees with the CPU's, and has a shelf of its own."""
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    here = activations.at(tiny, depth, paths, tmp_path / "store")
    there = activations.at(tiny.to("cuda"), depth, paths, tmp_path / "store")
    a, b = here.boundary(list(paths)), there.boundary(list(paths))
    torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-3)
    assert depth == 0 or here.pooled.folder != there.pooled.folder


def test_bf16_pass(tiny, photos, tmp_path):
    """The frozen pass may run in bf16; what is kept is close to float32's."""
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    tiny.to("cuda")
    exact = activations.at(tiny, 2, paths, tmp_path / "store").boundary(list(paths))
    numbers = activations.Numbers("bf16", "bf16")
    fast = activations.at(tiny, 2, paths, tmp_path / "store", numbers=numbers).boundary(list(paths))
    torch.testing.assert_close(fast, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "hrnet_w18_small", "vit_tiny_patch16_dinov3_qkvb"])
def test_chains_equal_upstream(architecture):
    """On the GPU, too, the stages of a chain compute what upstream computes."""
    from zoo_core import TimmProvider

    card = Card("t/x", "cnn", architecture, input=Input((3, 64, 64)))
    body = TimmProvider().load(card, None).to("cuda")
    x = torch.randn(4, 3, 64, 64, device="cuda")
    with torch.inference_mode():
        torch.testing.assert_close(Chain(body.stages)(x), body.model(x), rtol=1e-4, atol=1e-4)


def test_real_weights(plugins):
    """Real weights give on the GPU what they give on the CPU."""
    from zoo_core.plugins import discover

    found = discover()
    card = load_registry(found).get("cnn/tf_efficientnet_lite0.in1k")
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        here = load_backbone(card, found)(x)
        there = load_backbone(card, found).to("cuda")(x.cuda()).cpu()
    torch.testing.assert_close(here, there, rtol=1e-2, atol=1e-2)


def test_a_full_device_is_noticed():
    """What a real device says when its memory is full is what makes batches smaller."""
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    assert device.is_full(caught.value)


def test_batches_are_copied_whole():
    """A batch that is copied from pinned memory arrives as it was, tuples and all."""
    batch = (torch.randn(8, 3, 5), torch.arange(8))
    there = to_device(batch, torch.device("cuda"))
    torch.cuda.synchronize()
    assert [part.device.type for part in there] == ["cuda", "cuda"]
    for part, copy in zip(batch, there, strict=True):
        torch.testing.assert_close(copy.cpu(), part, rtol=0, atol=0)
