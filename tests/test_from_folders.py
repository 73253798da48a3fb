"""Folders of weights and configuration, as upstream's own functions write them, become cards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo_core.errors import NotAModelFolder
from zoo_core.layers import load_registry
from zoo_core.plugins import discover
from zoo_core.weights import load_backbone


@pytest.fixture
def registry():
    """All layers, the installed plugins among them."""
    plugins = discover()
    return lambda: load_registry(plugins)


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    """ResNet-10 as `timm` saves it for the hub, with three classes and preprocessing of its own; and the model."""
    timm = pytest.importorskip("timm")
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm") / "mine"
    model = timm.create_model("resnet10t", num_classes=3)
    model.pretrained_cfg |= {"input_size": (3, 96, 96), "mean": (0.5, 0.5, 0.5), "crop_pct": 0.9, "license": "mit"}
    save_for_hf(model, str(folder), model_config={"num_classes": 3}, safe_serialization=True)
    return folder, model.eval()


def test_timm(timm_folder, registry):
    """A folder of timm's tells architecture, preprocessing, licence; its features equal timm's, bit for bit."""
    import torch

    folder, model = timm_folder
    registry().register("mine/net", folder=folder)
    card = registry().get("mine/net")
    assert (card.provider, card.architecture, card.package, card.licence) == ("cnn", "resnet10t", "zoo-cnn", "MIT")
    assert (card.input.size, card.input.mean, card.input.crop) == ((3, 96, 96), (0.5, 0.5, 0.5), 0.9)
    assert card.sources[0].uri == f"file:{folder / 'model.safetensors'}"
    body = load_backbone(card, discover())
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(body(images), model.forward_head(model.forward_features(images), pre_logits=True))
    assert set(body.classifier) == {"fc.weight", "fc.bias"}


def test_the_user_knows_better(timm_folder, registry):
    """What the user states goes before what the folder says: size, licence, data, or a whole card to be like."""
    folder, _ = timm_folder
    card = registry().register("mine/a", folder=folder, size=64, licence="Apache-2.0", data="cells")
    assert (card.input.size, card.input.crop) == ((3, 64, 64), 0.9)
    assert (card.licence, card.openness.data.name) == ("Apache-2.0", "cells")
    like = registry().get("cnn/resnet10t.c3_in1k")
    card = registry().register("mine/b", folder=folder, like=like.name)
    assert (card.input, card.parent) == (like.input, like.name)


def test_the_licence_of_a_model_card(timm_folder, registry, tmp_path):
    """Where the configuration names no licence, the front matter of the folder's README does; else it is unknown."""
    config = json.loads((timm_folder[0] / "config.json").read_text())
    del config["pretrained_cfg"]["license"]
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((timm_folder[0] / "model.safetensors").read_bytes())
    assert registry().register("mine/a", folder=folder).licence == "unknown"
    (folder / "README.md").write_text("---\ntags:\n- timm\nlicense: cc-by-nc-4.0\n---\n# Mine\n")
    card = registry().register("mine/b", folder=folder)
    assert (card.licence, card.openness.weights.mark) == ("cc-by-nc-4.0", "restricted")


def test_open_clip(registry, tmp_path):
    """A folder of open_clip's does not name its model: the installed open_clip knows whose image tower it is."""
    pytest.importorskip("open_clip")
    from open_clip import get_model_config
    from open_clip.push_to_hf_hub import save_config_for_hf
    from torch import zeros

    view = SimpleNamespace(image_mean=(0.5, 0.5, 0.5), image_std=(0.25, 0.25, 0.25))
    folder = tmp_path / "clip"
    folder.mkdir()
    path = folder / "open_clip_config.json"
    save_config_for_hf(SimpleNamespace(visual=view), path, get_model_config("ViT-S-32-alt"))
    (folder / "open_clip_model.safetensors").write_bytes(_safetensors({"visual.proj": zeros(1)}))
    card = registry().register("mine/clip", folder=folder)
    assert (card.provider, card.architecture, card.package) == ("clip", "ViT-S-32-alt", "zoo-clip")
    assert (card.input.crop_mode, card.input.mean, card.input.std) == ("center", (0.5,) * 3, (0.25,) * 3)
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"preprocess_cfg": {"resize_mode": "squash", "size": 128}}))
    card = registry().register("mine/small", folder=folder)
    assert (card.input.crop_mode, card.input.size) == ("squash", (3, 128, 128))
    text = registry().register("mine/clip/text", folder=folder)
    assert (text.modality, text.text.length, text.architecture) == ("text", 77, "ViT-S-32-alt")
    assert text.text.tokenizer == "package:open_clip/bpe_simple_vocab_16e6.txt.gz"
    assert text.sources == card.sources
    config["model_cfg"]["vision_cfg"]["width"] = 123
    path.write_text(json.dumps(config))
    odd = registry().register("mine/more", folder=folder)
    assert odd.config["vision_cfg"]["width"] == 123
    assert (odd.architecture, odd.stages, odd.parameters) == ("clip", (), 0)


