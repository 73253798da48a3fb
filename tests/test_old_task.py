"""A new task beside an old one: label spaces, rehearsal, and the ledger of what was lost."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch
from photos import make_photos
from PIL import Image

from zoo_core import ledger, old_new_bias, regimes
from zoo_core.buffers import herding
from zoo_core.errors import BadOption, LabelClash, OldDataMissing, TooFewExamples, TooMuchForgotten
from zoo_core.files import read_json, sha256_file
from zoo_core.layers import load_registry
from zoo_core.old_task import space_of
from zoo_core.rehearsing import SoftTargets
from zoo_core.runs import Run
from zoo_core.types import Example
from zoo_core.weights import load_backbone

MIXED = {"regime": "rehearsal", "old": "photos"}


@pytest.fixture
def birds(tmp_path):
    """Another folder of three classes."""
    return make_photos(tmp_path / "birds", ("crow", "duck", "owl"), seed=1)


@pytest.fixture
def parent(make, plugins):
    """A run on the photos in `parent`, registered as the backbone `mine/photos`."""
    run = make("parent", epochs=10)
    load_registry(plugins).register("mine/photos", run=run.path, plugins=plugins)
    return run


@pytest.fixture
def beside(make, birds, parent):
    """Make a run on the birds beside the photos, from the parent's backbone."""
    return lambda out="b", **fields: make(out, **{"data": "birds", "backbone": "mine/photos"} | fields)


