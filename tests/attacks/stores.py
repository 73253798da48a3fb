"""Hostile bundles, exports, cache entries and notes: what somebody carried here, or another user wrote."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from beyond import Attack
from weights import HEADERS, PICKLE, packed

BUNDLE_LINES = ("bundle --from stick", "show mine/net", "verify mine/net")
EXPORT_LINES = ("verify e",)
CACHE_LINES = ("finetune photos -b tiny/net --freeze last:1 --epochs 1 --device cpu --cache boundary --out out",)
CARD = {"provider": "tiny", "architecture": "tiny", "input": {"size": [3, 32, 32]}}


def attacks() -> Iterator[Attack]:
    """Bundles are opened, exports verified, caches used by a run."""
    for name, cards in BUNDLES.items():
        yield Attack(f"bundle-{name}", lambda p, cards=cards: _bundle(p, cards), BUNDLE_LINES)
    for name, content in {"deep": b"[" * 100_000, "pickle": PICKLE, "empty": b"", "nan": b'{"cards": NaN}'}.items():
        yield Attack(f"bundle-cards-{name}", lambda p, c=content: _raw(p / "stick" / "cards.json", c), BUNDLE_LINES)
    for kind in ("link", "pipe", "loop"):
        yield Attack(f"bundle-cards-is-{kind}", lambda p, k=kind: _odd(p / "stick" / "cards.json", k), BUNDLE_LINES)
    for name, manifest in EXPORTS.items():
        yield Attack(f"export-{name}", lambda p, m=manifest: _export(p / "e" / "export.json", m), EXPORT_LINES)
    for name, content in SHARDS.items():
        yield Attack(f"shard-{name}", lambda p, c=content: _shards(p, c), CACHE_LINES)
    for name, content in NOTES.items():
        yield Attack(f"cache-about-{name}", lambda p, c=content: _abouts(p, c), CACHE_LINES)
        yield Attack(f"cache-scan-{name}", lambda p, c=content: _scans(p, c), CACHE_LINES)


def _source(uri: str, sha: str = "0" * 64) -> dict[str, Any]:
    return {"mine/net": CARD | {"sources": [{"uri": uri, "sha256": sha}]}}


BUNDLES: dict[str, dict[str, Any]] = {
    "climbs": _source("store:../../../outside/secret"),
    "absolute": _source("store:/etc/passwd"),
    "file": _source("file:../outside/secret.txt"),
    "package": _source("package:evil/w.safetensors"),
    "pickle": _source(f"store:{hashlib.sha256(PICKLE).hexdigest()}", hashlib.sha256(PICKLE).hexdigest()),
    "missing": _source(f"store:{'0' * 64}"),
    "wrong-digest": _source(f"store:{'1' * 64}", "1" * 64),
    "no-source": {"mine/net": CARD},
    "name-climbs": {"../../escaped": CARD},
    "name-control": {"mine/\x1b[2J": CARD},
    "takes-a-name": {"tiny/net": CARD},
    "tokenizer-climbs": {
        "mine/net": _source(f"store:{'1' * 64}", "1" * 64)["mine/net"]
        | {"modality": "text", "text": {"tokenizer": "file:../outside/secret.txt"}}
    },
    "needs": {"mine/net": CARD | {"package": "--index-url=http://localhost:9 evil"}},
}
EXPORTS: dict[str, bytes | dict[str, Any]] = {
    "list": b"[]",
    "empty": b"{}",
    "files-climb": {"to": "onnx", "files": {"../outside/secret.txt": "0" * 64}},
    "files-control": {"to": "onnx", "files": {"\x1b[2J": "0" * 64}},
    "files-list": {"to": "onnx", "files": ["x"]},
    "form-unknown": {"to": "os.system", "files": {}},
    "nothing-there": {"to": "safetensors", "files": {}, "scale": 1, "tolerance": 1},
    "deep": b"[" * 100_000,
}
NAMES = {"__metadata__": {"names": "[]", "widths": "[]", "channels_last": "[]"}}
SHARDS: dict[str, bytes] = {
    "empty": b"",
    "pickle": PICKLE,
    "length-huge": HEADERS["length-huge"],
    "deep": HEADERS["deep"],
    "no-metadata": packed({"t0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "nothing": packed(NAMES),
    "names-no-json": packed({"__metadata__": {"names": "[", "widths": "[]", "channels_last": "[]"}}),
    "names-number": packed({"__metadata__": {"names": "1", "widths": "1", "channels_last": "1"}}),
    "names-deep": packed({"__metadata__": {"names": "[" * 90_000, "widths": "[]", "channels_last": "[]"}}),
    "names-more-than-rows": packed(
        {
            "__metadata__": {"names": '["a", "b"]', "widths": "[1]", "channels_last": "[false]"},
            "t0": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        },
        bytes(4),
    ),
    "other-names": packed(
        {
            "__metadata__": {"names": '["a"]', "widths": "[1]", "channels_last": "[false]"},
            "x": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        },
        bytes(4),
    ),
}
NOTES: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "number": b"1",
    "deep": b"[" * 100_000,
    "pickle": PICKLE,
    "nan": b'{"a": NaN}',
    "not-utf8": b"\xff\xfe\x00",
    "strange": b'{"kind": [], "depth": "x", "architecture": "tiny", "a": [1, 2]}',
}


def _export(path: Path, content: bytes | dict[str, Any]) -> None:
    """With its seal put right, where it can have one."""
    from zoo_core.sealed import seal

    _raw(path, content if isinstance(content, bytes) else json.dumps(seal(content)).encode())


def _raw(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _bundle(project: Path, cards: dict[str, Any]) -> None:
    weights = project / "stick" / "weights"
    weights.mkdir(parents=True)
    (weights / f"{hashlib.sha256(PICKLE).hexdigest()}.safetensors").write_bytes(PICKLE)
    (weights / f"{'1' * 64}.safetensors").write_bytes(HEADERS["nothing"])
    (project / "stick" / "cards.json").write_text(json.dumps({"schema": 1, "cards": cards}))


def _odd(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else "../../outside/secret.json")


def _cache(project: Path) -> Path:
    """The cache that the finished run filled, as this project's."""
    cache = Path(os.environ["ZOO_CACHE"])
    shutil.copytree(project / "cache", cache, dirs_exist_ok=True)
    return cache


