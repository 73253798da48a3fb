"""What fewer bits for what is kept change: predictions, probabilities, ROC AUC, bytes.

    python benchmarks/dtypes.py                    elpv, last two stages, 640 training and 656 test images
    python benchmarks/dtypes.py --freeze head-only

The same recipe with fp32, fp16 and bf16 (which also rounds the frozen pass, unless `--precision fp32`), compared on the
test side with the run that keeps fp32. `another order` is fp32 with another seed of the head and the batches: the
yardstick for what a change means. Prints JSON lines and a table.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from loops import sample
from measure import finetune, run, table

RUNS = {
    "fp32": [],
    "fp16": ["--cache-dtype", "fp16"],
    "bf16, pass in fp32": ["--cache-dtype", "bf16", "--precision", "fp32"],
    "bf16": ["--cache-dtype", "bf16"],
    "fp32, another order": ["--seed", "1"],
}


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=656)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--freeze", default="last:2")
    options = parser.parse_args()
    lines, answers = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = sample(options.train, options.test, folder / "data.csv")
        for what, more in RUNS.items():
            command = [*finetune(data, folder / "run", options.freeze, options.epochs), "--no-calibrate", *more]
            command += ["--cache", "boundary"]
            found, used = run(command, {"ZOO_CACHE": str(folder / "cache")})
            answers[what] = probabilities(folder / "run" / "predictions.csv")
            moved = abs(answers[what] - answers["fp32"])
            changed = int((answers[what].argmax(1) != answers["fp32"].argmax(1)).sum())
            row = {"kept": what, "changed": changed, "moved": float(moved.max()), "moved_mean": float(moved.mean())}
            row |= {"test": len(moved), "auroc": found["test"]["auroc"], "accuracy": found["test"]["accuracy"]}
            print(json.dumps(row | {"bytes": found["cache"]["bytes"]} | used), flush=True)
            lines.append(
                (
                    what,
                    f"{changed} of {len(moved)}",
                    f"{moved.max():.2g}",
                    f"{row['auroc']:.4f}",
                    f"{row['accuracy']:.4f}",
                    f"{found['cache']['bytes'] / 1e6:.0f} MB",
                )
            )
    heads = ("kept", "other answers", "largest change of a probability", "ROC AUC", "accuracy", "kept in all")
    print("\n" + table(heads, lines))


def probabilities(path: Path) -> np.ndarray:
    """[N, classes] of a run's test side."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(v) for k, v in row.items() if k.startswith("p:")] for row in rows])


if __name__ == "__main__":
    main()
