"""Ridge on all stages: by what power of its deviation is each feature divided? Test accuracy, on the science grid.

    python benchmarks/scales.py

One pass over each sample of `benchmarks/science.py` (data set, size, seed), a moment for each power.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import datasets
import numpy as np
import science
from measure import table

from zoo_core import solvers
from zoo_core.console import Console
from zoo_core.trainer import kept_at

POWERS = (1.0, 0.5, 0.0)


def accuracies(bench: science.Bench) -> list[float]:
    """Test accuracy in points for each power."""
    body, train, test = bench.body, bench.train, bench.test
    kept = kept_at(bench.recipe, bench.task, body, len(body.stages), 1, Console())
    x, widths = kept.all_stages(train.digests), kept.plain.pooled.widths
    found = []
    for power in POWERS:
        solved = solvers.ridge(x, train.labels, len(bench.task.classes), widths, power)
        answers = (kept.all_stages(test.digests) @ solved.weight.T + solved.bias).argmax(1)
        found.append(100 * float((answers == test.labels).float().mean()))
    return found


def main() -> None:
    """Measure, print."""
    cells: dict[tuple[str, int], list[Sequence[float]]] = defaultdict(list)
    for name in datasets.SETS:
        for n in science.SIZES:
            for seed in science.SEEDS:
                try:
                    bench = science.Bench(science.Cell(name, n, seed, "head-only", "multi-stage", None))
                except datasets.Missing as reason:
                    print(f"{name}, n = {n}: left out, {reason}")
                    break
                cells[name, n].append(accuracies(bench))
                print(json.dumps({"data": name, "n": n, "seed": seed, "accuracy": cells[name, n][-1]}), flush=True)
    rows = [(f"{name}, {n}", *(f"{v:.1f}" for v in np.mean(found, axis=0))) for (name, n), found in cells.items()]
    mean = np.mean([row for found in cells.values() for row in found], axis=0)
    print(table(("data, n", *(f"power {p:g}" for p in POWERS)), [*rows, ("mean", *(f"{v:.1f}" for v in mean))]))


if __name__ == "__main__":
    main()
