"""transformers' CLAP as a backbone. No code from a repository is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import ClapAudioModelWithProjection, ClapConfig
from transformers.utils import logging

from zoo_audio.chain import stages_of
from zoo_audio.sounds import Sounds
from zoo_core import Backbone, BadCard, Card, WeightsMismatch, read_json, weights

_OURS = ("audio_model.", "audio_projection.")
_THEIRS = ("text_model.", "text_projection.", "logit_scale")
"""What files of whole CLAP models hold beyond the audio tower."""


def load(card: Card, found: Any) -> Backbone:
    """The audio tower of a card; `found` are its weights, None for random ones.

    Raises:
        BadCard: it is no CLAP, or its configuration does not fit.
        WeightsMismatch: a tensor of the weights is missing or does not fit, or a `config.json` beside says otherwise.
    """
    config = configuration(card)
    if found:
        _agrees(config, card, found)
    with quiet():
        model = ClapAudioModelWithProjection._from_config(config.audio_config, dtype=torch.float32)
    if found:
        _fill(model, card, found)
    whole, stages = stages_of(model.eval())
    return Backbone(
        card,
        whole,
        stages,
        config.projection_dim,
        pretrained=found is not None,
        weights_note=found.note if found else "random weights, as asked for",
        reader=Sounds(card.audio),
    )


def configuration(card: Card) -> ClapConfig:
    """transformers' configuration of a card, filled from plain data."""
    if card.architecture != "clap":
        raise BadCard(f"{card.name}: zoo-audio has no architecture {card.architecture!r}; expected clap.")
    if "auto_map" in card.config or "trust_remote_code" in card.config:
        raise BadCard(f"{card.name}: its configuration names code to load, which is never done. Remove auto_map.")
    try:
        with quiet():
            return ClapConfig(**{key: dict(v) if isinstance(v, dict) else v for key, v in card.config.items()})
    except (TypeError, ValueError, StrictDataclassError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise BadCard(f"{card.name}: its configuration is none of clap: {why}") from error


def _agrees(config: ClapConfig, card: Card, found: Any) -> None:
    """Refuse weights beside which a `config.json` lies that builds another tower.

    Raises:
        WeightsMismatch: names the first key.
    """
    path = weights.locate(weights.beside(found.source, "config.json")) if "/" in found.source.uri else None
    if path is None:
        return
    stated = read_json(path)
    with quiet():
        theirs = ClapConfig(**{k: stated[k] for k in ("audio_config", "projection_dim") if k in stated})
    plain = ClapConfig().audio_config.to_dict()
    ours, other = config.audio_config.to_dict(), theirs.audio_config.to_dict()
    for key in sorted(plain):
        if ours.get(key) != other.get(key) and key not in ("dtype", "transformers_version", "num_classes"):
            raise WeightsMismatch(
                f"{card.name}: its card has {key}={ours.get(key)!r}, but {path} has {other.get(key)!r}. To take the "
                f"folder's word for it type: zoo register mine/{card.name.rpartition('/')[2]} --folder {path.parent}"
            )


def _fill(model: Any, card: Card, found: Any) -> None:
    """Put the audio tower's tensors in; every one must be there, and nothing strange beside them."""
    where = f"the weights {found.source.uri} do not fit {card.architecture}"
    given = {name: t for name, t in found.tensors.items() if name.startswith(_OURS)}
    own = model.state_dict()
    for name in sorted(own):
        if name.endswith(("relative_position_index", "num_batches_tracked")) and name not in given:
            given[name] = own[name]  # counted, not learnt; older files leave them out
        elif name not in given:
            raise WeightsMismatch(f"{where}: {name} is missing.")
        if given[name].shape != own[name].shape:
            raise WeightsMismatch(
                f"{where}: {name} has shape {list(given[name].shape)}, expected {list(own[name].shape)}."
            )
    strange = sorted(n for n in found.tensors if n not in own and not n.startswith(_THEIRS))
    if strange:
        raise WeightsMismatch(f"{where}: the architecture has no place for {strange[0]}.")
    model.load_state_dict(given)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports: what matters is raised or returned."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
