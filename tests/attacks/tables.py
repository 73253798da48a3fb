"""Hostile tables and shards: CSV, TSV, JSON lines, Parquet, tar and saved data sets that lie about what they hold."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from beyond import Attack

LINES = ("audit {}", "audit {} --json", "finetune {} -b tiny/net --epochs 1 --device cpu --out out", "eval run {}")
ROWS = "".join(f"photos/{label}/{i:02}.png,{label}\n" for label in ("blue", "green", "red") for i in range(3))
FINE = "path,label\n" + ROWS


def json_rows(label: str = '"{}"') -> str:
    """The same as JSON lines."""
    return "".join(
        f'{{"path": "photos/{c}/{i:02}.png", "label": {label.format(c)}}}\n' for c in ("blue", "red") for i in range(3)
    )


CSV: dict[str, str | bytes] = {
    "empty": "",
    "header-only": "path,label\n",
    "zero-bytes": b"path,label\n\0\0\0,\0\n",
    "utf16": FINE.encode("utf-16"),
    "latin1": FINE.encode() + b"photos/\xe9.png,\xe9\n",
    "bom-twice": "\ufeff\ufeff" + FINE,
    "open-quote": 'path,label\n"' + ROWS * 2_000,
    "huge-cell": "path,label\n" + "a" * 5_000_000 + ",red\n",
    "many-columns": ",".join(f"c{i}" for i in range(20_000)) + "\n" + ROWS,
    "many-cells": "path,label\n" + "a," * 100_000 + "\n",
    "columns-twice": "path,path,label,label\n" + ROWS,
    "columns-empty": ",,,\n,,,\n",
    "columns-control": "path\x1b[2J,label\x07\n" + ROWS,
    "columns-right-to-left": "path,\u202elebal\n" + ROWS,
    "label-control": FINE + "photos/red/00.png,\x1b]0;owned\x07\x1b[2J\nphotos/red/01.png,\x1b]0;owned\x07\x1b[2J\n",
    "label-newline": FINE + '"photos/red/00.png","a\nb\rc"\n"photos/red/01.png","a\nb\rc"\n',
    "label-markup": FINE + "photos/red/00.png,<script>alert(1)</script>\nphotos/red/01.png,<script>alert(1)</script>\n",
    "label-formula": FINE + "photos/red/00.png,=cmd|' /C calc'!A0\nphotos/red/01.png,=cmd|' /C calc'!A0\n",
    "label-long": FINE + f"photos/red/00.png,{'a' * 100_000}\nphotos/red/01.png,{'a' * 100_000}\n",
    "label-each-other": "path,label\n" + "".join(f"photos/red/00.png,c{i}\n" for i in range(2_000)),
    "label-many": "path,labels\n" + "".join(f"photos/red/0{i % 3}.png,{'|' * 10_000}a{i % 2}\n" for i in range(9)),
    "label-nan": "path,label\n" + "photos/red/00.png,nan\nphotos/red/01.png,1e999\nphotos/red/02.png,0.5\n" * 4,
    "label-huge-number": "path,label\n"
    + "photos/red/00.png,1e308\nphotos/red/01.png,-1e308\nphotos/red/02.png,.5\n" * 4,
    "path-climbs": FINE + "../../../../../../etc/passwd,red\n",
    "path-device": FINE + "/dev/zero,red\n/dev/random,red\n/dev/stdin,red\n",
    "path-proc": FINE + "/proc/self/mem,red\n/proc/kmsg,red\n/proc/self/environ,red\n",
    "path-folder": FINE + "photos,red\n/,red\n",
    "path-zero-byte": b"path,label\n" + b"photos/\x00.png,red\n",
    "path-long": FINE + f"{'a' * 300},red\n{'a/' * 5_000},red\n",
    "path-control": FINE + '"\x1b[2J\x07.png",red\n"a\nb.png",red\n',
    "path-option": FINE + "--force,red\n-rf,red\n",
    "path-url": FINE + "http://localhost:9/x.png,red\nfile:///etc/passwd,red\ndata:image/png;base64;x,red\n",
    "path-user": FINE + "~root/x.png,red\n~nobody-such/x.png,red\n",
    "path-same": "path,label\n" + "photos/red/00.png,red\n" * 20_000,
    "split-strange": "path,label,split\nphotos/red/00.png,red,../x\n",
    "split-all-test": "path,label,split\n" + ROWS.replace("\n", ",test\n"),
    "group-one": "path,label,group\n" + ROWS.replace("\n", ",all\n"),
    "group-control": "path,label,group\n" + ROWS.replace("\n", ",\x1b[2J\n"),
    "pickle": b"cposix\nsystem\n(S'touch ../escaped'\ntR.",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(1_000),
}
JSON: dict[str, str | bytes] = {
    "list": "[1]\n",
    "number": "1e999\n",
    "deep": "[" * 100_000 + "\n",
    "deep-value": '{"path": ' + "[" * 50_000 + "\n",
    "twice": '{"path": "a", "path": "b", "label": "c"}\n',
    "nan": json_rows("NaN"),
    "label-object": json_rows('{{"a": 1}}'),
    "label-list": json_rows('["{}", ["x"]]'),
    "label-null": json_rows("null"),
    "label-true": json_rows("true"),
    "label-huge-integer": json_rows("9" * 5_000),
    "half-surrogate": json_rows('"\\ud800"'),
    "long-line": '{"path": "' + "a" * 3_000_000 + '"}\n',
    "no-newlines": "{" * 3_000_000,
    "keys-many": "".join(f'{{"k{i}": 1}}\n' for i in range(20_000)),
    "path-list": '{"path": ["photos/red/00.png"], "label": "red"}\n',
    "path-control": '{"path": "\\u001b[2J\\u0000", "label": "red"}\n' * 3,
    "label-control": json_rows('"\\u001b[2J{}\\u202e"'),
    "proto": '{"__class__": 1, "path": "photos/red/00.png", "label": "__proto__"}\n' * 3,
}


def attacks() -> Iterator[Attack]:
    """Each audited, trained on, and scored."""
    for name, content in CSV.items():
        yield _table(f"csv-{name}", "t.csv", content)
    for name, content in JSON.items():
        yield _table(f"jsonl-{name}", "t.jsonl", content)
    for name in ("zero-bytes", "label-newline", "open-quote"):
        content = CSV[name]
        text = content if isinstance(content, bytes) else content.encode()
        yield _table(f"tsv-{name}", "t.tsv", text.replace(b",", b"\t"))
    for kind in ("pipe", "device", "loop"):
        yield Attack(f"csv-file-{kind}", lambda p, kind=kind: _odd(p / "t.csv", kind), _lines("t.csv"))
    for kind in ("pipe", "device", "loop", "huge", "folder"):
        make = _image_that_is(kind)
        yield Attack(f"csv-names-{kind}", make, _lines("t.csv"))
    for name, make in TARS.items():
        yield Attack(f"tar-{name}", lambda p, make=make: make(p / "t.tar"), _lines("t.tar"))
    for name, files in SAVED.items():
        yield Attack(f"dataset-{name}", lambda p, files=files: _folder(p / "saved", files), _lines("saved"))
    for name, content in {"empty": b"", "magic": b"PAR1" * 10, "length": b"PAR1" + b"\xff" * 8 + b"PAR1"}.items():
        yield _table(f"parquet-{name}", "t.parquet", content)


def _lines(name: str) -> list[str]:
    return [line.format(name) for line in LINES]


def _table(name: str, file: str, content: str | bytes) -> Attack:
    data = content if isinstance(content, bytes) else content.encode()
    return Attack(name, lambda project: (project / file).write_bytes(data), _lines(file), reads=True)


def _odd(path: Path, kind: str) -> None:
    """No plain small file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with open(path, "wb") as file:
            file.truncate(1 << 40)