def test_extend(beside, parent, plugins):
    """Old and new classes end in one head; the old test side is answered before and after, and the sums agree."""
    run = beside(**MIXED)
    assert run.classes == ("blue", "green", "red", "crow", "duck", "owl")
    old = run.summary["old"]
    assert (old["labels"], old["n_train"], old["n_test"], old["ratio"]) == ("extend", 18, 6, 0.5)
    assert old["model"] == "the head linear of the run it comes from"
    assert old["before"] == parent.metrics["accuracy"]
    assert old["retention"] == pytest.approx(old["after"] / old["before"])
    assert old["forgetting"] == pytest.approx(old["before"] - old["after"]) == -old["backward_transfer"]
    assert old["after"] == pytest.approx(np.mean([c["after"] for c in old["per_class"].values()]))
    with open("parent/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    again = [p.label for p in Run(run.path, plugins).predict([row["path"] for row in rows])]
    assert np.mean([label == row["label"] for label, row in zip(again, rows, strict=True)]) == old["after"]


def test_the_head_begins_with_the_old_rows(beside, parent):
    """With next to no training the new head answers for old examples as the old one did."""
    old = beside(regime="new-only", old="photos", lr=1e-9).summary["old"]
    assert old["head"] == "the head begins with the 3 rows of the head linear of the run it comes from"
    assert old["within_old"] == old["before"]


def test_the_classifier_that_came_with_the_weights(make, birds):
    """The old task may be the backbone's own classifier, whose outputs have names; old data then need these names."""
    things = make_photos(birds.parent / "things", ("thing3", "thing7"), seed=2)
    run = make(data=str(birds), old=str(things), regime="rehearsal")
    assert run.classes == (*(f"thing{i}" for i in range(10)), "crow", "duck", "owl")
    assert run.summary["old"]["model"] == "the classifier of tiny/net"
    assert set(run.summary["old"]["per_class"]) == {"thing3", "thing7"}


def test_a_probe_stands_in(make, birds, photos):
    """Where nobody has an old model for these labels, a linear probe on the old data is what is kept; it is said."""
    run = make(data=str(birds), old=str(photos), regime="rehearsal")
    old = run.summary["old"]
    assert old["model"] == "a linear probe on the old data's training side"
    assert "the classifier of tiny/net does not know 'blue'" in old["notes"][1]
    assert old["before"] > 0.5


def test_share(make, parent, tmp_path):
    """The same classes in new pictures share the outputs; a class without new pictures stays."""
    make_photos(tmp_path / "dusk", ("blue", "red"), seed=4)
    run = make("b", data="dusk", backbone="mine/photos", **MIXED)
    assert run.classes == parent.classes
    assert run.summary["old"]["labels"] == "share"


@pytest.mark.parametrize("freeze", ["head-only", "full"])
def test_replace(beside, freeze):
    """With the old head given up, probes on the old data say what the features still hold; frozen ones lose nothing."""
    run = beside(old="photos", labels="replace", freeze=freeze, lr=0.1)
    old = run.summary["old"]
    assert run.classes == ("crow", "duck", "owl")
    assert old["how"].startswith("the head was replaced, so both are linear probes")
    assert old["before"] > 0.5
    assert freeze == "full" or old["forgetting"] == 0


def test_old_data_of_the_parent_run(beside, parent):
    """Without `--old` the data that the parent run was trained on are used where they are still there."""
    run = beside(regime="rehearsal")
    assert run.summary["old"]["data"].endswith("photos")
    assert "old data of the run that mine/photos was registered from" in run.summary["old"]["notes"][1]
    assert run.summary["old"]["before"] == parent.metrics["accuracy"]


def test_no_old_data(make, birds, photos):
    """Rehearsal without old data is refused with what the card says of their openness, and what can be done."""
    text = (
        r"'rehearsal' mixes old data in, and none are given; the card of tiny/net says that how open its training data "
        r"are is unknown. Give --old DATA if you have them, --regime lwf, .* or --regime new-only"
    )
    with pytest.raises(OldDataMissing, match=text):
        make(data=str(birds), regime="rehearsal")
    with pytest.raises(OldDataMissing, match=r"tiny/net has no classifier with names\. Give old data"):
        make(data=str(birds), regime="lwf", weights="none")


def test_label_clash(beside):
    """A label that both tasks have is an error that shows both lists, unless all of them are shared."""
    with pytest.raises(LabelClash, match=r"'red' is a label of the new.*old: blue, green, red; new: owl, red"):
        space_of("auto", ("blue", "green", "red"), ("owl", "red"))
    with pytest.raises(LabelClash, match="'Red' is a label of the new data and 'red' of the old"):
        space_of("auto", ("blue", "red"), ("Red",))
    with pytest.raises(LabelClash, match="--labels share: the old task has no class 'crow'"):
        beside(labels="share", **MIXED)
    assert space_of("auto", ("blue", "red"), ("red",)) == "share"
    assert space_of("replace", ("blue", "red"), ("red", "owl")) == "replace"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "replace"} | MIXED, "trains on the old task, too, which then has no outputs"),
        (
            {"labels": "extend", "backbone": "tiny/net"},
            "--labels extend: there is no old task. Give its data with --old DATA",
        ),
        ({"folds": 3} | MIXED, "--folds and --seeds repeat a run without an old task"),
        ({"balance": "loss"} | MIXED, "--balance loss knows no old task"),
        ({"head": "prototype", "regime": "lwf"}, "soft targets train a head step by step"),
        ({"regime": "rehearsal:ratio=1"}, "rehearsal:ratio=1: expected a share from 0 up to, not including, 1"),
        ({"regime": "lwf:distil=0"}, "lwf:distil=0 keeps nothing"),
        ({"head": "linear:correct=bias"}, "corrects new classes against old ones, and this run has not both"),
        ({"max_forgetting": 2.0}, "max_forgetting: got 2.0, expected a share from 0 to 1"),
    ],
    ids=str,
)
def test_what_does_not_go_together(beside, fields, message):
    """What cannot be meant is refused before anything is trained."""
    with pytest.raises(BadOption, match=message):
        beside(**fields)


def test_twice_the_same(beside):
    """Mixing is deterministic: the same recipe gives the same weights, the second time from the store."""
    first, second = beside("x", freeze="last:1", **MIXED), beside("y", freeze="last:1", **MIXED)
    assert sha256_file(first.path / "model.safetensors") == sha256_file(second.path / "model.safetensors")
    costs = [run.summary["old"]["cost"] for run in (first, second)]
    assert [(cost["found"], cost["computed"]) for cost in costs] == [(0, 30), (30, 0)]


def test_max_forgetting(beside):
    """A run that loses more than `max_forgetting` fails and is kept."""
    with pytest.raises(TooMuchForgotten, match=r"b: the old task went from .* The run is kept; try --regime rehearsal"):
        beside(old="photos", lr=0.1, epochs=10, max_forgetting=0.0)
    assert read_json("b/summary.json")["old"]["forgetting"] > 0
    assert beside("c", old="photos", max_forgetting=1.0).summary["recipe"]


