"""One recipe, one run: what its folder holds, and that nothing half-done ever looks finished."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from photos import make_photos
from safetensors import safe_open

from zoo_core import data, engine, heads, hookimpl
from zoo_core.console import Console
from zoo_core.errors import (
    BadOption,
    DigestMismatch,
    NoData,
    RunDamaged,
    RunExists,
    RunNotFound,
    TooFewExamples,
    UnknownStrategy,
    WeightsMissing,
)
from zoo_core.files import read_json, sha256_file
from zoo_core.layers import load_registry
from zoo_core.plugins import Plugins, discover
from zoo_core.recipe import Recipe
from zoo_core.runs import Run, find_runs

FREEZES = {"head-only": 3, "last:1": 2, "last:2": 1, "full:layer_decay=0.5": 0, "scratch": 0}
FILES = [
    "COMMIT",
    "audit.json",
    "card.json",
    "labels.json",
    "metrics.jsonl",
    "model.safetensors",
    "plan.json",
    "predictions.csv",
    "recipe.toml",
    "report.html",
    "summary.json",
]


def rows(path: Path) -> list[dict]:
    """A CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_run(make, photos, plugins, freeze):
    """For each depth a run has all its files, its figures, equal digests, and predicts what it wrote down."""
    run = make(freeze=freeze)
    assert sorted(p.name for p in run.path.iterdir()) == sorted(FILES)
    summary = run.summary
    assert summary["run"] == "run"
    assert summary["freeze"]["depth"] == FREEZES[freeze]
    assert summary["freeze"]["requested"] == freeze
    assert summary["freeze"]["stages_trained"] == ["stem", "block", "neck"][FREEZES[freeze] :]
    assert summary["pretrained"] is (freeze != "scratch")
    assert summary["frozen_digest_before"] == summary["frozen_digest_after"]
    assert (summary["data"]["n_train"], summary["data"]["n_val"], summary["data"]["n_test"]) == (18, 6, 6)
    mode = {0: "pixels", 3: "pooled"}.get(FREEZES[freeze], "boundary")
    assert summary["cache"] == {"hits": 0, "misses": 30, "bytes": summary["cache"]["bytes"], "mode": mode}
    reopened = Run(run.path, plugins)
    written = rows(run.path / "predictions.csv")
    predicted = list(reopened.predict([row["path"] for row in written]))
    for row, prediction in zip(written, predicted, strict=True):
        assert (prediction.path, prediction.label) == (row["path"], row["predicted"])
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        for name, probability in prediction.probabilities.items():
            assert probability == pytest.approx(float(row[f"p:{name}"]), abs=2e-6)
    accuracy = np.mean([row["label"] == row["predicted"] for row in written])
    assert run.metrics["accuracy"] == pytest.approx(accuracy)


def test_summary_keys(make):
    """`summary.json` has the keys that scripts rely on."""
    summary = make().summary
    promised = {
        "": "run backbone freeze head regime data test baselines seconds cache",
        "freeze": "requested depth stages_trained reason",
        "data": "n_train n_val n_test classes",
        "test": "accuracy balanced_accuracy accuracy_ci auroc log_loss ece",
        "baselines": "majority knn linear_probe multi_stage",
        "seconds": "scan prefix fit eval total",
        "cache": "hits misses bytes",
    }
    assert summary["frozen_digest_before"] == summary["frozen_digest_after"]
    for part, keys in promised.items():
        assert set(keys.split()) <= (summary[part] if part else summary).keys(), part
    assert summary["baselines"]["majority"]["accuracy"] == pytest.approx(1 / 3)
    low, high = summary["test"]["accuracy_ci"]
    assert 0 <= low <= summary["test"]["accuracy"] <= high <= 1


def test_commit_lists_digests(make):
    """COMMIT, written last, holds the sha256 of every other file but the page, which may be made again."""
    run = make()
    commit = read_json(run.path / "COMMIT")
    assert commit["files"] == {
        name: sha256_file(run.path / name) for name in FILES if name not in ("COMMIT", "report.html")
    }


