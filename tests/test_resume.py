"""A run that is stopped anywhere goes on, and ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from photos import make_photos
from test_adapting import Scaled, point

from zoo_core import checkpoints, collapse, fit, heads, hookimpl, unfinished
from zoo_core.cli import main
from zoo_core.errors import Collapsed, ResumeRefused, RunExists
from zoo_core.files import read_json
from zoo_core.plugins import Plugins, discover
from zoo_core.recipe import Recipe
from zoo_core.runs import Run, find_runs


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step, and a copy of the unfinished run after every checkpoint."""
    monkeypatch.setattr(checkpoints, "SPARE", 0)
    monkeypatch.setattr(checkpoints, "WITHIN", 0.0)
    copies: list[Path] = []
    write = checkpoints.Memory._write

    def copying(self, *args):
        write(self, *args)
        whole = self.folder.parent.parent
        copies.append(Path("copies") / str(len(copies)))
        shutil.copytree(whole, copies[-1])

    monkeypatch.setattr(checkpoints.Memory, "_write", copying)
    return copies


def ended(run):
    """What must not depend on whether a run was stopped."""
    parts = ("digests", "test", "validation", "baselines", "schedule")
    found = {part: run.summary[part] for part in parts if part in run.summary}
    return found | {name: (run.path / name).read_bytes() for name in ("predictions.csv", "model.safetensors")}


WAYS = {
    "head-only": {},
    "last": {"freeze": "last:2,batch_norm=train"},
    "upto": {"freeze": "upto:stem", "head": "linear:label_smoothing=0.1"},
    "full": {"freeze": "full:layer_decay=0.5", "balance": "loss"},
    "scratch": {"freeze": "scratch", "regime": "fraction:share=0.6"},
    "gradual": {"freeze": "gradual", "epochs": 5},
    "lp-ft": {"freeze": "lp-ft", "epochs": 4},
    "surgical": {"freeze": "surgical:block", "balance": "sampler"},
    "norm-only": {"freeze": "norm-only"},
    "bias-only": {"freeze": "bias-only", "head": "cosine"},
    "dropout": {"freeze": "last:2", "head": "mlp:hidden=16,dropout=0.5"},
    "attentive": {"freeze": "last:1", "head": "attentive"},
    "few-shot": {"freeze": "last:1", "regime": "few-shot:k=4"},
    "views": {"freeze": "last:1", "augment": "light", "views": 2},
    "no validation": {"freeze": "last:1", "val_share": 0.0},
    "cut by a budget": {"freeze": "last:1", "budget": "0.001s", "epochs": 4},
    "within a budget": {"freeze": "last:1", "budget": "1h"},
    "an added tensor": {"freeze": "scaled"},
    "a collapse": {"freeze": "full", "lr": 300.0, "epochs": 8},
    "no numbers at any rate": {"freeze": "full", "lr": 1e30},
    "averaged weights": {"freeze": "last:1", "training": "ema=0.9,clip=1", "epochs": 3},
    "stops early": {"freeze": "last:1", "training": "patience=1", "epochs": 8, "lr": 0.3},
    "mixed": {"freeze": "last:2", "training": "mixup=0.4"},
    "a rate that is looked for": {"freeze": "last:1", "training": "find_lr"},
    "rehearsal": {"freeze": "last:1", "regime": "rehearsal:buffer=12", "old": "birds"},
    "learning without forgetting": {"freeze": "last:1", "regime": "lwf", "old": "birds"},
    "auto": {"freeze": "auto", "epochs": 2},
    "solved on all stages": {"head": "multi-stage"},
    "neighbours": {"head": "knn:k=3"},
    "folds": {"freeze": "last:1", "folds": 2, "epochs": 1},
}


for kind, supplied in discover([], {}).found[0].supplies.items():  # and all that are not named above
    named = {way.get(kind, "").partition(":")[0] for way in WAYS.values()} | {"linear", "new-only", "head-only"}
    for name in sorted(supplied.keys() - named) if kind != "provider" else ():
        if not hasattr(supplied[name], "begin"):  # heads that begin with words need a text tower
            WAYS[f"{kind} {name}"] = {kind: name} | (
                {"old": "birds"} if getattr(supplied[name], "needs_old", 0) else {}
            )


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits(make, plugins, often, way):
    """For each strategy, head and regime: gone on with from any checkpoint, also within an epoch, a run is the same."""
    import zoo_tiny

    make_photos(Path("birds"), ("crow", "duck", "owl"), seed=1)
    module = ModuleType("zoo_scaled")
    module.zoo_freeze_strategies = hookimpl(lambda: {"scaled": Scaled}, specname="zoo_freeze_strategies")
    plugins = discover([point("tiny", zoo_tiny), point("scaled", module)], {})

    def result(out):
        try:
            run = make(out, **{"plugins": plugins, "batch_size": 6} | WAYS[way])
        except Collapsed as error:
            return str(error)
        assert run.summary["resumed"] is (out == "again" and bool(often))
        return ended(run)

    expected = result("whole")
    if not often:  # heads that are solved at once have no checkpoint: killed, the run had begun and no more
        Run("whole").recipe.save(Path("again.unfinished/recipe.toml"))
        assert result("again") == expected
        return
    number = list(WAYS).index(way)
    chosen = often[:] if os.environ.get("SOAK") else [often[number % len(often)]]  # make soak: from each of them
    for copy in chosen:
        shutil.rmtree("again.unfinished", ignore_errors=True)
        shutil.rmtree("again", ignore_errors=True)
        shutil.copytree(copy, "again.unfinished")
        assert result("again") == expected