def _shards(project: Path, content: bytes) -> None:
    """On every shelf the shards are gone, and one lies there that carries its own right digest."""
    for about in _cache(project).glob("activations/*/about.json"):
        for shard in about.parent.glob("*.safetensors"):
            shard.unlink()
        (about.parent / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)


def _abouts(project: Path, content: bytes) -> None:
    """The notes of all shelves, whose shards are gone; and a shelf that has the name that its note gives it."""
    from zoo_core.upkeep import key_of

    names = ["0" * 32]
    with suppress(ValueError, RecursionError):
        names.append(key_of(json.loads(content)))
    for about in list(_cache(project).glob("activations/*/about.json")):
        about.write_bytes(content)
        for shard in about.parent.glob("*.safetensors"):
            shard.unlink()
        for name in names:
            about.parent.with_name(name).mkdir(exist_ok=True)
            (about.parent.with_name(name) / "about.json").write_bytes(content)


def _scans(project: Path, content: bytes) -> None:
    """Notes of a scan that have their own right digest: one of nonsense, one that says what cannot be."""
    for note in list(_cache(project).glob("scan/*/*.json")):
        found = json.loads(note.read_text())
        note.unlink()
        lies = json.dumps({sha: [f"{i:064x}", "no look"] for i, sha in enumerate(found)}).encode()
        for text in (content, lies):
            note.with_name(f"{hashlib.sha256(text).hexdigest()}.json").write_bytes(text)
