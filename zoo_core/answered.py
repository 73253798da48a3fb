"""What a run answered on its test side, read back from `predictions.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from zoo_core import run_files
from zoo_core.errors import RunDamaged

if TYPE_CHECKING:
    from zoo_core.runs import Run


@dataclass(frozen=True)
class Answered:
    """Test examples with their answers, in the file's order.

    Attributes:
        paths: as people are shown them.
        truth: labels as the data spell them.
        predicted: answers, spelled in the same way.
        shares: probability of each class [N, classes]; the number itself [N, 1] where there are no classes.
        digests: of the examples' content. A file that a path names is only shown if it is the one that was tested: it
            may have changed, and a run of somebody else's may name any file of yours.
    """

    paths: Sequence[str]
    truth: Sequence[str]
    predicted: Sequence[str]
    shares: np.ndarray
    digests: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.paths)


def read(run: Run) -> Answered:
    """The test side of a run.

    Raises:
        RunDamaged: the file is missing, or no table of this run's classes.
    """
    path = run.file("predictions.csv")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            heading, *rows = list(csv.reader(file))
        width = len(run.classes)
        if len(heading) != 3 + width or any(len(row) != len(heading) for row in rows):
            raise ValueError(f"expected {3 + width} columns")
        numbers = [[float(cell) for cell in (row[3:] or row[2:3])] for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise RunDamaged(f"{path} cannot be read: {error}. Train it again: zoo finetune --recipe RECIPE") from error
    paths, truth, predicted = ([row[i] for row in rows] for i in range(3))
    shares = np.array(numbers, dtype=np.float64).reshape(len(rows), width or 1)
    return Answered(paths, truth, predicted, shares, _digests(run, len(rows)))


def _digests(run: Run, count: int) -> list[str]:
    """As `audit.json` lists them; nothing is then recognised where it does not."""
    found = run_files.read(run.file("audit.json")).get("tested")
    return [str(digest) for digest in found] if isinstance(found, list) and len(found) == count else [""] * count