def test_killed_anywhere():
    """Killed a dozen times at random, in the store, in a checkpoint, while it is saved, a run ends with the same bits.

    `make soak` kills 200.
    """
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), "--kills", "12", "--seed", str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["same"] == 12


class Interrupting(heads.Linear):
    """A linear head; somebody types Ctrl-C in its second step."""

    steps: ClassVar[int] = 0

    def loss(self, outputs, labels):
        type(self).steps += outputs.requires_grad
        if self.steps == 2 and outputs.requires_grad:
            type(self).steps += 1
            os.kill(os.getpid(), self.signal)
        return super().loss(outputs, labels)


class Breaking(heads.Linear):
    """A linear head whose loss is no number from its fourth step on."""

    steps: ClassVar[int] = 0

    def loss(self, outputs, labels):
        type(self).steps += outputs.requires_grad
        return super().loss(outputs, labels) * (float("nan") if outputs.requires_grad and self.steps > 3 else 1.0)


def test_no_numbers(make, plugins, often):
    """A loss that is no number stops the run, which keeps its last good checkpoint and says in which batch it was."""
    kind = dataclass(frozen=True)(type("Broken", (Breaking,), {"steps": 0}))
    module = ModuleType("zoo_breaking")
    module.zoo_head_builders = hookimpl(lambda: {"breaking": kind}, specname="zoo_head_builders")
    plugins = Plugins((*plugins.found, discover([point("breaking", module)], {}).found[-1]))
    with pytest.raises(
        Collapsed, match=r"became nan in batch 1 of 3 \(.*\.png and 5 more\) at learning rate 0\.000111"
    ):
        make(plugins=plugins, head="breaking", freeze="last:1", batch_size=6)
    steps = sorted(path.parent.name for path in Path("run.unfinished").rglob("state.json"))
    assert steps == ["0-000000-000002", "0-000001-000000"]


@pytest.fixture
def stopped(make, plugins, often, request):
    """A run of two epochs of three steps, stopped in the second step: how it ended, and how it goes on."""

    def stopped(number, freeze="last:1"):
        kind = dataclass(frozen=True)(type("Stopping", (Interrupting,), {"signal": number, "steps": 0}))
        module = ModuleType("zoo_stopping")
        module.zoo_head_builders = hookimpl(lambda: {"stopping": kind}, specname="zoo_head_builders")
        known = Plugins((*plugins.found, discover([point("stopping", module)], {}).found[-1]))

        def again(**fields):
            return make("runs/a", plugins=known, head="stopping", freeze=freeze, batch_size=6, **fields)

        return again

    return stopped


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_stopped_by_a_signal(stopped, make, number, ending, capsys):
    """Ctrl-C, or SIGTERM, lets the step end, writes a checkpoint and stops; the same command goes on from there."""
    again, before = stopped(number), signal.getsignal(number)
    with pytest.raises(ending):
        again()
    assert signal.getsignal(number) is before
    (state,) = sorted(Path("runs/a.unfinished").rglob("*-000000-000002/state.json"))
    assert read_json(state)["at"]["step"] == 2
    assert find_runs(Path("runs")) == []
    run = again()
    assert run.summary["resumed"] is True
    plain = make("plain", freeze="last:1", batch_size=6)
    assert run.summary["digests"] == plain.summary["digests"]
    assert [p.name for p in Path("runs").iterdir()] == ["a"]


