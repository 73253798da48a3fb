"""Weights in the files that upstream libraries write, loaded through cards, against the library itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import zoo_core as zoo
from zoo_core import images
from zoo_core.card import Card, Input
from zoo_core.weights import local_source

timm = pytest.importorskip("timm", reason="timm comes with the plugins zoo-cnn, zoo-vit and zoo-dino")

# one small architecture of each kind whose weights live on the hub
HUB = {
    "cnn": "cnn/mobilenetv3_small_050.lamb_in1k",
    "vit": "vit/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "dino": "dino/vit_small_patch16_dinov3.lvd1689m",
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A colourful picture of an odd size."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 61, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((305, 199)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put_in_cache(hub: Path, repo: str, folder: Path) -> None:
    """Lay a model folder out as the Hugging Face cache does: blobs, a snapshot of links, refs."""
    root = hub / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    for part in (root / "blobs", snapshot, root / "refs"):
        part.mkdir(parents=True)
    for i, file in enumerate(sorted(folder.iterdir())):
        blob = root / "blobs" / f"{i:064x}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    (root / "refs" / "main").write_text("0" * 40)


def timm_answer(model: torch.nn.Module, photo: Path) -> torch.Tensor:
    """timm's own preprocessing and timm's own headless model."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
    with torch.inference_mode():
        return model.eval()(transform(Image.open(photo).convert("RGB"))[None])


def zoo_answer(body: zoo.Backbone, photo: Path) -> torch.Tensor:
    """Our preprocessing, from the card, and the chain."""
    spec = body.card.input
    with torch.inference_mode():
        return body(images.normalise(images.pixels(images.decode(photo), spec)[None], spec))


@pytest.mark.parametrize("name", HUB.values(), ids=HUB)
def test_a_hub_folder_in_the_cache_loads_like_upstream(name: str, hub: Path, tmp_path: Path, photo: Path) -> None:
    """Weights in the Hugging Face cache load without the network, and features equal timm's bit for bit."""
    card = zoo.registry().get(name)
    torch.manual_seed(0)
    model = timm.create_model(card.architecture, pretrained=False)
    timm.models.save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    put_in_cache(hub, card.sources[-1].uri.removeprefix("hf:").rpartition("/")[0], tmp_path / "folder")

    body = zoo.load_backbone(name)

    declared = card.classifier
    model.reset_classifier(0)
    assert torch.equal(zoo_answer(body, photo), timm_answer(model, photo))
    assert all(entry.startswith(tuple(f"{d}." for d in declared)) for entry in body.classifier)
    assert bool(body.classifier) == bool(declared and model.pretrained_cfg["num_classes"])


def pretrained(name: str, tmp_path: Path, **more: int) -> tuple[Card, torch.nn.Module]:
    """A card with a local file of random but fixed weights, and timm's own way to load that file."""
    card = zoo.registry().get(name)
    torch.manual_seed(0)
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model(card.architecture, pretrained=False).state_dict(), file)
    overlay = {"file": str(file)}
    model = timm.create_model(card.architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **more)
    return dataclasses.replace(card, sources=(local_source(file),)), model


def load(card: Card) -> zoo.Backbone:
    from zoo_core.api import installed
    from zoo_core.weights import load_backbone

    return load_backbone(card, installed())


def test_another_input_size_resamples_position_embeddings_as_timm_does(tmp_path: Path) -> None:
    """A card with another input size gives what timm gives when it is asked for that size."""
    card, model = pretrained(HUB["vit"], tmp_path, img_size=96)
    body = load(dataclasses.replace(card, input=dataclasses.replace(card.input, size=(3, 96, 96))))
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(body(x), model.eval()(x))


@pytest.mark.parametrize("channels", [1, 5])
def test_gray_and_multispectral_input_adapts_the_first_layer_as_timm_does(channels: int, tmp_path: Path) -> None:
    """A card with 1 or 5 channels gives what timm gives with `in_chans`."""
    card, model = pretrained(HUB["cnn"], tmp_path, in_chans=channels)
    spec = Input((channels, 64, 64), mean=(0.5,) * channels, std=(0.5,) * channels)
    body = load(dataclasses.replace(card, input=spec))
    x = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        assert torch.equal(body(x), model.eval()(x))


def test_an_open_clip_folder_loads_like_upstream(tmp_path: Path, photo: Path) -> None:
    """The image tower of a folder that open_clip wrote gives open_clip's image features bit for bit."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip comes with the plugin zoo-clip")
    import json

    name = "ViT-S-32-alt"
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    preprocess = {"mean": list(model.visual.image_mean), "std": list(model.visual.image_std)}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")

    spec = Input((3, 224, 224), tuple(preprocess["mean"]), tuple(preprocess["std"]), "bicubic", 1.0)
    source = local_source(tmp_path / "open_clip_model.safetensors")
    body = load(Card("mine/clip", "clip", name, input=spec, sources=(source,)))

    with torch.inference_mode():
        expected = theirs.eval().encode_image(transform(Image.open(photo))[None])
    assert torch.equal(zoo_answer(body, photo), expected)
