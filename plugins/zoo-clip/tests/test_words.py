"""Zero-shot, few-shot and fine-tuning from class names, with a small CLIP that has learnt colours from captions."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_clips import TEXT, VISION
from torch.nn.functional import cross_entropy, normalize

import zoo_core as zoo
from zoo_core import BadOption

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "yellow": (200, 200, 40)}
TEMPLATES = ["a photo of a {}.", "a {} picture.", "{} in good light"]


def picture(rng, colour):
    """A noisy square of a colour."""
    noise = rng.integers(-40, 40, (32, 32, 3)) + rng.integers(-40, 40, 3)
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder of open_clip's with a model trained for a moment, by open_clip's own loss, on pictures and captions."""
    folder = tmp_path_factory.mktemp("colours") / "clip"
    folder.mkdir()
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT | {"layers": 2}}
    about = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(0)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    rng, tokenize = np.random.default_rng(0), open_clip.get_tokenizer(f"local-dir:{folder}")
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(60):
        images = torch.stack([transform(picture(rng, c)) for c in COLOURS.values()])
        texts = tokenize([TEMPLATES[step % 3].format(name) for name in COLOURS])
        image, text, scale = model(images, texts)
        logits, aims = scale * image @ text.T, torch.arange(len(COLOURS))
        loss = cross_entropy(logits, aims) + cross_entropy(logits.T, aims)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(
        {n: t.contiguous().clone() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures of each colour in folders with names that no caption had, and a file that says what they mean."""
    rng = np.random.default_rng(5)
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / f"k_{name[0]}").mkdir(parents=True)
        for i in range(12):
            picture(rng, colour).save(tmp_path / "photos" / f"k_{name[0]}" / f"{i}.png")
    (tmp_path / "names.txt").write_text("".join(f"k_{name[0]} = {name}\n" for name in COLOURS))
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES))
    return "photos"


def test_the_classifier_is_open_clips(clip):
    """Rows from class names and templates are those of open_clip's own `build_zero_shot_classifier`."""
    zoo.registry().register("mine/clip", folder=clip)
    body = zoo.load_backbone("mine/clip")
    model = open_clip.create_model(f"local-dir:{clip}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    expected = open_clip.build_zero_shot_classifier(model, tokenizer, list(COLOURS), TEMPLATES).T
    rows, scale = body.words([t.format(name) for name in COLOURS for t in TEMPLATES])
    ours = normalize(rows.reshape(len(COLOURS), len(TEMPLATES), -1).mean(1), dim=1)
    assert torch.allclose(ours, expected, atol=1e-6)
    assert scale == float(model.logit_scale.detach().exp())


def test_without_any_training(clip, photos):
    """`--epochs 0` trains nothing: names and templates alone tell colours apart, and the saved run predicts."""
    zoo.registry().register("mine/clip", folder=clip)
    head = "zero-shot:names=names.txt,templates=templates.txt"
    run = zoo.finetune(photos, backbone="mine/clip", head=head, epochs=0, device="cpu", out="run", calibrate=False)
    assert run.metrics["accuracy"] > 0.9
    assert run.summary["head_note"].startswith("begins with 4 classes that the text tower read in 12 prompts")
    assert run.summary["freeze"]["parameters_trained"] == 0
    answers = list(zoo.Run("run").predict(f"{photos}/k_r"))
    assert sum(answer.label == "k_r" for answer in answers) >= 11


def test_training_starts_there(clip, photos):
    """Fine-tuning begins with the zero-shot classifier, and `--wise-ft` mixes the two."""
    zoo.registry().register("mine/clip", folder=clip)
    fields = {"backbone": "mine/clip", "head": "zero-shot:names=names.txt", "device": "cpu"}
    run = zoo.finetune(photos, freeze="last:1", epochs=2, wise_ft=True, out="run", **fields)
    found = run.summary["wise_ft"]
    assert found["head"] == "mixed"
    assert found["new"][0] > 0.8
    assert run.summary["test"]["accuracy"] > 0.8
    with pytest.raises(BadOption, match="--epochs 0 trains nothing, which leaves --head zero-shot"):
        zoo.finetune(photos, freeze="last:1", epochs=0, out="no", **fields)


def test_names_of_an_old_task(clip, photos, tmp_path):
    """Beside an old task the classifier begins with the names of old and new classes, and both choose the mixture."""
    zoo.registry().register("mine/clip", folder=clip)
    for name in ("k_r", "k_g"):
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / photos / name).rename(tmp_path / "old" / name)
    fields = {"backbone": "mine/clip", "head": "zero-shot:names=names.txt", "device": "cpu", "old": "old"}
    run = zoo.finetune(photos, freeze="last:1", epochs=1, wise_ft=True, out="run", **fields)
    old, found = run.summary["old"], run.summary["wise_ft"]
    assert (old["labels"], old["head"]) == ("extend", "")
    assert run.summary["head_note"].startswith("begins with 4 classes")
    assert len(found["old"]) == len(found["new"]) == 11
    assert found["old"][0] > 0.8
    assert old["after"] > 0.6


def test_few_shots_vote(clip, photos):
    """Tip-Adapter answers from class names and a few kept examples, solved at once; each fold begins with the names."""
    zoo.registry().register("mine/clip", folder=clip)
    head = "tip-adapter:names=names.txt"
    fields = {"backbone": "mine/clip", "head": head, "regime": "few-shot:k=4", "device": "cpu"}
    run = zoo.finetune(photos, out="run", folds=2, **fields)
    assert "16 training examples vote with alpha" in run.summary["head_note"]
    assert run.summary["head_note"].startswith("begins with 4 classes")
    assert min(run.summary["repeats"]["accuracy"]["values"]) > 0.8
    assert run.metrics["accuracy"] > 0.9
    assert [a.label for a in zoo.Run("run").predict(f"{photos}/k_b/0.png")] == ["k_b"]


def test_an_image_tower_alone_reads_no_names(clip, photos):
    """A run's backbone, registered anew, has no text tower beside it: class names are refused, in one sentence."""
    zoo.registry().register("mine/clip", folder=clip)
    zoo.finetune(photos, backbone="mine/clip", freeze="last:1", epochs=1, device="cpu", out="run")
    zoo.registry().register("mine/tuned", run="run")
    with pytest.raises(zoo.WeightsMismatch, match="have no text tower: they hold an image tower alone"):
        zoo.finetune(photos, backbone="mine/tuned", head="zero-shot", epochs=0, device="cpu", out="no")
