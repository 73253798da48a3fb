"""Both towers of every kind of open_clip model as chains: equal to upstream at every cut, from upstream's own files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_clips import CONFIGS, ENCODERS, WORDS
from zoo_clip import ClipProvider

import zoo_core as zoo
from zoo_core import BadCard, NotAChain, WeightsMismatch, WeightsMissing, testing

TEXTS = ["a photo of the red rose", "sea", "An old map, in good light! " * 6, "Blue &amp; green"]


@testing.parametrize("zoo-clip")
def test_keeps_what_zoo_promises(check):
    """The conformance kit."""
    check()


@pytest.fixture(params=CONFIGS)
def kind(request):
    """Each kind in turn."""
    return request.param


def upstream(folder):
    """The model as open_clip itself loads the folder."""
    return open_clip.create_model_and_transforms(f"local-dir:{folder}")


def equal_at_every_cut(body, value, expected):
    """Prefix and tail give the bits of the whole at every depth."""
    with torch.inference_mode():
        assert torch.equal(body(value), expected)
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            assert torch.equal(tail(prefix(value)), expected), depth


def test_text_features_are_upstreams_at_every_cut(folders, kind, tmp_path):
    """Texts in files, read by the backbone's own reader, give `encode_text`'s bits of open_clip's own tokens."""
    zoo.registry().register("mine/clip/text", folder=folders[kind])
    body = zoo.load_backbone("mine/clip/text")
    theirs, _, _ = upstream(folders[kind])
    ids = open_clip.get_tokenizer(f"local-dir:{folders[kind]}")(TEXTS)
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt").write_text(text)
    rows = [body.reader.read(str(tmp_path / f"{i}.txt")) for i in range(len(TEXTS))]
    value = body.reader.to_input(body.reader.stack(rows), torch.device("cpu"))
    assert torch.equal(value, ids)
    with torch.inference_mode():
        expected = theirs.eval().encode_text(ids, normalize=False)
    equal_at_every_cut(body, value, expected)
    assert body.stages[0].name == "embeddings"
    assert len(body.stages) == 5


