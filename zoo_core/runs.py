"""A run: a folder with everything needed to predict, evaluate, audit or train again.

Written into `NAME.unfinished` and renamed when the `COMMIT` is in it, so that nothing half-written
ever looks finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import modalities, run_files
from zoo_core.calibration import Calibration
from zoo_core.card import Card
from zoo_core.conversations import Messages, Saying
from zoo_core.errors import BadOption, RunDamaged, RunNotFound, TooFewExamples
from zoo_core.files import read_json, sha256_file
from zoo_core.modalities import Modality
from zoo_core.next_tokens import COLUMNS
from zoo_core.plugins import Plugins
from zoo_core.recipe import Recipe
from zoo_core.types import FreezePlan, Phase, Task

if TYPE_CHECKING:
    from zoo_core.backbone import Value
    from zoo_core.predicting import Predictor
    from zoo_core.targets import Target

REPORT = "report.html"
"""Made of the other files, and may be made again: no digest of it is kept."""


@dataclass(frozen=True)
class Prediction:
    """One example's answer.

    Attributes:
        path: the file, or the place in a table.
        label: the most probable class; several labels separated by `|`; a number as text; what a chat model says.
        probability: of that class; of several labels the least.
        probabilities: of every class; empty for a number.
        value: the number, where that was asked for.
        error: why there is no answer; the rest is then empty.
    """

    path: str
    label: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    value: float | None = None

    @property
    def row(self) -> list[float]:
        """What the head gave: the probabilities, or the number."""
        return list(self.probabilities.values()) if self.value is None else [self.value]


class Run:
    """A finished run, opened from its folder."""

    def __init__(self, path: str | Path, plugins: Plugins | None = None, *, committed: bool = True):
        self.path = Path(path)
        if committed and not (self.path / "COMMIT").is_file():
            if self.path.with_name(self.path.name + ".unfinished").exists():
                raise RunNotFound(
                    f"{self.path} is an unfinished run; expected a folder with a COMMIT file. "
                    f"Go on with it: zoo finetune --resume {self.path}"
                )
            raise RunNotFound(f"{self.path} is no run; expected a folder with a COMMIT file. Type 'zoo runs ls'.")
        self._plugins = plugins

    def file(self, name: str) -> Path:
        """One of its files, with the digest that COMMIT records; a run that is not committed yet has none.

        Raises:
            RunDamaged: it is another file, or COMMIT says nothing about it.
        """
        path = run_files.sized(self.path / name)
        if self._committed is not None:
            expected = self._committed.get(name)
            found = sha256_file(path) if expected else "nothing known"
            if found != expected:
                raise RunDamaged(
                    f"{path} has sha256 {found}, but COMMIT says {expected}. Train it again: zoo finetune --recipe FILE"
                )
        return path

    @cached_property
    def _committed(self) -> dict[str, str] | None:
        """sha256 of each file, as COMMIT has it."""
        if not (self.path / "COMMIT").is_file():
            return None
        commit = read_json(self.path / "COMMIT")
        if not isinstance(commit, dict) or not isinstance(commit.get("files"), dict):
            raise RunDamaged(f"{self.path / 'COMMIT'} names no files. Train it again: zoo finetune --recipe FILE")
        return dict(commit["files"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        return run_files.read(self.file("summary.json"))

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures on the test side."""
        with run_files.reading(self.path):
            return dict(self.summary["test"])

    @cached_property
    def card(self) -> Card:
        """The backbone's card as it was when the run was made."""
        stored = run_files.read(self.file("card.json"))
        with run_files.reading(self.path):
            return Card.from_json(stored["name"], stored["card"])

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.load(self.file("recipe.toml"))

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was decided: phases, head, numbers."""
        return run_files.read(self.file("plan.json"))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.target.classes

    @cached_property
    def target(self) -> Target:
        """What it was trained to predict."""
        from zoo_core import targets

        stored = run_files.read(self.file("labels.json"))
        with run_files.reading(self.path):
            return targets.read(stored)

    @cached_property
    def calibration(self) -> Calibration:
        """What was fitted on the validation side."""
        with run_files.reading(self.path):
            return Calibration.read(self.plan["calibration"])

    @property
    def modality(self) -> Modality:
        """What it predicts."""
        return modalities.of("chat" if self.target.kind == "next-token" else self.card.modality)

    def predict(
        self,
        sources: Sequence[str | Path] | Mapping[Path, str] | str | Path,
        *,
        calibrated: bool = True,
        operating_point: bool = False,
        saying: Saying | None = None,
    ) -> Iterator[Prediction]:
        """Predict files, all that fit in folders, or a table's texts; a bad one gives a prediction with an `error`.

        A chat model's prediction is what it says next: see `say`.

        Args:
            sources: or what `data.example_files` made of them.
            calibrated: without it probabilities are as the head gives them.
            operating_point: call the second of two classes from the threshold on that was chosen on validation.
            saying: how a chat model answers.

        Raises:
            BadOption: the run has no such threshold, or is no chat model.
        """
        if operating_point and (not calibrated or not self.calibration.thresholds):
            why = self.calibration.why if calibrated else "it belongs to the calibrated probabilities"
            raise BadOption(f"{self.path} has no operating point: {why}. Leave --operating-point out.")
        from zoo_core import data

        if isinstance(sources, Mapping):
            files = dict(sources)
        else:
            files = data.example_files([sources] if isinstance(sources, str | Path) else sources, self.modality)
        if self.target.kind == "next-token":
            from zoo_core.saying import answered

            return answered(self, files, saying or Saying())
        if saying is not None:
            raise BadOption(f"{self.path} is no chat model: it says nothing. Leave temperature and max_tokens out.")
        return self.scored(files, calibrated=calibrated, operating_point=operating_point)

    def scored(
        self, files: Mapping[Path, str], *, calibrated: bool = True, operating_point: bool = False
    ) -> Iterator[Prediction]:
        """What the head gives for each file: as `predict`; of a chat model how probable a whole conversation is."""
        from zoo_core import reading

        predictor, target = self._predictor, self.target
        fitted = self.calibration if calibrated else Calibration()
        cuts = fitted.thresholds if operating_point or target.kind == "multi-label" else ()
        reader, device = predictor.model.backbone.reader, predictor.model.device
        names = {str(path): name for path, name in files.items()}

        def answers(paths: Sequence[str], _: Value, x: Value) -> dict[str, Prediction]:
            table = fitted.apply(target, predictor.probabilities(x).cpu()).tolist()
            return {path: self._answer(names[path], row, cuts) for path, row in zip(paths, table, strict=True)}

        failed: dict[str, str] = {}
        with run_files.reading(self.path):
            found = reading.map_examples(answers, list(names), reading.files(reader), reader, device, failed)
            yield from reading.in_order(found, names, failed)
        for path, reason in failed.items():
            yield Prediction(names[path], error=reason)

    def report(self, out: str | Path | None = None) -> Path:
        """Make the page again that says what was done, why and how good it is; by default in the run's folder."""
        from zoo_core import report

        path = Path(out) if out else self.path / REPORT
        with run_files.reading(self.path):
            report.write(self, path)
        return path

    def export(self, to: str, out: str | Path | None = None, *, force: bool = False) -> Path:
        """Write it for another library, compared with this run before it is called done; returns the folder.

        Args:
            to: `onnx`, `safetensors`, `timm`, `hf` or `torch-export`.
            out: by default beside the run, under its name and the form's.
            force: replace an export that is there.
        """
        from zoo_core.exporting import export

        folder = Path(out) if out else self.path.with_name(f"{self.path.name}-{to}")
        export(self, to, folder, force=force)
        return folder

    def say(self, messages: Messages, how: Saying | None = None) -> str:
        """What a chat model says after `[{"role": "user", "content": "Hello"}]`; others raise `BadOption`."""
        from zoo_core.saying import say

        return say(self, messages, how or Saying())

    def _answer(self, path: str, row: list[float], cuts: Sequence[float]) -> Prediction:
        names = self.target.names(row, cuts)
        if self.target.kind == "next-token":
            return Prediction(path, names[0], probabilities=dict(zip(COLUMNS, row, strict=True)))
        if not self.classes:
            return Prediction(path, names[0], value=row[0])
        found = dict(zip(self.classes, row, strict=True))
        return Prediction(path, "|".join(names), min((found[n] for n in names), default=0.0), found)

    def evaluate(self, task: Task) -> dict[str, Any]:
        """Figures on labelled data whose classes the run knows; classes are matched by name.

        Raises:
            TooFewExamples: a class of the data is none of the run's.
            BadOption: the labels are of another kind.
        """
        import numpy as np

        if task.kind != self.target.kind:
            raise BadOption(
                f"{task.source} was read as {task.kind}, but this run is {self.target.kind}. "
                f"Read it with task={self.target.kind!r}."
            )
        strange = sorted(set(task.classes) - set(self.classes))
        if strange:
            raise TooFewExamples(
                f"{task.source} has the class {strange[0]!r}; this run knows {', '.join(self.classes)}."
            )
        texts = {e.path: task.text(e) for e in task.examples}
        answers = [p for p in self.scored({Path(path): path for path in texts}) if not p.error]
        with run_files.reading(self.path):
            labels = self.target.labels([texts[p.path] for p in answers]).numpy()
            cuts = self.calibration.thresholds if self.target.kind == "multi-label" else ()
            return self.target.score(np.array([p.row for p in answers]), labels, cuts)

    @cached_property
    def _predictor(self) -> Predictor:
        """Backbone and head with the trained tensors put back, digests checked."""
        with run_files.reading(self.path):
            return self._restored()

    def _restored(self) -> Predictor:
        from safetensors.torch import load_file

        from zoo_core import components, device, ensembles
        from zoo_core.activations import Numbers
        from zoo_core.fit import Model
        from zoo_core.objective import Objective
        from zoo_core.plugins import discover
        from zoo_core.predicting import Predictor
        from zoo_core.weights import load_backbone

        plugins = self._plugins or discover()
        tensors, plan = load_file(self.file("model.safetensors")), self.plan
        body = load_backbone(self.card, plugins, pretrained=plan["saved_from"] > 0)
        builder = Objective(components.build(plugins, "head", plan["head"]), self.target)
        task = Task("", self.classes, (), kind=self.target.kind)
        frozen = FreezePlan((Phase(len(body.stages)),), "everything stands still for prediction")
        reader = builder.builder.reader(body) if hasattr(builder.builder, "reader") else body.reader
        body.reader = reader.restored(plan.get("reader", {}))
        model = Model(body, builder.build(plan["head_dim"], task), builder, frozen)
        builder.bind(model.head, body)
        model.restore(tensors)
        expected = plan["frozen_digest"]
        if body.digest_of(plan["frozen"]) != expected:
            raise RunDamaged(
                f"{self.path} was trained on a backbone whose frozen stages have sha256 {expected}, "
                f"but the weights here give {body.digest_of(plan['frozen'])}. Get the weights that card.json names."
            )
        numbers, where = Numbers(**plan["numbers"]), device.choose(self.recipe.device)
        second = None
        if "second" in plan:
            self.file(ensembles.FILE)
            second = ensembles.opened(self, model, plan, plugins)
        return Predictor(model, plan["depth"], numbers, second).to(where)


def find_runs(folder: Path) -> list[Run]:
    """Finished runs in a folder, by name."""
    commits = sorted(folder.glob("*/COMMIT")) if folder.is_dir() else []
    return [Run(p.parent) for p in commits if p.parent.suffix not in (".unfinished", ".replaced")]
