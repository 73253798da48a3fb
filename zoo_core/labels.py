"""What kind of task a table's labels are: guessed, said, checked. Needs no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zoo_core.errors import BadManifest, BadOption, TooFewExamples, near
from zoo_core.types import KINDS, Kind

_MANY = 30  # different whole numbers, beyond which they may well be amounts
_BINS = 10  # groups of numbers that are spread evenly over the sides


def choose_kind(texts: Sequence[str], asked: str, column: str) -> tuple[Kind, list[str]]:
    """The kind of task, and a sentence where it was guessed and another one is possible.

    Args:
        texts: the labels as the data spell them.
        asked: what the user said, or `auto`.
        column: what the table calls them; empty for folders, whose names are classes.

    Raises:
        BadOption: `asked` is none.
        BadManifest: a label does not fit what was asked.
    """
    if asked == "next-token":  # conversations have no labels
        return "next-token", []
    kind, notes = (_known(asked), []) if asked != "auto" else _guess(texts, column)
    if kind in ("regression", "ordinal"):
        strange = next((text for text in texts if _number(text) is None), None)
        if strange is not None:
            raise BadManifest(
                f"--task {kind}: the label {strange!r} is no number. Leave --task out, or mend the table."
            )
    return kind, notes


def names_of(text: str) -> tuple[str, ...]:
    """The labels in a cell such as `cat|dog`."""
    return tuple(dict.fromkeys(part.strip() for part in text.split("|") if part.strip()))


def classes_of(kind: Kind, texts: Sequence[str]) -> tuple[str, ...]:
    """Label names in their order: sorted, ranks by their number; none for numbers."""
    if kind in ("regression", "next-token"):
        return ()
    if kind == "multi-label":
        return tuple(sorted({name for text in texts for name in names_of(text)}))
    return tuple(sorted(set(texts), key=(lambda text: (_number(text) or 0, text)) if kind == "ordinal" else None))


def strata_of(kind: Kind, texts: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The group of each example that is spread evenly over the sides.

    The class itself; for several labels the rarest one (examples without a label are a group of their own);
    for numbers one of ten groups of equal size.
    """
    if kind == "regression":
        order = sorted(range(len(texts)), key=lambda i: float(texts[i]))
        bins = max(1, min(_BINS, len(texts) // 8))
        place = {i: bins * rank // len(texts) for rank, i in enumerate(order)}
        return [place[i] for i in range(len(texts))]
    if kind == "next-token":
        return [0] * len(texts)
    index = {name: i for i, name in enumerate(classes)}
    if kind != "multi-label":
        return [index[text] for text in texts]
    count = Counter(name for text in texts for name in names_of(text))
    rarest = [min(names_of(text), key=lambda name: (count[name], name), default=None) for text in texts]
    return [len(classes) if name is None else index[name] for name in rarest]


def check(where: Path, kind: Kind, texts: Sequence[str], classes: Sequence[str], lost: str) -> None:
    """Refuse labels that nothing can be learnt from. `lost`: a sentence about images that could not be read.

    Raises:
        TooFewExamples: one class only, a class of one example, or numbers that are all the same.
    """
    if kind == "regression":
        if len(set(map(float, texts))) < 2 or len(texts) < 4:
            raise TooFewExamples(
                f"{where} has {len(texts)} examples with {len(set(texts))} different numbers; expected 4 and 2 or more."
                f"{lost}"
            )
        return
    if kind == "next-token":
        if len(texts) < 2:
            raise TooFewExamples(f"{where} has one conversation; expected at least 2, one to train and one to test on.")
        return
    several = kind == "multi-label"
    if len(classes) < (1 if several else 2):
        raise TooFewExamples(
            f"{where} has {len(texts)} examples of {len(classes)} class ({', '.join(classes)}); "
            f"expected two classes or more, one folder each.{lost}"
        )
    counts = Counter(name for text in texts for name in (names_of(text) if several else (text,)))
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < 2:
        raise TooFewExamples(
            f"{where}: class {label!r} has one example; expected at least 2, one to train and one to test on. "
            f"Add images or remove the class.{lost}"
        )


def _guess(texts: Sequence[str], column: str) -> tuple[Kind, list[str]]:
    if not column:
        return "single-label", []
    if column.lower() == "labels" or any("|" in text for text in texts):
        return "multi-label", [
            "task guessed: multi-label (labels are separated by '|'); for one class each give --task single-label"
        ]
    numbers = [_number(text) for text in texts]
    found = {number for number in numbers if number is not None}
    if None in numbers or not found:
        return "single-label", []
    if not all(number.is_integer() for number in found):
        return "regression", [
            f"task guessed: regression ({len(found)} different numbers); for classes give --task single-label"
        ]
    if len(found) > _MANY:
        return "single-label", [
            f"task guessed: single-label ({len(found)} different whole numbers); for amounts give --task regression"
        ]
    return "single-label", []


def _known(asked: str) -> Kind:
    for kind in KINDS:
        if kind == asked:
            return kind
    raise BadOption(f"--task {asked}: expected auto, {', '.join(KINDS)}. {near(asked, KINDS)}".rstrip())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