def test_image_features_are_upstreams_at_every_cut(folders, kind, tmp_path):
    """A picture read by the card gives `encode_image`'s bits of open_clip's own transform."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 61, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    zoo.registry().register("mine/clip", folder=folders[kind])
    body = zoo.load_backbone("mine/clip")
    theirs, _, transform = upstream(folders[kind])
    x = transform(Image.open(tmp_path / "photo.png"))[None]
    value = body.reader.to_input(
        body.reader.stack([body.reader.read(str(tmp_path / "photo.png"))]), torch.device("cpu")
    )
    assert torch.equal(value, x)
    with torch.inference_mode():
        expected = theirs.eval().encode_image(x, normalize=False)
    equal_at_every_cut(body, value, expected)


def test_tensors_have_upstreams_names(folders, kind):
    """The towers' state dicts have names and bits of the whole model's, each tensor in one of them."""
    theirs, _, _ = upstream(folders[kind])
    whole = theirs.state_dict()
    found = {}
    for name in ("mine/clip", "mine/clip/text"):
        zoo.registry().register(name, folder=folders[kind])
        found |= zoo.load_backbone(name).model.state_dict()
    aside = ("logit_scale", "logit_bias", "text_decoder.")
    assert found.keys() == {name for name in whole if not name.startswith(aside)}
    assert all(torch.equal(t, whole[name]) for name, t in found.items())


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ENCODERS])
def test_training_mode_is_upstreams(folders, kind):
    """With the same random state, chain and upstream agree in training mode, dropout included."""
    zoo.registry().register("mine/clip/text", folder=folders[kind])
    body = zoo.load_backbone("mine/clip/text")
    ids = body.reader.encode(TEXTS)
    found = []
    for module in (body.model, body.cut(0)[1]):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(module.train()(ids))
    assert torch.equal(*found)


def test_a_run_on_texts(folders, tmp_path):
    """A table of texts trains the end of a text tower; the saved run predicts what it wrote down."""
    zoo.registry().register("mine/clip/text", folder=folders["clip"])
    with open(tmp_path / "texts.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        out.writerows([f"{WORDS[i % 7]} {WORDS[7 + i % 5]} {i}", "ab"[i % 2]] for i in range(40))
    run = zoo.finetune("texts.csv", backbone="mine/clip/text", freeze="last:2", epochs=1, device="cpu", out="run")
    assert run.summary["freeze"]["stages_trained"] == ["transformer.resblocks.2", "neck"]
    assert "longer ones lose their ends" in " ".join(run.summary["data"]["notes"])
    with open("run/predictions.csv", newline="") as file:
        row = next(csv.DictReader(file))
    answers = {answer.path: answer for answer in zoo.Run("run").predict("texts.csv")}
    assert answers[row["path"]].probabilities["a"] == pytest.approx(float(row["p:a"]), abs=1e-4)


def test_a_tag_of_open_clips_own(folders):
    """Each pretrained tag has two cards, NAME and NAME/text, of the same file."""
    cards = {card.name: card for card in zoo.backbones("clip/*")}
    tags = {f"clip/{model}.{tag}" for model, tag in open_clip.list_pretrained()}
    assert cards.keys() == tags | {f"{name}/text" for name in tags}
    for name in tags:
        image, text = cards[name], cards[f"{name}/text"]
        assert (image.modality, text.modality) == ("image", "text")
        assert (image.sources, image.architecture, image.openness) == (text.sources, text.architecture, text.openness)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_needs_its_configuration(folders, kind, tmp_path):
    """A tower of transformers is built from the `config.json` beside it, or says where that is missing; no network."""
    zoo.registry().register("mine/clip/text", folder=folders[kind])
    card = zoo.registry().get("mine/clip/text")
    away = replace(card, text=replace(card.text, tokenizer="hf:nobody/nothing/tokenizer.json"), sources=())
    with pytest.raises(
        WeightsMissing, match=r"configuration \(hf:nobody/nothing/config\.json\) is not on this machine"
    ):
        ClipProvider().load(away, None)
    for file in folders[kind].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    zoo.registry().register("mine/evil/text", folder=tmp_path)
    with pytest.raises(BadCard, match="which is never run"):
        zoo.load_backbone("mine/evil/text")


def test_blocks_that_share_are_no_chain(folders, tmp_path):
    """An encoder whose blocks hand on more than hidden states says so."""
    for file in folders["roberta"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    small = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mt5", **small}))
    zoo.registry().register("mine/mt5/text", folder=tmp_path)
    with pytest.raises(NotAChain, match="share the position bias"):
        ClipProvider().load(zoo.registry().get("mine/mt5/text"), None)


def test_weights_that_do_not_fit(folders, tmp_path):
    """Weights of another tower are named by the first tensor that is wrong; an image tower alone has no text tower."""
    from safetensors.torch import load_file, save_file

    zoo.registry().register("mine/clip/text", folder=folders["clip"])
    card, tensors = zoo.registry().get("mine/clip/text"), load_file(folders["clip"] / "open_clip_model.safetensors")
    for change, message in [
        ({"ln_final.weight": torch.zeros(3)}, r"do not fit the text tower of clip: size mismatch for ln_final\.weight"),
        (None, "have no text tower: they hold an image tower alone"),
    ]:
        kept = {n: t for n, t in tensors.items() if n.startswith("visual.")} if change is None else tensors | change
        save_file(kept, tmp_path / "w.safetensors")
        other = replace(card, sources=(zoo.Source(f"file:{tmp_path / 'w.safetensors'}"),))
        with pytest.raises(WeightsMismatch, match=message):
            ClipProvider().load(other, zoo.weights.find(other))


@pytest.mark.parametrize("kind", ["clip", "siglip", "roberta"])
def test_a_run_becomes_a_backbone(folders, tmp_path, kind):
    """A run on texts is registered with its tokenizer, and fine-tuned again."""
    zoo.registry().register("mine/clip/text", folder=folders[kind])
    with open(tmp_path / "texts.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        out.writerows([f"{WORDS[i % 7]} {WORDS[7 + i % 5]} {i}", "ab"[i % 2]] for i in range(40))
    zoo.finetune("texts.csv", backbone="mine/clip/text", freeze="last:1", epochs=1, device="cpu", out="run")
    zoo.registry().register("mine/tuned", run="run")
    again = zoo.finetune("texts.csv", backbone="mine/tuned", epochs=1, device="cpu", out="again")
    assert again.summary["weights"].startswith("store:")


@pytest.mark.parametrize("kind", ["clip", "siglip", "roberta"])
def test_the_hubs_own_cache(folders, kind, tmp_path, monkeypatch):
    """Both towers, and a tokenizer from another repository, load where the hub's client keeps them; no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for repository, names in {"model": "open_clip", "words": ""}.items():
        root = tmp_path / "hub" / f"models--lab--{repository}"
        for part in ("blobs", "refs", "snapshots/abc"):
            (root / part).mkdir(parents=True)
        (root / "refs" / "main").write_text("abc")
        for i, file in enumerate(sorted(folders[kind].iterdir())):
            if file.name.startswith("open_clip") == bool(names):
                (root / "blobs" / str(i)).write_bytes(file.read_bytes())
                (root / "snapshots" / "abc" / file.name).symlink_to(root / "blobs" / str(i))
    theirs = open_clip.create_model("hf-hub:lab/model").eval()
    sources = (zoo.Source("hf:lab/model/open_clip_model.safetensors"),)
    zoo.registry().register("mine/clip", folder=folders[kind])
    zoo.registry().register("mine/clip/text", folder=folders[kind])
    image, text = (replace(zoo.registry().get(n), sources=sources) for n in ("mine/clip", "mine/clip/text"))
    if not text.text.tokenizer:
        text = replace(text, text=replace(text.text, tokenizer="hf:lab/words/tokenizer.json"))
    towers = [ClipProvider().load(card, zoo.weights.find(card)) for card in (image, text)]
    ids, x = towers[1].reader.encode(TEXTS), torch.randn(2, 3, 32, 32)
    assert torch.equal(ids, open_clip.get_tokenizer(f"local-dir:{folders[kind]}")(TEXTS))
    with torch.inference_mode():
        assert torch.equal(towers[0](x), theirs.encode_image(x))
        assert torch.equal(towers[1](ids), theirs.encode_text(ids))


