"""A run's page."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zoo_core import charts, saliency
from zoo_core.activations import Numbers
from zoo_core.backbone import Backbone, chain_from_modules
from zoo_core.card import Card
from zoo_core.fit import Model
from zoo_core.heads import Linear
from zoo_core.objective import Objective
from zoo_core.predicting import Predictor
from zoo_core.report import command
from zoo_core.runs import Run
from zoo_core.targets import SingleLabel
from zoo_core.types import FreezePlan, Phase

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{7*7}}"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def page_of(run):
    return (run.path / "report.html").read_text(encoding="utf-8")


def table(photos, labels):
    """A table that labels the photos by a function of their number."""
    path = photos.parent / "labels.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "label"])
        out.writerows((p, labels(i)) for i, p in enumerate(sorted(photos.rglob("*.png"))))
    return path


def test_every_run_has_a_page_that_needs_nothing_else(make):
    """Every run has `report.html`: one file without scripts, links or pictures from elsewhere."""
    run = make(freeze="last:1")
    found = Tags(page_of(run))
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    assert all(attrs["alt"] for tag, attrs in found.tags if tag == "img")
    text = " ".join(found.text)
    for heading in ("What next", "What was chosen, and why", "How good it is", "Confusion matrix", "Licences"):
        assert heading in text
    assert run.summary["freeze"]["reason"] in text
    assert run.summary["frozen_digest_after"] in text
    assert run.summary["seconds"]["report"] < run.summary["seconds"]["total"]


def test_what_the_user_wrote_is_text(make, photos):
    """Class names and file names with HTML in them are shown as they are, and do nothing."""
    (photos / "red").rename(photos / "<b onclick=alert(3)>")
    run = make(data=str(table(photos, lambda i: (HOSTILE, "plain\u202e")[i % 2])), epochs=1)
    found = Tags(page_of(run))
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in " ".join(found.text)
    assert "plain\\u202e" in " ".join(found.text)


@pytest.mark.parametrize(
    ("task", "label", "seen", "unseen"),
    [
        ("multi-label", lambda i: ("a|b", "b", "a")[i % 3], "Average precision of each class", "Confusion matrix"),
        ("regression", lambda i: f"{i / 7:.2f}", "Largest errors", "ROC curve"),
        ("ordinal", lambda i: i // 10, "Confusion matrix", "Largest errors"),
    ],
)
def test_the_page_leaves_out_what_does_not_apply(make, photos, task, label, seen, unseen):
    """Several labels, numbers and ranks each have the figures that belong to them, and no others."""
    text = " ".join(Tags(page_of(make(data=str(table(photos, label)), task=task))).text)
    assert seen in text
    assert unseen not in text


def test_a_page_can_be_made_again(make, photos, tmp_path):
    """`run.report()` makes the page from the run's folder alone; images that have moved are left out, and said."""
    run = make(epochs=1, lr=1e-6)
    before = page_of(run)
    assert Run(run.path, run._plugins).report() == run.path / "report.html"
    assert page_of(run).replace("  ", " ").count("<img") == before.count("<img") > 0
    photos.rename(tmp_path / "elsewhere")
    again = Run(run.path, run._plugins).report(tmp_path / "again.html").read_text(encoding="utf-8")
    assert "<img" not in again
    assert "could not be opened where they were" in again


def test_the_command_asks_for_the_same_recipe(make):
    """The command on the page names what differs from the defaults, quoted for a shell."""
    run = make(epochs=1, freeze="last:1", calibrate=False, test_share=0.3)
    line = command(run.recipe.with_values(data="my photos"))
    assert line.startswith("zoo finetune 'my photos' -b tiny/net --freeze last:1 --epochs 1")
    assert "--no-calibrate" in line
    assert "--set test_share=0.3" in line


def predictor(net, parts, width, weight):
    """A frozen chain with a linear head of the given weights."""
    card = Card("test/net", "none", "net")
    body = Backbone(card, net.eval(), chain_from_modules(parts, net), width)
    head = nn.Linear(width, 2, bias=False)
    head.weight.data = weight
    builder = Objective(Linear(), SingleLabel(("a", "b")))
    plan = FreezePlan((Phase(len(parts)),), "still")
    return Predictor(Model(body, head, builder, plan), len(parts), Numbers("fp32", "fp32"))


def test_saliency_shows_what_spoke_for_the_answer():
    """Grad-CAM is high where the image holds what the output looks for, and low elsewhere."""
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data = torch.tensor([[[[1.0]]], [[[-1.0]]]])
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    eye = predictor(net, [("stem", net[:2]), ("neck", net[2:])], 2, torch.eye(2))
    x = torch.ones(1, 1, 8, 8)
    x[..., 4:] = -1.0
    (bright, dark) = saliency.look(eye, x.repeat(2, 1, 1, 1), [0, 1])
    assert bright[:, :4].min() == 1.0
    assert bright[:, 4:].max() == 0.0
    assert torch.equal(dark, bright.flip(1))


def test_saliency_of_a_class_token_looks_before_it():
    """Where the answer depends on a class token alone, the boundary before the last mixing is taken."""

    class Mix(nn.Module):
        def forward(self, x):  # the class token [B, 0] gathers the positions; nothing else reads them
            return torch.cat([x[:, 1:].mean(1, keepdim=True), x[:, 1:]], dim=1)

    class First(nn.Module):
        def forward(self, x):
            return x[:, 0]

    net = nn.Sequential(nn.Identity(), Mix(), First())
    eye = predictor(net, [("stem", net[0]), ("block", net[1]), ("neck", net[2])], 2, torch.eye(2))
    tokens = torch.zeros(1, 1 + 9, 2)
    tokens[0, 1 + 4, 0] = 1.0
    (cam,) = saliency.look(eye, tokens, [0])
    assert cam.shape == (3, 3)
    assert cam.argmax() == 4
    flat = predictor(nn.Sequential(nn.Flatten()), [("neck", nn.Flatten())], 2, torch.eye(2))
    assert saliency.look(flat, torch.ones(1, 2), [0]) == [None]


def test_charts_stay_inside_their_frame_and_say_what_they_show():
    """A chart holds its title, axis names with units and a sentence for those who cannot see it; text is escaped."""
    lines = [charts.Line("a<b", [(10.0, -3.0), (1000.0, 7.5)], "dots", [(-4.0, -1.0), (7.0, 8.0)])]
    svg = charts.chart("t", lines, charts.Axis("n", log=True), charts.Axis("loss"), "it rises.")
    assert "a&lt;b" in svg
    assert "<desc>it rises.</desc>" in svg
    spots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert len(spots) == 2
    assert all(0 <= float(x) <= 340 and 0 <= float(y) <= 232 for x, y in spots)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(make, tmp_path):
    """A browser shows the page, its pictures too, without a word on its console, wide and on a phone."""
    run = make(epochs=1, lr=1e-6)
    for width in (1100, 400):
        shot = tmp_path / f"{width}.png"
        done = subprocess.run(
            [
                *(
                    CHROMIUM,
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    f"--user-data-dir={tmp_path / 'profile'}",
                ),
                *("--enable-logging=stderr", f"--window-size={width},5000", f"--screenshot={shot}"),
                (run.path / "report.html").resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "CONSOLE" not in done.stderr
        seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
        spread = seen.max(2) - seen.min(2)
        assert (spread > 60).mean() > 0.01  # the coloured photos
