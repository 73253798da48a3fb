"""What neighbours among the features say of labels, and what a user's own split gives away."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos
from PIL import Image

from zoo_core import doubts
from zoo_core.files import read_json
from zoo_core.targets import SingleLabel
from zoo_core.types import Example, Task


def two_clouds(each: int = 40, apart: float = 6.0):
    """A task of two classes, and features that lie in two clouds [2 * each, 16]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * each, 16)).astype(np.float32)
    x[:each, 0] += apart
    examples = [Example(f"{i}.png", int(i >= each), f"{i:064x}", "train") for i in range(2 * each)]
    return examples, torch.from_numpy(x)


def seen(examples, features, **more):
    return doubts.doubts(Task("d", ("a", "b"), tuple(examples), **more), features)


def change(examples, i, **fields):
    """One example changed."""
    from dataclasses import replace

    return [replace(e, **fields) if k == i else e for k, e in enumerate(examples)]


def test_a_wrong_label_is_found():
    """A label that the nearest others contradict is listed, and no other one; nothing is changed."""
    examples, x = two_clouds()
    assert seen(examples, x)["doubtful_labels"] == []
    found = seen(change(examples, 7, label=1), x)
    ((wrong),) = found["doubtful_labels"]
    assert (wrong["path"], wrong["label"], wrong["neighbours"]) == ("7.png", "b", "a")
    assert wrong["share"] >= 0.8
    assert found["how_many"] == {"doubtful_labels": 1, "outliers": 0, "alike": 0}


def test_a_copy_does_not_speak_for_itself():
    """Copies, near copies and a group do not vouch for one another: a wrong label on all of them is found."""
    examples, x = two_clouds()
    for i in range(6):  # one wrongly labelled thing, six times
        x[i] = x[0] + 0.001 * i
        examples = change(examples, i, label=1)
    assert len(seen(examples, x)["doubtful_labels"]) < 6
    for i in range(6):
        examples = change(examples, i, group="one thing")
    assert len(seen(examples, x)["doubtful_labels"]) == 6
    same = {f"{i:064x}": "one" for i in range(6)}
    plain = [e for i in range(6) for e in change(examples, i, group="")[i : i + 1]] + examples[6:]
    assert len(seen(plain, x, alike=same)["doubtful_labels"]) == 6


def test_an_outlier_is_found():
    """An example that resembles none is listed with how far it is from its neighbours."""
    examples, x = two_clouds()
    x[3] = 0
    x[3, 9] = 50  # a direction of its own
    (far,) = seen(examples, x)["outliers"]
    assert far["path"] == "3.png"
    assert far["distance"] > 1.5 * far["usual"]


def test_alike_to_the_backbone():
    """A pair far closer than usual is listed with what it disagrees about; known near copies are not listed again."""
    examples, x = two_clouds()
    x[1] = x[0] + 1e-3
    examples = change(change(examples, 1, label=1), 1, split="test")
    (pair,) = seen(examples, x)["alike"]
    assert [file["path"] for file in pair["files"]] == ["0.png", "1.png"]
    assert pair["across"] == ["sides"] or pair["across"] == ["sides", "labels"]
    assert seen(examples, x, alike={e.digest: "one" for e in examples[:2]})["alike"] == []


def test_few_examples_have_no_neighbours():
    """Of a handful of examples nothing is said."""
    examples, x = two_clouds(5)
    assert seen(examples, x) == {"doubtful_labels": [], "outliers": [], "alike": [], "how_many": {}}


