"""Hostile and random files: nothing gets out, nothing ends in a traceback or moves the terminal's cursor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "attacks" / "run.py"


def test_hostile_registry_files(installed):
    """Over a hundred hostile registry files, each against the whole command line: 0 escapes, 0 tracebacks."""
    command = [sys.executable, str(RUN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)  # one may wait for ever
    assert done.stdout, done.stderr
    *rows, totals = map(json.loads, done.stdout.splitlines())
    wrong = [row for row in rows if row["escapes"] or row["tracebacks"] or row["unclean"]]
    assert wrong == []
    assert totals["files"] == len(rows) > 100
    assert done.returncode == 0, done.stderr


def test_fuzzed_registry_files(installed):
    """Random registry and card files, in every place where zoo reads such files: cards or one clean line each."""
    command = [sys.executable, str(RUN.with_name("fuzz.py")), "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] >= 100
    assert found["cards_read"] > 10 < found["refusals"]


def test_the_watch_sees_an_escape(installed, tmp_path):
    """The check can fail: a read of the bait, a write outside, a started process and an evil import are all seen."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "import os, subprocess, run\n"
        "watch = run.Watch(); sys.addaudithook(watch); box = sys.argv[1]; run._box(run.Path(box)); watch.box = box\n"
        "open(box + '/outside/secret.txt'); open(box + '/escaped', 'w'); sys.path.insert(0, box)\n"
        "os.mkdir(box + '/more'); subprocess.run(['true']); os.chdir(box + '/project'); import evil\n"
        "watch.box = ''; print('\\n'.join(watch.escapes))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "box"), str(RUN.parent), str(RUN.parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for seen in ("secret.txt to read", "escaped to write", "os.mkdir", "subprocess.Popen", "import evil"):
        assert seen in done.stdout, done.stdout


KINDS = {
    "recipe-|run-|weights-": 17,
    "csv-|jsonl-|tsv-|tar-|dataset-|parquet-|class-|file-|image-|bundle-|export-|shard-|cache-": 15,
}
"""Names of attacks on everything but the registry, and how many a test makes at least."""


@pytest.mark.parametrize("kinds", KINDS)
def test_hostile_inputs(installed, kinds):
    """Hostile inputs of every kind end in one clear error: 0 escapes, 0 tracebacks, memory and time bounded.

    Here every sixteenth of them meets the most telling command; `make attacks` types every command against each.
    """
    command = [sys.executable, str(RUN.with_name("beyond.py")), kinds, "1", "16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)  # one may wait for ever
    assert done.stdout, done.stderr
    *rows, totals = map(json.loads, done.stdout.splitlines())
    wrong = [row for row in rows if row["escapes"] or row["tracebacks"] or row["unclean"] or row["wrong"]]
    assert wrong == []
    assert totals["inputs"] == len(rows) >= KINDS[kinds]
    assert done.returncode == 0, done.stderr
