"""Images that are read for the first time are decoded once, for the scan and for the frozen stages."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from zoo_core import data, decoding, engine, hookimpl
from zoo_core.console import Console
from zoo_core.errors import BadExample, BadOption, TooFewExamples
from zoo_core.freeze import Last
from zoo_core.layers import load_registry
from zoo_core.plugins import Plugins, discover
from zoo_core.recipe import Recipe
from zoo_core.trainer import kept_at

SAMPLE = 16
"""Images that are looked at twice, where it is measured what to keep."""


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened as an image."""
    count: Counter[str] = Counter()
    real = decoding.Image.open

    def counting(path, *args, **kwargs):
        count[str(path)] += 1
        return real(path, *args, **kwargs)

    monkeypatch.setattr(decoding.Image, "open", counting)
    return count


def prepared(photos, plugins, **fields):
    """A recipe, what a run of it would do after its images were read, and what is kept."""
    recipe = Recipe(data=str(photos), backbone="tiny/net", device="cpu", cache="boundary", **fields)
    preview = engine.prepare(recipe, load_registry(plugins), plugins, Console(), ahead=True)
    kept = kept_at(recipe, preview.task, preview.backbone, preview.plan.depth, 3, Console(), look=preview.look)
    return preview, kept


@pytest.mark.parametrize("freeze", ["head-only", "last:1", "full"])
def test_one_decode(photos, plugins, opened, freeze):
    """A cold run decodes each image once, whatever is kept; only those that the choice is measured on, more often."""
    _, kept = prepared(photos, plugins, freeze=freeze)
    assert len(opened) == 30
    assert sum(n > 1 for n in opened.values()) <= (0 if freeze == "head-only" else SAMPLE)
    assert (kept.plain.hits, kept.plain.misses) == (0, 30)
    opened.clear()
    _, kept = prepared(photos, plugins, freeze=freeze)
    assert (kept.plain.hits, kept.plain.misses, len(opened)) == (30, 0, 0)


@pytest.mark.parametrize("freeze", ["head-only", "last:1", "full"])
def test_the_same_bits(make, photos, tmp_path, monkeypatch, freeze):
    """Read and computed at once, images give the run that they give when they were read before."""
    at_once = make("a", freeze=freeze)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "other"))
    data.scan(photos)
    apart = make("b", freeze=freeze)
    assert at_once.summary["digests"] == apart.summary["digests"]
    assert at_once.summary["test"] == apart.summary["test"]
    assert at_once.summary["baselines"] == apart.summary["baselines"]
    assert at_once.summary["cache"] == apart.summary["cache"]
    assert at_once.summary["data"] == apart.summary["data"]


def test_copies_and_bad_images(photos, plugins):
    """Copies are kept once, and what cannot be read is listed as it always is."""
    shutil.copy(photos / "red/00.png", photos / "red/again.png")
    (photos / "red/bad.png").write_bytes(b"no image")
    preview, kept = prepared(photos, plugins)
    assert len(preview.task.examples) == 31
    assert kept.plain.misses == 30
    assert list(preview.task.bad) == [str(photos / "red/bad.png")]
    shutil.move(photos / "red/bad.png", photos / "red/worse.png")
    with pytest.raises(BadExample, match="1 bad in all; leave them out with --on-bad-image skip"):
        prepared(photos, plugins, on_bad_image="fail")


def test_one_more(photos, plugins, opened):
    """An image more in the folder is the only one that is read."""
    prepared(photos, plugins)
    opened.clear()
    with decoding.Image.open(photos / "red/00.png") as image:
        image.rotate(90).save(photos / "red/more.png")
    opened.clear()
    _, kept = prepared(photos, plugins)
    assert (list(opened), kept.plain.misses) == ([str(photos / "red/more.png")], 1)


def test_stopped_while_images_are_read(photos, plugins, opened, monkeypatch):
    """What was seen before Ctrl-C is not looked at again."""
    real = data.Seen

    def stop(*args, **kwargs):
        if opened:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(data, "Seen", stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(photos, plugins)
    monkeypatch.setattr(data, "Seen", real)
    opened.clear()
    prepared(photos, plugins)
    assert not opened


@dataclass(frozen=True)
class Counting(Last):
    """A plan that needs the test side."""

    def plan(self, stages, task):
        return super().plan(stages, task) if task.split("test")[0] else None


def test_a_plan_that_needs_the_split(photos, plugins, opened):
    """Where the plan depends on the split, images are read first and pass the stages after it."""

    @hookimpl
    def zoo_freeze_strategies():
        return {"counting": Counting}

    module = SimpleNamespace(zoo_freeze_strategies=zoo_freeze_strategies)
    dist = SimpleNamespace(name="zoo-counting", version="1")
    more = discover([SimpleNamespace(name="counting", value="counting", dist=dist, load=lambda: module)], {})
    preview, kept = prepared(photos, Plugins((*plugins.found, more.found[-1])), freeze="counting:stages=1")
    assert preview.plan.depth == 2
    assert kept.plain.misses == 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": "last:1", "head": "multi-stage"}, "works on the frozen backbone"),
        ({"training": "find_lr", "lr": 0.1}, "Leave one out"),
    ],
)
def test_mistakes_come_first(photos, plugins, opened, fields, message):
    """What cannot work is refused before the first image is decoded."""
    with pytest.raises(BadOption, match=message):
        prepared(photos, plugins, **fields)
    assert not opened
    shutil.rmtree(photos / "red")
    shutil.rmtree(photos / "blue")
    with pytest.raises(TooFewExamples, match="expected two classes or more"):
        prepared(photos, plugins)
    assert not opened
