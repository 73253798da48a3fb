"""Random registry and card files, made by hypothesis, read in every way that zoo reads such files.

    python tests/attacks/fuzz.py            # 10,000 files; prints how many, escapes, tracebacks
    python tests/attacks/fuzz.py 200

Each file is the project's `registry.json`, an entry that was registered, the cards of an installed plugin and the cards
of a bundle. Whatever it holds, reading it gives cards or a `ZooError` of one printable line; an audit hook sees
that nothing outside of the project is opened or started. A file that breaks this is made smaller and shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from run import HERE, Watch, _box, _zoo

HOSTILE = (
    "file:../outside/secret.txt file:/etc/passwd file:link.safetensors file:evil.pth file:w.safetensors file: "
    "package:evil/w.safetensors package:../evil/x package:os/path package:zoo_tiny/tiny.safetensors "
    "hf:a/b/../../c hf:--flag/x/y hf:a hf:../../x/y store:../../outside/secret store:* store:" + "0" * 64
).split()
WORDS = st.sampled_from(
    [*HOSTILE, "", "tiny", "tiny/net", "mine/net", "../x", "open", "closed", "MIT", "text", "\x1b[2J", "a" * 300]
)
TEXTS = WORDS | st.text(max_size=30)
URIS = WORDS | st.builds(str.__add__, st.sampled_from(["file:", "package:", "hf:", "store:", "file:/"]), TEXTS)
DEEP = "nested deeply"
"""Becomes a value of very many brackets."""
NUMBERS = st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 3, 224, 65537, 2**53]) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.just(DEEP),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)


def mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """What is expected, and one time in twelve something else: most files shall be read, not refused at once."""
    return st.integers(0, 11).flatmap(lambda die: right if die else wrong)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, now and then with others, or no object at all."""
    plain = st.fixed_dictionaries({}, optional=fields)
    return mostly(plain, VALUES | st.builds(lambda a, b: a | b, plain, st.dictionaries(TEXTS, VALUES)))


COUNTS = mostly(st.integers(0, 2**53 - 1), NUMBERS)
SIZE = mostly(st.lists(st.integers(1, 65536), min_size=2, max_size=2).map(lambda sides: [3, *sides]))
THREE = mostly(st.lists(st.floats(1e-3, 10), min_size=3, max_size=3), st.lists(NUMBERS, max_size=4))
TEXT = mostly(TEXTS)
FACET = record(mark=mostly(st.sampled_from(["open", "restricted", "closed", "unknown"])), licence=TEXT, name=TEXT)
SHA256 = mostly(st.sampled_from(["0" * 64, ""]))
SOURCE = record(sha256=SHA256, size_bytes=COUNTS, mapping=mostly(st.sampled_from(["by-name", "by-order"])))
CARD = st.builds(
    lambda base, more: base | more if isinstance(more, dict) else more,
    st.just({"provider": "tiny", "architecture": "tiny"}),
    record(
        provider=TEXT,
        architecture=TEXT,
        package=TEXT,
        modality=mostly(st.sampled_from(["image", "text", "audio"])),
        parameters=COUNTS,
        feature_dim=COUNTS,
        input=record(
            size=SIZE, mean=THREE, std=THREE, interpolation=mostly(st.just("bicubic")), crop=mostly(st.just(0.9))
        ),
        text=record(length=COUNTS, pooling=mostly(st.just("mean")), padding=mostly(st.just("left")), tokenizer=TEXT),
        config=mostly(st.dictionaries(TEXTS, VALUES, max_size=3)),
        stages=mostly(st.lists(TEXTS, max_size=3, unique=True)),
        classifier=mostly(st.lists(TEXTS, max_size=2)),
        sources=mostly(
            st.lists(
                st.builds(
                    lambda uri, more: more | {"uri": uri} if isinstance(more, dict) else more, mostly(URIS), SOURCE
                ),
                max_size=3,
            )
        ),
        openness=record(code=FACET, weights=FACET, data=FACET),
        parent=mostly(st.sampled_from(["", "mine/net", "tiny/net"])),
        sibling=mostly(st.sampled_from(["", "tiny/net"])),
        missing=TEXT,
        notes=TEXT,
    ),
)
NAMES = mostly(st.sampled_from(["mine/net", "mine/other", "tiny/net", "cnn/resnet18.a1_in1k"]), TEXTS)
FILE = st.builds(
    lambda frame, more: frame | more,
    st.fixed_dictionaries(
        {
            "schema": mostly(st.just(1), st.sampled_from([0, 2, "1", 1.0, True])),
            "cards": mostly(st.dictionaries(NAMES, CARD, min_size=1, max_size=3)),
        }
    ),
    mostly(st.just({}), st.dictionaries(TEXTS, VALUES, max_size=2)),
)
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"["]))


