"""transformers' language models and text encoders as backbones. No code from a repository is ever run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from zoo_core import Backbone, BadCard, Card, WeightsMismatch, read_json, weights
from zoo_text.chain import pooled, stages_of
from zoo_text.tokens import Tokens

_BOOKKEEPING = """
    _name_or_path architectures chunk_size_feed_forward dtype id2label initializer_range label2id model_type
    output_attentions output_hidden_states pretraining_tp problem_type return_dict summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj transformers_version use_cache
"""
"""What a configuration says beside the base model itself."""

_HEADS = ("lm_head.", "cls.", "pooler.", "score.", "classifier.", "qa_outputs.", "vocab_", "bert.pooler.", "embed_out.")
"""What files hold beyond the base model: heads of language models and of the tasks they were trained on."""


def load(card: Card, found: Any) -> Backbone:
    """The backbone of a card; `found` are its weights, None for random ones.

    Raises:
        BadCard: transformers has no such architecture, or the configuration does not fit it.
        WeightsMismatch: a tensor of the weights is missing or does not fit.
        NotAChain: the model cannot be cut into stages.
    """
    config = configuration(card)
    if found:
        _agrees(config, card, found)
    classifier: dict[str, Tensor] = {}
    with quiet():
        model, classifier = _filled(config, card, found) if found else (empty(config), {})
        model.eval()
        whole, stages = stages_of(model, is_causal(config), card.text.pooling)
    pad = getattr(config, "pad_token_id", None)
    source = weights.tokenizer_of(card, found.source if found else None)
    usable = pad is not None and 0 <= pad < model.get_input_embeddings().num_embeddings
    return Backbone(
        card,
        whole,
        stages,
        config.hidden_size,
        classifier,
        pretrained=found is not None,
        weights_note=found.note if found else "random weights, as asked for",
        reader=Tokens(card.text, source, card.name, pad if usable else 0),
        pooling=partial(pooled, pooling=card.text.pooling),
    )


def configuration(card: Card) -> Any:
    """transformers' configuration of a card: its own class, filled from plain data."""
    if card.architecture not in CONFIG_MAPPING:
        raise BadCard(f"{card.name}: transformers has no architecture {card.architecture!r}; expected a model_type.")
    if "auto_map" in card.config or "trust_remote_code" in card.config:
        raise BadCard(f"{card.name}: its configuration names code to load, which is never done. Remove auto_map.")
    try:
        with quiet():
            config = CONFIG_MAPPING[card.architecture](**card.config)
    except (TypeError, ValueError, StrictDataclassError) as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise BadCard(f"{card.name}: its configuration is none of {card.architecture}: {why}") from error
    known = {*CONFIG_MAPPING[card.architecture]().to_dict(), *config.attribute_map}
    for key in sorted(set(card.config) - known):  # upstream's files carry keys of old; what looks like a slip is one
        meant = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if meant:
            raise BadCard(f"{card.name}: {card.architecture} has no {key!r} to configure. Did you mean {meant[0]}?")
    if type(config) not in AutoModel._model_mapping:
        raise BadCard(f"{card.name}: {card.architecture} is no text model that transformers builds by itself.")
    return config


def _agrees(config: Any, card: Card, found: Any) -> None:
    """Refuse weights beside which a `config.json` lies that says otherwise than the card.

    Raises:
        WeightsMismatch: names the first key, and how to take the folder's word for it.
    """
    path = weights.locate(weights.beside(found.source, "config.json")) if "/" in found.source.uri else None
    if path is None:
        return
    with quiet():
        theirs = CONFIG_MAPPING[card.architecture](**read_json(path)).to_dict()
    ours = config.to_dict()
    for key in sorted(CONFIG_MAPPING[card.architecture]().to_dict().keys() - set(_BOOKKEEPING.split())):
        if ours[key] != theirs[key]:
            raise WeightsMismatch(
                f"{card.name}: its card has {key}={ours[key]!r}, but {path} has {theirs[key]!r}. To take the folder's "
                f"word for it type: zoo register mine/{card.name.rpartition('/')[2]} --folder {path.parent}"
            )


def is_causal(config: Any) -> bool:
    """Whether a token sees only those before it: transformers predicts next tokens with it, and never masked ones."""
    kind = type(config)
    return kind in AutoModelForCausalLM._model_mapping and kind not in AutoModelForMaskedLM._model_mapping


def empty(config: Any) -> nn.Module:
    """The base model of a configuration, with random weights."""
    cls = AutoModel._model_mapping[type(config)]
    model: nn.Module = cls._from_config(config, dtype=torch.float32, **_headless(cls))
    return model


def _filled(config: Any, card: Card, found: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model with its weights, by upstream's own loader; and what the file holds beyond it."""
    if found.source.mapping != "by-name":
        raise WeightsMismatch(f"{card.name}: weights of texts are mapped by name, got {found.source.mapping!r}.")
    cls = AutoModel._model_mapping[type(config)]
    where = f"the weights {found.source.uri} do not fit {card.architecture}"
    try:
        model, report = cls.from_pretrained(
            None,
            config=config,
            state_dict=dict(found.tensors),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            **_headless(cls),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsMismatch(f"{where}: {str(error).strip().splitlines()[0]} See zoo show {card.name}.") from error
    if report["mismatched_keys"]:
        name, theirs, ours = sorted(report["mismatched_keys"])[0]
        raise WeightsMismatch(f"{where}: {name} has shape {list(theirs)}, expected {list(ours)}.")
    if report["missing_keys"]:
        raise WeightsMismatch(f"{where}: {sorted(report['missing_keys'])[0]} is missing.")
    strange = [name for name in sorted(report["unexpected_keys"]) if not name.startswith(_HEADS)]
    if strange:
        raise WeightsMismatch(f"{where}: the architecture has no place for {strange[0]}.")
    return model, {name: t for name, t in found.tensors.items() if name.startswith(_HEADS)}


def _headless(cls: Any) -> dict[str, Any]:
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(cls.__init__).parameters else {}


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports and progress bars: what matters is raised or returned."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
