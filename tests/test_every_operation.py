"""One module changes files. Whichever of its operations fails, and however: nothing is half there, nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import FAULTS, Killed, killed, operations

from zoo_core import bundling, checkpoints, engine, files, freeze, members, tensors, upkeep
from zoo_core.checkpoints import Memory, Standing
from zoo_core.entries import read_entry_folder
from zoo_core.errors import DiskFull
from zoo_core.exporting import export
from zoo_core.layers import cards_of, entry_folder, load_registry, user_file
from zoo_core.progress import Progress
from zoo_core.registering import publish_card, unregister
from zoo_core.run_writer import RunWriter
from zoo_core.runs import Run
from zoo_core.shelves import Row, Shelf, publish
from zoo_core.unfinished import Unfinished


@dataclass
class Change:
    """Something that changes files.

    Attributes:
        prepare: what is there before, in an empty working directory.
        do: the change; done again after a failure it must come to the same end.
        check: what holds at any time, whatever failed; told whether the change was brought to its end.
        silent: operations that may fail without an error: those that clear up, that put a damaged file aside, that make
            a folder which is there.
    """

    prepare: Callable[[], object]
    do: Callable[[], object]
    check: Callable[[bool], object]
    silent: frozenset[str] = frozenset(("unlink", "rmdir", "replace", "mkdir"))


def cards(plugins):
    """A card is replaced, another one added, a third one removed."""
    old = load_registry(plugins).get("tiny/net")
    new = replace(old, notes="new")

    def prepare():
        for name in ("mine/a", "mine/c", "mine/other"):
            publish_card(replace(old, name=name), user_file(), force=False)

    def do():
        publish_card(replace(new, name="mine/a"), user_file(), force=True)
        publish_card(replace(new, name="mine/b"), user_file(), force=True)
        if "mine/c" in read_entry_folder(entry_folder(user_file()), cards_of)[0]:
            unregister("mine/c")

    def check(ended):
        found, problems = read_entry_folder(entry_folder(user_file()), cards_of)
        assert not problems
        assert found.keys() >= {"mine/a", "mine/other"}
        assert found["mine/other"] == old.to_json()
        assert found["mine/a"] in ([new.to_json()] if ended else [old.to_json(), new.to_json()])
        assert found.get("mine/b", new.to_json()) == new.to_json()
        assert not ended or found.keys() == {"mine/a", "mine/b", "mine/other"}

    return Change(prepare, do, check)


def store(plugins):
    """Rows are put on two shelves, one of which holds a damaged shard; a copy and a note are kept."""
    rows = [Row(f"r{i}", (torch.full((2, 3), float(i)),), torch.full((4,), float(i))) for i in range(6)]
    member = b"\xff\xd8" + bytes(range(256))

    def shelves():
        cut, pooled = Shelf(Path("store/cut"), "boundary"), Shelf(Path("store/pooled"), "pooled")
        cut.refresh(), pooled.refresh()
        return cut, pooled

    def prepare():
        publish(rows[:2], *shelves(), [4])
        bad = Path("store/cut") / f"{'0' * 64}.safetensors"
        bad.write_bytes(b"damaged")

    def do():
        publish(rows[2:], *shelves(), [4])
        members.keep(member)

    def check(ended):
        for shelf, value in zip(shelves(), (lambda r: r.cut[0], lambda r: r.pooled), strict=True):
            assert shelf.rows.keys() >= {"r0", "r1"}
            assert not ended or len(shelf.rows) == 6
            for name in shelf.rows:
                assert torch.equal(shelf.gather([name])[0][0], value(rows[int(name[1])]))
        kept = list(Path(os.environ["ZOO_CACHE"]).glob("members/[!.]*"))
        assert all(path.read_bytes() == member for path in kept)
        assert not ended or kept

    return Change(prepare, do, check)


def checkpoint(plugins):
    """The third checkpoint of a training is written, and the first one goes."""
    body = load_registry(plugins).get("tiny/net")
    from test_fit import model_of

    plan = freeze.Last(stages=1).plan(model_of(plugins, _Plan).backbone.info(), None)
    model = model_of(plugins, plan)
    assert body.name == "tiny/net"
    optimiser = torch.optim.AdamW(model.head.parameters(), lr=0.1)

    def write(number):
        torch.manual_seed(number)
        model.head.weight.data.normal_()
        model.head.weight.grad, model.head.bias.grad = torch.ones(3, 32), torch.ones(3)
        optimiser.step()
        memory = Memory(Path("progress/fit"))
        memory.about = {"number": number, "weights": tensors.digest(model.trained(2))}
        memory._write(Standing(0, 0, 9, history=[{"epoch": i} for i in range(number)]), model, optimiser, None, None, 0)

    def check(ended):
        memory = Memory(Path("progress/fit"))
        about = memory.look()
        assert about["number"] in ((3,) if ended else (2, 3))
        memory.recall(model, None)
        assert tensors.digest(model.trained(2)) == about["weights"]

    return Change(lambda: (write(1), write(2)), lambda: write(3), check)


class _Plan:
    """Enough of a plan to load the backbone."""

    depth = 2


def notes(plugins):
    """A note of an unfinished run replaces another one, and its checkpoints go; a scan's notes are kept."""
    first, second = {"value": [1.0] * 50}, {"value": [2.0] * 50}

    def prepare():
        Progress(Path("progress")).note("fold-0", first)
        (Path("progress/fold-0/0-1-0")).mkdir(parents=True)
        (Path("progress/fold-0/0-1-0/COMMIT")).write_text("{}")

    def check(ended):
        assert Progress(Path("progress")).known("fold-0") in ((second,) if ended else (first, second))

    return Change(prepare, lambda: Progress(Path("progress")).note("fold-0", second), check)


