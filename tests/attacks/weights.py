"""Hostile weights files: safetensors headers that lie about lengths, offsets, shapes and types, and pickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from beyond import Attack


def packed(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, as JSON or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def one(**fields: object) -> dict[str, object]:
    """A header of one tensor, with fields replaced."""
    return {"0.0.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x10\0\0",
    "length-zero": packed({}, length=0),
    "length-huge": packed({}, length=1 << 62),
    "length-all-ones": packed({}, length=(1 << 64) - 1),
    "length-just-over": packed(one(), length=100_000_001),
    "length-beyond-file": packed(one(), b"\0" * 4, length=5_000),
    "no-json": packed(b"\x80\x05cposix\nsystem\n", b"\0" * 4),
    "list": packed([1, 2], b"\0" * 4),
    "null": packed(b"null"),
    "not-utf8": packed(b'{"\xff\xfe": 1}'),
    "nul": packed(b"\0" * 64),
    "deep": packed(b"[" * 100_000),
    "deep-objects": packed(b'{"a":' * 50_000),
    "twice": packed(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"\0" * 4,
    ),
    "overlap": packed({"a": one()["0.0.weight"], "b": one()["0.0.weight"]}, b"\0" * 4),
    "hole": packed(one(data_offsets=[4, 8]), b"\0" * 8),
    "tail": packed(one(), b"\0" * 64),
    "offsets-reversed": packed(one(data_offsets=[4, 0]), b"\0" * 4),
    "offsets-negative": packed(one(data_offsets=[-4, 0]), b"\0" * 4),
    "offsets-beyond": packed(one(data_offsets=[0, 1 << 40], shape=[1 << 38]), b"\0" * 4),
    "offsets-float": packed(one(data_offsets=[0.0, 4.0]), b"\0" * 4),
    "offsets-one": packed(one(data_offsets=[0]), b"\0" * 4),
    "offsets-many": packed(one(data_offsets=[0, 4, 8]), b"\0" * 4),
    "shape-overflow": packed(one(shape=[1 << 32, 1 << 32, 4]), b"\0" * 4),
    "shape-huge": packed(one(shape=[(1 << 64) - 1]), b"\0" * 4),
    "shape-negative": packed(one(shape=[-1]), b"\0" * 4),
    "shape-text": packed(one(shape="1"), b"\0" * 4),
    "shape-zero-huge": packed(one(shape=[0, 1 << 62], data_offsets=[0, 0])),
    "shape-many": packed(one(shape=[1] * 10_000), b"\0" * 4),
    "shape-other": packed(one(shape=[2]), b"\0" * 4),
    "dtype-unknown": packed(one(dtype="F31"), b"\0" * 4),
    "dtype-object": packed(one(dtype="O"), b"\0" * 4),
    "dtype-list": packed(one(dtype=["F32"]), b"\0" * 4),
    "dtype-bool": packed(one(dtype="BOOL"), b"\xff" * 4),
    "dtype-sub-byte": packed(one(dtype="F4"), b"\0" * 4),
    "dtype-other": packed(one(dtype="I32"), b"\0" * 4),
    "field-missing": packed({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "metadata-number": packed({"__metadata__": {"order": 1}}),
    "metadata-list": packed({"__metadata__": []}),
    "order-no-json": packed({"__metadata__": {"order": "["}} | one(), b"\0" * 4),
    "order-number": packed({"__metadata__": {"order": "1"}} | one(), b"\0" * 4),
    "order-strange": packed({"__metadata__": {"order": '["nobody"]'}} | one(), b"\0" * 4),
    "order-deep": packed({"__metadata__": {"order": "[" * 100_000}} | one(), b"\0" * 4),
    "name-control": packed({"\x1b[2J\n\r": one()["0.0.weight"]}, b"\0" * 4),
    "name-long": packed({"a" * 1_000_000: one()["0.0.weight"]}, b"\0" * 4),
    "name-empty": packed({"": one()["0.0.weight"]}, b"\0" * 4),
    "name-dunder": packed({"__class__.__init__": one()["0.0.weight"]}, b"\0" * 4),
    "many": packed({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}),
    "nothing": packed({}),
}
PICKLE = b"cposix\nsystem\n(S'touch ../escaped'\ntR."

LINES = ("register mine/w --like tiny/net --weights x.safetensors", "show mine/w", "verify mine/w")
LINES += ("finetune photos -b mine/w --epochs 1 --device cpu --out out", "export run --to safetensors --out e")


def attacks() -> Iterator[Attack]:
    """Each as weights to register, load and train on."""
    for name, content in HEADERS.items():
        yield Attack(f"weights-{name}", lambda p, c=content: (p / "x.safetensors").write_bytes(c), LINES)
    yield Attack("weights-nan", _nan, LINES)
    for name, make in {"pickle": _pickle, "zip": _zip, "zip-bomb": _bomb}.items():
        lines = [line.replace("x.safetensors", "x.pth") for line in LINES]
        yield Attack(f"weights-{name}", lambda p, make=make: make(p / "x.pth"), lines)


def _pickle(path: Path) -> None:
    path.write_bytes(PICKLE)


def _zip(path: Path) -> None:
    """As `torch.save` writes, with a pickle that starts a process."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("x/data.pkl", PICKLE)
        out.writestr("x/version", "3\n")
        out.writestr("x/../../../escaped", "x")


def _bomb(path: Path) -> None:
    """A small zip whose one member is gigabytes of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open("x/data.pkl", "w", force_zip64=True) as file:
        for _ in range(256):
            file.write(bytes(1 << 20))


def _nan(project: Path) -> None:
    """The tiny network with weights that are no numbers."""
    whole = (project / "w.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    body = whole[8 + length :]
    (project / "x.safetensors").write_bytes(whole[: 8 + length] + b"\xff" * len(body))
