"""A card is one registry entry: what a backbone is, where its weights come from, how open it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zoo_core.errors import BadCard, ClosedModel, near, shown

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
class TextInput:
    """How a text becomes the backbone's input; travels with every run.

    Attributes:
        length: most tokens that are read; a longer text loses its end.
        pooling: how the tokens' features become one row: their `mean`, the first (`cls`) or the `last` one.
        padding: the side that is filled up.
        tokenizer: source of the `tokenizer.json`; by default it lies beside the weights.
    """

    length: int = 512
    pooling: Literal["mean", "cls", "last"] = "mean"
    padding: Literal["right", "left"] = "right"
    tokenizer: str = ""


@dataclass(frozen=True)
class AudioInput:
    """How a sound becomes the backbone's input: the settings of CLAP's feature extractor; travels with every run.

    Attributes:
        sampling_rate: frames a second; other rates are resampled.
        feature_size: mel bands.
        hop_length, fft_window_size: of the spectrogram, in frames.
        max_length_s: seconds that are heard at once.
        frequency_min, frequency_max: in hertz.
        truncation: of longer sounds: one part (`rand_trunc`), or three parts and the whole (`fusion`).
        padding: shorter ones are repeated and filled up with silence (`repeatpad`), repeated and cut, or filled up.
    """

    sampling_rate: int = 48000
    feature_size: int = 64
    hop_length: int = 480
    fft_window_size: int = 1024
    max_length_s: int = 10
    frequency_min: float = 50.0
    frequency_max: float = 14000.0
    truncation: Literal["rand_trunc", "fusion"] = "rand_trunc"
    padding: Literal["repeatpad", "repeat", "pad"] = "repeatpad"


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
        input: preprocessing of images.
        text: preprocessing of texts.
        audio: preprocessing of sounds.
        config: what upstream's configuration of this architecture says otherwise than by default.
        stages: names, input side first; empty when nobody has looked yet.
        classifier: upstream's declared names of the classifier modules, dropped on loading.
        sources: where weights may come from, first come first tried.
        openness: code, weights, data.
        paper: where it was published, e.g. `arXiv:1905.11946`.
        notes: for people.
        parent: the card it was made from.
        missing: of a closed model, what keeps anyone from loading it, in words.
        sibling: of a closed model, the open card to fine-tune in its place.
    """

    name: str
    provider: str
    architecture: str
    package: str = ""
    modality: Literal["image", "text", "audio"] = "image"
    parameters: int = 0
    feature_dim: int = 0
    input: Input = Input()
    text: TextInput = TextInput()
    audio: AudioInput = AudioInput()
    config: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    openness: Openness = Openness()
    paper: str = ""
    notes: str = ""
    parent: str = ""
    missing: str = ""
    sibling: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """The weights' licence, `unknown` where nobody stated one."""
        return self.openness.weights.licence or "unknown"

    def usable(self) -> Card:
        """Itself, unless its weights are closed.

        Raises:
            ClosedModel: says what is missing, and which open card to take instead, where the card says so.
        """
        if self.openness.weights.mark != "closed" or self.sources:
            return self
        why = self.missing.strip().rstrip(".") or "its weights are closed and the card names no source"
        instead = f"; its open sibling can: zoo finetune DATA -b {self.sibling}" if self.sibling else "."
        raise ClosedModel(f"{self.name} cannot be fine-tuned: {why}{instead}")

    def to_json(self) -> dict[str, Any]:
        """Plain data with every field, at any depth, that differs from its default; tuples as lists."""
        data: dict[str, Any] = _plain(self)
        data.pop("name")
        extra = data.pop("extra", {})
        return {**data, **extra}

    @classmethod
    def from_json(cls, name: str, data: Any) -> Card:
        """Read one entry strictly: unknown fields are errors with the near miss, `x-*` is kept."""
        where = f"card {shown(name)}"
        if not is_name(name):
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
        _check_values(card, where)
        return card


