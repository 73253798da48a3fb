"""WiSE-FT: the mixture of weights before and after training is chosen on the validation sides of both tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import make_photos
from safetensors.torch import load_file

from zoo_core.errors import BadOption
from zoo_core.runs import Run
from zoo_core.wise_ft import mixture


def test_the_ends_are_exact():
    """The mixture 0 is the beginning and 1 the end, to the bit; what training left alone stays."""
    generator = torch.Generator().manual_seed(0)
    start = {
        "a": torch.randn(50, generator=generator),
        "same": torch.randn(50, generator=generator),
        "n": torch.tensor(1),
    }
    end = {"a": torch.randn(50, generator=generator), "same": start["same"], "n": torch.tensor(7), "new": torch.ones(2)}
    for alpha in (0.0, 0.3, 1.0):
        found = mixture(start, end, alpha)
        assert torch.equal(found["same"], start["same"])
        assert (found["n"], found["new"].sum()) == (7, 2)
        assert torch.allclose(found["a"], (1 - alpha) * start["a"] + alpha * end["a"], atol=1e-6)
    assert torch.equal(mixture(start, end, 0.0)["a"], start["a"])
    assert torch.equal(mixture(start, end, 1.0)["a"], end["a"])


@pytest.fixture
def tasks(tmp_path, make, plugins):
    """An old task whose run is registered as `mine/old`, and new photos of two other classes."""
    from zoo_core.layers import load_registry

    old = make_photos(tmp_path / "old", each=24)
    make("old-run", data=str(old), epochs=8)
    load_registry(plugins).register("mine/old", run="old-run", plugins=plugins)
    new = make_photos(tmp_path / "new", classes=("cyan", "pink"), each=24, seed=7)
    return {"data": str(new), "backbone": "mine/old", "old": str(old)}


@pytest.mark.parametrize("regime", ["new-only", "rehearsal:buffer=12"])
def test_both_tasks_choose_the_mixture(make, tasks, regime):
    """With an old task the mixture with the best mean of both validation sides is kept, and told."""
    fields = tasks | {"regime": regime, "freeze": "last:1", "epochs": 3, "lr": 0.01}
    plain, run = make("plain", **fields), make("mixed", **fields, wise_ft=True)
    found = run.summary["wise_ft"]
    assert found["alphas"] == [step / 10 for step in range(11)]
    assert found["score"] == pytest.approx([(n + o) / 2 for n, o in zip(found["new"], found["old"], strict=True)])
    best = found["score"].index(max(found["score"]))
    assert (found["chosen"], found["head"]) == (found["alphas"][best], "mixed")
    assert found["old"][0] >= found["old"][-1]
    assert "old validation examples" in found["why"]
    weights = [load_file(r.path / "model.safetensors") for r in (plain, run)]
    if found["chosen"] == 1:
        assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    else:
        assert any(not torch.equal(weights[0][n], weights[1][n]) for n in weights[0])
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    assert "Weights before and after, mixed" in (run.path / "report.html").read_text()
    again = {p.path: p for p in Run(run.path, run._plugins).predict(tasks["data"])}
    assert len(again) == 48


def test_it_is_printed(zoo, make, tasks):
    """The terminal shows the whole sweep with the mixture that was taken."""
    given = ["--old", tasks["old"], "--freeze", "last:1", "--epochs", "2", "--device", "cpu", "--wise-ft"]
    answer = zoo("finetune", tasks["data"], "-b", "mine/old", *given, "--out", "printed")
    assert answer.code == 0, answer.err
    assert "mixture    old    new" in answer.out
    chosen = json.loads(Path("printed/summary.json").read_text())["wise_ft"]["chosen"]
    assert sum(line.endswith("<") for line in answer.out.splitlines()) == 1
    assert f"Mixture {chosen:g}: the highest mean accuracy on" in answer.out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"begins with chance, so there is no old model to mix with\. Give --head zero-shot"),
        ({"head": "prototype"}, r"--head prototype is solved at once"),
        ({"folds": 2}, r"--folds and --seeds repeat a training without it"),
    ],
)
def test_nothing_to_mix_with(make, fields, message):
    """A head that begins with chance, or is solved, has nothing to mix with; that is said beforehand."""
    with pytest.raises(BadOption, match=message):
        make(**fields, wise_ft=True)