def test_the_other_files(make):
    """Metrics a line an epoch, labels, plan with its reason, audit, and a recipe that runs again."""
    run = make(freeze="last:1", seed=3)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all({"train_loss", "val_loss", "val_accuracy"} <= line.keys() for line in lines)
    assert read_json(run.path / "labels.json") == {"classes": ["blue", "green", "red"]}
    plan = read_json(run.path / "plan.json")
    assert plan["phases"][0]["depth"] == plan["depth"] == 2
    assert "neck" in plan["reason"]
    assert read_json(run.path / "audit.json")["counts"]["train"] == {"blue": 6, "green": 6, "red": 6}
    assert run.recipe.seed == 3
    assert run.card.name == "tiny/net"


def test_only_what_was_trained_is_saved(make):
    """The weights file of a run holds head and trained stages; from random weights it holds everything."""

    def names(run):
        with safe_open(run.path / "model.safetensors", framework="pt") as file:
            return set(file.keys())

    assert names(make("a")) == {"head.weight", "head.bias"}
    assert names(make("b", freeze="last:1")) == {"head.weight", "head.bias", "backbone.2.2.weight", "backbone.2.2.bias"}
    everything = names(make("c", weights="none"))
    assert {"backbone.0.0.weight", "backbone.1.1.running_mean", "head.bias"} <= everything


@pytest.mark.parametrize("freeze", ["head-only", "last:1", "scratch"])
def test_twice_the_same(make, freeze):
    """The same recipe gives the same figures, weights and predictions; the second time from the cache."""
    first, second = make("first", freeze=freeze), make("second", freeze=freeze)
    assert second.metrics == first.metrics
    assert second.summary["baselines"] == first.summary["baselines"]
    for name in ("predictions.csv", "labels.json", "recipe.toml"):
        assert (second.path / name).read_bytes() == (first.path / name).read_bytes()
    assert sha256_file(second.path / "model.safetensors") == sha256_file(first.path / "model.safetensors")
    assert (first.summary["cache"]["hits"], second.summary["cache"]["hits"]) == (0, 30)


def test_a_run_repeats_from_its_own_recipe(make, plugins):
    """The recipe in a run's folder gives the run again."""
    first = make("first", freeze="last:1", seed=2)
    again = engine.finetune(Recipe.load("first/recipe.toml"), load_registry(plugins), plugins, Path("again"))
    assert again.metrics == first.metrics


def test_random_weights_are_recorded(make):
    """`weights=none` is recorded in recipe and summary, and gives other figures than pretrained weights."""
    run = make(weights="none")
    assert run.recipe.weights == "none"
    assert run.summary["pretrained"] is False
    assert "random" in run.summary["weights"]
    assert make("b").summary["frozen_digest_before"] != run.summary["frozen_digest_before"]


@dataclass(frozen=True)
class Stopping(heads.Linear):
    """A linear head whose loss is stopped by Ctrl-C."""

    def loss(self, outputs, labels):
        raise KeyboardInterrupt


@pytest.fixture
def stopping(plugins) -> Plugins:
    """The tiny plugin and one whose head is stopped while it trains."""

    @hookimpl
    def zoo_head_builders():
        return {"stopping": Stopping}

    dist = SimpleNamespace(name="zoo-stop", version="1")
    module = SimpleNamespace(zoo_head_builders=zoo_head_builders)
    more = discover([SimpleNamespace(name="stop", value="stop", dist=dist, load=lambda: module)], {})
    return Plugins((*plugins.found, more.found[-1]))


def test_ctrl_c_leaves_nothing(make, stopping):
    """A run stopped by Ctrl-C leaves no folder that looks finished, and no other."""
    with pytest.raises(KeyboardInterrupt):
        make("runs/a", plugins=stopping, head="stopping")
    assert list(Path("runs").iterdir()) == []
    assert find_runs(Path("runs")) == []


