"""How deep to retrain, measured: data sets x sizes x seeds x ways to fine-tune, one JSON line a cell.

    python benchmarks/science.py                     the default grid: an hour on two cores
    python benchmarks/science.py --all               every rate for every depth, three seeds of all (half a day)
    python benchmarks/science.py --seconds 600       stop after ten minutes of CPU time; call again to go on

Cells are named by what they are, appended to `benchmarks/science.jsonl` when they are done, and never run again.
`benchmarks/regret.py` turns them into docs/science.md. Settings, rates and the rules that choose among them were fixed
before the first cell ran.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: threads that spin cost CPU seconds

import datasets
import numpy as np
import torch
from measure import done
from torch import Tensor

from zoo_core import api, components, data, fit, solvers
from zoo_core.auto import Auto, Wanted
from zoo_core.console import Console
from zoo_core.evidence import fold_schedule, probe_stages
from zoo_core.objective import objective
from zoo_core.places import cache_folder
from zoo_core.recipe import Recipe
from zoo_core.repeats import part
from zoo_core.targets import target_of
from zoo_core.trainer import Trainer, kept_at
from zoo_core.types import FreezePlan, Phase, Task
from zoo_core.weights import load_backbone

RESULTS = Path(__file__).with_name("science.jsonl")
BACKBONE = "cnn/tf_efficientnet_lite0.in1k"
PIXELS = 96
SIZES = (40, 160, 640)
SEEDS = (0, 1, 2)
RATES = (1e-4, 3e-4, 1e-3)
FOLDS = "folds"
"""A cell of its own: the trials of `auto` on two folds of the training side."""
BLEND = "mean of full and multi-stage"
"""Both answers averaged, nothing chosen; a cell of its own, from the answers of two others."""

CHEAP = [
    ("head-only", "linear", None),
    ("head-only", "linear:solver=lbfgs", None),
    ("head-only", "multi-stage", None),
    ("head-only", "multi-stage:solver=logistic", None),
    ("head-only", "prototype", None),
    ("head-only", "knn", None),
]
CORE = [
    ("full", "linear", 3e-4),
    ("last:3", "linear", 1e-3),
    (FOLDS, "linear", None),
    (BLEND, "linear", 3e-4),
    ("last:1", "linear", 1e-3),
    ("last:2", "linear", 1e-3),
]
MORE = [
    ("full", "linear", 1e-3),
    ("full:layer_decay=0.8", "linear", 1e-3),
    ("lp-ft", "linear", 3e-4),
    ("last:5", "linear", 3e-4),
    ("full:layer_decay=0.9", "linear", 1e-4),  # AutoGluon's default decay and rate
]
SCRATCH = ("scratch", "linear", 1e-3)
ORDER = [
    ((0,), (40, 160), [*CHEAP, *CORE]),
    ((0,), (40,), [*MORE, SCRATCH]),
    ((0,), (640,), [*CHEAP, *CORE[:2]]),
    ((1, 2), (40,), [*CHEAP, *CORE]),
    ((0,), (160,), [*MORE, SCRATCH]),
    ((1, 2), (160,), [*CHEAP, *CORE]),
    ((0, 1, 2), (640,), [*CHEAP, *CORE]),
    ((1, 2), (40, 160, 640), MORE),
    ((0,), (640,), [*MORE, SCRATCH]),
]
"""Seeds, sizes and ways in the order they are run: a part of the grid says something about most claims."""
DEPTHS = ("last:1", "last:3", "last:5", "full", "full:layer_decay=0.8", "full:layer_decay=0.9", "lp-ft")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training: its name is the digest of all it depends on."""

    data: str
    n: int
    seed: int
    freeze: str
    head: str
    lr: float | None
    backbone: str = BACKBONE
    pixels: int = PIXELS

    @property
    def key(self) -> str:
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def grid(whole: bool) -> Iterator[Cell]:
    """Cells in the order they are run: a part of the grid says something about every data set and claim."""
    if whole:
        ways = [*CHEAP, *CORE, *((freeze, "linear", lr) for freeze in DEPTHS for lr in RATES), SCRATCH]
        order = [*ORDER, (SEEDS, SIZES, ways)]
    else:
        order = ORDER
    for seeds, sizes, ways in order:
        groups = [(name, n, seed) for seed in seeds for n in sizes for name in datasets.SETS]
        yield from (Cell(*group, *way) for way in ways for group in groups)


