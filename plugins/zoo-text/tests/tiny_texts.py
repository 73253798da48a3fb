"""Tiny models of the real architectures, written by upstream itself, with a tokenizer of thirty words."""

from __future__ import annotations

from pathlib import Path

SEA = "the ship sails over a deep blue sea while gulls cry and sailors sing of storms"
KITCHEN = "an oven bakes warm bread with butter salt flour and honey for every hungry guest"
WORDS = f"{SEA} {KITCHEN}".split()

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4}
LLAMA = SMALL | {"intermediate_size": 48, "num_hidden_layers": 3, "num_key_value_heads": 2}
GEMMA = LLAMA | {"head_dim": 8}
CONFIGS = {
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "llama": LLAMA | {"max_position_embeddings": 64},
    "gemma": GEMMA | {"max_position_embeddings": 64},
    "gemma3_text": GEMMA | {"num_hidden_layers": 6, "sliding_window": 4, "max_position_embeddings": 64},
    "bert": SMALL | {"intermediate_size": 48, "num_hidden_layers": 3, "max_position_embeddings": 64},
}
"""Every architecture that the theory names, and BERT, as small as they come."""


def write_folders(where: Path) -> dict[str, Path]:
    """A folder of each architecture as `save_pretrained` writes it from the language model, and a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for kind, given in CONFIGS.items():
        config = CONFIG_MAPPING[kind](**given, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        torch.manual_seed(len(kind))
        maker = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
        maker.from_config(config, dtype=torch.float32).save_pretrained(where / kind)
        write_tokenizer(where / kind)
    return {kind: where / kind for kind in CONFIGS}


def write_tokenizer(folder: Path) -> None:
    """One token for each of `WORDS`; 0 is padding, 1 and 2 begin and end, 3 is any other word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