def written(value: Any, lines: bool, ascii_only: bool, edits: list[tuple[float, int, bytes]]) -> bytes:
    """The file: strict JSON or what Python takes for it, a card a line as plugins ship them, some bytes changed."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=None if lines else 1)
    if lines and isinstance(value.get("cards"), dict):
        cards = ",\n".join(f"{json.dumps(n)}:{json.dumps(card)}" for n, card in value["cards"].items())
        text = '{"schema": 1, "cards": {\n' + cards + "\n}}\n"
    text = text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    data = text.encode("utf-8", "surrogatepass")
    for place, dropped, put in edits:
        at = round(place * len(data))
        data = data[:at] + put + data[at + dropped :]
    return data


FILES = st.builds(written, FILE, st.booleans(), st.booleans(), mostly(st.just([]), st.lists(EDIT, max_size=3)))


class Reader:
    """Everything that reads registry and card files, in one box."""

    def __init__(self, box: Path, watch: Watch):
        from zoo_core import layers
        from zoo_core.entries import entry_path
        from zoo_core.plugins import Plugin, Plugins, discover

        self.project, self.watch, self.box = _box(box), watch, str(box)
        self.cards = self.refused = 0
        self.places = {
            "registry": self.project / "registry.json",
            "entry": entry_path(self.project / "registry.d", "mine/net"),
            "plugin": self.project / "cards.json",
            "bundle": self.project / "bundle" / "cards.json",
        }
        for path in self.places.values():
            path.parent.mkdir(exist_ok=True)
        provider = type("Provider", (), {"cards": self.places["plugin"], "load": lambda self, card, weights: None})
        shipped = Plugin("fuzz", "zoo-fuzz", "1.0", {"provider": {"fuzz": provider}})
        layers.index_path = lambda: HERE.parent / "zoo_tiny" / "cards.json"  # the whole index would take an hour
        self.plugins = Plugins((*discover().found, shipped))
        os.environ |= {"ZOO_HOME": str(box / "home"), "ZOO_CACHE": str(box / "cache"), "HOME": str(box / "outside")}
        os.chdir(self.project)

    def read(self, data: bytes) -> None:
        """Read the file in every place; an AssertionError says what was wrong."""
        for path in self.places.values():
            path.write_bytes(data)
        self.watch.escapes, self.watch.box = [], self.box
        try:
            self._registry()
            for line in (
                "list mine --json",
                "list mine",
                "show mine/net",
                "list --license permissive --max-params 1M -q",
            ):
                code, text = _zoo(*line.split())
                assert code in (0, 1, 2), f"zoo {line}: exit code {code}"
                assert "Traceback" not in text, f"zoo {line}: {text[-500:]}"
                assert all(c.isprintable() or c == "\n" for c in text), f"zoo {line} prints control characters"
        finally:
            self.watch.box = ""
        assert not self.watch.escapes, self.watch.escapes
        for path in self.project.glob("registry.d/*"):
            path.unlink()

    def _registry(self) -> None:
        from zoo_core.bundling import unbundle
        from zoo_core.card import Card
        from zoo_core.cli.registry import _chosen
        from zoo_core.filtering import wanted
        from zoo_core.layers import load_registry, read_entries
        from zoo_core.weights import locate, tokenizer_of

        with self._said():
            read_entries(self.places["registry"])
        with self._said():
            unbundle(self.places["bundle"].parent, self.project / "registry.json")
        registry = load_registry(self.plugins)
        own = {name for layer in registry.layers if layer.path.is_relative_to(self.project) for name in layer.entries}
        problems = [*registry.problems]
        list(_chosen(registry, "mine", wanted(available=True), {"tiny": []}, problems))
        for name in sorted(own):
            with self._said():
                card = registry.get(name)
                assert Card.from_json(name, card.to_json()) == card
                self.cards += 1
                registry.lineage(name)
                for source in card.usable().sources:
                    with self._said():
                        locate(source)
                with self._said():
                    tokenizer_of(card)
        assert all(len(problem) < 2000 for problem in problems)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Only errors of zoo's own come out of the block, of a length that people read."""
        from zoo_core.errors import ZooError

        try:
            yield
        except ZooError as error:
            self.refused += 1
            if not 0 < len(str(error)) < 2000:
                raise RuntimeError("an error that nobody can read") from error


def fuzz(files: int) -> dict[str, int]:
    """Read so many files, the same ones each time; returns how many it were, and what became of them.

    Raises:
        AssertionError, or whatever came out: with the smallest file that brings it out.
    """
    sys.dont_write_bytecode = True
    watch = Watch()
    sys.addaudithook(watch)
    os.environ["ZOO_PLUGINS"] = "tiny"
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder).resolve() / "box", watch)

        @seed(0)
        @settings(
            max_examples=files,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(FILES)
        def attack(data: bytes) -> None:
            nonlocal count
            count += 1
            reader.read(data)

        attack()
        os.chdir("/")
    return {"files": count, "cards_read": reader.cards, "refusals": reader.refused}


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
    found = fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)  # raises at the first escape or traceback
    print(json.dumps({"benchmark": "fuzzed registry and card files", **found, "escapes": 0, "tracebacks": 0}))
