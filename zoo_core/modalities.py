"""What an example is: images, texts or sounds. How its file is told, decoded and compared; needs no torch.

How a backbone turns such a file into its input is the backbone's `Reader`: see readers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo_core import decoding, likeness, texts

Name = Literal["image", "text", "audio"]


@dataclass(frozen=True)
class Modality:
    """One kind of example.

    Attributes:
        name: as cards say it.
        plural: as people say it.
        endings: of its files.
        version: of decoding and comparing; what was seen under another version is looked at again.
        examine: a file's content digest (equal for copies under other names or containers), and its
            look (near for near copies, empty for none). Raises `BadExample`.
        column: what a table calls the example itself; `path` names a file.
    """

    name: Name
    plural: str
    endings: tuple[str, ...]
    version: str
    examine: Callable[[str], tuple[str, str]]
    column: Literal["path", "text"] = "path"

    def owns(self, path: Path) -> bool:
        """Whether a file's name says that it is such an example."""
        return path.suffix.lower() in self.endings and not path.name.startswith(".")


def of(name: str) -> Modality:
    """The modality that a card names."""
    return next(kind for kind in _ALL if kind.name == name)


def _image(path: str) -> tuple[str, str]:
    image = decoding.decode(path)
    return decoding.content_digest(image), likeness.look(image)


def _text(path: str) -> tuple[str, str]:
    text = texts.decode(path)
    return texts.content_digest(text), texts.look(text)


IMAGE = Modality("image", "images", decoding.ENDINGS, f"{decoding.DECODER}-{likeness.LOOK}", _image)
TEXT = Modality("text", "texts", texts.ENDINGS, texts.VERSION, _text, "text")

_ALL = (IMAGE, TEXT)