def test_max_forgetting_on_the_command_line(zoo, photos, birds):
    """`--max-forgetting` ends with exit code 1 and one sentence where more is lost, and with 0 where it is not."""
    command = ("finetune", birds, "-b", "tiny/net", "--old", photos, "--lr", 0.1, "--epochs", 10, "--max-forgetting")
    lost = zoo(*command, 0.0, "--out", "lost")
    assert lost.code == 1
    assert "which is more than --max-forgetting 0 allows. The run is kept" in lost.err
    assert zoo("runs", "show", "lost").code == 0
    assert zoo(*command, 1.0, "--out", "kept").code == 0


@pytest.mark.parametrize("select", ["random", "herding", "margin"])
def test_buffer(beside, select):
    """A buffer keeps so many old examples, evenly by class, however they are chosen."""
    run = beside(old="photos", regime=f"rehearsal:buffer=7,select={select}")
    assert (run.summary["old"]["n_train"], run.summary["old"]["n_held"]) == (7, 0)


def test_a_smaller_buffer_is_within_a_larger_one():
    """What the buffer keeps at random is a function of content and seed, evenly by class."""
    examples = [Example(f"{i}.png", i % 3, f"{i:064x}", "train") for i in range(30)]
    small, large = regimes.balanced_first(examples, 7, 0), regimes.balanced_first(examples, 12, 0)
    assert set(small) < set(large)
    assert sorted(e.label for e in small) == [0, 0, 0, 1, 1, 2, 2]
    assert regimes.shares_of([0] * 2 + [1] * 20, 10) == {0: 2, 1: 8}


def test_a_fifth_of_the_buffer_is_held_out(beside):
    """A fifth of each class in the buffer is not trained on: it chooses the epoch, and corrects the head."""
    old = beside(regime="rehearsal:buffer=15", old="photos").summary["old"]
    assert (old["n_train"], old["n_held"]) == (12, 3)
    assert "from 3 old and 6 new examples that were not trained on" in old["correction"]
    examples = [Example(f"{i}.png", i % 2, f"{i:064x}", "train") for i in range(28)]
    assert sorted(e.label for e in regimes.held_out(examples, 0)) == [0, 0, 1, 1]


def test_bias_correction_by_hand():
    """New outputs that came out three times as high and shifted by two are put back, to within what noise allows."""
    torch.manual_seed(0)
    true = 2 * torch.randn(4000, 4)
    labels = torch.multinomial(true.softmax(1), 1)[:, 0]
    biased = torch.cat([true[:, :2], 3 * true[:, 2:] + 2], dim=1)
    factor, offset = old_new_bias.fit_bias(biased, labels, 2)
    assert factor == pytest.approx(1 / 3, rel=0.1)
    assert offset == pytest.approx(-2 / 3, abs=0.1)
    head = torch.nn.Linear(5, 4)
    old_new_bias.align_norms(head, 2)
    norms = head.weight.detach().norm(dim=1)
    assert float(norms[:2].mean()) == pytest.approx(float(norms[2:].mean()))


def test_lwf(make, plugins, tmp_path):
    """LwF keeps old answers that new data alone outvote, corrects the head, and needs no old data to train on."""
    rng = np.random.default_rng(0)
    for name, least in (("dark", 0), ("pale", 190)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for i in range(10):
            noise = rng.integers(least, least + 60, (36, 40, 3)).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / "shades" / name / f"{i}.png")
    load_registry(plugins).register("mine/photos", run=make("p", epochs=40, lr=0.05).path, plugins=plugins)
    given = {"data": "shades", "backbone": "mine/photos", "lr": 0.05, "epochs": 20}
    plain = make("plain", old="photos", **given).summary
    kept = make("kept", regime="lwf", old="photos", **given).summary
    assert kept["test"]["accuracy"] == 1.0
    assert kept["old"]["after"] > plain["old"]["after"] + 0.3
    assert kept["old"]["correction"].startswith("bias correction")
    assert (kept["old"]["n_train"], plain["old"]["correction"]) == (0, "")
    shutil.rmtree("photos")
    alone = make("alone", regime="lwf", **given).summary["old"]
    assert alone["before"] is None
    assert alone["correction"] == "no bias correction: there are no held-out examples of both tasks"


@pytest.mark.parametrize(("correct", "said"), [("norm", "weight aligning"), ("none", "")])
def test_other_corrections(beside, correct, said):
    """A head can be corrected in another way, or not at all."""
    old = beside(head=f"linear:correct={correct}", **MIXED).summary["old"]
    assert old["correction"].startswith(said)