def test_force_keeps_the_old_run_until_the_new_one_is_whole(make, stopping, plugins):
    """With `force` the old run stays until the new one is finished, also when that one is stopped."""
    old = make("runs/a").summary
    with pytest.raises(RunExists, match=r"runs/a is already there. Give another --out, or replace it with --force"):
        make("runs/a")
    with pytest.raises(KeyboardInterrupt):
        make("runs/a", plugins=stopping, head="stopping", force=True)
    assert Run("runs/a", plugins).summary == old
    assert make("runs/a", seed=5, force=True).summary["recipe"] != old["recipe"]
    assert [p.name for p in Path("runs").iterdir()] == ["a"]


def test_force_replaces_only_runs(make):
    """`force` does not replace a folder that is no run."""
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    with pytest.raises(RunExists, match="thesis is not a run, so --force does not replace it"):
        make("thesis", force=True)
    assert Path("thesis/chapter.txt").read_text() == "years of work"


def test_left_overs_of_a_killed_run(make, plugins):
    """What a killed process left is no run, says so, and is replaced by the next one."""
    Path("run.unfinished").mkdir()
    Path("run.unfinished/summary.json").write_text("{}")
    with pytest.raises(RunNotFound, match="run is an unfinished run; expected a folder with a COMMIT file"):
        Run("run", plugins)
    assert find_runs(Path()) == []
    make("run")
    assert not Path("run.unfinished").exists()


def test_no_run():
    """A folder without COMMIT is no run."""
    with pytest.raises(RunNotFound, match=r"nowhere is no run.*zoo runs ls"):
        Run("nowhere")


def test_tampered_weights(make, plugins, photos):
    """A run whose weights file changed after it was committed does not predict."""
    path = make().path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunDamaged, match=r"model\.safetensors has sha256 .* but COMMIT says"):
        list(Run("run", plugins).predict(photos / "red"))


def test_another_backbone_beneath(make, plugins, photos, tmp_path):
    """A run whose backbone's weights are no longer the same does not predict."""
    run = make()
    other = tmp_path / "other.safetensors"
    import zoo_tiny
    from safetensors.torch import load_file, save_file

    tensors = load_file(zoo_tiny.TinyProvider.cards.with_name("tiny.safetensors"))
    save_file({n: t + 1 for n, t in tensors.items()}, other)
    card = read_json(run.path / "card.json")
    card["card"]["sources"] = [{"uri": f"file:{other}"}]
    (run.path / "card.json").write_text(json.dumps(card))
    with pytest.raises((RunDamaged, DigestMismatch), match="sha256"):
        list(Run("run", plugins).predict(photos / "red"))


def test_predict(make, photos):
    """Predictions come for files and folders; a bad image gives its reason and spoils no other."""
    run = make(epochs=20, lr=0.1)
    (photos / "red" / "bad.png").write_text("no")
    answers = {Path(p.path).name: p for p in run.predict(photos / "red")}
    assert len(answers) == 11
    assert "not a readable image" in answers.pop("bad.png").error
    assert {p.error for p in answers.values()} == {""}
    assert {p.label for p in answers.values()} == {"red"}
    assert [p.path for p in run.predict([photos / "red/00.png"])] == [str(photos / "red/00.png")]


