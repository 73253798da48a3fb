"""Real conversations that every Python carries, and a small GPT-2 with a tokenizer made of their words.

Texts: the reference of Python's statements (`pydoc_data.topics`, Python Software Foundation licence).
"""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template that most families of chat models use, one way or another."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def facts() -> dict[str, str]:
    """Topic -> first sentence of the first plain paragraph about it."""
    found = {}
    for name, text in sorted(topics.items()):
        plain = [" ".join(p.split()) for p in text.split("\n\n")[1:] if p.strip() and p[0].isalpha()]
        sentence = plain[0].partition(". ")[0][:160] if plain else ""
        if len(sentence) > 30:
            found[name] = sentence
    return found


def write_chats(path: Path, count: int = 40) -> Path:
    """`messages` in JSON lines: what a word of Python's means."""
    with open(path, "w", encoding="utf-8") as file:
        for name, sentence in list(facts().items())[:count]:
            said = [{"role": "user", "content": f"What is {name}?"}, {"role": "assistant", "content": sentence}]
            file.write(json.dumps({"messages": said}) + "\n")
    return path


def write_model(folder: Path, kind: str = "gpt2") -> Path:
    """A folder as upstream writes it: a language model with weights at random, and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(facts().values(), trainer)
    given = {
        "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
        "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    }[kind]
    config = CONFIG_MAPPING[kind](**given, vocab_size=tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
