"""Low-rank adapters beside plain training of the same stages, on real images: solar cells, EfficientNet-Lite0.

python plugins/zoo-lora/measure.py rates      cross-validated on the training images, to choose the learning rate
python plugins/zoo-lora/measure.py compare    on 500 test images that no choice has looked at

Each draw takes other training images out of elpv; the test images are the same. Needs the packages of
`pip install 'zoo-core[demo]'`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean

import numpy as np

import zoo_core as zoo
from zoo_core.demo import BACKBONE, write_manifest

TEST = 500
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
WAYS = ("head-only", "last:stages=2", "lora", "lora:norms=true", "lora:rank=2", "lora:stages=4", "last:stages=4")


def draw(n: int, number: int, folder: Path) -> Path:
    """A table of `n` images to train and validate on, a fifth of them for validation, and the test images."""
    with open(write_manifest(folder / "elpv.csv"), newline="") as file:
        cells = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(cells))
    mine = np.random.default_rng(number + 1).permutation(order[TEST:])[:n]
    sides = dict.fromkeys(order[:TEST], "test") | dict.fromkeys(mine, "train") | dict.fromkeys(mine[: n // 5], "val")
    path = folder / f"elpv-{n}-{number}.csv"
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        out.writerows((cells[i]["path"], cells[i]["label"], side) for i, side in sides.items())
    return path


def rates(folder: Path, n: int = 300, draws: int = 2) -> None:
    """Cross-validation of `lora` and `last:2` at each learning rate; no test image is looked at."""
    for freeze in ("lora", "last:stages=2"):
        for lr in RATES:
            found = []
            for number in range(draws):
                run = zoo.finetune(
                    draw(n, number, folder),
                    backbone=BACKBONE,
                    freeze=freeze,
                    lr=lr,
                    folds=4,
                    out=folder / "run",
                    force=True,
                )
                found.append(run.summary["repeats"])
            print(f"{freeze:<16}{lr:<8g}" + _figures(*(mean(f[k]["mean"] for f in found) for k in KEYS)), flush=True)


def compare(folder: Path, n: int = 300, draws: int = 3) -> None:
    """Test figures of each way at its default rate, with the parameters that train and the seconds it takes."""
    for freeze in WAYS:
        runs = [
            zoo.finetune(draw(n, k, folder), backbone=BACKBONE, freeze=freeze, out=folder / "run", force=True).summary
            for k in range(draws)
        ]
        trained, seconds = runs[0]["freeze"]["parameters_trained"], mean(r["seconds"]["fit"] for r in runs)
        print(f"{freeze:<16}" + _figures(*(mean(r["test"][k] for r in runs) for k in KEYS)), end="")
        print(f"{trained:>12,}{seconds:>8.1f} s", flush=True)


KEYS = ("accuracy", "balanced_accuracy", "auroc", "log_loss")


def _figures(accuracy: float, balanced: float, auroc: float, loss: float) -> str:
    return f"accuracy {accuracy:.3f}  balanced {balanced:.3f}  ROC AUC {auroc:.3f}  log loss {loss:.3f}"


if __name__ == "__main__":
    folder = Path("lora-measured")
    folder.mkdir(exist_ok=True)
    {"rates": rates, "compare": compare}[sys.argv[1]](folder)
