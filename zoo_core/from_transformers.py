"""A folder of a transformers model of texts or sounds as a card: what its JSON files say. No torch here."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from zoo_core.card import AudioInput, Card, TextInput
from zoo_core.errors import NotAModelFolder, shown
from zoo_core.files import read_json

# what save_pretrained writes beside the architecture: how it was made, how it generates, what its heads are called
_ASIDE = """
    _name_or_path architectures auto_map chunk_size_feed_forward classifier_dropout dtype finetuning_task
    gradient_checkpointing id2label is_decoder label2id model_type n_ctx output_attentions output_hidden_states
    position_embedding_type problem_type return_dict summary_activation summary_first_dropout summary_proj_to_labels
    summary_type summary_use_proj task_specific_params torch_dtype transformers_version use_cache
"""
_LENGTHS = ("max_position_embeddings", "n_positions")
_LONGEST = 512
"""Tokens of a text that are read where nothing says less: longer ones cost the square of it."""
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


def is_text(config: dict[str, Any]) -> bool:
    """Whether a configuration is that of a model of texts alone."""
    return "vocab_size" in config and "model_type" in config


def is_sound(config: dict[str, Any]) -> bool:
    """Whether a configuration is that of a model of sounds that is known here."""
    return config.get("model_type") == "clap"


def card_of_sound(config: dict[str, Any], folder: Path) -> Card:
    """The card of a folder of CLAP, without its weights: what its configuration and its feature extractor say.

    Raises:
        NotAModelFolder: it names code to run, which is never done.
    """
    where = folder / "config.json"
    if "auto_map" in config:
        raise NotAModelFolder(f"{where} names code of its own (auto_map), which is never run; expected plain weights.")
    tower = config.get("audio_config")
    tower = tower if isinstance(tower, dict) else {}
    heard = _beside(folder, "preprocessor_config.json") or _beside(folder, "processor_config.json")
    heard = heard.get("feature_extractor", heard)
    plain = Card("folder", "", "").audio
    given = {f.name: heard[f.name] for f in fields(AudioInput) if f.name in heard}
    config_of = {k: config[k] for k in ("projection_dim", "projection_hidden_act") if k in config}
    entry: dict[str, Any] = {
        "provider": "audio",
        "architecture": "clap",
        "package": "zoo-audio",
        "modality": "audio",
        "audio": {k: float(v) if isinstance(getattr(plain, k), float) else v for k, v in given.items()},
        "config": {"audio_config": {k: v for k, v in tower.items() if k not in _ASIDE.split()}} | config_of,
    }
    return Card.from_json("folder", entry)


def card_of_text(config: dict[str, Any], folder: Path) -> Card:
    """The card of a folder that `save_pretrained` wrote, without its weights.

    A causal model is pooled at its last token, an encoder as sentence-transformers' own file says, else by the mean.

    Raises:
        NotAModelFolder: it names code to run, which is never done.
    """
    where = folder / "config.json"
    if "auto_map" in config:
        raise NotAModelFolder(f"{where} names code of its own (auto_map), which is never run; expected plain weights.")
    if not isinstance(config["model_type"], str):
        raise NotAModelFolder(f"{where}: model_type is {shown(config['model_type'])}; expected a name.")
    names = config.get("architectures")
    causal = any("CausalLM" in str(name) or "LMHead" in str(name) for name in names or ())
    lengths = [config[key] for key in _LENGTHS if isinstance(config.get(key), int)]
    padding = _beside(folder, "tokenizer_config.json").get("padding_side")
    pooling = next((way for key, way in _POOLINGS.items() if _beside(folder, "1_Pooling/config.json").get(key)), "")
    longest = _beside(folder, "sentence_bert_config.json").get("max_seq_length")
    return Card.from_json(
        "folder",
        {
            "provider": "text",
            "architecture": config["model_type"],
            "package": "zoo-text",
            "modality": "text",
            "text": {
                "length": longest if isinstance(longest, int) else min([*lengths, _LONGEST]),
                "pooling": pooling or ("last" if causal else "mean"),
                "padding": padding if padding in ("left", "right") else TextInput().padding,
            },
            "config": {key: value for key, value in config.items() if key not in _ASIDE.split()},
        },
    )


def _beside(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
