"""A run that was just written, opened again: its files and what training saw must tell the same story."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_core.errors import RunDamaged
from zoo_core.files import read_json
from zoo_core.next_tokens import TOKENS
from zoo_core.runs import Run
from zoo_core.types import Example


def verify(run: Run, examples: tuple[Example, ...], probabilities: Any, sample: int = 8) -> None:
    """Predict some test examples with the reloaded run: files and cache must tell the same story."""
    numbers = read_json(run.path / "plan.json")["numbers"]
    tolerance = 1e-4 if run.summary["device"] == "cpu" else 1e-3  # GPU kernels differ by size of batch
    if numbers["precision"] != "fp32" or numbers["stored"] != "fp32":
        tolerance = 0.02  # where a rounding falls differs, too
    chosen = examples[:: max(1, len(examples) // sample)][:sample]
    where = {e.path: i for i, e in enumerate(examples)}
    scale = getattr(run.target, "std", 1.0) / min(1.0, run.calibration.temperature)  # sharpening sharpens differences
    for prediction in run.scored({Path(e.path): e.path for e in chosen}):
        if prediction.error:  # the file is gone since: no fault of the run
            continue
        expected = probabilities[where[prediction.path]]
        if run.target.kind == "next-token":  # sums over many tokens
            scale = max(1.0, expected[TOKENS])
        worst = max(abs(p - q) for p, q in zip(prediction.row, expected.tolist(), strict=True)) / scale
        if worst > tolerance:
            raise RunDamaged(
                f"the saved run predicts {prediction.path} differently from the trained model (by {worst:.2g}). "
                "Nothing was kept; please report it."
            )