def zoo(monkeypatch, *args) -> int:
    """Exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["zoo", *map(str, args)])
    with pytest.raises(SystemExit) as ending:
        main()
    return ending.value.code or 0


@pytest.fixture
def begun(often, make, monkeypatch):
    """A run that was stopped after its first steps, in `runs/a.unfinished`."""
    make("elsewhere", freeze="last:1", batch_size=6)
    shutil.copytree(often[3], "runs/a.unfinished")
    shutil.rmtree("elsewhere")
    return Path("runs/a.unfinished")


def test_ctrl_c_on_the_command_line(installed, photos, monkeypatch, capsys, often):
    """Ctrl-C ends with 130 and prints the line that resumes; that line finishes the run."""
    step = fit._epoch

    def pressed(*args):
        if not often:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(fit, "_epoch", pressed)
    asked = ("finetune", photos, "-b", "tiny/net", "--freeze", "last:1", "--epochs", 2, "--out", "runs/a")
    assert zoo(monkeypatch, *asked) == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[-2] == "Kept      runs/a.unfinished. Go on with: zoo finetune --resume runs/a"
    assert lines[-1] == "zoo: stopped."
    assert zoo(monkeypatch, *lines[-2].partition("zoo ")[2].split()) == 0
    assert "Resumed   runs/a.unfinished" in capsys.readouterr().err
    assert Run("runs/a").summary["resumed"] is True


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--resume", "nowhere"), "nowhere.unfinished is no unfinished run. Type 'zoo runs ls'"),
        (("--resume", "done"), "done is finished; there is nothing to resume. Type: zoo runs show done"),
        (("photos", "--resume", "runs/a"), "--resume goes on with the run's own recipe; leave DATA out."),
        (("--resume", "runs/a", "--epochs", "3"), "leave --epochs out."),
    ],
)
def test_mistakes(installed, make, monkeypatch, capsys, args, message):
    """What cannot be resumed is said in one line."""
    if "done" in args:
        make("done")
    assert zoo(monkeypatch, "finetune", *args) == 2
    assert message in capsys.readouterr().err


def test_another_recipe(begun, make):
    """A run that was stopped is not deleted by another one that wants its folder; `--force` says that it is."""
    with pytest.raises(ResumeRefused, match=r"is an unfinished run of another recipe.*zoo finetune --resume runs/a"):
        make("runs/a", freeze="last:1", seed=7)
    assert begun.is_dir()
    run = make("runs/a", freeze="last:1", seed=7, force=True)
    assert run.summary["resumed"] is False
    assert not begun.exists()


def test_other_data(begun, make, photos):
    """A run goes on with the data that it was begun with, or says that they have changed."""
    (photos / "red" / "03.png").unlink()
    with pytest.raises(ResumeRefused, match=r"was begun with other data: \w{64} then, \w{64} now. Put back"):
        make("runs/a", freeze="last:1", batch_size=6)
    assert begun.is_dir()


def test_a_damaged_checkpoint(begun, make):
    """A checkpoint in which a bit was flipped is put aside, and the one before it is taken."""
    *_, newest = sorted(begun.glob("progress/fit/*"))
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-3] ^= 4
    (newest / "model.safetensors").write_bytes(content)
    run = make("runs/a", freeze="last:1", batch_size=6)
    assert run.summary["digests"] == make("b", freeze="last:1", batch_size=6).summary["digests"]


def test_two_at_once(begun, make):
    """While a process is at work on a run, another one does not touch it."""
    holder = unfinished.Unfinished(Path("runs/a"), Recipe.load(begun / "recipe.toml"))
    holder.begin()
    for force in (False, True):
        with pytest.raises(RunExists, match=r"another process is at work on runs/a.unfinished"):
            make("runs/a", freeze="last:1", batch_size=6, force=force)
    holder._release()
    assert make("runs/a", freeze="last:1", batch_size=6).summary["resumed"]


def test_a_folder_of_somebody(make):
    """A folder called like an unfinished run that holds other files is not touched."""
    Path("run.unfinished").mkdir()
    Path("run.unfinished/thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ResumeRefused, match=r"holds thesis\.tex, which no run writes"):
            make(force=force)
    assert Path("run.unfinished/thesis.tex").exists()


def test_killed_before_it_took_its_name(make):
    """A run that was whole but not yet renamed is finished by the same command, without training."""
    digest = make("run").summary["digests"]
    Path("run").rename("run.unfinished")
    assert make("run").summary["digests"] == digest
    assert not Path("run.unfinished").exists()


def test_two_are_kept(make, monkeypatch):
    """While a run trains there are at most two whole checkpoints; afterwards none."""
    monkeypatch.setattr(checkpoints, "SPARE", 0)
    counts, write = [], checkpoints.Memory._write

    def counting(self, *args):
        write(self, *args)
        counts.append(len(list(self.folder.iterdir())))

    monkeypatch.setattr(checkpoints.Memory, "_write", counting)
    run = make(epochs=5)
    assert counts == [1, 2, 2, 2, 2]
    assert not (run.path / "progress").exists()


def test_they_cost_little(make, monkeypatch):
    """Checkpoints take at most a twentieth of the time: one is due when twenty times its own has gone by."""
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(checkpoints, "time", clock)
    written = []

    def write(self, at, *args):
        now[0] += 1
        written.append(len(at.history))

    monkeypatch.setattr(checkpoints.Memory, "_write", write)
    close = collapse.Watch.close

    def slow(self, *args):
        now[0] += 5
        close(self, *args)

    monkeypatch.setattr(collapse.Watch, "close", slow)
    make(epochs=12)
    assert written == [1, 5, 9]
