"""A chat model from a GPT: what it reads, what it is asked for, what it says, and what becomes of it."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest
import torch
from tiny_chats import CHATML, write_chats, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from zoo_text.conversing import PLAIN

import zoo_core as zoo
from zoo_core import ZooError

HELLO = [{"role": "user", "content": "What is del?"}]
TALKATIVE = {"epochs": 1, "lr": 1e-6}
"""As good as untrained, so that it babbles: one that has learnt a little often ends at once."""
LONG = [
    {"role": "system", "content": "You know Python."},
    {"role": "user", "content": "What is del?"},
    {"role": "assistant", "content": "It deletes."},
    {"role": "user", "content": "What?"},
    {"role": "assistant", "content": "Names, items and slices."},
]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A GPT-2, whose output layer is its table of words, and a Llama, which has one of its own."""
    where = tmp_path_factory.mktemp("models")
    return {kind: write_model(where / kind, kind) for kind in ("gpt2", "llama")}


@pytest.fixture
def chats(tmp_path):
    """Twenty conversations, made of what Python says of itself."""
    return write_chats(tmp_path / "chats.jsonl", 20)


@pytest.fixture
def make(models, chats):
    """Fine-tune a tiny language model on the conversations."""

    def make(out="run", kind="gpt2", **fields):
        zoo.registry().register(f"mine/{kind}", folder=models[kind], force=True)
        given = {"freeze": "full", "epochs": 2, "lr": 3e-3, "device": "cpu", "head": "causal-lm"}
        return zoo.finetune(chats, backbone=f"mine/{kind}", out=out, **given | fields)

    return make


