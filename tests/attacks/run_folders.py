"""Hostile run folders: plans, summaries, labels, answers, tensors and checkpoints, all with digests put right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from beyond import Attack
from weights import HEADERS, PICKLE

LINES = (
    "predict run photos/red",
    "report run --out page.html",
    "runs show run",
    "eval run photos",
    "runs ls .",
    "runs diff run run",
    "export run --to safetensors --out e",
    "register mine/again --from-run run",
)
WRONG: dict[str, Any] = {
    "null": None,
    "text": "x",
    "list": [],
    "object": {},
    "negative": -1,
    "huge": 10**12,
    "nested": [[{}]],
}
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "plan.json": {
        "phases": ("text", "null"),
        "frozen": ("huge", "nested", "list"),
        "saved_from": ("negative", "text"),
        "depth": ("negative", "huge", "text"),
        "head": ("object", "text", "null"),
        "head_dim": ("huge", "negative", "text"),
        "numbers": ("object", "text"),
        "calibration": ("object", "text"),
        "evidence": ("text", "nested"),
        "reader": ("text", "nested"),
        "schedule": ("null",),
        "frozen_digest": ("null",),
    },
    "summary.json": {
        "run": ("object",),
        "test": ("null", "list"),
        "baselines": ("text", "nested"),
        "freeze": ("null", "text"),
        "seconds": ("text", "object"),
        "data": ("null", "object"),
        "cache": ("list",),
        "learning_curve": ("text", "nested"),
        "resolution": ("null", "object"),
        "schedule": ("text",),
        "calibration": ("null",),
        "old": ("null", "text", "object"),
        "repeats": ("text",),
        "operating_point": ("text", "object"),
    },
    "labels.json": {"classes": ("null", "text", "object", "nested", "list"), "task": ("huge", "text")},
    "card.json": {"card": ("null", "list", "object"), "name": ("null", "object")},
}
BYTES: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "nan": b'{"a": NaN}',
    "twice": b'{"a": 1, "a": 2}',
    "pickle": PICKLE,
    "zeros": bytes(1000),
}
ANSWERS: dict[str, str | bytes] = {
    "empty": "",
    "heading": "path,label,predicted,p:blue,p:green,p:red\n",
    "other-heading": "a\n1\n",
    "cells": "path,label,predicted,p:blue,p:green,p:red\nx,red\n",
    "numbers": "path,label,predicted,p:blue,p:green,p:red\nx.png,red,blue,a,b,c\n",
    "nan": "path,label,predicted,p:blue,p:green,p:red\nx.png,red,blue,nan,inf,-1e999\n",
    "strange-label": "path,label,predicted,p:blue,p:green,p:red\nx.png,<script>,{{7*7}},0.1,0.2,0.7\n",
    "bait": "path,label,predicted,p:blue,p:green,p:red\n../outside/secret.txt,red,blue,0.9,0.05,0.05\n",
    "device": "path,label,predicted,p:blue,p:green,p:red\n/dev/zero,red,blue,0.9,0.05,0.05\n",
    "control": 'path,label,predicted,p:blue,p:green,p:red\n"\x1b[2J\n\u202e",red,blue,0.9,0.05,0.05\n',
    "zero-bytes": b"\0" * 1000,
    "huge-cell": "path,label,predicted,p:blue,p:green,p:red\n" + "a" * 1_000_000 + ",red,blue,1,0,0\n",
}


def attacks() -> Iterator[Attack]:
    """Each as a run that somebody sent, and as one that was stopped."""
    for file, fields in FIELDS.items():
        for name, kinds in fields.items():
            for kind in kinds:
                yield _attack(f"{file}-{name}-{kind}", _json(file, name, WRONG[kind]))
            yield _attack(f"{file}-{name}-missing", _json(file, name, ...))
    for file in ("plan.json", "summary.json", "labels.json", "card.json", "metrics.jsonl", "recipe.toml", "COMMIT"):
        for kind, content in BYTES.items():
            yield _attack(f"{file}-{kind}", _bytes(file, content))
    for name, answers in ANSWERS.items():
        yield _attack(
            f"predictions-{name}",
            _bytes("predictions.csv", answers if isinstance(answers, bytes) else answers.encode()),
        )
    for name in ("length-huge", "deep", "overlap", "offsets-beyond", "nothing", "many", "name-long", "dtype-other"):
        yield _attack(f"model-{name}", _bytes("model.safetensors", HEADERS[name]))
    yield _attack("model-pickle", _bytes("model.safetensors", PICKLE))
    yield _attack("labels-many", _json("labels.json", "classes", [f"c{i}" for i in range(100_000)]))
    yield _attack("labels-markup", _json("labels.json", "classes", ["<script>alert(1)</script>", "\x1b[2J", "\u202e"]))
    yield _attack("commit-climbs", _commit({"../outside/secret.txt": "0" * 64}))
    yield _attack("commit-list", _commit([]))
    yield _attack("commit-wrong", _commit({"plan.json": "0" * 64}))
    for kind in ("pipe", "device", "loop", "folder", "huge"):
        for file in ("plan.json", "model.safetensors", "predictions.csv"):
            yield _attack(f"{file}-is-{kind}", _odd(file, kind))
    lines = ("finetune --resume run", "runs ls .")
    for name, make in CHECKPOINTS.items():
        yield Attack(f"run-checkpoint-{name}", make, lines)


def _attack(name: str, make: Callable[[Path], object]) -> Attack:
    from names import check_pages

    def made(project: Path) -> None:
        make(project / "run")

    return Attack(f"run-{name}", made, LINES, check_pages, reads=name == "predictions-bait")  # to compare digests


def commit(run: Path) -> None:
    """Digests of the files as they are now: whoever sends a run sends its COMMIT."""
    files = {}
    for path in sorted(run.iterdir()):
        if path.is_file() and path.stat().st_size < 1 << 30 and path.name not in ("COMMIT", "report.html"):
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (run / "COMMIT").write_text(json.dumps({"format": 1, "files": files}))


def _json(file: str, name: str, value: Any) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        found = json.loads((run / file).read_text())
        found.pop(name, None)
        if value is not ...:
            found[name] = value
        (run / file).write_text(json.dumps(found))
        commit(run)

    return make


def _bytes(file: str, content: bytes) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / file).write_bytes(content)
        if file != "COMMIT":
            commit(run)

    return make


def _commit(files: Any) -> Callable[[Path], None]:
    return lambda run: (run / "COMMIT").write_text(json.dumps({"format": 1, "files": files}))


def _odd(file: str, kind: str) -> Callable[[Path], None]:
    from tables import _odd

    def make(run: Path) -> None:
        (run / file).unlink()
        _odd(run / file, kind)

    return make


def _unfinished(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A run that was stopped, with a checkpoint of two files, changed."""

    def make(project: Path) -> None:
        folder = project / "run.unfinished"
        step = folder / "progress" / "fit" / "0-000000-000001"
        step.mkdir(parents=True)
        shutil.copy(project / "run" / "recipe.toml", folder)
        (folder / "progress" / "facts.json").write_text("{}")
        (step / "state.json").write_text(json.dumps({"about": {}, "at": {}, "watch": {}, "average_steps": 0}))
        shutil.copy(project / "run" / "model.safetensors", step)
        commit(step)
        shutil.rmtree(project / "run")
        change(folder)

    return make


