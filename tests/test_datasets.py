"""The benchmarks' data: real images from packages, in samples that can be compared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def datasets(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import datasets

    return datasets


@pytest.fixture
def pool(datasets):
    """Two classes, one three times as frequent."""
    return [datasets.Image(f"{i}.png", "rare" if i % 4 == 0 else "often") for i in range(400)]


def test_a_smaller_sample_lies_within_a_larger_one(datasets, pool):
    """Samples grow: the test side stays, each training side holds the smaller ones, and classes keep their shares."""
    small, large, other = (datasets.sample(pool, n, 100, seed) for n, seed in ((40, 0), (160, 0), (40, 1)))
    assert set(small) < set(large)
    assert {i for i, side in other if side == "test"} == {i for i, side in large if side == "test"}
    assert set(other) != set(small)
    assert Counter(i.label for i, side in small if side == "train") == {"often": 30, "rare": 10}
    with pytest.raises(datasets.Missing, match="301 training images wanted, but only 300 are left beside 100"):
        datasets.sample(pool, 301, 100)


def test_sides_and_classes(datasets, pool):
    """Where a data set says which images are for tests, they are; and some classes can be taken alone."""
    sided = [datasets.Image(i.path, i.label, "train" if n < 300 else "test") for n, i in enumerate(pool)]
    chosen = datasets.sample(sided, 40, 100, labels=["often"])
    assert {i.label for i, _ in chosen} == {"often"}
    assert all(i.side == side for i, side in chosen)
    assert len(chosen) == 40 + 75


def test_a_manifest(datasets, tmp_path):
    """Digits of scikit-learn become files and a table that `zoo` reads."""
    found = datasets.images("digits")
    path = datasets.write(tmp_path / "digits.csv", datasets.sample(found, 20, 10))
    lines = path.read_text().splitlines()
    assert lines[0] == "path,label,split"
    assert len(lines) == 31
    assert all(Path(line.split(",")[0]).is_file() for line in lines[1:])
    with pytest.raises(datasets.Missing, match="no data set 'mnist'"):
        datasets.images("mnist")
