"""Writing a run: everything into `NAME.unfinished`, then `COMMIT`, then the rename."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from zoo_core.files import publishing, write_json, write_text
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.runs import Run
from zoo_core.types import Task
from zoo_core.unfinished import Unfinished

if TYPE_CHECKING:
    from zoo_core.fit import Model
    from zoo_core.targets import Target


class RunWriter:
    """Writes a run into `NAME.unfinished` and renames it once it is whole."""

    def __init__(self, unfinished: Unfinished):
        self.unfinished, self.folder = unfinished, unfinished.folder

    def __enter__(self) -> RunWriter:
        try:
            self.unfinished.begin()
        except BaseException as error:
            self.unfinished.leave(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.unfinished.leave(error)

    def write(
        self,
        recipe: Recipe,
        model: Model,
        task: Task,
        history: list[dict[str, Any]],
        probabilities: Any,
        summary: dict[str, Any],
        decided: dict[str, Any],
        seen: Mapping[str, Any],
    ) -> None:
        """All files but `COMMIT`.

        Args:
            decided: what else the plan says: numbers, cache, width of the head's input.
            seen: what `looking.looked_at` found in the data.
        """
        from zoo_core import targets, tensors

        body, plan = model.backbone, model.plan
        saved_from = plan.depth if body.pretrained else 0  # random stages are nowhere else
        about = {"backbone_digest": summary["frozen_digest_after"]}
        tensors.write(self.folder / "model.safetensors", model.trained(saved_from), about)
        recipe.save(self.folder / "recipe.toml")
        write_json(self.folder / "card.json", {"name": body.card.name, "card": body.card.to_json()})
        frozen = {"depth": plan.depth, "frozen": plan.still(len(body.stages)), "saved_from": saved_from}
        frozen["frozen_digest"] = summary["frozen_digest_after"]
        write_json(self.folder / "plan.json", asdict(plan) | frozen | {"schedule": summary["schedule"]} | decided)
        write_json(self.folder / "labels.json", targets.written(model.builder.target))
        tested = {"tested": [e.digest for e in task.split("test")]}  # in the order of predictions.csv
        facts = {k: summary["data"][k] for k in ("bad", "skipped", "notes", "counts")}
        write_json(self.folder / "audit.json", {**facts, **seen, **tested})
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))
        write_json(self.folder / "summary.json", summary)
        cuts = decided["calibration"]["thresholds"] if task.kind == "multi-label" else ()
        self._write_predictions(task, model.builder.target, probabilities.tolist(), cuts)

    def open(self, plugins: Plugins) -> Run:
        """The run as written so far, for checking it before it is committed."""
        return Run(self.folder, plugins, committed=False)

    def commit(self, summary: dict[str, Any]) -> None:
        """Final figures, digests of all files, `COMMIT`, and the rename."""
        write_json(self.folder / "summary.json", summary)
        self.unfinished.commit()

    def _write_predictions(self, task: Task, target: Target, answers: list[list[float]], cuts: Sequence[float]) -> None:
        path = self.folder / "predictions.csv"
        with publishing(path) as temp, open(temp, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["path", "label", "predicted", *(f"p:{c}" for c in task.classes)])
            for example, row in zip(task.split("test"), answers, strict=True):
                shares = [f"{p:.6f}" for p in row] if task.classes else []
                predicted = "|".join(target.names(row, cuts))
                out.writerow([example.origin or example.path, task.text(example), predicted, *shares])


def fingerprints(model: Model, history: list[dict[str, Any]], optimiser: str) -> dict[str, str]:
    """sha256 of what a training ended with: equal for two runs that did the same, whatever time they took."""
    import hashlib

    from zoo_core import tensors

    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in history]
    metrics = hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()
    return {"weights": tensors.digest(model.trained(model.plan.depth)), "optimiser": optimiser, "metrics": metrics}