def test_transformers(registry, tmp_path):
    """A folder of transformers' tells architecture and configuration; code that it names is never run."""
    transformers = pytest.importorskip("transformers")
    import torch

    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    folder = tmp_path / "bert"
    model.save_pretrained(folder)
    plain = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps(json.loads(plain) | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(NotAModelFolder, match=r"names code of its own \(auto_map\), which is never run"):
        registry().register("mine/bert", folder=folder)
    (folder / "config.json").write_text(plain)
    card = registry().register("mine/bert", folder=folder, licence="MIT")
    assert (card.provider, card.architecture, card.modality, card.package) == ("text", "bert", "text", "zoo-text")
    assert (card.config["hidden_size"], card.text.length) == (16, 40)
    body = load_backbone(registry().get("mine/bert"), discover())
    ids, mask = torch.randint(0, 64, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    with torch.inference_mode():
        whole = model(ids, mask).last_hidden_state.mean(1)
        assert torch.allclose(body((ids, mask)), whole, atol=1e-6)


BAD = {
    "no folder": ({}, r"nowhere is no folder\. For a single file type: zoo register NAME --weights"),
    "empty": ({"readme.txt": ""}, r"holds neither config\.json .* nor open_clip_config\.json"),
    "no weights": (
        {"config.json": '{"architecture": "resnet10t"}'},
        r"holds no model\.safetensors or .* or pytorch_model\.bin",
    ),
    "unknown architecture": (
        {"config.json": '{"architecture": "resnet1000"}', "model.safetensors": ""},
        "is of the architecture 'resnet1000', which no card has. Add --like CARD",
    ),
    "another shape": ({"config.json": "[]"}, "expected an object, got list"),
    "code named by data": (
        {"config.json": '{"architecture": "resnet10t", "model_args": {"block_fn": "os.system"}}'},
        "was built with 'block_fn', which a card cannot say",
    ),
    "bad preprocessing": (
        {"config.json": '{"architecture": "resnet10t", "pretrained_cfg": {"crop_pct": "most"}}'},
        "crop: expected float, got 'most'",
    ),
    "odd classifier": (
        {"config.json": '{"architecture": "resnet10t", "pretrained_cfg": {"classifier": 3}}'},
        r"config\.json is not laid out as upstream writes it: 'int' object",
    ),
    "odd arguments": (
        {"config.json": '{"architecture": "resnet10t", "model_args": [1]}'},
        r"config\.json is not laid out as upstream writes it: 'list' object",
    ),
    "odd tower": ({"open_clip_config.json": '{"model_cfg": {"vision_cfg": 3}}'}, "expected model_cfg with vision_cfg"),
    "odd size": (
        {"open_clip_config.json": '{"model_cfg": {"vision_cfg": {}}, "preprocess_cfg": {"size": "big"}}'},
        "open_clip_config",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_are_none(case, registry, tmp_path):
    """A folder of no known layout, or whose configuration makes no sense, is refused with what to type."""
    files, message = BAD[case]
    folder = tmp_path / ("nowhere" if case == "no folder" else "folder")
    for name, text in files.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(NotAModelFolder, match=message):
        registry().register("mine/net", folder=folder, **({"architecture": "x"} if case == "odd size" else {}))
    assert not Path("home").exists()


def _safetensors(tensors) -> bytes:
    from safetensors.torch import save

    return save(tensors)
