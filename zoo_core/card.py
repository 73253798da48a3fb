"""A card is one registry entry: what a backbone is, where its weights come from, how open it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zoo_core.errors import BadCard, near

Mark = Literal["open", "restricted", "closed", "unknown"]
PERMISSIVE = frozenset(
    {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "Unlicense"}
)
"""SPDX identifiers that let anyone use, change and pass on; what is unknown is never among them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Input:
    """How an image becomes the backbone's input tensor; travels with every run and export.

    Attributes:
        size: channels, height, width.
        mean: per channel, of values in [0, 1].
        std: per channel.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`, as Pillow names them.
        crop: the part of the resized image's side that the centre crop keeps.
        crop_mode: `center` (shorter side resized, then cropped), `squash` (both sides resized)
            or `border` (longer side resized, then padded).
    """

    size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bicubic"
    crop: float = 0.875
    crop_mode: Literal["center", "squash", "border"] = "center"


@dataclass(frozen=True)
class Source:
    """One place that holds the weights.

    Attributes:
        uri: `package:IMPORT_NAME/path/in/package`, `file:/path`, `hf:owner/repo/file`.
        sha256: of the file (hex); without it only safetensors are read.
        size_bytes: of the file; 0 when not known.
        mapping: `by-name`, or `by-order` when the file holds the architecture's tensors in the
            same order under other names (every shape is checked).
    """

    uri: str
    sha256: str = ""
    size_bytes: int = 0
    mapping: Literal["by-name", "by-order"] = "by-name"


@dataclass(frozen=True)
class Facet:
    """Openness of one facet: code, weights or training data.

    Attributes:
        mark: `open`, `restricted`, `closed`, or `unknown`, which is never read as permissive.
        licence: SPDX identifier, or the licence's name, or empty.
        name: what it is: a repository, a data set.
    """

    mark: Mark = "unknown"
    licence: str = ""
    name: str = ""


@dataclass(frozen=True)
class Openness:
    """Truly open means code, weights and training data; each is recorded on its own."""

    code: Facet = Facet()
    weights: Facet = Facet()
    data: Facet = Facet()


@dataclass(frozen=True)
class Card:
    """One registry entry. Pure data; naming no code.

    Attributes:
        name: `family/architecture.tag`.
        provider: name of the provider that loads it.
        architecture: the upstream library's name of it.
        package: the distribution that supplies the provider (`pip install` line).
        modality: what goes in.
        parameters: of the headless backbone; 0 when not known.
        feature_dim: width of the pooled features; 0 when not known.
        input: preprocessing.
        stages: names, input side first; empty when nobody has looked yet.
        classifier: upstream's declared names of the classifier modules, dropped on loading.
        sources: where weights may come from, first come first tried.
        openness: code, weights, data.
        paper: where it was published, e.g. `arXiv:1905.11946`.
        notes: for people.
        parent: the card it was fine-tuned from.
    """

    name: str
    provider: str
    architecture: str
    package: str = ""
    modality: Literal["image", "text", "audio"] = "image"
    parameters: int = 0
    feature_dim: int = 0
    input: Input = Input()
    stages: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    openness: Openness = Openness()
    paper: str = ""
    notes: str = ""
    parent: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """The weights' licence, `unknown` where nobody stated one."""
        return self.openness.weights.licence or "unknown"

    def to_json(self) -> dict[str, Any]:
        """Plain data with every field, at any depth, that differs from its default; tuples as lists."""
        data: dict[str, Any] = _plain(self)
        data.pop("name")
        extra = data.pop("extra", {})
        return {**data, **extra}

    @classmethod
    def from_json(cls, name: str, data: Any) -> Card:
        """Read one entry strictly: unknown fields are errors with the near miss, `x-*` is kept."""
        where = f"card {name!r}"
        if not _NAME.fullmatch(name) or len(name) > 200:
            raise BadCard(f"{where}: expected a name of letters, digits, '.', '_', '-' and '/'.")
        if not isinstance(data, dict):
            raise BadCard(f"{where}: expected an object, got {type(data).__name__}.")
        extra = {k: v for k, v in data.items() if k.startswith("x-")}
        rest = {k: v for k, v in data.items() if not k.startswith("x-")}
        for key in ("name", "extra"):
            if key in rest:
                raise BadCard(f"{where}: the field {key!r} is not written into a card.")
        kind: Any = cls
        card: Card = _reader(kind)({**rest, "name": name, "extra": extra}, where)
        for source in card.sources:
            if source.sha256 and not _SHA256.fullmatch(source.sha256):
                raise BadCard(f"{where}: sha256 {source.sha256!r} is not 64 hexadecimal digits.")
        return card


Reader = Callable[[Any, str], Any]


@cache
def _reader(kind: Any) -> Reader:
    """A function that checks a plain value against a type hint and builds it; made once per hint.

    Listing 2,000 cards must not take longer than starting Python, hence no looking at hints per value.
    """
    origin, args = get_origin(kind), get_args(kind)
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass_reader(kind)
    if origin is Literal:
        return _literal_reader(args)
    if origin is tuple:
        return _tuple_reader(args)
    if kind in (int, float, str):
        return _scalar_reader(kind)
    return lambda value, where: value


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise BadCard(f"{where}: expected an object, got {value!r}.")
        if not value.keys() <= readers.keys():
            key = next(k for k in value if k not in readers)
            raise BadCard(f"{where}: unknown field {key!r}. {near(key, hints)} Fields are {', '.join(hints)}.")
        for name in required:
            if name not in value:
                raise BadCard(f"{where}: the field {name!r} is missing.")
        return kind(**{k: readers[k](v, f"{where}, {k}") for k, v in value.items()})

    return read


def _literal_reader(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any, where: str) -> Any:
        if value not in allowed:
            raise BadCard(f"{where}: got {value!r}, expected one of {', '.join(map(str, allowed))}.")
        return value

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> Reader:
    readers = [_reader(kind) for kind in kinds if kind is not Ellipsis]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            raise BadCard(f"{where}: expected a list, got {value!r}.")
        if kinds[-1] is Ellipsis:
            return tuple(readers[0](v, where) for v in value)
        if len(readers) != len(value):
            raise BadCard(f"{where}: expected {len(readers)} values, got {len(value)}.")
        return tuple(r(v, where) for r, v in zip(readers, value, strict=True))

    return read


def _scalar_reader(kind: type) -> Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise BadCard(f"{where}: expected {kind.__name__}, got {value!r}.")

    return read


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        shown = ((f, getattr(value, f.name)) for f in fields(value))
        return {
            f.name: _plain(v)
            for f, v in shown
            if v != (f.default_factory() if callable(f.default_factory) else f.default)
        }
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
