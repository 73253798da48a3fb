"""The cache: found by what matters and nothing else, sound or made again, within its bounds, shared by processes."""

from __future__ import annotations

import copy
import os
import shutil
import socket
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo_core import activations, data, images, reading, tensors, upkeep
from zoo_core.activations import Numbers, Views
from zoo_core.card import Input
from zoo_core.readers import Pixels

KINDS = ("pixels", "boundary", "pooled")


@dataclass
class Asked:
    """What a shelf is asked for with."""

    body: Any
    depth: int = 1
    numbers: Numbers = field(default_factory=Numbers)
    views: Views = field(default_factory=Views)

    def shelf(self, kind: str) -> str:
        depth = len(self.body.stages) if kind == "pooled" else self.depth
        return activations.shelf_of(self.body, kind, depth, Path("store"), self.numbers, self.views).folder.name


def spec(**changes):
    """Another preprocessing."""

    def change(asked, monkeypatch):
        asked.body.reader = Pixels(replace(asked.body.card.input, **changes))

    return change


def card(**changes):
    """Another card."""

    def change(asked, monkeypatch):
        asked.body.card = replace(asked.body.card, **changes)

    return change


def weight(name):
    """One bit of one tensor."""

    def change(asked, monkeypatch):
        bits = asked.body.tensors()[name].view(torch.int32).flatten()
        bits[0] ^= 1

    return change


def constant(place, name, value):
    """A version, or something of this machine."""

    def change(asked, monkeypatch):
        monkeypatch.setattr(place, name, value)

    return change


MATTERS = {
    "size": ("pixels boundary pooled", spec(size=(3, 40, 40))),
    "interpolation": ("pixels boundary pooled", spec(interpolation="bicubic")),
    "crop": ("pixels boundary pooled", spec(crop=0.5)),
    "crop_mode": ("pixels boundary pooled", spec(crop_mode="squash")),
    "mean": ("boundary pooled", spec(mean=(0.1, 0.2, 0.3))),
    "std": ("boundary pooled", spec(std=(0.1, 0.2, 0.3))),
    "decoder": ("pixels boundary pooled", constant(images, "DECODER", "x")),
    "layout": ("pixels boundary pooled", constant(activations, "LAYOUT", 99)),
    "a weight before the cut": ("boundary pooled", weight("0.0.weight")),
    "a running mean before the cut": ("boundary pooled", weight("0.1.running_mean")),
    "a weight behind the cut": ("pooled", weight("2.2.weight")),
    "depth": ("boundary", lambda asked, _: setattr(asked, "depth", 2)),
    "precision": ("boundary pooled", lambda asked, _: setattr(asked, "numbers", Numbers("bf16"))),
    "stored": ("boundary", lambda asked, _: setattr(asked, "numbers", Numbers(stored="bf16"))),
    "views": ("pixels boundary pooled", lambda asked, _: setattr(asked, "views", Views("light"))),
    "architecture": ("boundary pooled", card(architecture="other")),
    "torch": ("boundary pooled", constant(torch, "__version__", "0.0")),
    "instruction set": ("boundary pooled", constant(torch.backends.cpu, "get_cpu_capability", lambda: "x")),
}
"""What rows of each kind depend on, and how it changes."""

DOES_NOT = {
    "name": card(name="other/net"),
    "notes": card(notes="other"),
    "sources": card(sources=()),
    "a weight behind the cut": weight("2.2.weight"),
    "size of the batch": constant(reading, "batch_size", lambda device: 3),
    "workers": constant(reading, "cores", lambda: 1),
    "threads": lambda asked, _: torch.set_num_threads(torch.get_num_threads() + 1),
    "head": lambda asked, _: asked.body.classifier.clear(),
    "seed without views": lambda asked, _: setattr(asked, "views", Views("none", 7)),
}
"""What rows behind the first stage do not depend on."""


@pytest.fixture
def asked(tiny):
    threads = torch.get_num_threads()
    yield Asked(copy.deepcopy(tiny))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", MATTERS)
def test_what_matters(asked, monkeypatch, name):
    """Whatever a row depends on, and each field of it, gives it another shelf; other kinds keep theirs."""
    kinds, change = MATTERS[name]
    before = {kind: asked.shelf(kind) for kind in KINDS}
    change(asked, monkeypatch)
    after = {kind: asked.shelf(kind) for kind in KINDS}
    assert [kind for kind in KINDS if before[kind] != after[kind]] == kinds.split()


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_does_not_matter(asked, monkeypatch, name):
    """Names, sizes of batches, threads, the head and what lies behind the cut give no shelf of their own."""
    before = asked.shelf("boundary")
    DOES_NOT[name](asked, monkeypatch)
    assert asked.shelf("boundary") == before


def test_every_field_is_in_the_table(asked):
    """Nothing is part of the key but what the table above changes."""
    known = {"layout", "kind", "decoder", "input", "depth", "weights", "architecture", "computed", "stored"}
    about = activations._about(asked.body, "boundary", 1, Numbers(), Views())
    assert about.keys() == known
    assert activations._about(asked.body, "pixels", 1, Numbers(), Views("light")).keys() <= known | {"views"}
    assert about["computed"].keys() == {"device", "precision", "memory", "torch", "cpu"}
    assert about["input"].keys() == {f.name for f in fields(Input)} <= MATTERS.keys()