@pytest.fixture
def whole_run(make, monkeypatch):
    """What the writer of a run was given."""
    given = []
    write = RunWriter.write
    monkeypatch.setattr(RunWriter, "write", lambda self, *args: (given.append(args), write(self, *args))[1])
    make("made", epochs=1)
    return given[0]


def digests(folder: Path) -> dict[str, str]:
    """sha256 of each file of a run or an export, by name."""
    return {str(p.relative_to(folder)): files.sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def run_folder(whole_run):
    """A run replaces another one of that name."""
    recipe, *given = whole_run
    summary, old, new = given[-2], recipe, recipe.with_values(seed=1)

    def written(recipe):
        unfinished = Unfinished(Path("runs/a"), recipe, force=True)
        if unfinished.settle():
            return
        with RunWriter(unfinished) as writer:
            writer.write(recipe, *given)
            writer.commit(summary)

    def check(ended):
        at = Path("runs/a")
        if not at.exists():  # between two renames both are there, the new one ready to be named
            assert _whole(Path("runs/a.replaced"))
            assert _whole(Path("runs/a.unfinished"))
            assert not ended
            return
        assert _whole(at)
        assert Run(at).recipe.seed in ((1,) if ended else (0, 1))
        assert not ended or [p.name for p in Path("runs").iterdir()] == ["a"]

    return Change(lambda: written(old), lambda: written(new), check)


def exported(run):
    """A run is exported over an export that is there."""

    def do():
        export(run, "safetensors", Path("out"), force=True)

    def check(ended):
        for folder in (Path("out"), Path("out.replaced")):
            if (folder / "export.json").is_file() and (folder == Path("out") or not Path("out").exists()):
                said = files.read_json(folder / "export.json")["files"]
                assert digests(folder).items() >= said.items()
        assert Path("out").exists() or Path("out.replaced").exists()
        assert not ended or Path("out").exists()

    return Change(do, do, check)


def _whole(folder: Path) -> bool:
    """Whether a folder has a COMMIT, and every file is as it says."""
    if not (folder / "COMMIT").is_file():
        return False
    found, said = digests(folder), files.read_json(folder / "COMMIT")["files"]
    assert {name: found.get(name) for name in said} == said
    return True


def bundle(plugins):
    """A card and its weights go into a bundle, and from it into a registry."""
    registry = load_registry(plugins)

    def do():
        shutil.rmtree("out", ignore_errors=True) if Path("out").exists() and not Path("out/cards.json").exists() else 0
        if not Path("out").exists():
            bundling.bundle(registry, ["tiny/net"], Path("out"))
        bundling.unbundle(Path("out"), force=True)

    def check(ended):
        assert not Path("out").exists() or Path("out/cards.json").exists()
        found, problems = read_entry_folder(entry_folder(user_file()), cards_of)
        assert not problems
        for path in Path(os.environ["ZOO_HOME"]).glob("weights/[!.]*"):
            assert files.sha256_file(path) == path.stem
        assert not ended or found.keys() == {"tiny/net"}

    return Change(lambda: None, do, check)


CHANGES = {f.__name__: f for f in (cards, store, checkpoint, notes, bundle)}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CHANGES)
def test_any_operation_may_fail(name, fault, plugins, tmp_path, monkeypatch):
    """Whichever file operation fails: what is there is whole, old or new, and the same again comes to its end."""
    every(CHANGES[name](plugins), fault, tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_takes_its_name(fault, whole_run, tmp_path, monkeypatch):
    """Whichever file operation fails while a run is saved: the old one of that name is there, or the new one."""
    every(run_folder(whole_run), fault, tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_takes_its_name(fault, make, installed, tmp_path, monkeypatch):
    """Whichever file operation fails while a run is exported: the old export is there whole, or the new one, or none.

    A few operations at random each time; `make soak` takes every one.
    """
    run = make("made", epochs=1)
    run.path = run.path.absolute()
    every(exported(run), fault, tmp_path, monkeypatch, some(20))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_whole_run(fault, make, plugins, tmp_path, monkeypatch):
    """Whichever file operation of a fine-tuning fails, from the first look at the data on: again, it ends the same.

    A few operations at random each time; `make soak` takes every one.
    """
    expected = make("made", epochs=1).summary["digests"]
    monkeypatch.setattr(checkpoints, "SPARE", 0)
    recipe = Run("made").recipe

    def do():
        if not Path("run").exists():
            engine.finetune(recipe, load_registry(plugins), plugins, Path("run"))

    def check(ended):
        assert not Path("run").exists() or _whole(Path("run"))
        assert not ended or Run("run").summary["digests"] == expected
        assert not list(Path("cache").rglob("*.damaged"))

    page = frozenset(("create", "write", "fsync"))  # a report that cannot be made is said, and costs no run
    every(Change(lambda: None, do, check, Change.silent | page), fault, tmp_path, monkeypatch, some(80))


def some(step: int) -> Callable[[int], Any]:
    """Of so many operations every `step`th, beginning at random; all of them in `make soak`."""
    return lambda count: range(count) if os.environ.get("SOAK") else range(random.randrange(step), count, step)


def every(change: Change, fault: str, top: Path, monkeypatch: Any, chosen: Callable[[int], Any] = range) -> None:
    """Fail each operation of a change in turn, each time in a place of its own."""
    place(top, -1, monkeypatch)
    with operations():
        change.prepare()
    with operations() as seen:
        change.do()
    change.check(True)
    assert in_order(seen.done)
    count = len(seen.done)
    for at in chosen(count):
        here = place(top, at, monkeypatch)
        with operations():  # nothing waits for the disk
            change.prepare()
        error: BaseException | None = None
        failed: set[str] = set()
        if fault == "killed" and os.environ.get("SOAK"):
            assert killed(change.do, at)
        else:
            with operations(at, fault) as seen:
                try:
                    change.do()
                except (DiskFull, Killed) as caught:
                    error = caught
            failed = set(seen.failed)
            assert not isinstance(error, DiskFull) or "cannot be written: " in str(error)
            assert error or failed <= change.silent, f"nobody heard that {failed} failed"
        change.check(False)
        left = sorted(here.rglob(".*.tmp"))
        with monkeypatch.context() as dead:
            dead.setattr(upkeep, "_alive", lambda pid: False)
            assert left == sorted(upkeep.strays(here)) if fault == "killed" else not left or "unlink" in failed
        with operations():
            change.do()
        change.check(True)
    if os.environ.get("SOAK"):
        print(f"{count} operations, fault: {fault}")


def place(top: Path, at: int, monkeypatch: Any) -> Path:
    """An empty working directory with a cache and a home of its own."""
    here = top / f"at{at}"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("ZOO_CACHE", str(here / "cache"))
    monkeypatch.setenv("ZOO_HOME", str(here / "home"))
    return here


def in_order(done: list[tuple[str, str]]) -> bool:
    """Whether each file was on the disk before it got its name, but for copies that the next reading compares."""
    synced: set[str] = set()
    for name, path in done:
        if name == "fsync":
            synced.add(path)
        if name in ("replace", "link") and path.endswith(".tmp") and "/members/" not in path:
            assert str(Path(path).resolve()) in synced, f"{path} was published before it was on the disk"
    return True
