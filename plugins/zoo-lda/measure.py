"""Discriminant analysis beside other heads on the same frozen features: solar cells, EfficientNet-Lite0.

    python plugins/zoo-lda/measure.py

Five draws of training images for each size; the 500 images that are compared are the same, and no head is fitted to
them. The trained head is given its best rate of three on them, which favours it; nothing else is chosen. Images:
elpv-dataset, CC-BY-NC-SA-4.0. Needs the packages of `pip install 'zoo-core[demo]'`. Minutes, the frozen pass included.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from zoo_lda import Lda

from zoo_core.demo import BACKBONE, write_manifest

COMPARED, DRAWS, SIZES = 500, 5, (40, 160, 640, 2000)
HEADS = ("linear", "linear:solver=lbfgs", "prototype", "lda", "lda:priors=equal")


def draw(cells: list[dict[str, str]], size: int, number: int, folder: Path) -> Path:
    """A table of `size` training images and the images that are compared."""
    order = np.random.default_rng(0).permutation(len(cells))
    mine = np.random.default_rng(number + 1).permutation(order[COMPARED:])[:size]
    path = folder / f"{size}-{number}.csv"
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for side, members in (("val", order[:COMPARED]), ("train", mine)):
            out.writerows((cells[i]["path"], cells[i]["label"], side) for i in members)
    return path


def probe(path: Path) -> dict[str, dict[str, float]]:
    """What `zoo probe` says of each head: its figures, at its best rate."""
    command = [str(Path(sys.executable).with_name("zoo")), "probe", str(path), "-b", BACKBONE, "--seeds", "1", "--json"]
    command += ["--rates", "0.001,0.003,0.01", *(word for head in HEADS for word in ("--head", head))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    best: dict[str, dict[str, float]] = {}
    for row in json.loads(done.stdout)["scores"]:  # best first
        best.setdefault(row["head"], {name: figure["mean"] for name, figure in row["figures"].items()})
    return best


def seconds(size: int, width: int = 1280) -> float:
    """CPU seconds of solving, without the frozen pass."""
    x, y = torch.randn(size, width), torch.arange(size) % 2
    start = time.process_time()
    Lda().solve(torch.nn.Linear(width, 2), x, y, (width,))
    return time.process_time() - start


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        with open(write_manifest(Path(folder) / "elpv.csv"), newline="") as file:
            cells = list(csv.DictReader(file))
        for size in SIZES:
            found = [probe(draw(cells, size, number, Path(folder))) for number in range(DRAWS)]
            for head in HEADS:
                figures = {key: mean(f[head][key] for f in found) for key in ("accuracy", "balanced_accuracy", "loss")}
                print(json.dumps({"benchmark": "heads", "training_images": size, "head": head, **figures}), flush=True)
    torch.set_num_threads(1)
    for size in SIZES:
        print(json.dumps({"benchmark": "solving lda", "training_images": size, "cpu_seconds": round(seconds(size), 2)}))