def reader_of(folder, **files):
    """The reader of conversations of a model, with other files beside its tokenizer."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    zoo.registry().register("mine/read", folder=folder, force=True)
    body = zoo.load_backbone("mine/read")
    from zoo_text.head import CausalLm

    return CausalLm().reader(body)


def test_a_chat_model_from_a_gpt(make, chats):
    """A small GPT-2 trained on real sentences: the loss falls, the perplexity too, and it says other things."""
    write_chats(chats, 40)
    run = make(epochs=12)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] - 1
    before, after = run.summary["baselines"]["before"], run.metrics
    assert after["perplexity"] < 0.6 * before["perplexity"]
    assert after["next_token"] > before["next_token"]
    assert all(said["before"] != said["after"] for said in run.summary["says"])
    assert "What it says" in (run.path / "report.html").read_text()


def test_it_says_what_it_was_taught(make, chats):
    """Trained on a dozen sentences until it knows them, it answers with some of them word by word."""
    write_chats(chats, 12)
    run = make(epochs=30, lr=5e-3, batch_size=3, val_share=0.0)
    taught = [json.loads(line)["messages"][-1]["content"] for line in chats.read_text().splitlines()]
    assert sum(answer.label in taught for answer in run.predict("chats.jsonl")) >= 3


@pytest.mark.parametrize(
    ("freeze", "kind"),
    [("last:2", "gpt2"), ("lora:rank=4,stages=3", "gpt2"), ("full", "llama"), ("head-only", "llama")],
)
def test_every_depth(make, freeze, kind):
    """The last stages, low-rank adapters, everything, or a head of its own: the prefix stays, the run comes back."""
    pytest.importorskip("zoo_lora")
    run = make(kind=kind, freeze=freeze)
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    scores = run.evaluate(_task(run))
    assert scores["perplexity"] > 1
    body, tuned = zoo.load_backbone(f"mine/{kind}"), run._predictor.model.backbone
    changed = [n for n, t in tuned.tensors().items() if not torch.equal(t, body.tensors()[n])]
    allowed = {"last:2": ("h.2.", "ln_f."), "lora": ("h.1.", "h.2.", "ln_f.")}.get(freeze.partition(":rank")[0])
    if freeze == "head-only":
        assert not changed
    if allowed:
        assert changed
        assert all(name.startswith(allowed) for name in changed)
    if freeze.startswith("lora"):  # GPT-2's linear layers are no nn.Linear: their weights lie the other way round
        assert {name.split(".", 2)[2] for name in changed} == {
            "attn.c_attn.weight",
            "attn.c_proj.weight",
            "mlp.c_fc.weight",
            "mlp.c_proj.weight",
        }


def _task(run):
    from zoo_core import data

    return data.scan(run.recipe.data, for_training=False, modality=run.modality)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("template", [PLAIN, CHATML])
def test_only_what_the_assistant_says_is_asked_for(models, tmp_path, kind, template):
    """Tokens and loss are those of transformers, which is told to pass over everything that others say."""
    folder = tmp_path / "model"
    shutil.copytree(models[kind], folder)
    reader = reader_of(folder, chat_template__jinja=template)
    path = tmp_path / "long.json"
    path.write_text(json.dumps(LONG))
    ids, mask, wanted = reader.read(str(path))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>")
    assert ids[mask > 0].tolist() == theirs.apply_chat_template(LONG, chat_template=template)["input_ids"]
    said = reader.tokenizer.decode([i - 1 for i in wanted.tolist() if i], skip_special_tokens=False)
    end = "<|im_end|>\n" if template is CHATML else "<|endoftext|>"
    space = "" if template is CHATML else " "
    assert said == f"{space}It deletes.{end}{space}Names, items and slices.{end}"

    body = zoo.load_backbone("mine/read")
    from zoo_text.head import CausalLm

    head = CausalLm().build(body.feature_dim, None)
    CausalLm().bind(head, body)
    labels = torch.full_like(ids, -100)
    labels[1:][wanted[:-1] > 0] = wanted[:-1][wanted[:-1] > 0] - 1
    here, value = mask > 0, reader.to_input(reader.stack([(ids, mask, wanted)]), torch.device("cpu"))
    upstream = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = upstream(ids[here][None].long(), labels=labels[here][None].long()).loss
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            nats, tokens, _ = head(tail(prefix(value)))[0].tolist()
            assert nats / tokens == pytest.approx(float(expected), abs=1e-5)


def test_the_cache_changes_nothing(make):
    """Trained from kept activations, a chat model has the bits of one trained without a cache."""
    saved = [
        (make(out=cache, freeze="last:2", cache=cache).path / "model.safetensors").read_bytes()
        for cache in ("boundary", "none")
    ]
    assert saved[0] == saved[1]


@pytest.mark.parametrize("freeze", ["full", "lora:rank=4,stages=2"])
def test_a_killed_run_goes_on(make, monkeypatch, freeze):
    """Gone on with from a checkpoint within an epoch, a chat model ends with the bits of an unbroken run."""
    from zoo_core import checkpoints

    monkeypatch.setattr(checkpoints, "SPARE", 0)
    monkeypatch.setattr(checkpoints, "WITHIN", 0.0)
    write, copies = checkpoints.Memory._write, []

    def copying(self, *args):
        write(self, *args)
        copies.append(f"copies/{len(copies)}")
        shutil.copytree(self.folder.parent.parent, copies[-1])

    monkeypatch.setattr(checkpoints.Memory, "_write", copying)
    whole = make(out="whole", freeze=freeze, batch_size=4, epochs=1)
    shutil.copytree(copies[len(copies) // 2], "again.unfinished")
    again = make(out="again", freeze=freeze, batch_size=4, epochs=1)
    assert again.summary["resumed"]
    assert again.summary["digests"] == whole.summary["digests"]
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_exported_to_transformers(make, kind):
    """The exported folder is transformers' own: the same losses, the same answer, with its template."""
    run = make(kind=kind, **TALKATIVE)
    folder = run.export("hf")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(HELLO, add_generation_prompt=True, return_tensors="pt")
    found = model.generate(**ids, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(found[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert answer == run.say(HELLO, zoo.Saying(max_tokens=12)) != ""
    facts = json.loads((folder / "export.json").read_text())
    assert facts["compared"]["worst"] < 1e-4
    with pytest.raises(ZooError, match=r"is a chat model, which has the form hf only\. Type: zoo export"):
        run.export("onnx")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_chat_model_becomes_a_backbone(make, chats, kind):
    """A chat run is registered with its words and its template, and goes on from where it was."""
    run = make(kind=kind)
    zoo.registry().register("mine/tuned", run=run.path)
    again = zoo.finetune(
        chats, backbone="mine/tuned", head="causal-lm", freeze="last:1", epochs=1, device="cpu", out="b"
    )
    assert again.summary["baselines"]["before"]["perplexity"] == pytest.approx(run.metrics["perplexity"], rel=1e-4)


def test_how_it_answers(make):
    """The most probable token gives one answer; a temperature draws others, the same ones from the same seed."""
    run = make(**TALKATIVE)
    greedy = run.say(HELLO, zoo.Saying(max_tokens=10))
    assert greedy == run.say(HELLO, zoo.Saying(max_tokens=10, seed=5))
    drawn = [run.say(HELLO, zoo.Saying(10, 2.0, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(run._predictor.model.backbone.reader.tokenizer.encode(greedy).ids) <= 10
    with pytest.raises(ZooError, match=r"--max-tokens 128 leaves no room for the question in 128 tokens"):
        run.say(HELLO, zoo.Saying(max_tokens=128))
    with pytest.raises(ZooError, match="expected 1 token or more, a temperature from 0"):
        zoo.Saying(temperature=-1)


def test_an_answer_ends_where_the_template_ends_it(models, tmp_path):
    """Beside the model's own end of text, the mark that the template writes after an answer ends it."""
    folder = tmp_path / "model"
    shutil.copytree(models["gpt2"], folder)
    assert reader_of(folder).ends == (0,)
    assert reader_of(folder, chat_template__jinja=CHATML).ends == (0, 2)


def test_on_the_command_line(make, monkeypatch, capsys, tmp_path):
    """`zoo chat` answers lines, `zoo predict` answers files, each with the model's own words."""
    from zoo_core.cli import main

    run = make(**TALKATIVE)
    expected = run.say(HELLO, zoo.Saying(max_tokens=6))

    def zoo_(*args, lines=""):
        monkeypatch.setattr(sys, "argv", ["zoo", *args])
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code or 0, *capsys.readouterr()

    code, out, _ = zoo_("chat", "run", "--max-tokens", "6", lines="What is del?\n\nWhat is del?\n")
    assert (code, out) == (0, f"{expected}\n" * 2)
    code, out, _ = zoo_("chat", "run", "--max-tokens", "6", "--system", "Be brief.", "--json", lines="What is del?\n")
    assert [message["role"] for message in json.loads(out)["messages"][:2]] == ["system", "user"]
    (tmp_path / "ask.txt").write_text("What is del?")
    (tmp_path / "ask.csv").write_text("question\nWhat is del?\nWhat is assert?\n")
    code, out, _ = zoo_("predict", "run", "ask.txt", "ask.csv", "--max-tokens", "6", "--jsonl")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["label"] for answer in answers][:2] == [expected] * 2
    assert "perplexity" in zoo_("eval", "run", "chats.jsonl")[1]
    assert "stored samples differ from the run by" in zoo_("export", "run", "--to", "hf")[1]
    assert zoo_("verify", "run-hf")[0] == 0


def test_what_is_cut_off_is_said(make, chats):
    """Conversations of which nothing of the assistant's is left within the model's length are counted."""
    with open(chats, "a") as file:
        question = {"role": "user", "content": "What is del? " * 60}
        file.write(json.dumps({"messages": [question, {"role": "assistant", "content": "It deletes."}]}) + "\n")
    notes = " ".join(make(epochs=1).summary["data"]["notes"])
    assert "1 of 21 conversations have more than 128 tokens: their ends are cut off" in notes
    assert "in 1 the assistant says nothing within 128 tokens" in notes
    assert "chat template: a plain one" in notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": "hello"}, r"line 21: messages are 'hello'; expected a list of objects with role and content"),
        ({"messages": [{"role": "boss", "content": "x"}]}, r"expected a role \(system, user, assistant\)"),
        ({"messages": HELLO}, "the assistant says nothing in it"),
        ({"messages": [{"role": "user", "content": " "}]}, "a message of the user is empty"),
    ],
)
def test_lines_that_are_no_conversation(make, chats, line, message):
    """A line that is no conversation is named, with what was expected."""
    with open(chats, "a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(ZooError, match=message):
        make()


def test_what_does_not_go_together(make, chats, models, tmp_path):
    """What cannot be is refused before anything is trained, with what to type instead."""
    with pytest.raises(ZooError, match=r"nothing would train.*Give --freeze last:1, lora or full"):
        make(freeze="head-only")
    with pytest.raises(ZooError, match=r"Conversations are for --head causal-lm"):
        make(head="linear")
    with pytest.raises(ZooError, match=r"an old task can be kept beside single-label tasks; this one is next-token"):
        make(old=str(chats))
    with pytest.raises(ZooError, match=r"balance"):
        make(balance="loss")
    with pytest.raises(ZooError, match=r"compares shares of right answers; this task is next-token"):
        make(freeze="auto")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZooError, match=r"conversations are read from a \.jsonl file, one a line"):
        zoo.finetune("folder", backbone="mine/gpt2", head="causal-lm")
    (tmp_path / "bad.txt").write_text("What is <|im_end|>?")
    run = make()
    (answer,) = run.predict("bad.txt")
    assert "spells the token '<|im_end|>', which controls" in answer.error
    folder = tmp_path / "model"
    shutil.copytree(models["gpt2"], folder)
    forgets = "{% for m in messages %}{{ loop.index if not loop.last else '' }}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ZooError, match=r"writes earlier messages differently .* Give --head causal-lm:template=plain"):
        reader_of(folder, chat_template__jinja=forgets).tokens(LONG)
