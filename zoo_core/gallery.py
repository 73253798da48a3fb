"""Pictures for the report: test examples as the model saw them, with what it answered and where it looked."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from zoo_core.answered import Answered
from zoo_core.errors import ZooError
from zoo_core.types import ONE_LABEL

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from zoo_core.predicting import Predictor
    from zoo_core.runs import Run

MISTAKES, RIGHT = 12, 4
LOOKED = 6  # of either: each costs a pass
_SIDE = 192  # pixels of a thumbnail
_WORDS = 280  # characters of a text
_HEAT = (255, 72, 0)


@dataclass(frozen=True)
class Shown:
    """One example on the page.

    Attributes:
        name: of the file, without its folder.
        path: all of it.
        truth, predicted: labels, as the data spell them.
        sure: how sure the model was of its answer, or how far a number is off, in words.
        picture: a data URI; empty where there is none.
        heat: where the model looked, as a transparent data URI to lay over it.
        text: of a text example, its beginning.
    """

    name: str
    path: str
    truth: str
    predicted: str
    sure: str
    picture: str = ""
    heat: str = ""
    text: str = ""


def mistakes(run: Run, answered: Answered, places: Mapping[str, str], predictor: Predictor | None) -> list[Shown]:
    """The most confident mistakes, or the largest errors, the worst first."""
    wrong = [i for i in range(len(answered)) if answered.truth[i] != answered.predicted[i]]
    badness = _badness(run, answered)
    chosen = sorted(wrong, key=lambda i: -badness[i])[:MISTAKES]
    return _shown(run, answered, chosen, places, predictor)


def right(run: Run, answered: Answered, places: Mapping[str, str], predictor: Predictor | None) -> list[Shown]:
    """The surest right answer of each class, for the first classes."""
    if run.target.kind not in ONE_LABEL or predictor is None or run.modality.name != "image":
        return []
    sure = answered.shares.max(1)
    found: dict[str, int] = {}
    for i in np.argsort(-sure, kind="stable"):
        if answered.truth[i] == answered.predicted[i]:
            found.setdefault(answered.truth[i], int(i))
    return _shown(run, answered, [found[name] for name in sorted(found)[:RIGHT]], places, predictor)


def picture(pixels: Tensor) -> str:
    """Pixels [C, H, W] as the data URI of a small JPEG."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return _uri(image, "JPEG", quality=82)


def thumbnail(path: str | Path, digest: str) -> str:
    """A file as the data URI of a small JPEG; empty where it is not there any more, or is another one."""
    from zoo_core import decoding

    try:
        image = decoding.decode(path)
    except (ZooError, OSError, ValueError):
        return ""
    if decoding.content_digest(image) != digest:
        return ""
    image = image.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return _uri(image, "JPEG", quality=82)


def heat(cam: np.ndarray) -> str:
    """Values [h, w] in [0, 1] as the data URI of a transparent PNG; the browser enlarges it smoothly."""
    from PIL import Image

    alpha = Image.fromarray((200 * cam).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", alpha.size, (*_HEAT, 0))
    layer.putalpha(alpha)
    return _uri(layer, "PNG", optimize=True)


def _badness(run: Run, answered: Answered) -> np.ndarray:
    """How wrong each answer is [N]: confidence in it, or the distance from the truth."""
    if run.target.kind in ONE_LABEL:
        return np.asarray(answered.shares.max(1))
    labels = run.target.labels(answered.truth).numpy().reshape(len(answered), -1)
    return np.asarray(abs(answered.shares - labels).max(1))


def _shown(
    run: Run, answered: Answered, chosen: Sequence[int], places: Mapping[str, str], predictor: Predictor | None
) -> list[Shown]:
    files = {i: Path(places.get(answered.paths[i], answered.paths[i])) for i in chosen}
    seen = _seen(run, files, answered) if run.modality.name == "image" else {}
    heats = _heats(predictor, {i: seen[i] for i in list(seen)[:LOOKED]}, answered) if predictor else {}
    found = []
    for i in chosen:
        path = answered.paths[i]
        found.append(
            Shown(
                Path(path).name,
                path,
                answered.truth[i] or "none",
                answered.predicted[i] or "none",
                _sure(run, answered, i),
                picture(seen[i]) if i in seen else "",
                heats.get(i, ""),
                _words(files[i], run.modality.name, answered.digests[i]),
            )
        )
    return found


def _sure(run: Run, answered: Answered, i: int) -> str:
    row = answered.shares[i]
    if run.target.kind == "regression":
        return f"off by {abs(float(answered.predicted[i]) - float(answered.truth[i])):.3g}"
    if run.target.kind == "next-token":
        return f"perplexity {row[0]:.3g}"
    if run.target.kind == "multi-label":
        return ", ".join(f"{run.classes[c]} {row[c]:.2f}" for c in np.argsort(-row)[:2])
    return f"{row.max():.0%} sure"


def _words(file: Path, kind: str, digest: str) -> str:
    """The beginning of a text or a conversation; empty where it is not there any more, or another; and for images."""
    from zoo_core import conversations, texts

    if kind not in ("text", "chat"):
        return ""
    try:
        if kind == "chat":
            said = conversations.decode(file)
            found = conversations.content_digest(said)
        else:
            text = texts.decode(file)
            said, found = [{"content": text}], texts.content_digest(text)
        if found != digest:
            return ""
        words = " / ".join(" ".join(message["content"].split()) for message in said)
    except (ZooError, OSError, ValueError):
        return ""
    return words[:_WORDS] + ("..." if len(words) > _WORDS else "")


def _seen(run: Run, files: Mapping[int, Path], answered: Answered) -> dict[int, Tensor]:
    """Images as they enter the model, uint8 [C, H, W]; missing ones, and others under their names, are left out."""
    from zoo_core import images

    found = {}
    for i, file in files.items():
        with suppress(ZooError, OSError, ValueError):
            image = images.decode(file)
            if images.content_digest(image) == answered.digests[i]:
                found[i] = images.pixels(image, run.card.input)
    return found


def _heats(predictor: Predictor, seen: Mapping[int, Tensor], answered: Answered) -> dict[int, str]:
    """Where the model looked for what it answered, as data URIs."""
    from zoo_core import saliency

    if not seen:
        return {}
    reader = predictor.model.backbone.reader
    x = cast("Tensor", reader.to_input(reader.stack(list(seen.values())), predictor.model.device))
    cams = saliency.look(predictor, x, [int(answered.shares[i].argmax()) for i in seen])
    return {i: heat(cam.float().numpy()) for i, cam in zip(seen, cams, strict=True) if cam is not None}


def _uri(image: Image.Image, form: str, **how: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def pictured(shown: Sequence[Shown]) -> int:
    """How many have a picture."""
    return sum(bool(example.picture) for example in shown)
