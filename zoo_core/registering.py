"""Adding backbones of the user's own: from a weights file, a folder or a run. No torch here.

Each card is a file of its own in `registry.d`, published in one step, so that any number of processes
may register at once without a lock, and a project's entries merge without conflicts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo_core.card import PERMISSIVE, Card, Facet, Mark, Openness, Source, TextInput, is_permissive
from zoo_core.entries import entry_path, publish_entry, remove_entry
from zoo_core.errors import BadOption, CardExists, UnknownBackbone
from zoo_core.layers import SCHEMA, Registry, entry_folder, user_file
from zoo_core.weights import local_source, locate, tokenizer_of

if TYPE_CHECKING:
    from zoo_core.plugins import Plugins

_SPDX = {licence.lower(): licence for licence in PERMISSIVE}


def register(
    registry: Registry,
    name: str,
    *,
    weights: str | Path | None = None,
    folder: str | Path | None = None,
    run: str | Path | None = None,
    like: str | None = None,
    provider: str | None = None,
    architecture: str | None = None,
    by_order: bool = False,
    licence: str = "",
    data: str = "",
    size: int | None = None,
    project: bool = False,
    force: bool = False,
    plugins: Plugins | None = None,
) -> Card:
    """Add a backbone called `name`; what nobody stated about it stays unknown.

    Args:
        weights: safetensors, or a pickle that the user trusts (its sha256 is pinned now).
        folder: instead of `weights`, a folder as timm, open_clip or the Hugging Face hub lay it out.
        run: instead of `weights`, a finished run, whose backbone is written out whole and gets the
            run's backbone as its parent.
        like: a card whose provider, architecture and preprocessing are taken over.
        provider, architecture: in the place of `like`, or to change it.
        by_order: the file holds the right tensors in order, under other names.
        licence: SPDX identifier of the weights' licence.
        data: what they were trained on.
        size: input height and width in pixels.
        project: write beside the project's registry, not into the user's.
        force: replace an entry of that name in that layer.
        plugins: for `run`; those of this process where not given.

    Raises:
        BadOption, CardExists, UnknownBackbone, ClosedModel, BadCard, WeightsMissing, NotAModelFolder,
        RunNotFound, RunDamaged.
    """
    if sum(given is not None for given in (weights, folder, run)) != 1:
        raise BadOption("register needs one of --weights FILE, --folder FOLDER and --run RUN. See zoo register --help.")
    target = user_file() if not project else registry.project
    folder_of_cards = entry_folder(target)
    if not force and entry_path(folder_of_cards, name).exists():  # before any work; publishing looks again
        raise CardExists(f"{name} is registered already, in {folder_of_cards}. Replace it with --force.")
    base = registry.get(like).usable() if like else Card(name, provider or "", architecture or "")
    base = replace(base, provider=provider or base.provider, architecture=architecture or base.architecture)
    if size:
        base = replace(base, input=replace(base.input, size=(base.input.size[0], size, size)))
    if run is not None:
        _refuse(like=like, provider=provider, architecture=architecture, by_order=by_order, size=size)
        card = _from_run(Path(run), name, licence, data, plugins)
    elif folder is not None:
        from zoo_core.from_folders import card_of_folder

        card = card_of_folder(Path(folder), name, base, registry, sized=size is not None, liked=like is not None)
    else:
        mapping: Literal["by-name", "by-order"] = "by-order" if by_order else "by-name"
        source = local_source(Path(str(weights)), mapping)
        stated, text = Openness(base.openness.code), _same_tokenizer(base, source)
        card = replace(base, sources=(source,), openness=stated, text=text, notes="")
    if not (card.provider and card.architecture):
        raise BadOption("register needs --like CARD, or --provider and --architecture. See zoo register --help.")
    if run is None:
        card = replace(card, name=name, parent=like or "", openness=_stated(card.openness, licence, data))
    publish_card(card, target, force=force)
    return card


def publish_card(card: Card, file: Path, *, force: bool) -> None:
    """Write a card beside a registry file, in one step.

    Raises:
        BadCard: it would not read back.
        CardExists: the layer has an entry of that name, and `force` is not set.
    """
    entry = card.to_json()
    Card.from_json(card.name, entry)
    folder = entry_folder(file)
    if not publish_entry(folder, card.name, {"schema": SCHEMA, "cards": {card.name: entry}}, replace=force):
        raise CardExists(f"{card.name} is registered already, in {folder}. Replace it with --force.")


def unregister(name: str, *, file: Path | None = None) -> Path:
    """Remove an entry that `register` wrote; other layers stay as they are, and so do its weights.

    Args:
        file: of the layer with this registry file; the user's where not given.

    Returns:
        The folder that it was in.

    Raises:
        UnknownBackbone: the layer has no such entry.
    """
    target = file or user_file()
    folder = entry_folder(target)
    if remove_entry(folder, name) is None:
        raise UnknownBackbone(
            f"{name} is not registered in {folder}. Type 'zoo show {name}' to see its layer; what stands in {target} "
            "itself was written by hand."
        )
    return folder


def spdx(licence: str) -> str:
    """A permissive licence in SPDX's own spelling; others as they were given."""
    return _SPDX.get(licence.strip().lower(), licence.strip())


def weights_facet(licence: str, name: str = "") -> Facet:
    """How open weights are under a licence; one that nobody stated is unknown."""
    licence = spdx(licence)
    mark: Mark = "unknown" if not licence else "open" if is_permissive(licence) else "restricted"
    return Facet(mark, licence, name)


def _stated(known: Openness, licence: str, data: str) -> Openness:
    """What the user states takes the place of what was found."""
    return replace(
        known,
        weights=weights_facet(licence) if licence else known.weights,
        data=Facet(name=data) if data else known.data,
    )


def _same_tokenizer(like: Card, source: Source) -> TextInput:
    """Of a text card: the tokenizer beside the new weights, or the one that the card they are like has."""
    beside, known = tokenizer_of(replace(like, sources=(source,))), tokenizer_of(like)
    if like.modality != "text" or beside is None or known is None or locate(beside):
        return like.text
    return replace(like.text, tokenizer=known.uri)


def _from_run(run: Path, name: str, licence: str, data: str, plugins: Plugins | None) -> Card:
    from zoo_core.from_runs import card_of_run
    from zoo_core.plugins import discover
    from zoo_core.runs import Run

    plugins = plugins or discover()
    card = card_of_run(Run(run, plugins), name, plugins)
    Card.from_json(name, card.to_json())
    return replace(card, openness=_stated(card.openness, licence, data))


def _refuse(**given: object) -> None:
    """A run says these itself."""
    for option, value in given.items():
        if value:
            raise BadOption(f"--{option.replace('_', '-')} does not go with --run: the run's own backbone says it.")