def _image_that_is(kind: str) -> Callable[[Path], None]:
    """A good table that names one odd file, and a class folder that holds it."""

    def make(project: Path) -> None:
        _odd(project / "photos" / "red" / "odd.png", kind)
        (project / "t.csv").write_text(FINE + "photos/red/odd.png,red\n")

    return make


def _tar(*members: tuple[tarfile.TarInfo, bytes], cut: int | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as out:
            for info, data in members:
                info.size = info.size or len(data)
                out.addfile(
                    info, io.BytesIO(data + bytes(max(0, info.size - len(data)))) if info.size < 1 << 30 else None
                )
        path.write_bytes(buffer.getvalue()[:cut])

    return make


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def _pax(key: str, value: str) -> tarfile.TarInfo:
    info = _member("red/a.png")
    info.pax_headers = {key: value}
    return info


TARS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(100_000)),
    "gzip": lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(100)),
    "climbs": _tar((_member("../../../escaped.png"), b"x"), (_member("../escaped.cls"), b"red")),
    "absolute": _tar((_member("/tmp/escaped/a.png"), b"x")),
    "link": _tar((_member("red/a.png", tarfile.SYMTYPE, "../../outside/secret.txt"), b"")),
    "hard-link": _tar((_member("red/a.png", tarfile.LNKTYPE, "../../outside/secret.txt"), b"")),
    "device": _tar((_member("red/a.png", tarfile.CHRTYPE), b"")),
    "pipe": _tar((_member("red/a.png", tarfile.FIFOTYPE), b"")),
    "huge": _tar((_member("red/a.png", size=1 << 33), b"")),
    "cut": _tar((_member("red/a.png"), b"x" * 5_000), cut=2_000),
    "control": _tar((_member("red\x1b[2J/a\x07\n.png"), b"x")),
    "label-control": _tar((_member("a.png"), b"x"), (_member("a.cls"), b"\x1b[2J\n")),
    "json-deep": _tar((_member("a.png"), b"x"), (_member("a.json"), b"[" * 100_000)),
    "json-list": _tar((_member("a.png"), b"x"), (_member("a.json"), b"[]")),
    "json-path": _tar((_member("a.png"), b"x"), (_member("a.json"), b'{"path": "../../outside/secret.txt"}')),
    "pax-size": _tar((_pax("size", "-1"), b"x")),
    "pax-huge": _tar((_pax("comment", "a" * 1_000_000), b"x")),
    "many": _tar(*((_member(f"red/{i}.png"), b"x") for i in range(3_000))),
}
SAVED: dict[str, dict[str, bytes]] = {
    "splits-climb": {"dataset_dict.json": b'{"splits": ["../../outside"]}'},
    "splits-number": {"dataset_dict.json": b'{"splits": 1}'},
    "splits-list": {"dataset_dict.json": b'["train"]'},
    "files-climb": {"state.json": b'{"_data_files": [{"filename": "../../outside/secret.txt"}]}'},
    "files-text": {"state.json": b'{"_data_files": "x"}'},
    "files-number": {"state.json": b'{"_data_files": 1}'},
    "state-list": {"state.json": b"[]"},
    "arrow-empty": {"state.json": b'{"_data_files": [{"filename": "a.arrow"}]}', "a.arrow": b""},
    "arrow-rubbish": {"state.json": b'{"_data_files": [{"filename": "a.arrow"}]}', "a.arrow": b"\xff" * 400},
    "arrow-length": {
        "state.json": b'{"_data_files": [{"filename": "a.arrow"}]}',
        "a.arrow": b"\xff\xff\xff\xff\xf8\xff\xff\x7f" + bytes(64),
    },
}


def _folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