class Bench:
    """One (data set, size, seed): its task and backbone, and what trains on them."""

    def __init__(self, cell: Cell):
        self.seed = cell.seed
        folder = cache_folder().absolute() / "benchmarks" / "manifests"
        chosen = datasets.sample(datasets.images(cell.data), cell.n, seed=cell.seed)
        path = datasets.write(folder / f"{cell.data}-{cell.n}-{cell.seed}.csv", chosen)
        self.task: Task = data.scan(str(path), test_share=0, val_share=0)
        self.plugins, self.registry = api.installed(), api.registry()
        card = self.registry.get(cell.backbone)
        size = (card.input.size[0], cell.pixels, cell.pixels)
        self.card = dataclasses.replace(card, input=dataclasses.replace(card.input, size=size, crop=1.0))
        self.body = self._load(True)
        self.recipe = Recipe(str(path), cell.backbone, seed=cell.seed, device="cpu", cache="boundary")
        self.target = target_of(self.task)
        self.train, self.test = (self._side(name) for name in ("train", "test"))

    def trainer(self, plan: FreezePlan, head: str, lr: float | None, n: int, random: bool = False) -> Trainer:
        """What trains one way on `n` examples."""
        body = self._load(False) if random else self.body
        builder = objective(components.build(self.plugins, "head", head), self.task, self.recipe)
        schedule = fit.default_schedule(plan, body, n)
        schedule = dataclasses.replace(schedule, lr=lr or schedule.lr)
        kept = kept_at(self.recipe, self.task, body, plan.depth, schedule.epochs, Console())
        regime = components.build(self.plugins, "regime", "new-only")
        return Trainer(self.recipe, self.task, body, plan, schedule, builder, regime, kept, Console())

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train on the whole training side, answer the test side."""
        strategy = components.build(self.plugins, "freeze", cell.freeze)
        plan = strategy.plan(self.body.info(), self.task).check(self.body.info())
        trainer = self.trainer(plan, cell.head, cell.lr, len(self.train), cell.freeze == "scratch")
        probabilities, seconds = self._answers(trainer, self.train)
        np.save(_answers_of(cell), probabilities.astype(np.float32))
        return (
            self._scores(probabilities)
            | {"cpu_seconds": seconds, "epochs": trainer.schedule.epochs, "lr_used": trainer.schedule.lr}
            | {"collapses": len(trainer.collapses)}
        )

    def blend(self, cell: Cell) -> dict[str, Any]:
        """The mean of two cells' probabilities."""
        parts = [
            dataclasses.replace(cell, freeze="full"),
            dataclasses.replace(cell, freeze="head-only", head="multi-stage", lr=None),
        ]
        seconds = 0.0
        for one in parts:
            if not _answers_of(one).exists():
                seconds += float(self.run(one)["cpu_seconds"])
        mean = np.mean([np.load(_answers_of(one)) for one in parts], axis=0)
        return self._scores(mean) | {"cpu_seconds": round(seconds, 2)}

    def folds(self, cell: Cell) -> dict[str, Any]:
        """What `auto` sees: its trials on folds of the training side; and the mean of each trial's fold models."""
        auto, stages = Auto(), self.body.info()
        fold = solvers.fold_of(self.train.labels.numpy(), auto.folds, self.seed)
        kept = kept_at(self.recipe, self.task, self.body, len(stages), 1, Console())
        features, widths = kept.all_stages(self.train.digests), kept.plain.pooled.widths
        start = time.process_time()
        probes = probe_stages(features, widths, self.train.labels, fold, len(self.task.classes))
        seconds = time.process_time() - start
        trials, every = [], []
        for wanted in auto.trials(stages, probes, cell.head):
            line, mean = self._trial(wanted, fold, auto.folds)
            trials.append(line)
            every.append(mean)
        counts = torch.bincount(self.train.labels)
        return {
            "probes": [round(p, 4) for p in probes],
            "probe_cpu_seconds": round(seconds, 2),
            "majority": float(counts.max() / counts.sum()),
            "folds": auto.folds,
            "trials": trials,
            "all_trials_averaged": self._scores(np.mean(every, axis=0)),
        }

    def _trial(self, wanted: Wanted, fold: np.ndarray, folds: int) -> tuple[dict[str, Any], np.ndarray]:
        plan = FreezePlan((Phase(wanted.depth),), wanted.name)
        trainer = self.trainer(plan, wanted.head, wanted.lr, len(self.train))
        schedule = fold_schedule(plan, self.body, len(self.train), len(self.train) // folds)
        trainer.schedule = dataclasses.replace(schedule, lr=trainer.schedule.lr)
        right, means, seconds = np.zeros(len(self.train), int), [], 0.0
        for k in range(folds):
            inside, outside = np.flatnonzero(fold != k).tolist(), np.flatnonzero(fold == k).tolist()
            held = part(self.train, outside)
            probabilities, spent = self._answers(trainer, part(self.train, inside), held)
            right[outside] = probabilities[0].argmax(1) == held.labels.numpy()
            means.append(probabilities[1])
            seconds += spent
        mean = np.mean(means, axis=0)
        said = {"name": wanted.name, "depth": wanted.depth, "head": wanted.head, "lr": wanted.lr}
        said |= {"correct": "".join(map(str, right)), "cpu_seconds": round(seconds, 2)}
        return said | {"averaged": self._scores(mean), "collapses": len(trainer.collapses)}, mean

    def _answers(self, trainer: Trainer, train: fit.Side, held: fit.Side | None = None) -> tuple[Any, float]:
        """Probabilities for the test side (and before it for `held`), and CPU seconds of the training."""
        none = fit.Side([], torch.empty(0, dtype=torch.long))
        start = time.process_time()
        model, _ = trainer.train(train, none, self.seed)
        seconds = time.process_time() - start
        sides = [side for side in (held, self.test) if side]
        found = [trainer.builder.probabilities(trainer.outputs(model, s.digests)).numpy() for s in sides]
        trainer.restart()
        return (found if held else found[0]), round(seconds, 2)

    def _scores(self, probabilities: np.ndarray) -> dict[str, Any]:
        labels = self.test.labels.numpy()
        scores = self.target.score(probabilities, labels, intervals=False)
        right = "".join(map(str, (probabilities.argmax(1) == labels).astype(int)))
        return {k: round(scores[k], 4) for k in ("accuracy", "balanced_accuracy", "log_loss")} | {"right": right}

    def _load(self, pretrained: bool) -> Any:
        torch.manual_seed(self.seed)
        body = load_backbone(self.card, self.plugins, pretrained)
        body.model.to(memory_format=torch.channels_last)
        return body

    def _side(self, name: Any) -> fit.Side:
        examples = self.task.split(name)
        labels: Tensor = self.target.labels([self.task.text(e) for e in examples])
        return fit.Side([e.digest for e in examples], labels)


def _answers_of(cell: Cell) -> Path:
    """Where a cell's probabilities are kept for blends: in the cache, since they can be computed again."""
    folder = cache_folder().absolute() / "benchmarks" / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{cell.key}.npy"


def main(arguments: Sequence[str]) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole grid")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of CPU time, after which to stop")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="a data set")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    finished, benches, missing = done(options.results), {}, {}
    for cell in grid(options.all):
        group = (cell.data, cell.n, cell.seed)
        if cell.key in finished or cell.data in missing or options.only not in ("", cell.data):
            continue
        if group in missing:
            continue
        if time.process_time() > options.seconds:
            print(f"stopped after {time.process_time():.0f} CPU seconds; call again to go on", file=sys.stderr)
            return
        if group not in benches:
            benches = dict(list(benches.items())[-11:])  # a backbone each
            try:
                benches[group] = Bench(cell)
            except datasets.Missing as reason:
                missing[group] = str(reason)
                print(f"{cell.data}, n = {cell.n}: left out, {reason}", file=sys.stderr)
                continue
        bench = benches[group]
        run = {FOLDS: bench.folds, BLEND: bench.blend}.get(cell.freeze, bench.run)
        found = run(cell)
        line = {"key": cell.key} | dataclasses.asdict(cell) | {"n_train": len(bench.train)} | found
        with open(options.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        finished.add(cell.key)
        print(
            f"{time.process_time():8.0f} s  {cell.data} {cell.n} {cell.seed} {cell.freeze} {cell.head} {cell.lr}: "
            f"{found.get('accuracy', '')}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