def test_a_tokenizer_that_lost_its_half(folders, tmp_path):
    """A `tokenizer.json` alone does not say what fills up a text: that is said, with what to type."""
    for file in folders["siglip"].iterdir():
        if file.name != "tokenizer_config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    zoo.registry().register("mine/clip/text", folder=tmp_path)
    with pytest.raises(WeightsMissing, match=r"no tokenizer_config\.json lies beside it\. Type: zoo pull"):
        zoo.load_backbone("mine/clip/text").reader.encode(TEXTS)


@pytest.mark.parametrize(
    "options",
    [{"trust_remote_code": True}, {"reduction_mask": "syntax"}, {"clean": "odd"}, {"strip_sep_token": "yes"}, [1]],
)
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_configuration_switches_nothing_on(folders, tmp_path, kind, options):
    """Of a tokenizer's options only those that open_clip's models have are handed on: none runs code or fetches."""
    for file in folders[kind].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = json.loads((tmp_path / "open_clip_config.json").read_text())
    about["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    zoo.registry().register("mine/odd/text", folder=tmp_path)
    with pytest.raises(BadCard, match=r"its configuration has tokenizer_kwargs .* alone, as open_clip's own models"):
        zoo.load_backbone("mine/odd/text")


def test_a_tokenizers_own_code(folders, tmp_path):
    """A tokenizer whose class is code beside it is refused in one sentence, and the code is not run."""
    for file in folders["siglip"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    zoo.registry().register("mine/odd/text", folder=tmp_path)
    body = zoo.load_backbone("mine/odd/text")
    with pytest.raises(WeightsMismatch, match=r"is no tokenizer that open_clip reads for mine/odd/text"):
        body.reader.encode(TEXTS)
    assert not (tmp_path / "ran").exists()
