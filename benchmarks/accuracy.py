"""Whether the answers are as good as the loops': ROC AUC and accuracy on elpv over seeds, ours and the plain loop's.

    python benchmarks/accuracy.py                    a probe, whole set, five seeds
    python benchmarks/accuracy.py --freeze last:2 --train 640 --seeds 3

The loop runs with `--remember`: what its frozen modules give is computed once and kept, so that all seeds end in
minutes. That changes none of its figures, which is checked first with a short run of both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from loops import MODULES, export, sample
from measure import HERE, finetune, printed, run, table


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1968)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--freeze", default="head-only")
    options = parser.parse_args()
    print("\n" + section(printed(measure(**vars(options)))))


def measure(
    train: int = 1968,
    seeds: int = 5,
    freeze: str = "head-only",
    epochs: int = 20,
    batch: int = 64,
    python: str = sys.executable,
) -> Iterator[dict[str, Any]]:
    """One line for each runner and seed."""
    about = {"train": train, "test": 656, "epochs": epochs, "freeze": freeze, "batch": batch}
    depth = ["--train-last", str(MODULES[freeze]), "--lr", "1e-3"] if freeze != "head-only" else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = export(folder / "weights.safetensors")
        loop = [python, str(HERE / "peers" / "timm_loop.py")]
        rest = ["--weights", str(weights), "--batch", str(batch), *depth]
        few = sample(64, 64, folder / "few.csv")
        plain, kept = (run([*loop, str(few), *rest, "--epochs", "2", *more])[0] for more in ([], ["--remember"]))
        for figure in ("accuracy", "auroc"):
            if abs(plain[figure] - kept[figure]) > 1e-6:
                raise SystemExit(
                    f"the loop with --remember gives another {figure}: {kept[figure]}, not {plain[figure]}"
                )
        data = sample(train, 656, folder / "data.csv")
        for seed in range(seeds):
            command = [*finetune(data, folder / "run", freeze, epochs), "--batch-size", str(batch), "--seed", str(seed)]
            found, _ = run(command, {"ZOO_CACHE": str(folder / "cache")})
            yield about | {"runner": "ours", "seed": seed} | {k: found["test"][k] for k in ("accuracy", "auroc")}
        more = ["--epochs", str(epochs), "--remember", "--seeds", str(seeds)]
        found, _ = run([*loop, str(data), *rest, *more])
        for seed, figures in enumerate(found["seeds"]):
            yield about | {"runner": "plain loop", "seed": seed} | figures


def section(rows: list[dict[str, Any]]) -> str:
    """Mean, spread and range over the seeds."""
    lines = []
    for runner in dict.fromkeys(row["runner"] for row in rows):
        mine = [row for row in rows if row["runner"] == runner]
        cells = []
        for key in ("accuracy", "auroc"):
            values = [row[key] for row in mine]
            cells.append(f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
        lines.append((runner, len(mine), *cells))
    return table(("runner", "seeds", "accuracy", "ROC AUC"), lines)


if __name__ == "__main__":
    main()
