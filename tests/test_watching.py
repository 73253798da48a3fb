"""What loading a plugin does besides loading is noticed, said and undone."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo_core.watching import watched


def test_nothing_to_say():
    """Code that does nothing besides its work leaves no note."""
    with watched() as notes:
        sum(range(10))
    assert notes == []


def test_the_environment(monkeypatch):
    """Variables that were added, changed or removed are named and as they were."""
    monkeypatch.setenv("CHANGED", "a")
    monkeypatch.setenv("REMOVED", "b")
    with watched() as notes:
        os.environ["CHANGED"] = "c"
        os.environ["ADDED_ONE"] = "d"
        del os.environ["REMOVED"]
    assert notes == ["changed the environment (ADDED_ONE, CHANGED, REMOVED); undone."]
    assert (os.environ["CHANGED"], os.environ["REMOVED"]) == ("a", "b")
    assert "ADDED_ONE" not in os.environ


def test_the_working_directory(tmp_path):
    """The working directory is the same afterwards; one that was removed before is no matter."""
    (tmp_path / "other").mkdir()
    with watched() as notes:
        os.chdir("other")
    assert notes == [f"changed the working directory to {tmp_path / 'other'}; undone."]
    assert Path.cwd() == tmp_path
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    with watched() as notes:
        pass
    assert notes == []
    os.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "disturb", "draw"),
    [
        ("random", lambda: random.seed(1), random.random),
        ("numpy.random", lambda: np.random.seed(1), np.random.random),
        ("torch", lambda: torch.manual_seed(1), lambda: float(torch.rand(()))),
    ],
)
def test_random_generators(name, disturb, draw):
    """A global generator that was seeded or drawn from goes on as if nothing had been."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with watched() as notes:
        disturb()
    assert notes == [f"changed the random state of {name}; undone."]
    assert draw() == expected


def test_it_is_undone_after_an_error_too():
    """Code that raises has its traces removed all the same."""

    def careless():
        os.environ["LEFT_BEHIND"] = "1"
        raise OSError("stopped")

    with pytest.raises(OSError, match="stopped"), watched() as notes:
        careless()
    assert notes == ["changed the environment (LEFT_BEHIND); undone."]
    assert "LEFT_BEHIND" not in os.environ


def test_what_asks_stdout_for_more_than_writing(capsys):
    """A stream that was kept, asked for its encoding or flushed works, and leads to stderr."""
    with watched() as notes:
        handler = logging.StreamHandler(sys.stdout)
        assert sys.stdout.encoding
        assert sys.stdout.isatty() is False
        print("now", flush=True)
    handler.emit(logging.LogRecord("a", logging.INFO, "", 0, "later", (), None))
    assert notes == ["prints while it is loaded; that went to stderr."]
    out, err = capsys.readouterr()
    assert (out, err) == ("", "now\nlater\n")


def test_order_on_stdout_is_kept():
    """What was printed before stays on stdout, what anything prints meanwhile does not, what comes after does."""
    code = """
import os, sys
from zoo_core.watching import watched
print("before")
with watched():
    print("python")
    print("past it", file=sys.__stdout__)
    os.write(1, b"descriptor\\n")
    os.system("echo child")
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert sorted(done.stderr.split()) == ["child", "descriptor", "it", "past", "python"]


def test_heavy_imports():
    """A heavy package that was not loaded before is named; one that was is not."""
    code = """
from zoo_core.watching import watched
with watched() as notes:
    import safetensors, numpy
    numpy.random.seed(0)
print(notes, numpy.random.random() == numpy.random.RandomState(0).random())
with watched() as notes:
    import safetensors
print(notes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "imports safetensors at its top" in first
    assert first.endswith("False")  # numpy came with the code inside: its generator is drawn again
    assert second == "[]"


def test_a_process_without_stdout():
    """A process whose stdout is closed, as services have it, can load plugins too."""
    code = "import os, sys\nos.close(1)\nfrom zoo_core.watching import watched\nwith watched() as notes:\n    pass\n"
    code += "print(notes, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"
