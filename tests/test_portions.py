"""A device whose memory is full: fewer examples at once, said, and the same result; errors as the device gives them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from test_adapting import point

import zoo_core as zoo
from zoo_core import activations, data, heads, hookimpl
from zoo_core.console import Console
from zoo_core.errors import BadOption, DeviceFull
from zoo_core.layers import load_registry
from zoo_core.plugins import Plugins, discover
from zoo_core.portions import Portion, cut
from zoo_core.weights import load_backbone

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB"


def refuse(count, room):
    """What a device says that has room for so many examples."""
    if count > room:
        raise torch.OutOfMemoryError(FULL)


class Roomless(heads.Linear):
    """A linear head on a device that has room for `room` examples while it trains, and `looks` otherwise."""

    room: ClassVar[int] = 4
    looks: ClassVar[int] = 10_000

    def loss(self, outputs, labels):
        refuse(len(outputs), self.room if outputs.requires_grad else self.looks)
        return super().loss(outputs, labels)

    def probabilities(self, outputs):
        refuse(len(outputs), self.looks)
        return super().probabilities(outputs)


@pytest.fixture
def small(plugins):
    """The plugins, with the head `small` of a device with little room."""

    def small(**rooms):
        kind = dataclass(frozen=True)(type("Small", (Roomless,), rooms))
        module = ModuleType("zoo_small")
        module.zoo_head_builders = hookimpl(lambda: {"small": kind}, specname="zoo_head_builders")
        return Plugins((*plugins.found, discover([point("small", module)], {}).found[-1]))

    return small


class Listening(Console):
    """Keeps what was said."""

    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def test_a_full_device_halves_the_batch(make, small):
    """Without room for a batch its halves, quarters ... pass one after another: the weights are those of the whole."""
    run = make("small", plugins=small(room=4), head="small", freeze="last:1", batch_size=16)
    whole = make("whole", freeze="last:1", batch_size=16)  # no dropout in it
    ours, theirs = (load_file(r.path / "model.safetensors") for r in (run, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["micro_batch"] for line in lines] == [4, 4]
    assert "micro_batch" not in (whole.path / "metrics.jsonl").read_text()


def test_it_is_said(make, small, monkeypatch):
    """The user is told what there was no room for, why, and what is done."""
    said = Listening()
    monkeypatch.setattr("zoo_core.engine.Console", lambda: said)
    make(plugins=small(room=4), head="small", freeze="last:1", batch_size=9)
    found = [line for line in said.said if line.startswith("Memory")]
    assert found == [f"Memory    no room for 9 examples at once ({FULL}): 4 from here on"]


def test_the_batch_of_batch_norm_is_not_cut(make, small):
    """Where batch norm learns from the batch, a batch in parts is another training: it is refused."""
    with pytest.raises(DeviceFull, match=r"no room for 9 examples at once .* whole batch .* Give --batch-size 4\."):
        make(plugins=small(room=4), head="small", freeze="last:2,batch_norm=train", batch_size=9)
    with pytest.raises(BadOption, match=r"micro_batch=4: batch norm takes its statistics from the whole batch"):
        make(freeze="scratch", training="micro_batch=4")


def test_no_room_for_one(make, small):
    """Where not even one example fits, the error says what would."""
    with pytest.raises(DeviceFull, match=r"no room for one example \(CUDA out of memory.*or --device cpu"):
        make(plugins=small(room=0), head="small", freeze="last:1")


def test_predictions(make, small, photos):
    """Answers are computed in parts, too, and are the same."""
    run = make(plugins=small(room=100), head="small", freeze="last:1")
    plenty = [p.row for p in run.predict(photos)]
    tight = zoo.Run(run.path, small(looks=3))
    for found, expected in zip(tight.predict(photos), plenty, strict=True):
        assert found.row == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("room", [5, 1])
def test_the_frozen_pass(plugins, photos, tmp_path, room):
    """The frozen pass takes fewer images at once; what it keeps is the same to the last few bits."""
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    found = []
    for narrow in (False, True):
        body = load_backbone(load_registry(plugins).get("tiny/net"), plugins)
        if narrow:
            for stage in body.stages:
                stage.module.forward = _narrow(stage.module.forward, room)
        acts = activations.at(body, 1, paths, tmp_path / str(narrow))
        deeper = activations.at(body, 2, paths, tmp_path / str(narrow))
        found.append((acts.boundary(list(paths)), deeper.boundary(list(paths)), acts.all_stages(list(paths))))
    for plenty, tight in zip(*found, strict=True):
        torch.testing.assert_close(tight, plenty, rtol=1e-4, atol=1e-5)


def _narrow(forward, room):
    def narrow(x):
        refuse(len(x), room)
        return forward(x)

    return narrow


def test_other_errors_are_not_swallowed():
    """Only a full memory makes parts smaller; any other error is the plugin's own."""
    calls = []

    def work(size):
        calls.append(size)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Portion().run(work, 8)
    assert calls == [8]


def test_parts():
    """A batch is cut into parts of nearly equal size."""
    assert [part.stop - part.start for part in cut(8, 3)] == [3, 2, 3]
    assert cut(8, 0) == cut(8, 8) == [slice(0, 8)]
