"""What a person sees in a terminal: how much is said, and a shell that completes names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from zoo_core.console import epoch_note


def test_quiet(zoo, photos):
    """`zoo --quiet` prints results and errors, and nothing on the way."""
    found = zoo("--quiet", "finetune", photos, "-b", "tiny/net", "--epochs", 1, "--out", "run")
    assert found.code == 0
    assert found.err == ""
    assert "Test side" in found.out
    assert zoo("--quiet", "predict", "run", "nowhere.png").err.count("\n") == 1


def test_how_an_epoch_went(zoo, photos):
    """Where stderr is no terminal, the line that ends the training says loss and validation score of its last epoch."""
    found = zoo("finetune", photos, "-b", "tiny/net", "--epochs", 2, "--out", "run")
    last = [line for line in found.err.splitlines() if line.startswith("Training: 2 done, loss ")]
    assert len(last) == 1
    assert "% right" in last[0]
    assert epoch_note({"train_loss": 0.5}) == "loss 0.500"


def test_verbose(zoo, photos):
    """`zoo --verbose` adds the traceback to the line that every error is."""
    plain, more = (zoo(*given, "show", "tiny/nothing") for given in ((), ("--verbose",)))
    assert "Traceback" not in plain.err
    assert "Traceback" in more.err
    assert more.err.endswith(plain.err)
    assert more.code == plain.code


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(installed, shell):
    """click's script for each shell is what `_ZOO_COMPLETE=SHELL_source zoo` prints."""
    done = subprocess.run(
        ["zoo"], executable=_script(), env={**os.environ, "_ZOO_COMPLETE": f"{shell}_source"}, capture_output=True
    )
    assert b"_ZOO_COMPLETE=" + shell.encode() + b"_complete" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("zoo fine", "finetune"),
        ("zoo finetune photos -b tiny/n", "tiny/net"),
        ("zoo show tiny/n", "tiny/net"),
        ("zoo finetune photos --freeze las", "last"),
        ("zoo finetune photos --regime new", "new-only"),
    ],
)
def test_completion(installed, line, expected):
    """A shell completes commands, backbones and strategies."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_ZOO_COMPLETE": "bash_complete"}
    done = subprocess.run(
        ["zoo"], executable=_script(), env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert f"plain,{expected}" in done.stdout.splitlines()


def _script() -> str:
    """The installed command beside this interpreter."""
    return os.path.join(os.path.dirname(sys.executable), "zoo")
