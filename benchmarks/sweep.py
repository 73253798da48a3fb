"""Five heads x five learning rates x five seeds against one cold run of one head: `zoo probe` on the whole of elpv.

    python benchmarks/sweep.py

Both from an empty cache, whole processes, 20 epochs; then the sweep again from a warm one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loops import sample
from measure import BACKBONE, finetune, printed, run, table

HEADS = ("linear", "linear:label_smoothing=0.1", "cosine", "mlp:hidden=64", "mlp:hidden=128")


def main() -> None:
    """Run, print."""
    print("\n" + section(printed(measure())))


def measure(rounds: int = 2, epochs: int = 20, train: int = 1968, test: int = 656) -> Iterator[dict[str, Any]]:
    """One run and the sweep, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = sample(train, test, folder / "data.csv")
        probe = [
            sys.executable,
            "-m",
            "zoo_core",
            "probe",
            str(data),
            "-b",
            BACKBONE,
            "--epochs",
            str(epochs),
            "--json",
        ]
        probe += [part for head in HEADS for part in ("--head", head)]
        held_out = folder / "held_out.csv"  # a sweep chooses by validation, so some training images stand there
        lines = data.read_text().splitlines()
        fifth = [line for line in lines if line.endswith(",train")][::5]
        validation = {line: line[: -len("train")] + "val" for line in fifth}
        held_out.write_text("\n".join(validation.get(line, line) for line in lines) + "\n")
        probe[4] = str(held_out)
        for _ in range(rounds):
            caches = [tempfile.mkdtemp(dir=folder) for _ in range(2)]
            _, used = run(finetune(data, folder / "run", epochs=epochs), {"ZOO_CACHE": caches[0]})
            yield {"runner": "one run, cold"} | used
            for state in ("cold", "warm"):
                found, used = run(probe, {"ZOO_CACHE": caches[1]})
                cells = sum(len(score["figures"]["loss"]["values"]) for score in found["scores"])
                yield {"runner": f"sweep, {state}", "models": cells} | used


def section(rows: list[dict[str, Any]]) -> str:
    """Minima over the rounds."""
    one = min(row["seconds"] for row in rows if row["runner"] == "one run, cold")
    lines = []
    for runner in dict.fromkeys(row["runner"] for row in rows):
        mine = [row for row in rows if row["runner"] == runner]
        every = [row["seconds"] for row in mine]
        models = mine[0].get("models", 1)
        lines.append((runner, models, f"{min(every):.1f} to {max(every):.1f}", f"{min(every) / one:.2f}"))
    return table(("runner", "models trained", "seconds", "times one cold run"), lines)


if __name__ == "__main__":
    main()
