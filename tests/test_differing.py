"""Two runs side by side, on the test examples that both have answered."""

from __future__ import annotations

import csv

import pytest

from zoo_core.answered import read
from zoo_core.differing import diff
from zoo_core.errors import BadOption
from zoo_core.report import command


def rewrite(run, change):
    """Change rows of a run's answers: what another training would have written. Its digests go."""
    (run.path / "COMMIT").unlink(missing_ok=True)
    vars(run).pop("_committed", None)
    path = run.path / "predictions.csv"
    with open(path, newline="") as file:
        heading, *rows = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([heading, *filter(None, map(change, rows))])


def answer(label, classes):
    """What a row holds after its path and truth when a model is sure of a label."""
    return [label, *("0.9" if name == label else "0.05" for name in classes)]


def test_flipped_answers(make):
    """Answers that differ are listed as broken, mended or wrong in both, the broken ones first."""
    a, b = make("a"), make("b", lr=0.01)
    truth = list(zip(read(a).paths, read(a).truth, strict=True))
    other = {name: next(c for c in a.classes if c != name) for name in a.classes}
    third = {name: next(c for c in a.classes if c not in (name, other[name])) for name in a.classes}
    rewrite(a, lambda row: row[:2] + answer(row[1] if row[0] != truth[1][0] else other[row[1]], a.classes))
    rewrite(a, lambda row: row[:2] + answer(other[row[1]], a.classes) if row[0] == truth[2][0] else row)
    flips = {truth[0][0]: other, truth[2][0]: third}
    rewrite(b, lambda row: row[:2] + answer(flips[row[0]][row[1]] if row[0] in flips else row[1], b.classes))
    found = diff(a, b)
    assert [(f.path, f.kind) for f in found.flipped] == [
        (truth[0][0], "broken"),
        (truth[1][0], "mended"),
        (truth[2][0], "other"),
    ]
    assert found.told["difference"] == 0
    assert found.asked == {"lr": (None, 0.01)}


def test_only_shared_examples_are_compared(make):
    """Examples that one run alone has answered are counted, and left out of the comparison."""
    a, b = make("a"), make("b", seed=1)
    first = read(a).paths[0]
    rewrite(a, lambda row: None if row[0] == first else row)
    found = diff(a, b)
    assert found.data["only_first"] == 0
    assert found.data["only_second"] == 1
    assert found.told["n"] == found.data["shared"]


def test_nothing_in_common(make):
    """Runs without a test example in common are refused, with what answers the same files."""
    a, b = make("a"), make("b")
    rewrite(a, lambda row: ["elsewhere/" + row[0], *row[1:]])
    with pytest.raises(BadOption, match=r"no test example in common .* zoo predict RUN FILES"):
        diff(a, b)


def test_in_the_terminal(make, zoo):
    """`zoo runs diff` prints what was asked differently, both runs' figures, and whether chance explains the rest."""
    make("a")
    make("b", freeze="last:stages=1", ensemble=True)
    found = zoo("runs", "diff", "a", "b")
    assert found.code == 0, found.err
    assert "last:stages=1" in found.out
    assert "ensemble" in found.out
    assert "which may be chance (p = 1)" in found.out or "answers flipped" in found.out
    assert zoo("runs", "diff", "a", "b", "--json").json["data"]["only_first"] == 0


def test_the_command_of_a_flag(make):
    """The report's command gives a switch as a switch."""
    recipe = make("a", ensemble=True, calibrate=False).recipe
    assert command(recipe).endswith("--ensemble --no-calibrate")
