"""The text demo's data: questions by topic, and conversations, as tables.

Texts: the English part of the package chatterbot-corpus, a dialogue corpus that users wrote (BSD licence, as the
package's metadata state). Its files are YAML lists of conversations, read without any tags of their own.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from zoo_core.errors import NoData
from zoo_core.files import publishing

BACKBONE = "text/all-minilm-l6-v2"
LICENCE = "chatterbot-corpus, questions that users wrote (BSD licence)"
TOPICS = ("ai", "coding", "emotion", "literature", "movies", "psychology", "science", "sports", "trivia")
"""Topics with at least 20 different questions; what is left out repeats a few questions, or is about the bot."""


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
