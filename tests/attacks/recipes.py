"""Hostile recipes: TOML that is none, values out of their range, names that are code, files that never end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from beyond import Attack

GOOD = 'data = "photos"\nbackbone = "tiny/net"\nepochs = 1\ndevice = "cpu"\n'

TEXTS: dict[str, str | bytes] = {
    "empty": "",
    "not-toml": "<!DOCTYPE html><html>",
    "pickle": b"cposix\nsystem\n(S'touch ../escaped'\ntR.",
    "utf16": GOOD.encode("utf-16"),
    "latin1": GOOD.encode() + b'head = "\xe9"\n',
    "bom": "\ufeff" + GOOD,
    "zero-bytes": "\0" * 100,
    "deep-list": "data = " + "[" * 100_000,
    "deep-table": "[" + ".".join(["a"] * 20_000) + "]\n",
    "dotted": ".".join(["a"] * 5_000) + " = 1\n",
    "twice": GOOD + 'data = "photos"\n',
    "table": "[data]\npath = 'photos'\n",
    "list": 'data = ["photos"]\nbackbone = "tiny/net"\n',
    "date": 'data = 1979-05-27T07:32:00Z\nbackbone = "tiny/net"\n',
    "unknown-field": GOOD + "trust_remote_code = true\n",
    "python-field": GOOD + 'hook = "!!python/object/apply:os.system [touch ../escaped]"\n',
    "control": GOOD + 'head = "lin\\u001b[2Jear"\n',
    "control-key": GOOD + '"a\\u001b[2J\\nb" = 1\n',
    "right-to-left": GOOD + 'freeze = "\\u202etsal"\n',
    "long-text": GOOD + f'head = "{"a" * 1_000_000}"\n',
    "long-key": GOOD + f"{'a' * 1_000_000} = 1\n",
    "many-keys": "".join(f"a{i} = 1\n" for i in range(50_000)),
    "huge-integer": GOOD + f"seed = {'9' * 5_000}\n",
    "seed-beyond": GOOD + "seed = 99999999999999999999\n",
    "negative-seed": GOOD + "seed = -1\n",
    "nan-rate": GOOD + "lr = nan\n",
    "infinite-rate": GOOD + "lr = inf\n",
    "infinite-decay": GOOD + "weight_decay = inf\n",
    "nan-share": GOOD + "test_share = nan\n",
    "nan-forgetting": GOOD + "max_forgetting = nan\n",
    "true-epochs": GOOD.replace("epochs = 1", "epochs = true"),
    "huge-epochs": GOOD.replace("epochs = 1", "epochs = 99999999999999999999999"),
    "huge-batch": GOOD + "batch_size = 99999999999999999999999\n",
    "huge-views": GOOD + 'augment = "light"\nviews = 0\n',
    "huge-budget": GOOD + f'budget = "{"9" * 5_000}h"\n',
    "nan-cap": GOOD + "cache_cap = nan\n",
    "freeze-module": GOOD + 'freeze = "os.system:touch"\n',
    "freeze-huge": GOOD + 'freeze = "last:stages=99999999999999999999"\n',
    "freeze-nan": GOOD + 'freeze = "full:layer_decay=nan"\n',
    "freeze-code": GOOD + "freeze = \"last:stages=__import__('os').system('touch ../escaped')\"\n",
    "freeze-empty-field": GOOD + 'freeze = "last:=,=,="\n',
    "head-path": GOOD + 'head = "../evil"\n',
    "head-dunder": GOOD + 'head = "linear:__class__=1"\n',
    "head-hidden-huge": GOOD + 'head = "mlp:hidden=99999999999"\n',
    "regime-module": GOOD + 'regime = "evil:Regime"\n',
    "backbone-climbs": GOOD.replace("tiny/net", "../../outside/secret"),
    "backbone-pattern": GOOD.replace("tiny/net", "*"),
    "device": GOOD.replace('"cpu"', '"cuda:99999999999999999999"'),
    "device-path": GOOD.replace('"cpu"', '"/dev/zero"'),
    "class-weights": GOOD + 'class_weights = "red=nan"\n',
    "class-weights-huge": GOOD + 'class_weights = "red=1e999,blue=-1"\n',
    "training": GOOD + 'training = "clip=nan,ema=2,patience=-1"\n',
    "training-code": GOOD + 'training = "clip=exec(1)"\n',
    "columns": GOOD + 'columns = "path=\\u0000,label="\n',
    "data-zero-byte": GOOD.replace('"photos"', '"pho\\u0000tos"'),
    "data-long": GOOD.replace('"photos"', f'"{"a/" * 100_000}"'),
    "data-device": GOOD.replace('"photos"', '"/dev/zero"'),
    "data-user": GOOD.replace('"photos"', '"~nobody-of-that-name/photos"'),
    "old-zero-byte": GOOD + 'old = "\\u0000"\n',
    "cache-zero-byte": GOOD + 'cache = "a\\u0000b"\n',
}


def attacks() -> Iterator[Attack]:
    """Each recipe planned, run, and begun again."""
    lines = ("finetune --recipe r.toml --dry-run", "finetune --recipe r.toml --out out", "plan --recipe r.toml")
    for name, text in TEXTS.items():
        yield Attack(f"recipe-{name}", lambda project, text=text: _write(project / "r.toml", text), lines)
    for kind in ("folder", "pipe", "device", "loop", "huge"):
        yield Attack(f"recipe-file-{kind}", lambda project, kind=kind: _odd(project / "r.toml", kind), lines)


def _write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _odd(path: Path, kind: str) -> None:
    """No plain small file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        with open(path, "wb") as file:
            file.truncate(8 << 30)
