"""Chains cut from whole models: `zoo_core.tracing` and the timm provider that feeds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_core.backbone import Backbone, Chain, check_staged
from zoo_core.card import Card, Input, Source
from zoo_core.errors import BadCard, NotAChain, UnstagedTensor, WeightsMismatch
from zoo_core.timm_provider import TimmProvider, create
from zoo_core.tracing import Levels, trace_stages

timm = pytest.importorskip("timm")

KINDS = {
    "plain CNN": ("test_resnet", 64),
    "plain CNN with a neck": ("test_efficientnet", 64),
    "dropout outside the blocks": ("ghostnet_050", 64),
    "dense": ("densenet121", 64),
    "multi-branch": ("hrnet_w18_small", 64),
    "two tensors at a cut": ("crossvit_9_240", 240),
    "ViT": ("test_vit", 64),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", 56),
    "DINOv3 with rope": ("vit_tiny_patch16_dinov3_qkvb", 64),
    "Swin": ("swin_tiny_patch4_window7_224", 64),
    "hybrid": ("test_coatnet", 64),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small inputs gain nothing from threads, and lose much where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """Three stages, a skip connection over the middle one, a position table, a size read off the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.table = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.middle = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
        self.last = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, _ = x.shape
        x = self.conv(x)
        y = self.middle(x + self.table) + self.table * height
        y = F.dropout(y + x, 0.5, training=self.training)
        return self.last((y + x).flatten(2).transpose(1, 2).reshape(batch, -1, 4).mean(1))


class Branching(nn.Module):
    """Decides by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if x.sum() > 0 else x


@dataclass
class Loaded:
    """Weights as the engine hands them to a provider."""

    tensors: dict[str, Tensor]
    source: Source = field(default_factory=lambda: Source("file:/weights.safetensors"))
    note: str = "from a test"


def levels(model: nn.Module, *order: str) -> Levels:
    """Stages named after the top-level modules; what is not listed is in the first."""
    tops = {top: i for i, top in enumerate(order)}
    names = [n for n, _ in [*model.named_parameters(), *model.named_buffers()]]
    return {n: (tops.get(n.split(".")[0], 0), n.split(".")[0] if n.split(".")[0] in tops else order[0]) for n in names}


def backbone(architecture: str, size: int, **fields: object) -> Backbone:
    torch.manual_seed(0)
    return TimmProvider().load(card(architecture, (3, size, size), **fields), None)


def card(architecture: str, size: tuple[int, int, int], **fields: object) -> Card:
    return Card(name="t/x", provider="t", architecture=architecture, input=Input(size=size), **fields)  # type: ignore[arg-type]


def test_skip_connections_travel() -> None:
    """A value that a later stage uses travels along; a table without a batch axis does not, nor does a size."""
    torch.manual_seed(0)
    net = Net().eval()
    stages = trace_stages(net, levels(net, "conv", "middle", "last"), torch.zeros(1, 3, 8, 8))
    assert [stage.name for stage in stages] == ["conv", "middle", "last"]
    check_staged(net, stages)
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        first = stages[0].module(x)
        kept = [t.clone() for t in first]
        assert isinstance(first, tuple)
        assert all(len(t) == batch for t in first)
        assert torch.equal(Chain(stages[1:])(first), net(x))
        assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))  # though a ReLU works in place


def test_training_mode_equals_upstream() -> None:
    """In training mode the chain equals the model under the same seed, dropout between the blocks included."""
    net = Net()
    stages = trace_stages(net, levels(net, "conv", "middle", "last"), torch.zeros(1, 3, 8, 8))
    x = torch.randn(4, 3, 8, 8)
    torch.manual_seed(1)
    expected = net.train()(x)
    torch.manual_seed(1)
    assert torch.equal(Chain(stages).train()(x), expected)
    assert torch.equal(Chain(stages).eval()(x), net.eval()(x))


def test_tracing_leaves_the_model_as_it_was() -> None:
    """Cutting a model changes neither its tensors, its training flags nor the random state."""
    net = Net()
    net.middle.eval()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    state = torch.get_rng_state()
    trace_stages(net, levels(net, "conv", "middle", "last"), torch.zeros(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert net.training
    assert not net.middle[0].training


def test_another_image_size_is_refused_where_sizes_are_frozen() -> None:
    """Where a later stage needs the image's size, an image of another size is an error, never a wrong number."""
    net = Net().eval()
    stages = trace_stages(net, levels(net, "conv", "middle", "last"), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"cut for inputs \[3, 8, 8\], got \[3, 16, 16\]"):
        Chain(stages)(torch.zeros(1, 3, 16, 16))


def test_control_flow_on_data_is_refused() -> None:
    """A model that decides by the values it sees cannot be cut where it decides, and the error says so."""
    net = Branching()
    with pytest.raises(NotAChain, match="control flow"):
        trace_stages(net, levels(net, "a", "b"), torch.zeros(1, 4))


