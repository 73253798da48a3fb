"""Tiny models of every kind of open_clip's text towers, written by upstream itself with their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PHRASES = "a photo of the red blue green sky sea grass rose truck bird an old map in good light"
WORDS = PHRASES.split()

VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
SIGLIP = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
OWN_TOKENIZER = {"hf_tokenizer_name": "folder", "vocab_size": 64}
COCA = {"multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}

CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"text_cfg": TEXT},
    "quickgelu": {"quick_gelu": True, "text_cfg": TEXT},
    "custom": {"custom_text": True, "text_cfg": TEXT | {"context_length": 10}},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": TEXT | OWN_TOKENIZER | SIGLIP | {"tokenizer_kwargs": {"clean": "canonicalize"}},
    },
    "worldwide": {"text_cfg": TEXT | OWN_TOKENIZER | {"pool_type": "eos", "eos_id": 2}},
    "clipa": {
        "text_cfg": TEXT
        | OWN_TOKENIZER
        | {"pool_type": "last", "no_causal_mask": True, "tokenizer_kwargs": {"strip_sep_token": True}}
    },
    "coca": {
        "custom_text": True,
        **COCA,
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 15},
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    },
    "roberta": {
        "text_cfg": {"hf_model_name": "folder", "hf_tokenizer_name": "folder", "hf_pooler_type": "mean_pooler"}
    },
    "nllb": {
        "custom_text": True,
        "text_cfg": {
            "hf_model_name": "folder",
            "hf_tokenizer_name": "folder",
            "hf_proj_type": "linear",
            "hf_pooler_type": "cls_pooler",
        },
    },
}
"""A kind -> what its `model_cfg` says beside the size of the space and a small ViT."""

ENCODERS = {
    "roberta": {
        "model_type": "roberta",
        "vocab_size": 64,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "max_position_embeddings": 90,
        "pad_token_id": 1,
    },
    "nllb": {
        "model_type": "m2m_100",
        "vocab_size": 64,
        "d_model": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "max_position_embeddings": 90,
        "pad_token_id": 1,
    },
}


def write_folder(where: Path, kind: str) -> Path:
    """A folder as open_clip's `save_pretrained` for the hub lays it out, random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    where.mkdir(parents=True)
    config = {"embed_dim": 24, "vision_cfg": VISION, **CONFIGS[kind]}
    if config["text_cfg"].get("hf_tokenizer_name"):
        write_tokenizer(where)
    if kind in ENCODERS:
        (where / "config.json").write_text(json.dumps(ENCODERS[kind]))
        config["text_cfg"] = config["text_cfg"] | {"hf_model_name": str(where), "hf_model_pretrained": False}
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    about = {"model_cfg": config, "preprocess_cfg": preprocess}
    (where / "open_clip_config.json").write_text(json.dumps(about))
    torch.manual_seed(len(kind))
    model = open_clip.create_model(f"local-dir:{where}", load_weights=False, pretrained_text=False)
    tensors = {name: t.contiguous().clone() for name, t in model.state_dict().items()}
    save_file(tensors, where / "open_clip_model.safetensors")
    return where


def write_tokenizer(folder: Path) -> None:
    """One token for each of `WORDS`; as transformers writes a tokenizer, with a separator and padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
