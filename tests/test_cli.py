"""The command line: JSON on stdout, one line for an error, exit codes."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo_core import api
from zoo_core.cli import COMMANDS


@pytest.fixture
def run(zoo, photos):
    """A finished run in `runs/a`."""
    answer = zoo("finetune", photos, "-b", "tiny/net", "--epochs", 2, "--out", "runs/a", "--json")
    assert answer.code == 0, answer.err
    return Path("runs/a")


@pytest.mark.parametrize(
    "args",
    [
        ("list", "tiny"),
        ("ls", "tiny*"),
        ("show", "tiny/net"),
        ("show", "tiny/net", "--stages"),
        ("plugins",),
        ("strategies",),
        ("pull", "tiny/net"),
        ("doctor",),
        ("runs", "ls"),
        ("runs", "show", "runs/a"),
        ("eval", "runs/a", "photos"),
        ("finetune", "photos", "-b", "tiny/net", "--dry-run"),
    ],
)
def test_json(zoo, run, args):
    """Every command that reports gives one JSON value on stdout with `--json`, and text for people without."""
    answer = zoo(*args, "--json")
    assert answer.code == 0, answer.err
    assert answer.json
    answer = zoo(*args)
    assert answer.code == 0, answer.err
    assert answer.out.strip()
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", [*COMMANDS, "runs ls", "runs show"])
def test_help(zoo, command):
    """Every command has a help page with what it does and, but for aliases, an example."""
    answer = zoo(*command.split(), "--help")
    assert answer.code == 0
    assert "Usage: zoo" in answer.out
    assert "Example" in answer.out or command.startswith("runs ")


def test_the_table_of_commands(zoo):
    """`zoo --help` lists every command with its help, `zoo --version` the version."""
    text = zoo("--help").out
    assert all(f"\n  {name} " in text for name in COMMANDS if name != "ls")  # which is short for list
    assert zoo("--version").out.startswith("zoo, version ")


def test_list(zoo, monkeypatch):
    """`list` shows what is installed and, for the rest, what to install."""
    cards = {card["name"]: card for card in zoo("list", "*", "--json").json}
    assert cards["tiny/net"]["installed"] is True
    assert zoo("list", "-q", "tiny/").out == "tiny/net\n"
    monkeypatch.setenv("ZOO_DISABLE", "cnn")
    api.installed.cache_clear()
    assert "pip install zoo-cnn" in zoo("list", "cnn/tf_efficientnet_lite0.in1k").out


def test_show(zoo):
    """`show` prints licences, sources, the layer of the registry; `--stages` the chain."""
    facts = zoo("show", "tiny/net", "--json").json
    assert facts["layer"] == "plugin zoo-tiny"
    assert facts["openness"]["weights"]["licence"] == "Apache-2.0"
    rows = zoo("show", "tiny/net", "--stages", "--json").json["stage_table"]
    assert [row["stage"] for row in rows] == ["stem", "block", "neck"]


def test_strategies(zoo):
    """`strategies` lists freeze strategies, heads and regimes with options, defaults and package."""
    found = {(s["kind"], s["name"]): s for s in zoo("strategies", "--json").json}
    core = {
        ("freeze", "full"),
        ("freeze", "head-only"),
        ("freeze", "last"),
        ("freeze", "scratch"),
        ("head", "linear"),
        ("regime", "new-only"),
    }
    assert core <= found.keys()
    assert found["freeze", "last"]["options"][0] == {"name": "stages", "type": "int", "default": 1}
    assert all(s["help"].endswith((".", ")")) for s in found.values())


def test_finetune(zoo, photos):
    """`finetune --json` prints the summary on stdout and nothing else; progress goes to stderr."""
    answer = zoo("finetune", photos, "-b", "tiny/net", "--freeze", "last:1", "--epochs", "1", "--json")
    assert answer.code == 0
    assert answer.json["freeze"]["stages_trained"] == ["neck"]
    assert "stages frozen" in answer.err
    (run,) = Path("runs").iterdir()
    assert json.loads((run / "summary.json").read_text()) == answer.json


def test_folds_and_seeds(zoo, photos):
    """`--folds 2 --seeds 2` prints the mean and the spread of the figures over the repeats."""
    answer = zoo("finetune", photos, "-b", "tiny/net", "--epochs", 1, "--folds", 2, "--seeds", 2)
    assert answer.code == 0, answer.err
    line = next(line for line in answer.out.splitlines() if line.startswith("Repeats"))
    assert re.search(r"2 folds x 2 seeds of the training side, mean and spread: accuracy 0\.\d+ \+- 0\.\d+", line)


def test_recipes(zoo, photos, run):
    """`--recipe` starts from a file, options and then `--set` replace its fields; a dry run prints the result."""
    args = ("finetune", "--recipe", run / "recipe.toml", "--seed", 5, "--set", "lr=0.25", "--dry-run")
    answer = zoo(*args, "--json")
    recipe = answer.json["recipe"]
    assert (recipe["seed"], recipe["lr"], recipe["epochs"], recipe["data"]) == (5, 0.25, 2, str(photos))
    Path("again.toml").write_text(zoo(*args).out)
    assert zoo("finetune", "--recipe", "again.toml", "--dry-run", "--json").json["recipe"] == recipe
    assert [p.name for p in Path("runs").iterdir()] == ["a"]


def test_variables(zoo, photos, monkeypatch):
    """Every option has a variable: ZOO_, the command, the option."""
    monkeypatch.setenv("ZOO_FINETUNE_EPOCHS", "1")
    monkeypatch.setenv("ZOO_FINETUNE_BACKBONE", "tiny/net")
    answer = zoo("finetune", photos, "--dry-run", "--json")
    assert answer.json["recipe"]["epochs"] == 1


def test_predict(zoo, photos, run):
    """`predict` prints a line an image, JSON lines or CSV, and on stderr how fast it was."""
    files = [photos / "red" / "00.png", photos / "blue" / "01.png"]
    lines = [json.loads(line) for line in zoo("predict", run, *files, "--json").out.splitlines()]
    assert [line["path"] for line in lines] == list(map(str, files))
    rows = list(csv.DictReader(zoo("predict", run, *files, "--csv").out.splitlines()))
    assert [row["predicted"] for row in rows] == [line["label"] for line in lines]
    assert float(rows[0]["p:red"]) == pytest.approx(lines[0]["probabilities"]["red"], abs=1e-6)
    answer = zoo("predict", run, *files)
    assert [line.split()[0] for line in answer.out.splitlines()] == list(map(str, files))
    assert re.fullmatch(r"zoo: 2 images in .* s: \d+ images a second, the first after .* s\n", answer.err)


def test_predict_with_bad_images(zoo, photos, run):
    """Images that cannot be read are listed at the end with the reason; the exit code is 1 only if all are bad."""
    (photos / "red" / "00.png").write_bytes(b"")
    answer = zoo("predict", run, photos / "red", "--csv")
    rows = list(csv.DictReader(answer.out.splitlines()))
    assert answer.code == 0
    assert len(rows) == 10
    assert [(Path(r["path"]).name, r["predicted"]) for r in rows if r["error"]] == [("00.png", "")]
    first, last = answer.err.splitlines()
    assert first == f"zoo: {photos}/red/00.png: not a readable image: empty file"
    assert "10 images" in last
    assert "1 of them could not be read" in last
    assert len(zoo("predict", run, photos / "red").out.splitlines()) == 9
    answer = zoo("predict", run, photos / "red" / "00.png", "--jsonl")
    assert answer.code == 1
    assert answer.json["error"] == "not a readable image: empty file"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predict_into_a_file(zoo, photos, run, form):
    """`--out` publishes the file whole, in the form that its name or a flag says, and equal to what is printed."""
    out = Path("deep") / f"answers.{form}"
    printed = zoo("predict", run, photos, f"--{form}").out
    answer = zoo("predict", run, photos, "--out", out)
    assert (answer.code, answer.out) == (0, "")
    assert out.read_text() == printed
    assert zoo("predict", run, photos, "--out", "answers.txt", f"--{form}").code == 0
    assert Path("answers.txt").read_text() == printed
    answer = zoo("predict", run, photos, "--out", "answers.doc")
    assert (answer.code, "expected a name ending in .csv or .jsonl" in answer.err) == (2, True)
    assert zoo("predict", run, photos, "--csv", "--jsonl").code == 2
    assert zoo("predict", run, photos, photos / "none.png", "--out", "never.csv").code == 2
    assert sorted(p.name for p in Path("deep").iterdir()) == [out.name]
    assert not list(Path().glob("*never*"))


def test_eval_of_a_table(zoo, photos, run):
    """`eval` reads what `finetune` reads: a table with columns of any name; bad images are listed on stderr."""
    rows = [f"{c}/{i:02d}.png,{c}" for c in ("red", "blue", "green") for i in range(10)]
    (photos / "t.csv").write_text("\n".join(["where,what", *rows, "red/99.png,red"]))
    answer = zoo("eval", run, photos / "t.csv", "--columns", "path=where,label=what", "--json")
    assert answer.code == 0
    assert answer.json["n"] == 30
    assert answer.json["bad"] == {f"{photos}/red/99.png": "No such file or directory"}
    assert f"zoo: {photos}/red/99.png: No such file or directory" in answer.err
    assert answer.json["accuracy"] == zoo("eval", run, photos, "--json").json["accuracy"]


def test_bad_images(zoo, photos):
    """`--on-bad-image fail` stops at a bad image with exit code 1; by default it is listed and left out."""
    (photos / "red" / "00.png").write_bytes(b"")
    args = ("finetune", photos, "-b", "tiny/net", "--epochs", 1, "--json")
    answer = zoo(*args, "--on-bad-image", "fail")
    assert answer.code == 1
    assert "00.png: not a readable image: empty file." in answer.err
    assert not list(Path().glob("runs/*"))
    answer = zoo(*args)
    assert answer.code == 0
    assert list(answer.json["data"]["bad"]) == [str(photos / "red" / "00.png")]


FINETUNE = ("finetune", "photos", "-b", "tiny/net")
MISTAKES = {
    "unknown command": (("finetun",), 2, "no command 'finetun'. Did you mean finetune"),
    "unknown option": (("list", "--nmaes"), 2, "No such option"),
    "unknown backbone": (("show", "tiny/nte"), 2, "unknown backbone 'tiny/nte'. Did you mean tiny/net?"),
    "unknown strategy": ((*FINETUNE, "--freeze", "lats"), 2, "unknown freeze 'lats'. Did you mean last"),
    "unknown field": ((*FINETUNE, "--freeze", "last:stage=2"), 2, "has no field 'stage'. Did you mean stages?"),
    "unknown set": ((*FINETUNE, "--set", "epoch=2"), 2, "unknown field 'epoch'. Did you mean epochs"),
    "bad value": ((*FINETUNE, "--epochs", "many"), 2, "'many' is not a valid integer"),
    "out of range": ((*FINETUNE, "--epochs", "0"), 2, "--epochs 0 trains nothing, which leaves --head linear"),
    "no data": (("finetune", "-b", "tiny/net"), 2, "no data given"),
    "no backbone": (("finetune", "photos"), 2, "no backbone given"),
    "missing data": (("finetune", "nowhere", "-b", "tiny/net"), 2, "nowhere: no such file or folder"),
    "empty folder": (("finetune", "empty", "-b", "tiny/net"), 2, "empty holds no labelled image"),
    "one class": (("finetune", "photos/red", "-b", "tiny/net"), 2, "images directly inside"),
    "no old data": ((*FINETUNE, "--regime", "rehearsal"), 2, "mixes old data in, and none are given"),
    "no run": (("predict", "runs/b", "x.png"), 2, "runs/b is no run"),
    "missing file": (("predict", "runs/a", "x.png"), 2, "x.png: no such file or folder"),
    "run exists": ((*FINETUNE, "--out", "runs/a"), 2, "runs/a is already there"),
    "missing recipe": (("finetune", "--recipe", "no.toml"), 2, "no.toml cannot be read"),
    "no plugin": (("plugins", "--why", "zoo-tyni"), 2, "no plugin 'zoo-tyni'. Did you mean zoo-tiny"),
    "bad columns": (("finetune", "bad.csv", "-b", "tiny/net"), 2, "has the columns a, b; expected path,label"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(zoo, photos, request, mistake):
    """A mistake gives one line on stderr that says what to do, an exit code, nothing on stdout and no traceback."""
    args, code, message = MISTAKES[mistake]
    if "runs/a" in args:
        request.getfixturevalue("run")
    Path("empty").mkdir()
    Path("bad.csv").write_text("a,b\n1,2\n")
    answer = zoo(*args)
    assert answer.code == code
    assert answer.out == ""
    last = answer.err.splitlines()[-1]
    assert last.startswith("zoo: ")
    assert message in last
    assert "Traceback" not in answer.err


def test_missing_weights(zoo, photos, tmp_path):
    """Missing weights are a failure (exit code 1) with what to type."""
    card = {"provider": "tiny", "architecture": "tiny", "sources": [{"uri": "package:tiny_weights/w.safetensors"}]}
    (tmp_path / "registry.json").write_text(json.dumps({"schema": 1, "cards": {"tiny/net": card}}))
    answer = zoo("finetune", photos, "-b", "tiny/net")
    assert answer.code == 1
    assert "Type: pip install tiny-weights (or --weights none for random weights)." in answer.err
    assert zoo("finetune", photos, "-b", "tiny/net", "--weights", "none", "--epochs", 1).code == 0


def test_a_broken_plugin(zoo, tmp_path):
    """A broken plugin is one line on stderr; `plugins` gives the reason, `plugins --why` the traceback."""
    info = tmp_path / "site" / "zoo_bad-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-bad\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[zoo]\nbad = zoo_bad_plugin\n")
    (tmp_path / "site" / "zoo_bad_plugin.py").write_text("print('noise')\nraise SystemExit('not today')\n")
    answer = zoo("list", "tiny/", "--json")
    assert answer.code == 0
    assert [card["name"] for card in answer.json] == ["tiny/net"]
    assert "zoo: plugin zoo-bad is broken and left out: SystemExit: not today." in answer.err
    found = {p["distribution"]: p for p in zoo("plugins", "--json").json}
    assert (found["zoo-bad"]["version"], found["zoo-bad"]["error"]) == ("0.3", "SystemExit: not today.")
    assert found["zoo-tiny"]["supplies"] == {"provider": ["tiny"]}
    assert "SystemExit: not today" in zoo("plugins", "--why", "zoo-bad").out
    doctor = zoo("doctor", "--json")
    assert doctor.code == 1
    assert [row["check"] for row in doctor.json if not row["ok"]] == ["plugins"]


def test_a_broken_registry_file(zoo, tmp_path):
    """A registry file that cannot be read is one line on stderr; the other cards are listed."""
    (tmp_path / "registry.json").write_text("{")
    answer = zoo("list", "tiny/", "--json")
    assert answer.code == 0
    assert len(answer.json) == 1
    assert "registry.json is not valid JSON" in answer.err


def test_python_m(installed, tmp_path):
    """`python -m zoo_core` is `zoo`, in a process of its own, with its exit codes and no traceback."""
    command = [sys.executable, "-m", "zoo_core"]
    good = subprocess.run([*command, "list", "-q", "tiny/"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout, good.stderr) == (0, "tiny/net\n", "")
    bad = subprocess.run([*command, "show", "tiny/nett"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("zoo: unknown backbone 'tiny/nett'. Did you mean tiny/net or")
    assert bad.stderr.count("\n") == 1


def test_real_images_and_real_weights(zoo, tmp_path):
    """Real solar cells, real ImageNet weights, a card of the user's own: a linear head beats the majority class."""
    pytest.importorskip("elpv_dataset")
    pytest.importorskip("timm")
    from zoo_core.demo import write_manifest
    from zoo_core.layers import index_path

    with open(write_manifest(tmp_path / "all.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    with open("cells.csv", "w", newline="") as file:
        out = csv.DictWriter(file, ["path", "label"])
        out.writeheader()
        for label in ("defective", "sound"):
            out.writerows([row for row in rows if row["label"] == label][:300:5])
    card = json.loads(index_path().read_text())["cards"]["cnn/tf_efficientnet_lite0.in1k"]
    card["input"] |= {"size": [3, 96, 96]}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "registry.json").write_text(json.dumps({"schema": 1, "cards": {"mine/lite0-96": card}}))
    summary = zoo("finetune", "cells.csv", "-b", "mine/lite0-96", "--out", "cells", "--json").json
    assert summary["data"]["n_train"] + summary["data"]["n_val"] + summary["data"]["n_test"] == 120
    assert summary["freeze"]["depth"] == 9
    majority = summary["baselines"]["majority"]["balanced_accuracy"]
    assert summary["test"]["balanced_accuracy"] > majority + 0.1
    assert summary["test"]["auroc"] > 0.6