def _state(value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        step = folder / "progress" / "fit" / "0-000000-000001"
        (step / "state.json").write_text(json.dumps(value))
        commit(step)

    return change


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "as-it-is": _unfinished(lambda folder: None),
    "state-list": _unfinished(_state([])),
    "state-empty": _unfinished(_state({})),
    "state-at-text": _unfinished(_state({"about": {}, "at": "x", "watch": {}, "average_steps": 0})),
    "state-at-unknown": _unfinished(_state({"about": {}, "at": {"__class__": 1}, "watch": {}, "average_steps": 0})),
    "state-at-step": _unfinished(_state({"about": {}, "at": {"step": 10**12, "phase": 0}, "watch": {}})),
    "state-phase": _unfinished(_state({"about": {}, "at": {"phase": 99, "last": -1}, "watch": {}, "average_steps": 0})),
    "state-history": _unfinished(_state({"about": {}, "at": {"history": "x"}, "watch": {}, "average_steps": 0})),
    "state-about": _unfinished(_state({"about": {"attempt": "../../../escaped"}, "at": {}, "watch": {}})),
    "facts-list": _unfinished(lambda folder: (folder / "progress" / "facts.json").write_text("[]")),
    "facts-pickle": _unfinished(lambda folder: (folder / "progress" / "facts.json").write_bytes(PICKLE)),
    "evidence": _unfinished(lambda folder: (folder / "progress" / "evidence.json").write_text('{"trials": 1}')),
    "recipe-other": _unfinished(lambda folder: (folder / "recipe.toml").write_text("x")),
    "link-out": _unfinished(lambda folder: os.symlink("../../outside", folder / "progress" / "other")),
}
