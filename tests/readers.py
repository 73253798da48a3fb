"""Random files for every reader but those of cards: good files with bytes changed, made by hypothesis.

    python tests/readers.py            # 10,000 files for each reader; prints how many ended in which way
    python tests/readers.py 200 tar    # 200 for one

A reader gives something or raises a `ZooError`; anything else is an error, made smaller by hypothesis and shown.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from zoo_core.errors import ZooError

CARD = {"name": "mine/net", "card": {"provider": "tiny", "architecture": "tiny", "input": {"size": [3, 32, 32]}}}
PLAN = {"depth": 1, "head": "linear", "calibration": {"temperature": 1.5, "thresholds": [0.5], "why": "fitted"}}
PLAN |= {"numbers": {"precision": "fp32", "stored": "fp32"}}
RECIPE = 'data = "photos"\nbackbone = "tiny/net"\nfreeze = "last:2"\nlr = 0.001\nepochs = 3\nbudget = "10m"\n'
TABLE = "path,label,split,group\na.png,red,train,1\nb.png,blue,test,2\nc.png,red,,\n"
LINES = '{"path": "a.png", "label": "red"}\n{"path": "b.png", "label": "blue"}\n{"path": "c.png", "label": 3}\n'
ANSWERS = "path,label,predicted,p:a,p:b\nx.png,a,b,0.25,0.75\ny.png,b,b,0.1,0.9\n"
STATE = {"about": {"attempt": 1}, "at": {"step": 3, "history": []}, "watch": {}, "average_steps": 0}


def saved(form: str, mode: str = "RGB") -> bytes:
    """A small noisy image as the bytes of a file."""
    image = Image.effect_noise((24, 20), 90).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def tar() -> bytes:
    """A shard of two samples."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, data in {"red/a.png": b"x", "b.png": b"y", "b.cls": b"blue", "c.json": b'{"label": "z"}'}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tensors(**metadata: str) -> bytes:
    """A safetensors file of one tensor of two rows."""
    header = {"__metadata__": metadata, "t0": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + np.arange(4, dtype=np.float32).tobytes()


def _recipe(folder: Path, data: bytes) -> object:
    from zoo_core.recipe import Recipe

    return Recipe.load(_put(folder / "r.toml", data)).to_toml()


def _table(ending: str) -> Callable[[Path, bytes], object]:
    def read(folder: Path, data: bytes) -> object:
        from zoo_core.data import look_at

        return look_at(_put(folder / f"t{ending}", data)).classes

    return read


def _image(folder: Path, data: bytes) -> object:
    from zoo_core import decoding

    path = _put(folder / "x.png", data)
    return decoding.decode(path).size, decoding.describe(path).kinds


def _weights(folder: Path, data: bytes) -> object:
    from zoo_core.card import Source
    from zoo_core.weights import read

    return read(_put(folder / "w.safetensors", data), Source("file:w.safetensors")).tensors


def _shelf(folder: Path, data: bytes) -> object:
    from hashlib import sha256

    from zoo_core.shelves import Shelf

    _put(folder / f"{sha256(data).hexdigest()}.safetensors", data)
    shelf = Shelf(folder, "pooled")
    shelf.refresh()
    return shelf.gather(list(shelf.rows)) if shelf.rows else None


def _run(name: str) -> Callable[[Path, bytes], object]:
    good = {
        "card.json": json.dumps(CARD),
        "plan.json": json.dumps(PLAN),
        "labels.json": '{"classes": ["a", "b"]}',
        "audit.json": '{"tested": ["0", "1"]}',
        "recipe.toml": RECIPE,
        "predictions.csv": ANSWERS,
    }

    def read(folder: Path, data: bytes) -> object:
        from zoo_core import answered
        from zoo_core.runs import Run

        for other, text in good.items():
            _put(folder / other, data if other == name else text.encode())
        run = Run(folder, committed=False)
        return run.card, run.plan, run.target, run.calibration, run.recipe, answered.read(run)

    return read


def _checkpoint(folder: Path, data: bytes) -> object:
    from hashlib import sha256

    from zoo_core.checkpoints import Memory

    step = folder / "0-000000-000001"
    step.mkdir(exist_ok=True)
    _put(step / "state.json", data)
    _put(step / "COMMIT", json.dumps({"files": {"state.json": sha256(data).hexdigest()}}).encode())
    return Memory(folder).look()


def _export(folder: Path, data: bytes) -> object:
    from zoo_core.exporting import verify

    return verify(_put(folder / "export.json", data).parent)


def _dataset(folder: Path, data: bytes) -> object:
    from zoo_core.shards import read_saved_dataset

    return read_saved_dataset(_put(folder / "state.json", data).parent, None)


def _spelling(folder: Path, data: bytes) -> object:
    from zoo_core import components
    from zoo_core.plugins import discover

    text = data.decode("utf-8", "replace")
    return components.build(discover([], {}), "freeze" if text.startswith("last") else "head", text)


def _text(folder: Path, data: bytes) -> object:
    from zoo_core import texts

    return texts.look(texts.decode(_put(folder / "x.txt", data)))


def _put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


READERS: dict[str, tuple[Callable[[Path, bytes], object], list[bytes]]] = {
    "recipe": (_recipe, [RECIPE.encode()]),
    "csv": (_table(".csv"), [TABLE.encode(), b"\xef\xbb\xbf" + TABLE.encode()]),
    "tsv": (_table(".tsv"), [TABLE.replace(",", "\t").encode()]),
    "jsonl": (_table(".jsonl"), [LINES.encode()]),
    "tar": (_table(".tar"), [tar()]),
    "dataset": (_dataset, [b'{"_data_files": [{"filename": "a.arrow"}]}']),
    "image": (_image, [*(saved(f) for f in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")), saved("PNG", "LA")]),
    "weights": (_weights, [tensors(), tensors(order='["t0"]')]),
    "shelf": (_shelf, [tensors(names='["a", "b"]', widths="[2]", channels_last="[false]")]),
    "run-card": (_run("card.json"), [json.dumps(CARD).encode()]),
    "run-plan": (_run("plan.json"), [json.dumps(PLAN).encode()]),
    "run-labels": (_run("labels.json"), [b'{"classes": ["a", "b"]}', b'{"task": "regression", "mean": 1, "std": 2}']),
    "run-answers": (_run("predictions.csv"), [ANSWERS.encode()]),
    "run-audit": (_run("audit.json"), [b'{"tested": ["0", "1"]}']),
    "checkpoint": (_checkpoint, [json.dumps(STATE).encode()]),
    "export": (_export, [b'{"to": "onnx", "files": {"model.onnx": "00"}}']),
    "spelling": (_spelling, [b"last:stages=2", b"mlp:hidden=64,dropout=0.1", b"multi-stage:keep=0.1"]),
    "text": (_text, ["Grüße, world".encode()]),
}
"""Name -> what reads a file in a folder of its own, and good files for it."""

EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.binary(max_size=8) | st.sampled_from([b"", b"[" * 200, b"null", b"-1", b"1e999", b'"', b"\0", b"NaN", b","]),
    ),
    max_size=4,
)


def changed(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes dropped and put in at some places."""
    for place, dropped, put in edits:
        at = round(place * len(data))
        data = data[:at] + put + data[at + dropped :]
    return data


def fuzz(name: str, count: int) -> Counter[str]:
    """How often a reader gave something, and how often it raised which error."""
    read, samples = READERS[name]
    ends: Counter[str] = Counter()

    @seed(zlib.crc32(name.encode()))
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(samples), EDITS)
    def one(sample: bytes, edits: list[tuple[float, int, bytes]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                read(Path(folder), changed(sample, edits))
                ends["read"] += 1
            except ZooError as error:
                ends[type(error).__name__] += 1

    one()
    return ends


if __name__ == "__main__":
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"ZOO_CACHE": cache, "ZOO_HOME": cache}
        for reader in sys.argv[2:] or READERS:
            print(json.dumps({"reader": reader, "files": many, **fuzz(reader, many)}), flush=True)