def test_the_plan_counts_old_examples(zoo, photos, birds):
    """`zoo plan` counts the old examples that pass the frozen stages, and the old half of every batch."""
    alone = zoo("plan", birds, "-b", "tiny/net", "--json").json["seconds"]
    both = zoo("plan", birds, "-b", "tiny/net", "--old", photos, "--regime", "rehearsal", "--json").json["seconds"]
    assert both["examples_missing"] - alone["examples_missing"] == 30


def test_one_old_example_of_a_class_is_enough_to_measure(make, birds, tmp_path):
    """Old data that are only looked at need no training side: one picture of a class is enough."""
    make_photos(tmp_path / "things", ("thing3", "thing7"), each=1, seed=2)
    rows = "".join(f"things/{name}/00.png,{name},test\n" for name in ("thing3", "thing7"))
    (tmp_path / "things.csv").write_text(f"path,label,split\n{rows}")
    old = make(data=str(birds), old="things.csv", regime="lwf").summary["old"]
    assert (old["n_test"], old["n_train"]) == (2, 0)
    with pytest.raises(TooFewExamples, match="has one example"):
        make("b", data=str(birds), old="things.csv", regime="rehearsal")


def test_soft_targets_of_the_same_classes():
    """With the same classes soft targets count for old examples only: of new pictures the old model may be wrong."""
    soft = SoftTargets(torch.tensor([[[0.9, 0.1]] * 4]), 2.0, 1.0, first=2)
    losses = soft.loss(torch.zeros(3, 2), [1, 2, 3], epoch=0)
    assert losses[0] == 0
    assert losses[1] == losses[2] > 0


def test_herding_follows_the_class_mean():
    """Each example that herding adds brings the mean of the chosen ones as close to the class mean as any can."""
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    chosen = herding(x)(torch.arange(12), 4)
    unit = torch.nn.functional.normalize(x, dim=1)
    for k in range(1, 5):
        rest = [i for i in range(12) if i not in chosen[: k - 1]]
        gaps = {i: float((unit.mean(0) - unit[[*chosen[: k - 1], i]].mean(0)).norm()) for i in rest}
        assert chosen[k - 1] == min(gaps, key=gaps.get)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9])
def test_ratio(ratio):
    """Every batch has the same share of old examples to within one; new ones come once, old ones in whole passes."""
    regime = regimes.Rehearsal(ratio)
    batches = regime.batches(1000, 30, 20, np.random.default_rng(0))
    new = [i for batch in batches for i in batch if i < 1000]
    assert sorted(new) == list(range(1000))
    shares = [np.mean(batch >= 1000) for batch in batches]
    assert max(abs(share - ratio) for share in shares) <= 1 / 18
    counts = np.bincount([i - 1000 for batch in batches for i in batch if i >= 1000], minlength=30)
    assert counts.max() - counts.min() <= 1


def test_ledger_by_hand():
    """Figures of a table worked out by hand: 4 of 5 right before, 2 after, one lost to a new class."""
    eye = np.eye(3)
    before = eye[[0, 0, 1, 1, 0]][:, :2]
    after = eye[[0, 2, 1, 0, 1]]
    found = ledger.ledger(before, after, np.array([0, 0, 1, 1, 1]), ["a", "b"])
    assert (found["before"], found["after"]) == (0.8, 0.6)
    assert found["retention"] == pytest.approx(0.75)
    assert found["forgetting"] == pytest.approx(0.2)
    assert found["per_class"]["a"] == {"n": 2, "before": 1.0, "after": 0.5}
    assert found["per_class"]["b"]["after"] == pytest.approx(2 / 3)
    low, high = found["retention_ci"]
    assert low < 0.75 < high
    assert found["within_old"] == pytest.approx(0.8)  # of a tie the first class is taken


def test_a_registered_run_keeps_its_head(parent, plugins):
    """The card of a registered run names the file of its head by digest, and the data it was trained on."""
    card = load_registry(plugins).get("mine/photos")
    about = card.extra["x-run"]
    assert about["head"]["target"]["classes"] == ["blue", "green", "red"]
    assert about["source"]["path"].endswith("photos")
    assert load_backbone(card, plugins).labels == {}  # the head is no part of the backbone
