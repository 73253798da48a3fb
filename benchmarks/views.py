"""Accuracy against the number of augmented views of each training image, and what the views cost.

    python benchmarks/views.py                    640 training images of elpv, 0 to 8 views, a head alone
    python benchmarks/views.py --policy strong --views 1 4

Figures are means over folds and seeds of cross-validation on the training side, and of the test side. A run with more
views finds those of the run before in the cache. Prints JSON lines and a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from loops import sample
from measure import finetune, run, table


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=656)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--policy", default="light")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = sample(options.train, options.test, folder / "data.csv")
        for count in (0, *sorted(options.views)):
            command = [*finetune(data, folder / "run", epochs=options.epochs), "--folds", "5", "--seeds", "3"]
            command += ["--augment", options.policy, "--views", str(count)] if count else []
            found, used = run(command, {"ZOO_CACHE": str(folder / "cache")})
            cells = {k: found["repeats"][k] for k in ("accuracy", "auroc")}
            test = {k: found["test"][k] for k in ("accuracy", "auroc")}
            row = {"views": count, "policy": options.policy, "folds": cells, "test": test, "phases": found["seconds"]}
            print(json.dumps(row | used), flush=True)
            spread = (f"{cells[k]['mean']:.4f} ± {cells[k]['std']:.4f}" for k in cells)
            lines.append((count or "as it is", *spread, *(f"{v:.4f}" for v in test.values()), found["cache"]["bytes"]))
    heads = (
        "views",
        "accuracy, folds x seeds",
        "ROC AUC, folds x seeds",
        "accuracy, test",
        "ROC AUC, test",
        "bytes kept",
    )
    print("\n" + table(heads, lines))


if __name__ == "__main__":
    main()
