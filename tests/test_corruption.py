"""A flipped bit, a file cut short, two files swapped: found before anything is believed, in all that is stored."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_every_operation import checkpoint

from zoo_core import answered, bundling, exporting, files, members, pins, scan_notes, tensors, upkeep, weights
from zoo_core.card import Source
from zoo_core.checkpoints import Memory
from zoo_core.entries import read_entry_folder
from zoo_core.errors import ZooError
from zoo_core.layers import cards_of, load_registry
from zoo_core.progress import Progress
from zoo_core.registering import publish_card
from zoo_core.runs import Run
from zoo_core.sealed import unsealed
from zoo_core.shelves import Row, Shelf, publish

EACH = 77

Read = Callable[[], Any]
"""What is stored, as plain data that can be compared; None for what has to be computed again."""


def shelf(plugins, make):
    """Activations."""
    folder = Path("stored/shelf")
    for start in (0, 3):
        rows = [Row(f"r{i}", (torch.full((3, 4), float(i)),)) for i in range(start, start + 3)]
        publish(rows, Shelf(folder, "boundary"), Shelf(folder, "boundary"), [])

    def read():
        found = Shelf(folder, "boundary")
        found.refresh()
        return {name: found.gather([name])[0].tolist() for name in found.rows}

    return read


def about(plugins, make):
    """What a shelf says of itself."""
    depends = {"kind": "boundary", "depth": 2, "input": {"mean": [0.25, 0.5]}, "architecture": "tiny"}
    place = Path("stored") / upkeep.key_of(depends)
    files.write_json(place / "about.json", depends)
    return lambda: upkeep.about(place)


def scan(plugins, make):
    """What scans saw."""
    for number in range(2):
        text = f'{{"{number:064}": ["{number + 1:064}", "=a{number}"]}}'
        files.publish_object(Path("stored"), "", ".json", lambda temp, text=text: temp.write_text(text))
    return lambda: scan_notes.read(Path("stored"))


def member(plugins, make):
    """Copies out of larger files."""
    content = b"\xff\xd8" + bytes(range(200))
    shutil.move(members.keep(content).parent, "stored")
    shutil.copytree("stored", members.keep(content).parent, dirs_exist_ok=True)

    def read():
        shutil.copytree("stored", members.keep(content).parent, dirs_exist_ok=True)
        return members.keep(content).read_bytes()

    return read


def converted(plugins, make):
    """The safetensors twin of a pickle that a card pins."""
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2)}, "w.pth")
    sha = files.sha256_file(Path("w.pth"))
    shutil.move(weights._converted(Path("w.pth"), sha).parent, "stored")
    cache = Path(os.environ["ZOO_CACHE"]) / "weights"

    def read():
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree("stored", cache)
        twin = weights._converted(Path("w.pth"), sha)
        return files.sha256_file(twin)

    return read


def kept_weights(plugins, make):
    """Weights that a card names by their digest."""
    path = tensors.write_object(Path("stored"), {"a": torch.arange(6.0), "b": torch.ones(2)})
    source = Source(f"file:{path.absolute()}", path.stem, path.stat().st_size)
    return lambda: {n: t.tolist() for n, t in weights.read(path, source).tensors.items()}


def training(plugins, make):
    """Checkpoints."""
    checkpoint(plugins).prepare()
    Path("progress").rename("stored")

    def read():
        return (Memory(Path("stored/fit")).look() or {"number": 0, "weights": ""})["number"]

    return read


def notes(plugins, make):
    """Notes of an unfinished run."""
    for key, value in (("evidence", 0.25), ("fold-0", 0.5)):
        Progress(Path("stored")).note(key, {"scores": {"accuracy": value}, "lr": 0.001})
    return lambda: {key: Progress(Path("stored")).known(key) for key in ("evidence", "fold-0")}


def run(plugins, make):
    """A finished run."""
    made = make("made", epochs=1).path
    (made / "report.html").unlink()
    made.rename("stored/")

    def read():
        found = Run("stored", plugins)
        answers = answered.read(found)
        facts = [found.summary, found.plan, found.classes, found.recipe.to_toml(), found.card.to_json()]
        facts += [answers.paths, answers.shares.tolist(), found.file("metrics.jsonl").read_text()]
        return [*facts, files.sha256_file(found.file("model.safetensors"))]

    return read


def registry(plugins, make):
    """Registered cards."""
    card = load_registry(plugins).get("tiny/net")
    for name in ("mine/a", "mine/b"):
        publish_card(replace(card, name=name, notes=f"notes of {name}"), Path("stored.json"), force=False)
    Path("stored.d").rename("stored")
    return lambda: read_entry_folder(Path("stored"), cards_of)[0]


def pin(plugins, make):
    """Digests recorded by a pull."""
    sources = [Source(f"hf:a/b/{number}.safetensors") for number in range(2)]
    for number, source in enumerate(sources):
        pins.record(source, f"{number + 5:064}", 1000 + number)
    home = Path(os.environ["ZOO_HOME"]) / "pins.d"
    shutil.copytree(home, "stored")

    def read():
        shutil.rmtree(home)
        shutil.copytree("stored", home)
        return [pins.pinned(source).sha256 for source in sources]

    return read


def bundle(plugins, make):
    """A bundle on its way to another machine."""
    bundling.bundle(load_registry(plugins), ["tiny/net"], Path("stored"))
    return lambda: [card.to_json() for card in bundling.unbundle(Path("stored"), Path("other.json"), force=True)]


def export(plugins, make):
    """An export, of which a file is its own witness."""
    made = make("made", epochs=1)
    exporting.export(made, "safetensors", Path("stored"))
    return lambda: unsealed(exporting.checked(Path("stored")))


STORED = (shelf, about, scan, member, converted, kept_weights, training, notes, run, registry, pin, bundle, export)


def damage(folder: Path, rng: random.Random) -> str:
    """Flip a bit of a file, cut it short, or give it the content of another one; what was done, in words."""
    there = sorted(p for p in folder.rglob("*") if p.is_file())
    path = rng.choice(there)
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "cut", "swap"))
    if kind == "flip":
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        other = rng.choice(there).read_bytes()
        content = bytearray(other if other != content else rng.randbytes(len(content)))
    path.write_bytes(content)
    return f"{kind} in {path}"


def agrees(found: Any, expected: Any) -> bool:
    """Whether what is read is what was stored, or the part of it that is whole."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return all(name in expected and (value is None or value == expected[name]) for name, value in found.items())
    return found is None or found == expected


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored.__name__)
def test_damage_is_found(stored, plugins, make, installed):
    """Of 1,001 corruptions, 77 of each kind that is stored, none is believed: an error that names it, or made again."""
    read = stored(plugins, make)
    expected = read()
    assert expected
    if stored is training:
        expected = {1, 2, 0}
    shutil.copytree("stored", "sound")
    rng = random.Random(os.getpid())
    for _ in range(EACH):
        shutil.rmtree("stored")
        shutil.copytree("sound", "stored")
        done = damage(Path("stored"), rng)
        try:
            found = read()
        except ZooError:
            continue
        assert found in expected if stored is training else agrees(found, expected), done


def test_one_damaged_run_hides_no_other(make, zoo):
    """`zoo runs ls` lists the others, and says which one is damaged."""
    for name in ("a", "b"):
        make(f"runs/{name}", epochs=1)
    Path("runs/a/summary.json").write_text("{}")
    listed = zoo("runs", "ls", "--json")
    assert [row["run"] for row in listed.json] == ["b"]
    assert "runs/a/summary.json has sha256" in listed.err
