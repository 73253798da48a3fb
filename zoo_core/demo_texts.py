"""The text demo: questions by topic on MiniLM's own weights, and a tiny chat model that begins with random ones.

Texts: the English part of the package chatterbot-corpus, a dialogue corpus that users wrote (BSD licence, as the
package's metadata state). Its files are YAML lists of conversations, read without any tags of their own.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core.card import Card, TextInput
from zoo_core.errors import MissingExtra, NoData
from zoo_core.files import publishing

if TYPE_CHECKING:
    from zoo_core.backbone import Backbone
    from zoo_core.plugins import Plugins
    from zoo_core.recipe import Recipe

BACKBONE = "text/all-minilm-l6-v2"
LICENCE = "chatterbot-corpus, questions that users wrote (BSD licence)"
TOPICS = ("ai", "coding", "emotion", "literature", "movies", "psychology", "science", "sports", "trivia")
"""Topics with at least 20 different questions; what is left out repeats a few questions, or is about the bot."""
CHAT_TOPICS = ("ai", "emotion", "literature", "psychology")
EPOCHS = 14
TINY: dict[str, Any] = {"vocab_size": 700, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 96}
"""A GPT-2 of 200,000 parameters: what trains in seconds on two cores."""


def write_topics(path: Path, topics: tuple[str, ...] = TOPICS) -> Path:
    """Write `text,label`: the first sentence of every conversation and its topic, each sentence once.

    Raises:
        NoData: the package chatterbot-corpus is not installed.
    """
    with publishing(path) as temp, open(temp, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for topic in topics:
            out.writerows((text, topic) for text in dict.fromkeys(turns[0] for turns in conversations(topic)))
    return path


def conversations(topic: str) -> Iterator[list[str]]:
    """The conversations of one topic, each a list of at least two sentences.

    Raises:
        NoData: the package chatterbot-corpus is not installed.
    """
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("yaml") is None:
        raise NoData("the demo's texts are not installed. Type: pip install 'zoo-core[demo-text]'")
    import yaml

    path = Path(spec.submodule_search_locations[0]) / "data" / "english" / f"{topic}.yml"
    for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
        sentences = [" ".join(str(turn).split()) for turn in turns]
        if len(sentences) > 1 and all(sentences[:2]):
            yield sentences


def topics_recipe() -> Recipe:
    """What questions are about: a head on MiniLM's own weights, frozen."""
    from zoo_core.places import cache_folder
    from zoo_core.recipe import Recipe

    table = write_topics(cache_folder() / "demo" / "topics.csv", TOPICS)
    return Recipe(data=str(table), backbone=BACKBONE, head="linear:solver=lbfgs")


def chat_prepared(plugins: Plugins) -> tuple[Recipe, Backbone]:
    """A chat model from a tiny GPT-2 whose weights and words begin here, on the corpus's conversations."""
    import torch

    from zoo_core.places import cache_folder
    from zoo_core.recipe import Recipe
    from zoo_core.weights import load_backbone

    folder = cache_folder() / "demo"
    data = write_chats(folder / "chats.jsonl", CHAT_TOPICS)
    words = write_words(folder / "tiny-gpt" / "tokenizer.json", CHAT_TOPICS)
    card = Card(
        "demo/tiny-gpt",
        "text",
        "gpt2",
        package="zoo-text",
        modality="text",
        text=TextInput(96, "last", tokenizer=f"file:{words}"),
        config=TINY | {"bos_token_id": 0, "eos_token_id": 0},
        notes="For the demo: weights at random.",
    )
    torch.manual_seed(0)
    body = load_backbone(card, plugins, pretrained=False)
    recipe = Recipe(
        data=str(data), backbone=card.name, weights="none", freeze="scratch", head="causal-lm", epochs=EPOCHS, lr=5e-3
    )
    return recipe, body


def write_chats(path: Path, topics: tuple[str, ...]) -> Path:
    """Write conversations as JSON lines: the first of two speakers asks, the other one answers."""
    import json

    with publishing(path) as temp, open(temp, "w", encoding="utf-8") as out:
        for topic in topics:
            for asked, answer, *_ in conversations(topic):
                said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
                out.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")
    return path


def write_words(path: Path, topics: tuple[str, ...]) -> Path:
    """A byte-level tokenizer made of the corpus's own words.

    Raises:
        MissingExtra: the package tokenizers, which comes with zoo-text, is not installed.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingExtra("tokenizers is not installed. Type: pip install zoo-text") from error
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY["vocab_size"], special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator((turn for topic in topics for turns in conversations(topic) for turn in turns), trainer)
    with publishing(path) as temp:
        found.save(str(temp))
    return path
