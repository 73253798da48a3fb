"""Fixtures: tiny models of the real architectures in upstream's own files, and a table of texts."""

from __future__ import annotations

import csv
import random

import pytest
from tiny_texts import WORDS, write_folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder of each architecture as upstream writes it, and a tokenizer."""
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture
def table(tmp_path):
    """Forty texts of two classes in a CSV; they differ in length and in words."""
    rng = random.Random(0)
    path = tmp_path / "texts.csv"
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for i in range(40):
            words = WORDS[15 * (i % 2) :][:15]
            out.writerow([" ".join(rng.choices(words, k=rng.randint(3, 30))), ("sea", "kitchen")[i % 2]])
    return path