def test_figures_with_and_without_what_leaks():
    """Test examples that have a copy on another side are counted, and the figures are given without them."""
    examples = [Example(f"{i}", i % 2, f"{i % 12}", "test" if i >= 12 else "train") for i in range(16)]
    examples += [Example(f"new{i}", i % 2, f"new{i}", "test") for i in range(4)]
    task = Task("d", ("a", "b"), tuple(examples), alike={"new0": "near", "3": "near"})
    right = np.eye(2)[[e.label for e in task.split("test")]]
    answers = np.where(np.arange(8)[:, None] < 4, right, 1 - right) * 0.8 + 0.1  # right on the leaked ones only
    found = doubts.leaks(task, SingleLabel(("a", "b")), answers)
    assert found is not None
    assert (found["n"], found["of"]) == (5, 8)
    assert found["with"]["accuracy"] == 0.5
    assert found["without"]["accuracy"] == 0.0
    assert doubts.leak_sentence(found, "accuracy", "accuracy") == (
        "5 of 8 test examples have a copy or near copy on another side of your split: "
        "accuracy 0.500 with them, 0.000 without"
    )
    clean = Task("d", ("a", "b"), tuple(e for e in examples if not e.path.isdigit() or int(e.path) < 12))
    assert doubts.leaks(clean, SingleLabel(("a", "b")), answers[4:]) is None


def test_the_terminal_says_what_leaks_are_worth(zoo, split):
    """After a run on a split that leaks, one line says how many test examples, and the figure with and without them."""
    answer = zoo("finetune", split, "-b", "tiny/net", "--epochs", 1, "--device", "cpu", "--out", "run")
    assert answer.code == 0, answer.err
    assert (
        "Leaks     2 of 14 test examples have a copy or near copy on another side of your split: accuracy" in answer.out
    )


@pytest.fixture
def split(tmp_path):
    """A user's own split whose test side holds two of the training images, one under another label."""
    folder = tmp_path / "own"
    make_photos(folder / "train", each=10, seed=1)
    make_photos(folder / "test", each=4, seed=2)
    shutil.copy(folder / "train" / "red" / "00.png", folder / "test" / "red" / "leak.png")
    shutil.copy(folder / "train" / "red" / "01.png", folder / "test" / "blue" / "leak.png")
    Image.new("CMYK", (40, 36), (0, 90, 0, 0)).save(folder / "train" / "red" / "odd.tif")
    return folder


def test_in_every_run(make, split):
    """Every run has the audit in `audit.json` and on its page: copies, conflicts, odd files, leaks with their worth."""
    run = make(data=str(split))
    audit = read_json(run.path / "audit.json")
    assert len(audit["duplicates"]) == 2
    ((a, b),) = audit["label_conflicts"]
    assert {a["label"], b["label"]} == {"red", "blue"}
    assert [odd["kind"] for odd in audit["odd"]] == ["CMYK"]
    assert (audit["leaks"]["n"], audit["leaks"]["of"]) == (2, 14)
    assert run.summary["data"]["leaks"] == audit["leaks"]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Data to look at" in page
    assert "One picture under several labels" in page
    assert "2 of 14 test examples have a copy or near copy on another side of your split: accuracy" in page
    assert page.count('alt="leak.png, labelled') >= 3  # two groups of copies, and the conflict once more


def test_only_what_was_seen_is_shown(make, split):
    """A file that has changed since the run is not shown under its old name."""
    run = make(data=str(split))
    shutil.copy(split / "train" / "green" / "00.png", split / "test" / "blue" / "leak.png")
    text = run.report(Path("again.html")).read_text(encoding="utf-8")
    assert 'alt="leak.png, labelled blue"' not in text
    assert 'alt="leak.png, labelled red"' in text


def test_the_page(zoo, split, tmp_path):
    """`zoo audit -b NAME --html FILE` writes one page with thumbnails that needs nothing else, all names escaped."""
    (split / "train" / "red").rename(split / "train" / "<b onload=x>")
    answer = zoo("audit", split, "-b", "tiny/net", "--html", "audit.html", "--json")
    assert answer.code == 0, answer.err
    assert set(answer.json["how_many"]) == {"doubtful_labels", "outliers", "alike"}
    page = Path("audit.html").read_text(encoding="utf-8")
    assert "<b onload" not in page
    assert "&lt;b onload=x&gt;" in page
    assert "<script" not in page
    assert all(src.startswith("data:image/jpeg;base64,") for src in re.findall(r'<img src="([^"]*)"', page))
    assert page.count("<img") >= 4
    assert "Not plain 8-bit RGB" in page
    json.dumps(answer.json, allow_nan=False)
    text = zoo("audit", split, "-b", "tiny/net", "--html", "audit.html").out
    assert "Page      audit.html" in text
