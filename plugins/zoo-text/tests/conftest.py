"""Fixtures: tiny models of the real architectures in upstream's own files, and a table of texts."""

from __future__ import annotations

import csv
import os
import random

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tiny_texts import WORDS, write_folders


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A cache, a home and a working directory of the test's own."""
    for name in [n for n in os.environ if n.startswith("ZOO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


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
