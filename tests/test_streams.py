"""Tasks one after another: the accuracy matrix, its figures, and the lineage that carries old tasks on."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from conftest import make_photos

from zoo_core import lineage, streams
from zoo_core.errors import BadOption
from zoo_core.files import read_json
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe
from zoo_core.runs import Run


@pytest.fixture
def tasks(tmp_path, photos):
    """Three folders of three classes each."""
    make_photos(tmp_path / "birds", ("crow", "duck", "owl"), seed=1)
    make_photos(tmp_path / "shells", ("clam", "conch", "whelk"), seed=2)
    return str(photos), str(tmp_path / "birds"), str(tmp_path / "shells")


def test_figures_by_hand():
    """Average accuracy, forgetting, backward and forward transfer of a table worked out by hand."""
    matrix = [
        [0.90, 0.30, 0.20],
        [0.95, 0.80, 0.40],
        [0.60, 0.90, 0.70],
    ]
    found = streams.figures(matrix, [0.25, 0.20])
    assert found["average_accuracy"] == pytest.approx((0.60 + 0.90 + 0.70) / 3)
    assert found["backward_transfer"] == pytest.approx(((0.60 - 0.90) + (0.90 - 0.80)) / 2)
    assert found["forgetting"] == pytest.approx(((0.95 - 0.60) + (0.80 - 0.90)) / 2)
    assert found["forward_transfer"] == pytest.approx(((0.30 - 0.25) + (0.40 - 0.20)) / 2)
    later = [[0.9, None, None], [0.7, 0.8, None], [0.6, 0.7, 0.7]]
    found = streams.figures(later, [0.5, 0.25])
    assert found["forward_transfer"] is None  # classes that have no outputs yet cannot be answered
    assert found["forgetting"] == pytest.approx(-found["backward_transfer"]) == pytest.approx(0.2)


def test_a_stream(zoo, tasks):
    """`--then` learns tasks in sequence; each ledger has all tasks before it, and the matrix is made of them."""
    first, *others = tasks
    then = [part for source in others for part in ("--then", source)]
    command = ("finetune", first, "-b", "tiny/net", "--regime", "rehearsal", "--epochs", 4, "--out", "s", *then)
    answer = zoo(*command)
    assert answer.code == 0, answer.err
    assert "Average accuracy" in answer.out
    found = read_json("s/stream.json")
    assert [task["run"] for task in found["tasks"]] == ["1-photos", "2-birds", "3-shells"]
    assert [task["classes"] for task in found["tasks"]] == [3, 6, 9]
    last = Run("s/3-shells").summary
    assert [task["n"] for task in last["old"]["tasks"]] == [6, 6]
    assert found["matrix"][2] == [*(task["after"] for task in last["old"]["tasks"]), last["test"]["accuracy"]]
    assert found["matrix"][0][1:] == [None, None]
    regimes = [Run(f"s/{task['run']}").summary["regime"] for task in found["tasks"]]
    assert regimes == ["new-only", "rehearsal", "rehearsal"]  # before the first one nothing is known
    assert zoo(*command, "--json").json == found  # every run is there already


def test_a_recipe_with_tasks(tasks, plugins, tmp_path):
    """A recipe has the later tasks as a list; with the same classes, accuracy before a task is learnt is known, too."""
    make_photos(tmp_path / "dusk", seed=4)
    recipe = Recipe(tasks[0], "tiny/net", then=(str(tmp_path / "dusk"),), epochs=4, device="cpu")
    recipe.save(tmp_path / "stream.toml")
    assert Recipe.load(tmp_path / "stream.toml") == recipe
    from zoo_core.console import Console

    runs = streams.learn(recipe, load_registry(plugins), plugins, tmp_path / "s", Console())
    assert runs[1].classes == runs[0].classes
    found = read_json(tmp_path / "s" / "stream.json")
    assert found["forward_transfer"] == pytest.approx(found["matrix"][0][1] - 1 / 3)
    assert found["backward_transfer"] == pytest.approx(found["matrix"][1][0] - found["matrix"][0][0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"then": ("photos",)}, "stands in the stream twice"),
        ({"then": ("birds",), "labels": "replace"}, "gives each old task up"),
    ],
)
def test_streams_that_cannot_be_meant(tasks, plugins, tmp_path, fields, message):
    """A task that stands in a stream twice, or labels that give the old ones up, are refused before any training."""
    from zoo_core.console import Console

    with pytest.raises(BadOption, match=message):
        streams.learn(
            Recipe("photos", "tiny/net", **fields), load_registry(plugins), plugins, tmp_path / "s", Console()
        )
    assert not (tmp_path / "s").exists()


def test_lineage(zoo, make, tasks, plugins):
    """A registered, B extends it, C extends B: the card knows all tasks, and each is measured where its data are."""
    registry = load_registry(plugins)
    registry.register("mine/a", run=make("a").path, plugins=plugins)
    make("b", data=tasks[1], backbone="mine/a", regime="rehearsal")
    card = load_registry(plugins).register("mine/b", run="b", plugins=plugins)
    assert [learnt.run for learnt in lineage.tasks_of(card)] == ["a", "b"]
    run = make("c", data=tasks[2], backbone="mine/b", regime="rehearsal")
    assert run.classes == ("blue", "green", "red", "crow", "duck", "owl", "clam", "conch", "whelk")
    old = run.summary["old"]
    assert [(task["run"], task["n"]) for task in old["tasks"]] == [("a", 6), ("b", 6)]
    assert old["after"] == pytest.approx(sum(task["after"] for task in old["tasks"]) / 2)
    load_registry(plugins).register("mine/c", run="c", plugins=plugins)
    shown = zoo("show", "mine/c").out
    assert "lineage       mine/c <- mine/b <- mine/a <- tiny/net" in shown
    assert shown.count("learnt") == 3
    shutil.rmtree(tasks[0])
    assert "not at hand" in zoo("show", "mine/c").out
    old = make("d", data=tasks[2], backbone="mine/b", regime="rehearsal").summary["old"]
    assert [(task["run"], task["n"]) for task in old["tasks"]] == [("a", 0), ("b", 6)]
    assert "the data of task a are not at hand" in " ".join(old["notes"])


@pytest.mark.parametrize("about", [None, 1, [], {"source": 1}, {"source": {"path": 1}}, {"before": [3]}], ids=str)
def test_a_card_from_anywhere(about, plugins):
    """What a strange card says of its lineage is passed over."""
    card = load_registry(plugins).get("tiny/net")
    assert lineage.tasks_of(replace(card, extra={"x-run": about})) == ()