def test_a_border_has_the_mean_colour(asked):
    """Pixels depend on the mean only where a border is painted in it."""
    found = set()
    for mean in ((0.1,) * 3, (0.9,) * 3):
        asked.body.reader = Pixels(replace(asked.body.card.input, crop_mode="border", mean=mean))
        found.add(asked.shelf("pixels"))
    assert len(found) == 2


def test_copies_and_times_do_not_matter(tiny, photos, tmp_path):
    """A copy of the data elsewhere, with other times, finds every row."""
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    assert activations.at(tiny, 1, paths, tmp_path / "store").misses == 30
    shutil.copytree(photos, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").rglob("*.png"):
        os.utime(path, (1, 1))
    again = {e.digest: e.path for e in data.scan(tmp_path / "copy").examples}
    assert activations.at(tiny, 1, again, tmp_path / "store").misses == 0


def test_two_processes_fill_one_cache(tiny, photos, tmp_path):
    """Two processes that fill one cache at once end with the digest of one that filled it alone."""
    paths = {e.digest: e.path for e in data.scan(photos).examples}

    def digest(store):
        acts = activations.at(tiny, 1, paths, store)
        return tensors.digest({"cut": acts.boundary(list(paths)), "pooled": acts.all_stages(list(paths))})

    torch.set_num_threads(1)
    alone = digest(tmp_path / "alone")
    go, ready = os.pipe(), [os.pipe(), os.pipe()]
    children = []
    for mine in ready:
        pid = os.fork()
        if not pid:
            os.write(mine[1], b"x")
            os.read(go[0], 1)  # both begin at once
            os._exit(0 if digest(tmp_path / "both") == alone else 1)
        children.append(pid)
    for mine in ready:
        os.read(mine[0], 1)
    os.write(go[1], b"xx")
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    for end in (*go, *ready[0], *ready[1]):
        os.close(end)
    again = activations.at(tiny, 1, paths, tmp_path / "both")
    assert again.misses == 0
    assert digest(tmp_path / "both") == alone
    assert upkeep.strays(tmp_path / "both") == []


@pytest.fixture
def full(tiny, photos):
    """A cache with three shelves of boundary activations, used one after another, and pooled ones."""
    cache = Path(os.environ["ZOO_CACHE"])
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    for number, size in enumerate((32, 40, 48)):
        tiny.reader = Pixels(replace(tiny.card.input, size=(3, size, size)))
        acts = activations.at(tiny, 1, paths, cache)
        for shelf in (acts.cut, acts.pooled):
            for path in (shelf.folder, *shelf.folder.iterdir()):
                os.utime(path, (number + 1, number + 1))
    return cache


def test_used_longest_ago_goes_first(full):
    """A cache over its cap loses what was used longest ago, whole shelves at a time, until the rest fits."""
    before = upkeep.items(full)
    shelves = [item for item in before if item.kind == "activations"]
    assert [int(item.used) for item in shelves] == [1, 1, 2, 2, 3, 3]
    whole = sum(item.size_bytes for item in before)
    gone = upkeep.trim(full, whole - 1)
    assert [item.path for item in gone] == [shelves[0].path]
    gone = upkeep.trim(full, shelves[-1].size_bytes + shelves[-2].size_bytes, since=3)
    assert [item.path for item in gone] == [item.path for item in shelves[1:4]]
    assert not gone[0].path.exists()
    assert upkeep.trim(full, 0, since=1) == []
    assert len(upkeep.trim(full, 0)) == 3
    assert upkeep.items(full) == []


def test_a_run_keeps_to_the_cap(full, make, monkeypatch):
    """A run that goes over `--cache-cap` removes what others used longest ago, and never what it uses itself."""
    monkeypatch.setattr(upkeep, "STARTED", 4.0)
    old = {item.path for item in upkeep.items(full) if item.used < 4}
    run = make(freeze="last:1", cache_cap=0.0011)
    assert run.summary["cache"]["mode"] == "boundary"
    left = {item.path for item in upkeep.items(full)}
    assert old - left
    assert [item.files for item in upkeep.items(full) if item.what == "tiny boundary 3x32x32, 2 stages"] == [1]


def test_the_command(full, zoo, tmp_path):
    """`zoo cache ls`, `verify` and `prune`: what is there, whether it is sound, and what may go."""
    found = zoo("cache", "ls", "--json").json
    assert found["size_bytes"] == sum(item["size_bytes"] for item in found["items"]) > 0
    assert "tiny boundary 3x48x48, 1 stages" in zoo("cache", "ls").out
    assert zoo("cache", "verify").code == 0
    shard = next(full.rglob("activations/*/*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    answer = zoo("cache", "verify")
    assert (answer.code, "1 damaged" in answer.out, str(shard) in answer.out) == (1, True, True)
    assert zoo("cache", "verify").code == 0
    stray = full / "activations" / f".x.{socket.gethostname()}.{2**22 + 1}.0123abcd.tmp"  # no such process
    stray.write_bytes(b"half")
    done = zoo("cache", "prune", "--cap", "0", "--json").json
    assert (done["strays"], done["damaged"], len(done["items"])) == (1, 1, 6)
    assert not [p for p in full.rglob("*") if p.is_file()]