def is_name(text: str) -> bool:
    """Whether a card may be called so."""
    return len(text) <= 200 and _NAME.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether it is a digest: 64 hexadecimal digits in lower case."""
    return _SHA256.fullmatch(text) is not None


def is_permissive(licence: str) -> bool:
    """Whether an SPDX expression leaves everyone free to use, change and pass on; what is unknown does not.

    >>> is_permissive("MIT OR GPL-3.0-only"), is_permissive("MIT AND GPL-3.0-only"), is_permissive("")
    (True, False, False)
    """
    choices = licence.replace("(", " ").replace(")", " ").split(" OR ")
    return any(all(part.strip() in PERMISSIVE for part in choice.split(" AND ")) for choice in choices)


def _check_values(card: Card, where: str) -> None:
    """Raise `BadCard` for what has the right type and still cannot be meant."""
    spec, counts = card.input, (card.parameters, card.feature_dim, *(source.size_bytes for source in card.sources))
    if not all(0 <= count < 1 << 53 for count in counts):
        raise BadCard(f"{where}: parameters, feature_dim and size_bytes are counts; expected 0 or more, below 2^53.")
    if not all(1 <= length <= 1 << 16 for length in spec.size):
        raise BadCard(
            f"{where}, input: size is {shown(spec.size)}; expected channels, height and width from 1 to 65536."
        )
    if len(spec.mean) != spec.size[0] or len(spec.std) != spec.size[0] or not all(value > 0 for value in spec.std):
        raise BadCard(f"{where}, input: expected a mean and a std above 0 for each of {spec.size[0]} channels.")
    if not 0 < spec.crop <= 4:
        raise BadCard(f"{where}, input: crop is {shown(spec.crop)}; expected a share of the side, such as 0.875.")
    heard = card.audio
    if not all(
        0 < n <= 1 << 20 for n in (heard.sampling_rate, heard.feature_size, heard.hop_length, heard.max_length_s)
    ):
        raise BadCard(f"{where}, audio: {shown(heard)}; expected counts above 0.")
    if len(set(card.stages)) != len(card.stages):
        raise BadCard(f"{where}: two stages have the same name; expected each once.")
    for other in filter(None, (card.parent, card.sibling)):
        if not is_name(other):
            raise BadCard(f"{where}: {shown(other)} is no name of a card; expected one such as cnn/resnet18.a1_in1k.")
    for source in card.sources:
        if source.sha256 and not is_sha256(source.sha256):
            raise BadCard(f"{where}: sha256 {shown(source.sha256)} is not 64 hexadecimal digits.")


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
    if origin is Mapping:
        return _mapping
    return lambda value, where: value


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise BadCard(f"{where}: expected an object, got {shown(value)}.")
        if not value.keys() <= readers.keys():
            key = next(k for k in value if k not in readers)
            raise BadCard(
                f"{where}: unknown field {shown(key)}. {near(key[:100], hints)} Fields are {', '.join(hints)}."
            )
        for name in required:
            if name not in value:
                raise BadCard(f"{where}: the field {name!r} is missing.")
        return kind(**{k: readers[k](v, f"{where}, {k}") for k, v in value.items()})

    return read


def _literal_reader(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any, where: str) -> Any:
        if value not in allowed:
            raise BadCard(f"{where}: got {shown(value)}, expected one of {', '.join(map(str, allowed))}.")
        return value

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> Reader:
    readers = [_reader(kind) for kind in kinds if kind is not Ellipsis]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list | tuple):
            raise BadCard(f"{where}: expected a list, got {shown(value)}.")
        if kinds[-1] is Ellipsis:
            return tuple(readers[0](v, where) for v in value)
        if len(readers) != len(value):
            raise BadCard(f"{where}: expected {len(readers)} values, got {len(value)}.")
        return tuple(r(v, where) for r, v in zip(readers, value, strict=True))

    return read


def _mapping(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise BadCard(f"{where}: expected an object, got {value!r}.")
    return value


def _scalar_reader(kind: type) -> Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise BadCard(f"{where}: expected {kind.__name__}, got {shown(value)}.")

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