def test_evaluate(make, photos, tmp_path):
    """New data are scored by class name, also where they hold only some of the classes; strange ones are an error."""
    run = make(epochs=20, lr=0.1)
    fresh = make_photos(tmp_path / "fresh", each=4, seed=9)
    scores = run.evaluate(data.scan(fresh, for_training=False))
    assert (scores["n"], scores["accuracy"]) == (12, 1.0)
    (fresh / "blue").rename(tmp_path / "aside")
    scores = run.evaluate(data.scan(fresh, for_training=False))
    assert (scores["n"], scores["accuracy"], scores["auroc"]) == (8, 1.0, None)
    (fresh / "red").rename(fresh / "rouge")
    with pytest.raises(TooFewExamples, match="has the class 'rouge'; this run knows blue, green, red"):
        run.evaluate(data.scan(fresh, for_training=False))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"old": "there"}, NoData, "there: no such file or folder"),
        ({"freeze": "lats"}, UnknownStrategy, "unknown freeze 'lats'. Did you mean last"),
        ({"freeze": "last:9"}, BadOption, "this backbone has 3 stages; expected 0 to 3"),
        ({"head": "linaer"}, UnknownStrategy, "unknown head 'linaer'. Did you mean linear"),
        ({"device": "cuda:99"}, BadOption, "--device cuda:99: .*Expected auto, cpu, cuda, cuda:N or mps"),
        ({"device": "abacus"}, BadOption, "--device abacus"),
        ({"backbone": "cnn/resnet18.a1_in1k"}, Exception, "zoo-cnn|cnn"),
    ],
)
def test_mistakes(make, fields, error, message):
    """A mistake in the request is named before anything is trained, and leaves no folder."""
    with pytest.raises(error, match=message):
        make("runs/a", **fields)
    assert not Path("runs/a").exists()
    assert not Path("runs/a.unfinished").exists()


def test_missing_weights_never_become_random(make, tmp_path):
    """Where the weights are missing the run stops: it never goes on with random ones."""
    (tmp_path / "registry.json").write_text(
        json.dumps({"schema": 1, "cards": {"tiny/net": {"provider": "tiny", "architecture": "tiny"}}})
    )
    with pytest.raises(WeightsMissing, match="--weights none"):
        make()


def test_a_dry_run_writes_nothing(photos, plugins, tmp_path):
    """`prepare` decides everything that a run would, and writes no run."""
    recipe = Recipe(data=str(photos), backbone="tiny/net", freeze="last:1", lr=0.5)
    preview = engine.prepare(recipe, load_registry(plugins), plugins, Console())
    assert preview.plan.depth == 2
    assert preview.schedule.lr == 0.5
    assert not list(tmp_path.rglob("COMMIT"))


class Notebook(Console):
    """Keeps what was said."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, line):
        self.lines.append(line)


def said(photos, plugins, **fields) -> Sequence[str]:
    """What a run says before it trains."""
    console = Notebook()
    recipe = Recipe(data=str(photos), backbone="tiny/net", epochs=1, **fields)
    engine.finetune(recipe, load_registry(plugins), plugins, Path("run"), console=console)
    return console.lines


def test_what_was_chosen_is_said(photos, plugins):
    """Before it trains a run says what it read, left out, chose, and why."""
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "notes.txt").write_text("x")
    text = "\n".join(said(photos, plugins, freeze="last:1"))
    for part in ("29 images, 3 classes", "empty file", "1 files ending in .txt", "tiny/net", "2 of 3 stages frozen"):
        assert part in text
    assert "The last 1 of 3 stages train (neck)." in text


def test_no_validation_side(make):
    """Without a validation side the last epoch is kept, and the run is whole."""
    run = make(val_share=0.0)
    assert run.summary["schedule"]["best_epoch"] == 1
    assert run.summary["data"]["n_val"] == 0


def test_two_classes(make, photos):
    """Of two classes the ROC AUC is that of the second class."""
    (photos / "red").rename(photos.parent / "aside")
    assert 0 <= make(epochs=20, lr=0.1).metrics["auroc"] <= 1


def test_find_runs(make):
    """Finished runs of a folder are listed by name; a folder that is not there has none."""
    make("runs/b")
    make("runs/a")
    Path("runs/c").mkdir()
    assert [run.path.name for run in find_runs(Path("runs"))] == ["a", "b"]
    assert find_runs(Path("elsewhere")) == []
