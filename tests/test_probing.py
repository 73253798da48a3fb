"""`zoo probe`: many heads, rates and seeds from one pass."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from zoo_core import activations, engine, probing
from zoo_core.cli import cli
from zoo_core.console import Console
from zoo_core.errors import BadOption
from zoo_core.layers import load_registry
from zoo_core.recipe import Recipe

RATES = (1e-3, 1e-2)


@pytest.fixture
def probe(photos, plugins):
    """Probe the photos with the tiny backbone."""

    def probe(heads, rates=RATES, **fields):
        given = {"data": str(photos), "backbone": "tiny/net", "epochs": 4, "seeds": 2, "device": "cpu"}
        recipe = Recipe(**given | fields)
        preview = engine.prepare(recipe, load_registry(plugins), plugins, Console())
        return probing.probe(recipe, heads, rates, plugins, preview.task, preview.backbone, Console())

    return probe


def test_every_head_rate_and_seed(probe):
    """Each head meets each rate with each seed; those solved at once have one score; the best comes first."""
    found = probe(["linear", "cosine", "mlp:hidden=8,dropout=0.2", "multi-stage", "prototype"])
    cells = {(score.head, score.lr) for score in found}
    assert len(cells) == len(found) == 3 * len(RATES) + 2
    assert all(len(score.figures["loss"]) == (1 if score.lr is None else 2) for score in found)
    assert [score.loss for score in found] == sorted(score.loss for score in found)


def test_the_same_as_a_run(probe, make):
    """A head in the grid ends where `zoo finetune` ends with that rate and seed, to rounding."""
    (score,) = (s for s in probe(["linear"]) if s.lr == 1e-2)
    for seed, loss in enumerate(score.figures["loss"]):
        run = make(f"run{seed}", freeze="head-only", epochs=4, lr=1e-2, seed=seed)
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert loss == pytest.approx(min(line["val_loss"] for line in lines), rel=1e-3)


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_every_kind_of_task(probe, photos, tmp_path, task):
    """Several labels and numbers are probed like classes."""
    paths = sorted(photos.glob("*/*.png"))
    text = {"single-label": "blue", "multi-label": "a|b", "regression": "1.5"}[task]
    rows = [f"{p},{text if i % 2 else {'regression': '0.5'}.get(task, 'a')}" for i, p in enumerate(paths)]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    found = probe(["linear"], data=str(tmp_path / "table.csv"), task=task)
    assert {score.lr for score in found} == set(RATES)


def test_nothing_is_computed_twice(probe, make, monkeypatch):
    """After a run the probe computes no features, and after the probe no run does."""
    run = make(freeze="head-only")
    monkeypatch.setattr(activations, "map_examples", None)
    assert probe(["linear"])
    assert run.summary["cache"]["misses"] > 0
    assert make("again", freeze="head-only", seed=1).summary["cache"]["misses"] == 0


@pytest.mark.parametrize(
    ("head", "fields", "message"),
    [
        ("attentive", {}, "reads positions, not pooled features. Type zoo finetune --head attentive"),
        ("linear", {"val_share": 0.0}, "compares by validation examples, and there are none"),
    ],
)
def test_what_cannot_be_probed(probe, head, fields, message):
    """Each says why, and what to type."""
    with pytest.raises(BadOption, match=message):
        probe([head], **fields)


def test_the_command(installed, photos):
    """The command prints each head at its best rate, what to type next, and everything as JSON."""
    command = [
        "probe",
        str(photos),
        "-b",
        "tiny/net",
        "--head",
        "linear",
        "--head",
        "multi-stage",
        "--rates",
        "0.01,0.1",
    ]
    command += ["--seeds", "2", "--epochs", "2"]
    plain = CliRunner().invoke(cli, command)
    assert plain.exit_code == 0, plain.output
    assert "Next      zoo finetune" in plain.stdout
    report = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert [len(score["figures"]["loss"]["values"]) for score in report["scores"] if score["lr"]] == [2, 2]
    wrong = CliRunner().invoke(cli, [*command, "--rates", "0"])
    assert isinstance(wrong.exception, BadOption)
