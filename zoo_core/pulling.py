"""Downloading weights from the hub, through its own client and only when the user asked; checked before use."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zoo_core import sharded
from zoo_core.card import Card, Source
from zoo_core.console import Console
from zoo_core.errors import DigestMismatch, MissingExtra, NotOnHub, PullFailed, WeightsMissing, ZooError
from zoo_core.pins import pinned, record
from zoo_core.resuming import fetch_blob
from zoo_core.weights import beside as _beside
from zoo_core.weights import checked_digest, hub_parts, locate, missing, tokenizer_of


@dataclass(frozen=True)
class Pulled:
    """Weights that are now on this machine, checked.

    Attributes:
        path: where they lie.
        source: the card's source.
        sha256: of the file (hex).
        fetched: whether the network was used.
        note: what was expected of the digest, for the user.
    """

    path: Path
    source: Source
    sha256: str
    fetched: bool
    note: str


def pull(card: Card, console: Console | None = None) -> Pulled:
    """Get the weights of a card into the Hugging Face cache, unless they are on this machine already.

    A download that breaks off is taken up where it stopped, by this pull or by the next. Where the card states no
    digest, the first pull records the one that came: from then on it is expected. With the weights of a model of
    texts comes its `tokenizer.json`, and its `config.json` where the repository has one. A tokenizer that the card
    names elsewhere comes with what describes it.

    Raises:
        ClosedModel: nobody can load it.
        WeightsMissing: the card names no hub source.
        PullFailed: the hub did not give the file.
        DigestMismatch: what came is not what the card, or the first pull, says.
        MissingExtra: huggingface_hub is not installed.
    """
    console = console or Console()
    pulled = _weights(card, console)
    if card.modality == "text":
        tokenizer = tokenizer_of(card, pulled.source)
        _fetch_beside(card, tokenizer)
        elsewhere = tokenizer if card.text.tokenizer else None
        described = ("config.json", "tokenizer_config.json") if elsewhere else ("config.json",)
        for name in described:
            with suppress(NotOnHub):  # a `config.json` is only compared with the card, which says all that is needed
                _fetch_beside(card, _beside(elsewhere or pulled.source, name))
    return pulled


def _fetch_beside(card: Card, source: Source | None) -> None:
    """A small file of the same repository, unless it is on this machine."""
    if source and locate(source) is None and source.uri.startswith("hf:"):
        _fetch(card, source)


def _weights(card: Card, console: Console) -> Pulled:
    for source in card.usable().sources:
        path = locate(source)
        if path:
            try:
                return _accepted(path, source, fetched=False)
            except DigestMismatch as error:
                if not source.uri.startswith("hf:"):
                    raise
                console.say(f"{error} Fetching it.")
                return _accepted(_fetch(card, source, again=True), source, fetched=True)
    for source in card.sources:
        if source.uri.startswith("hf:"):
            return _accepted(_fetch(card, source), source, fetched=True)
    raise WeightsMissing(missing(card))


def _accepted(path: Path, source: Source, fetched: bool) -> Pulled:
    """The file with its digest compared with what is known, and recorded where nothing is."""
    known = pinned(source).sha256
    try:
        sha = checked_digest(path, source)
    except DigestMismatch as error:
        if not fetched:
            raise
        raise DigestMismatch(
            f"the hub gave another file than expected, and it is not used: {error} If its authors replaced it on "
            "purpose, register what came: zoo register --help"
        ) from error
    if source.sha256:
        note = "as the card says"
    elif known:
        note = "as recorded when it was first pulled"
    elif source.uri.startswith("hf:"):
        record(source, sha, path.stat().st_size)
        checked_digest(path, source)  # another process may have recorded another file meanwhile
        note = "no digest was known; this one is recorded and expected from now on"
    else:
        note = "no digest is known"
    if path.suffix != ".safetensors" and not source.sha256:
        note += f". It is a pickle: if you trust it, pin it with zoo register NAME --like CARD --weights {path}"
    return Pulled(path, source, sha, fetched, note)


def _fetch(card: Card, source: Source, again: bool = False) -> Path:
    """Download one file, or an index with its files, through the hub's client: redirects, retries, progress."""
    repo, name = hub_parts(source.uri.removeprefix("hf:"))
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtra("pulling weights needs huggingface_hub. Type: pip install 'zoo-core[hub]'")
    from huggingface_hub import constants, errors

    try:
        path = _download(repo, name, again)
        for part in sharded.parts(path) if sharded.is_index(path) else ():
            _download(repo, str(Path(name).with_name(part.name)), again)
        return path
    except errors.GatedRepoError as error:
        why = f"it is gated. Accept its terms at {constants.ENDPOINT}/{repo}, type: hf auth login, then pull again"
        raise PullFailed(f"{card.name}: the hub did not give {repo}/{name}: {why}.") from error
    except errors.RepositoryNotFoundError as error:
        why = "there is no such repository, or it is private: type hf auth login if it is yours"
        raise PullFailed(f"{card.name}: the hub did not give {repo}/{name}: {why}.") from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        kind: type[PullFailed] = NotOnHub
        why = "the repository has no such file"
        if isinstance(error, errors.LocalEntryNotFoundError):
            kind = PullFailed
            why = f"{constants.ENDPOINT} cannot be reached, or HF_HUB_OFFLINE is set. Without network see zoo bundle"
        raise kind(f"{card.name}: the hub did not give {repo}/{name}: {why}.") from error
    except ZooError:  # says itself what is wrong, and what to type
        raise
    except Exception as error:  # of whatever transport the client uses
        line = " ".join(str(error).split())[:300].rstrip(".") or "no reason given"
        raise PullFailed(
            f"{card.name}: the hub did not give {repo}/{name}: {type(error).__name__}: {line}. Type it again."
        ) from error


def _download(repo: str, name: str, again: bool) -> Path:
    """One file into the hub's cache; what an earlier command left of it is gone on with."""
    from huggingface_hub import hf_hub_download

    if not again:
        fetch_blob(repo, name)
    return Path(hf_hub_download(repo, name, force_download=again))
