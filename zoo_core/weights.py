"""Finding a card's weights on this machine: sources by scheme, digests checked, nothing unpickled unasked.

Schemes: `package:NAME/path` (a file of an installed Python package; the package is not imported),
`file:PATH`, `hf:OWNER/REPO/FILE` (the Hugging Face cache; the network only in `pull`).
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from zoo_core.card import Card, Source
from zoo_core.errors import BadCard, DigestMismatch, WeightsMismatch, WeightsMissing
from zoo_core.files import publish_object, sha256_file
from zoo_core.places import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_core.backbone import Backbone
    from zoo_core.plugins import Plugins


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
    """The file behind a source if it is on this machine; never touches the network."""
    scheme, _, rest = source.uri.partition(":")
    if scheme == "file":
        path = Path(rest).expanduser()
    elif scheme == "package":
        package, _, inner = rest.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations or ".." in PurePosixPath(inner).parts:
            return None
        path = Path(spec.submodule_search_locations[0]) / inner
    elif scheme == "hf":
        repo, name = _hub_parts(source)
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repo, name)
        path = Path(cached) if isinstance(cached, str) else Path("/nonexistent")
    else:
        raise BadCard(f"weight source {source.uri!r}: expected package:, file: or hf:.")
    return path if path.is_file() else None


def find(card: Card) -> Weights:
    """Load the first source that is on this machine.

    Raises:
        WeightsMissing: none is, with what to type.
        DigestMismatch: the file is not the one the card pins.
    """
    for source in card.sources:
        path = locate(source)
        if path:
            return read(path, source)
    raise WeightsMissing(_missing(card))


def read(path: Path, source: Source) -> Weights:
    """Read one file, its digest checked first. A pickle must be pinned and is converted only once."""
    sha = sha256_file(path)
    if source.sha256 and sha != source.sha256:
        raise DigestMismatch(f"{path} has sha256 {sha}, but the card says {source.sha256}. Remove it and get it again.")
    if path.suffix != ".safetensors":
        if not source.sha256:
            raise DigestMismatch(
                f"{path} is a pickle whose sha256 no card pins, so it is not read. "
                f"Pin it in the card (sha256: {sha}) if you trust it, or convert it to safetensors."
            )
        path = _converted(path, sha)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            order = (file.metadata() or {}).get("order")
            names = json.loads(order) if order else list(file.keys())
            return Weights({name: file.get_tensor(name) for name in names}, source, sha)
    except SafetensorError as error:
        raise WeightsMismatch(f"{path} is no whole safetensors file: {error}. Get it again.") from error


def load_backbone(card: Card, plugins: Plugins, pretrained: bool = True) -> Backbone:
    """A backbone from its card; random weights only where `pretrained=False` says so.

    Raises:
        WeightsMissing: none of the card's sources is on this machine.
    """
    import torch

    provider = plugins.get("provider", card.provider)()
    found = find(card) if pretrained else None
    with torch.inference_mode(False):  # tensors made in inference mode could never be trained
        backbone: Backbone = provider.load(card, found)
    backbone.pretrained = found is not None
    backbone.weights_note = found.note if found else "random, as asked"
    return backbone


def local_source(path: Path, mapping: Literal["by-name", "by-order"] = "by-name") -> Source:
    """A source for the user's own file, its digest taken now; a pickle is thereby pinned.

    Raises:
        WeightsMissing: there is no such file.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file; expected weights (.safetensors, or a .pth that you trust).")
    return Source(f"file:{path}", sha256_file(path), path.stat().st_size, mapping)


def pull(card: Card) -> Path:
    """Download the card's weights from the hub into the Hugging Face cache; only when asked.

    Raises:
        WeightsMissing: the card names no hub source.
        DigestMismatch: what came is not what the card pins.
    """
    for source in card.sources:
        path = locate(source)
        if path:
            return path
    for source in card.sources:
        if source.uri.startswith("hf:"):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

            repo, name = _hub_parts(source)
            try:
                path = Path(hf_hub_download(repo, name))
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                reason = str(error).strip().splitlines()[0]
                raise WeightsMissing(f"{card.name}: the hub did not give {repo}/{name}: {reason}") from error
            read(path, source)
            return path
    raise WeightsMissing(_missing(card))


def _converted(path: Path, sha: str) -> Path:
    """The safetensors twin of a pinned pickle in the user's cache, named by both digests."""
    folder = cache_folder() / "weights"
    for twin in sorted(folder.glob(f"{sha}-*.safetensors")):
        if sha256_file(twin) == twin.stem.partition("-")[2]:
            return twin
        twin.unlink()  # damaged: made again below
    import torch
    from safetensors.torch import save_file

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
    return publish_object(folder, f"{sha}-", ".safetensors", lambda temp: save_file(tensors, temp, order))


def _hub_parts(source: Source) -> tuple[str, str]:
    owner, _, rest = source.uri.removeprefix("hf:").partition("/")
    repo, _, name = rest.partition("/")
    if not name:
        raise BadCard(f"weight source {source.uri!r}: expected hf:owner/repo/file.")
    return f"{owner}/{repo}", name


def _missing(card: Card) -> str:
    ways = []
    for source in card.sources:
        scheme, _, rest = source.uri.partition(":")
        if scheme == "package":
            ways.append(f"pip install {rest.partition('/')[0].replace('_', '-')}")
        elif scheme == "hf":
            ways.append(f"zoo pull {card.name}")
        else:
            ways.append(f"put the file at {rest}")
    how = " or: ".join(ways) if ways else "the card names no source: zoo show " + card.name
    return f"the weights of {card.name} are not on this machine. Type: {how} (or --weights none for random weights)."