def test_a_tensor_without_a_stage_is_an_error() -> None:
    """Every parameter and buffer must be given a stage."""
    net = Branching()
    with pytest.raises(UnstagedTensor, match=r"b\.bias"):
        trace_stages(net, {n: p for n, p in levels(net, "a", "b").items() if n != "b.bias"}, torch.zeros(1, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_is_a_chain(kind: str) -> None:
    """At every depth, for every batch size, in both modes, the chain computes the bits that upstream computes."""
    b = backbone(*KINDS[kind])
    reference = create(b.card, 0)
    assert list(b.model.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(b.model.state_dict())
    with torch.no_grad():
        for batch in (1, 2, 5):
            x = torch.randn(batch, *b.card.input.size)
            expected = reference.eval()(x)
            value, depths = x, {0, 1, len(b.stages) // 2, len(b.stages) - 1}
            for depth, stage in enumerate(b.stages):
                if depth in depths and batch == 2:
                    assert torch.equal(b.cut(depth)[1](value), expected)
                value = stage.module(value)
            assert torch.equal(value, expected)
        x = torch.randn(4, *b.card.input.size)
        torch.manual_seed(1)
        expected = reference.train()(x)
        torch.manual_seed(1)
        assert torch.equal(Chain(b.stages).train()(x), expected)


def test_stage_names_of_efficientnet_lite0() -> None:
    """Stages are named as in the family's own code; what follows the last block is a stage of its own."""
    b = backbone("tf_efficientnet_lite0", 64)
    assert [s.name for s in b.stages] == ["stem", *(f"blocks.{i}" for i in range(7)), "neck"]
    assert {n.split(".")[0] for n in b.stages[-1].tensors} == {"conv_head", "bn2"}
    assert b.feature_dim == 1280


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "test_vit"])
def test_frozen_stages_stand_still(architecture: str) -> None:
    """One training step through the chain in training mode leaves every bit of the frozen stages as it was."""
    b = backbone(architecture, 64)
    depth = len(b.stages) - 2
    b.freeze(depth)
    frozen, whole = b.digest(depth), b.digest()
    chain = Chain(b.stages).train()
    optimiser = torch.optim.SGD([p for p in b.model.parameters() if p.requires_grad], lr=0.1)
    chain(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimiser.step()
    assert b.digest(depth) == frozen
    assert b.digest() != whole


def test_weights_load_by_name_and_by_order() -> None:
    """Weights load by name, or by order under other names; the classifier is dropped by name and kept aside."""
    full = timm.create_model("test_resnet", num_classes=7)
    by_name = Loaded({n: t.clone() for n, t in full.state_dict().items()})
    tensors = {f"tensor{i}": t for i, t in enumerate(by_name.tensors.values())}
    by_order = Loaded(tensors, Source("file:/other", mapping="by-order"))
    x = torch.randn(2, 3, 64, 64)
    full.reset_classifier(0)
    for weights in (by_name, by_order):
        b = TimmProvider().load(card("test_resnet", (3, 64, 64)), weights)
        assert torch.equal(b(x), full.eval()(x))
        assert {n: list(t.shape) for n, t in b.classifier.items()} == {"fc.weight": [7, b.feature_dim], "fc.bias": [7]}
        assert b.weights_note == "from a test"


def test_other_channels_and_sizes_as_timm_does_it() -> None:
    """Grey images get timm's summed input layer, another image size timm's resampled position table."""
    full = timm.create_model("test_vit", num_classes=3)
    weights = Loaded(dict(full.state_dict()))
    b = TimmProvider().load(card("test_vit", (1, 96, 96)), weights)
    overlay = {"state_dict": dict(full.state_dict()), "num_classes": 3}
    timms = timm.create_model(
        "test_vit", pretrained=True, num_classes=0, in_chans=1, img_size=96, pretrained_cfg_overlay=overlay
    )
    x = torch.randn(2, 1, 96, 96)
    assert torch.equal(b(x), timms.eval()(x))


def test_weights_that_do_not_fit_are_named() -> None:
    """Weights of another architecture are an error that names the first tensor that differs."""
    tensors = dict(timm.create_model("test_resnet", num_classes=7).state_dict())
    with pytest.raises(WeightsMismatch, match=r"layer1\.0\.conv1"):
        TimmProvider().load(
            card("test_resnet", (3, 64, 64)),
            Loaded({n: t for n, t in tensors.items() if n != "layer1.0.conv1.weight"}),
        )
    shuffled = Loaded(dict(reversed(tensors.items())), Source("file:/other", mapping="by-order"))
    with pytest.raises(WeightsMismatch, match=r"tensor fc.bias has shape \[7\]"):
        TimmProvider().load(card("test_resnet", (3, 64, 64)), shuffled)


def test_an_unknown_architecture_names_near_ones() -> None:
    """A misspelt architecture is answered with near names."""
    with pytest.raises(BadCard, match="resnet18"):
        backbone("resnet188", 64)


@pytest.mark.parametrize("kind", KINDS)
def test_chains_move_to_another_device(kind: str) -> None:
    """A chain that was cut on the CPU runs on another device, with the tables that it makes for itself."""
    architecture, side = KINDS[kind]
    body = backbone(architecture, side).to("meta")
    with torch.no_grad():
        assert Chain(body.stages)(torch.zeros(2, 3, side, side, device="meta")).device.type == "meta"
