"""What an example is: image, text, conversation or sound. How its file is told, decoded and compared; needs no torch.

How a backbone turns such a file into its input is the backbone's `Reader`: see readers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo_core import conversations, decoding, likeness, sounds, texts
from zoo_core.errors import BadOption

if TYPE_CHECKING:
    from zoo_core.card import Card

Name = Literal["image", "text", "audio", "chat"]


@dataclass(frozen=True)
class Modality:
    """One kind of example.

    Attributes:
        name: as cards say it; `chat` is what a head for conversations says of a model of texts.
        plural: as people say it.
        endings: of its files.
        version: of decoding and comparing; what was seen under another version is looked at again.
        examine: a file's content digest (equal for copies under other names or containers), and its
            look (near for near copies, empty for none). Raises `BadExample`.
        column: what a table calls the example itself; `path` names a file, `messages` have no labels.
    """

    name: Name
    plural: str
    endings: tuple[str, ...]
    version: str
    examine: Callable[[str], tuple[str, str]]
    column: Literal["path", "text", "messages"] = "path"

    def owns(self, path: Path) -> bool:
        """Whether a file's name says that it is such an example."""
        return path.suffix.lower() in self.endings and not path.name.startswith(".")


def of(name: str) -> Modality:
    """The modality that a card names."""
    return next(kind for kind in _ALL if kind.name == name)


def for_head(builder: Any, card: Card) -> Modality:
    """What a head's examples are on a card's backbone: the card's kind, or conversations.

    Raises:
        BadOption: conversations are asked of a backbone that reads no texts.
    """
    kind = getattr(builder, "examples", "") or card.modality
    if kind == "chat" and card.modality != "text":
        raise BadOption(
            f"{card.name} reads {of(card.modality).plural}; conversations need a language model. "
            "Type: zoo list --modality text"
        )
    return of(kind)


def _image(path: str) -> tuple[str, str]:
    image = decoding.decode(path)
    return decoding.content_digest(image), likeness.look(image)


def _text(path: str) -> tuple[str, str]:
    text = texts.decode(path)
    return texts.content_digest(text), texts.look(text)


def _chat(path: str) -> tuple[str, str]:
    messages = conversations.decode(path)
    return conversations.content_digest(messages), conversations.look(messages)


def _sound(path: str) -> tuple[str, str]:
    samples, rate = sounds.decode(path)
    return sounds.content_digest(samples, rate), ""  # near copies of sounds are not looked for


IMAGE = Modality("image", "images", decoding.ENDINGS, f"{decoding.DECODER}-{likeness.LOOK}", _image)
TEXT = Modality("text", "texts", texts.ENDINGS, texts.VERSION, _text, "text")
CHAT = Modality("chat", "conversations", conversations.ENDINGS, conversations.VERSION, _chat, "messages")
AUDIO = Modality("audio", "sounds", sounds.ENDINGS, sounds.VERSION, _sound)

_ALL = (IMAGE, TEXT, AUDIO, CHAT)
