"""What the old task loses, measured: data sets x ways to learn the new task x seeds, one JSON line a run.

    python benchmarks/forgetting.py                  the grid: about 20 minutes on two quiet cores
    python benchmarks/forgetting.py --seconds 600    stop after ten minutes; call again to go on
    python benchmarks/forgetting.py --time           CPU seconds of whole runs
    python benchmarks/ledgers.py                     tables and picture of docs/forgetting.md from the results

In every cell the old task is learnt, then the new one beside it, by what `zoo finetune` calls, and both test sides are
answered. Cells are appended to `benchmarks/forgetting.jsonl` when they are
done, and never run again.
What was tried out beforehand (length of new rows, share of the buffer that is held out, weight aligning) used seeds 10
to 12; here they are 0 to 4. The test sides are the same for every seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: threads that spin cost CPU seconds

import datasets
import numpy as np
from measure import done
from safetensors.torch import save_file
from torch import Tensor

from zoo_core import api, data, engine, fit, rehearsing, targets, wise_ft
from zoo_core.backbone import Backbone
from zoo_core.card import Card
from zoo_core.console import Console
from zoo_core.places import cache_folder
from zoo_core.recipe import Recipe
from zoo_core.trainer import Trainer, kept_at
from zoo_core.types import Task
from zoo_core.weight_store import keep
from zoo_core.weights import load_backbone

RESULTS = Path(__file__).with_name("forgetting.jsonl")
BACKBONE = "cnn/tf_efficientnet_lite0.in1k"
JOINT = "joint"
"""The yardstick: the published backbone on all old and new data at once."""
EACH = 20
"""Old examples of each class in a buffer."""

NEW_ONLY = ("new only", {"regime": "new-only"})
HALF = ("rehearsal 50/50", {"regime": "rehearsal"})
TENTH = ("rehearsal 10 %", {"regime": "rehearsal:ratio=0.1"})
BUFFER = ("buffer of 20 a class", {"regime": "rehearsal:buffer={buffer}"})
SOFT_BUFFER = ("buffer, soft targets", {"regime": "rehearsal:buffer={buffer},distil=1"})
MEANS = "buffer, class means"
LWF = ("LwF, corrected", {"regime": "lwf"})
WISE = ("new only, WiSE-FT", {"regime": "new-only", "wise_ft": True})
WAYS: dict[str, dict[str, Any]] = dict(
    [
        NEW_ONLY,
        HALF,
        TENTH,
        ("rehearsal 10 %, as it is", {"regime": "rehearsal:ratio=0.1", "head": "linear:correct=none"}),
        BUFFER,
        ("buffer, as it is", {"regime": "rehearsal:buffer={buffer}", "head": "linear:correct=none"}),
        SOFT_BUFFER,
        (MEANS, {"regime": "rehearsal:buffer={buffer}", "head": "prototype"}),
        ("LwF, plain", {"regime": "lwf:compete=all", "head": "linear:correct=none"}),
        ("LwF, own contest", {"regime": "lwf", "head": "linear:correct=none"}),
        ("LwF, aligned", {"regime": "lwf", "head": "linear:correct=norm"}),
        LWF,
        WISE,
        (JOINT, {"regime": "new-only"}),
        *((f"ratio {r}", {"regime": f"rehearsal:ratio={r}"}) for r in ("0.02", "0.05", "0.25", "0.75", "0.9")),
    ]
)
"""Name to what the recipe of the new task has; only the first names have a word of their own in the tables."""
EXTENDED = [name for name in WAYS if not name.startswith("ratio")]
SHARED = [NEW_ONLY[0], HALF[0], TENTH[0], BUFFER[0], SOFT_BUFFER[0], "LwF, plain", WISE[0], JOINT]
"""With the same classes there are no new rows to correct."""
WITHOUT_DATA = [NEW_ONLY[0], "LwF, plain", "LwF, own contest", "LwF, aligned", LWF[0]]
RATIOS = [name for name in WAYS if name.startswith("ratio")]
DEEP = [NEW_ONLY[0], HALF[0], LWF[0]]
"""What takes minutes each is run once, to see whether it forgets, too."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the new task; its name is the digest of all it depends on."""

    data: str
    freeze: str
    seed: int
    way: str

    @property
    def key(self) -> str:
        text = json.dumps(dataclasses.asdict(self) | {"fields": WAYS[self.way], "backbone": BACKBONE}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Pair:
    """An old task and a new one.

    Attributes:
        pixels: height and width of the input.
        labels: their label space.
    """

    old: Sequence[tuple[datasets.Image, str]]
    new: Sequence[tuple[datasets.Image, str]]
    pixels: int = 96
    labels: str = "extend"


def fashion(seed: int) -> Pair:
    """Classes 0 to 4 of Fashion-MNIST from 1,500 images, then 5 to 9 from 600."""
    found = datasets.images("fashion")
    names = sorted({image.label for image in found})
    old, new = (
        datasets.sample(found, n, 1000, seed, names[part]) for n, part in ((1500, slice(5)), (600, slice(5, 10)))
    )
    return Pair(old, new)


def elpv(seed: int) -> Pair:
    """Sound and defective solar cells: monocrystalline ones first, then polycrystalline ones."""
    found = datasets.images("elpv-mono-poly")
    mono, poly = ([dataclasses.replace(i, side="") for i in found if i.side == side] for side in ("train", "test"))
    return Pair(datasets.sample(mono, 600, 350, seed), datasets.sample(poly, 600, 500, seed), labels="share")


def imagenet(seed: int) -> Pair:
    """The 1,000 classes that came with the weights, then solar cells.

    Nobody here has ImageNet: its side is the few drawings and photographs of Tux Paint whose file name is the name of
    an ImageNet class, a third of them for validation. That is no test of ImageNet accuracy; it shows what is lost.
    """
    found = datasets.images("elpv")
    stamps = named_stamps()
    old = [(image, "val" if k % 3 == seed % 3 else "test") for k, image in enumerate(stamps)]
    return Pair(old, datasets.sample(found, 400, 500, seed), pixels=224)


@dataclasses.dataclass(frozen=True)
class Learning:
    """A training that has ended: the model, what trained it, the old task beside it, and what it took."""

    model: fit.Model
    trainer: Trainer
    keeper: rehearsing.Keeper | None
    sides: Mapping[Any, fit.Side]
    spent: dict[str, Any]


PAIRS = {"fashion": fashion, "elpv": elpv, "imagenet": imagenet}
GRID = [
    ("fashion", "head-only", (0, 1, 2), EXTENDED),
    ("elpv", "head-only", (0, 1, 2), SHARED),
    ("imagenet", "head-only", (0, 1, 2), WITHOUT_DATA),
    ("elpv", "last:1", (0, 1, 2), SHARED),
    ("fashion", "last:1", (0, 1, 2), EXTENDED),
    ("fashion", "head-only", (3, 4), [*EXTENDED, *RATIOS]),
    ("fashion", "full", (0,), DEEP),
]
"""In the order they are run: a part of the grid says something about most claims."""
TIMED = [("fashion", "head-only", 0), ("fashion", "last:1", 0)]


def grid() -> Iterator[Cell]:
    """All cells, in the order they are run; a nearest class mean is solved on the frozen backbone only."""
    for name, freeze, seeds, ways in GRID:
        for seed in seeds:
            yield from (Cell(name, freeze, seed, way) for way in ways if way != MEANS or freeze == "head-only")


class Bench:
    """One (data set, freeze strategy, seed): its manifests, and the backbone that learnt the old task."""

    def __init__(self, name: str, freeze: str, seed: int):
        self.data, self.freeze, self.seed = name, freeze, seed
        self.plugins, self.registry = api.installed(), api.registry()
        self.pair = PAIRS[name](seed)
        self.folder = cache_folder().absolute() / "benchmarks" / "forgetting" / f"{name}-{seed}"
        self.old = self._manifest("old", self.pair.old)
        self.new = self._manifest("new", self.pair.new)
        self.joint = self._manifest("joint", [*self.pair.old, *self.pair.new])
        card = self.registry.get(BACKBONE)
        size = (card.input.size[0], self.pair.pixels, self.pair.pixels)
        self.card = dataclasses.replace(card, input=dataclasses.replace(card.input, size=size, crop=1.0))
        self.published = self._load(self.card)
        self.parent: Backbone | None = None

    def run(self, way: str) -> dict[str, Any]:
        """Learn the new task one way: both test accuracies, the old one before, and CPU seconds of training."""
        given = self._fields(way)
        if way == JOINT:
            return self._learn(self.published, {"data": self.joint} | given)
        both = {"data": self.new, "old": self.old, "labels": self.pair.labels}
        return self._learn(self._parent(), both | given)

    def time(self, way: str) -> dict[str, Any]:
        """CPU seconds of a whole run, from the files on disk to its page, everything cached."""
        given = self._fields(way)
        both = {"data": self.new, "old": self.old, "labels": self.pair.labels}
        with tempfile.TemporaryDirectory() as folder:
            recipe, parent = self._recipe(self._parent(), both | given), self._parent()
            before = time.process_time()
            run = engine.finetune(recipe, self.registry, self.plugins, Path(folder) / "run", backbone=parent)
            spent = round(time.process_time() - before, 2)
            return {"cpu_seconds": spent, "seconds": run.summary["seconds"], "misses": run.summary["cache"]["misses"]}

    def _learn(self, body: Backbone, fields: Mapping[str, Any]) -> dict[str, Any]:
        learning = self._trained(body, fields)
        model, trainer, keeper, sides = learning.model, learning.trainer, learning.keeper, learning.sides

        def outputs(names: Sequence[str]) -> Tensor:
            return trainer.outputs(model, names)

        if keeper is None:
            return self._sides(trainer.task, outputs) | learning.spent
        if trainer.recipe.wise_ft:
            wise_ft.step(trainer.recipe, trainer, model, keeper, sides["val"])
        keeper.correct(model, sides["val"], outputs)
        old_figures, test = keeper.figures(model, outputs), sides["test"]
        right = float((outputs(test.digests).argmax(1) == test.labels).float().mean())
        names = ("before", "after", "within_old", "retention", "n_train", "n_held", "correction")
        return {"old": old_figures["after"], "new": right} | {n: old_figures[n] for n in names} | learning.spent

    def _trained(self, body: Backbone, fields: Mapping[str, Any]) -> Learning:
        """The middle of `engine.finetune`: the same plan, cut, mixing and training; no page, no baselines."""
        recipe = self._recipe(body, fields)
        preview = engine.prepare(recipe, self.registry, self.plugins, Console(), body)
        task, body, plan, old = preview.task, preview.backbone, preview.plan, preview.old
        regime, target = preview.regime, preview.builder.target
        body.freeze(plan.depth)
        kept = kept_at(recipe, old.beside(task) if old else task, body, plan.depth, preview.schedule.epochs, Console())
        sides = {name: _side(task, name, target) for name in data.SPLITS}
        keeper = rehearsing.Keeper(old, regime, recipe, kept, sides["train"]) if old else None
        both = keeper.mixed(sides) if keeper else sides
        start = keeper.start if keeper else None
        trainer = Trainer(
            recipe,
            task,
            body,
            plan,
            preview.schedule,
            preview.builder,
            regime,
            kept,
            Console(),
            preview.strategy,
            start,
        )
        before = time.process_time()
        model, history = trainer.train(both["train"], both["val"], recipe.seed)
        spent = {"cpu_seconds": round(time.process_time() - before, 2), "epochs": len(history)}
        return Learning(model, trainer, keeper, sides, spent)

    def _recipe(self, body: Backbone, fields: Mapping[str, Any]) -> Recipe:
        given = {"backbone": body.card.name, "freeze": self.freeze, "seed": self.seed, "device": "cpu"}
        return Recipe.of(given | {"cache": "boundary"} | dict(fields))

    def _parent(self) -> Backbone:
        """The backbone that has learnt the old task; as published where its own classifier is the old model.

        What `zoo register --run` does: the head lies in the store of weights, and the card names it.
        """
        if self.data == "imagenet":
            return self.published
        if self.parent is None:
            learning = self._trained(self.published, {"data": self.old})
            body, head = learning.model.backbone, learning.model.head
            state = {n: t.detach().clone() for n, t in head.state_dict().items()}
            path = keep(lambda temp: save_file(state, temp))
            target = targets.written(learning.model.builder.target)
            about = {"sha256": path.stem, "head": "linear", "target": target, "head_dim": learning.trainer.head_dim}
            body.card = dataclasses.replace(body.card, name=f"bench/{self.data}", extra={"x-run": {"head": about}})
            self.parent = body
        return self.parent

    def _sides(self, task: Task, outputs: Callable[[Sequence[str]], Tensor]) -> dict[str, Any]:
        """Test accuracy on the old and on the new examples of a task that holds both."""
        olds, test = {image.path for image, _ in self.pair.old}, task.split("test")
        right = outputs([e.digest for e in test]).argmax(1).numpy() == np.array([e.label for e in test])
        of_old = np.array([e.path in olds for e in test])
        return {"old": float(right[of_old].mean()), "new": float(right[~of_old].mean())}

    def _fields(self, way: str) -> dict[str, Any]:
        """What the recipe has, the buffer in examples."""
        buffer = EACH * len({image.label for image, _ in self.pair.old})
        return {k: v.format(buffer=buffer) if isinstance(v, str) else v for k, v in WAYS[way].items()}

    def _manifest(self, name: str, chosen: Sequence[tuple[datasets.Image, str]]) -> str:
        return str(datasets.write(self.folder / f"{name}.csv", chosen))

    def _load(self, card: Card) -> Backbone:
        return load_backbone(card, self.plugins)


def _side(task: Task, name: Any, target: Any) -> fit.Side:
    examples = task.split(name)
    return fit.Side([e.digest for e in examples], target.labels([task.text(e) for e in examples]))


def named_stamps() -> list[datasets.Image]:
    """Cut-out pictures, on white, whose file name is an ImageNet class; the class's short name is their label."""
    body = api.load_backbone(BACKBONE)
    names = {name.casefold(): name for name in body.labels if not name.startswith("n0") and "," not in name}
    folder = cache_folder().absolute() / "benchmarks" / "stamps"
    found = []
    for path in datasets.debian("tuxpaint-stamps-default", folder, "**/stamps/**/*.png"):
        name = names.get(path.stem.replace("_", " ").replace("-", " ").casefold())
        if name and name not in AMBIGUOUS and "cartoon" not in path.parts:
            found.append(datasets.Image(str(datasets.on_white(path, folder / "images")), name))
    return sorted(found, key=lambda image: image.path)


AMBIGUOUS = {"mouse", "bow", "crane", "balloon"}
"""Words that mean one thing in ImageNet and another as a stamp."""


def main(arguments: Sequence[str]) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which to stop")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="a data set")
    parser.add_argument("--time", action="store_true", help="whole runs: new only and rehearsal in turn, three times")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        os.environ["ZOO_HOME"] = home  # what is registered on the way is nobody's
        measure_times(options.results) if options.time else run_grid(options)


def run_grid(options: argparse.Namespace) -> None:
    """Every cell that is not done."""
    finished, bench, missing, start = done(options.results), None, set(), time.monotonic()
    for cell in grid():
        if cell.key in finished or cell.data in missing or options.only not in ("", cell.data):
            continue
        if time.monotonic() - start > options.seconds:
            print(f"stopped after {time.monotonic() - start:.0f} s; call again to go on", file=sys.stderr)
            return
        if bench is None or (bench.data, bench.freeze, bench.seed) != (cell.data, cell.freeze, cell.seed):
            try:
                bench = Bench(cell.data, cell.freeze, cell.seed)
            except datasets.Missing as reason:
                missing.add(cell.data)
                print(f"{cell.data}: left out, {reason}", file=sys.stderr)
                continue
        found = bench.run(cell.way)
        _append(options.results, {"key": cell.key} | dataclasses.asdict(cell) | found)
        said = f"old {found['old']:.3f} new {found['new']:.3f}, {found['cpu_seconds']} s of training"
        print(
            f"{time.monotonic() - start:6.0f} s  {cell.data} {cell.freeze} {cell.seed} {cell.way}: {said}",
            file=sys.stderr,
        )


def measure_times(results: Path) -> None:
    """CPU seconds of whole runs, the two ways in turn so that a change of the machine's speed hits both."""
    for data_name, freeze, seed in TIMED:
        bench = Bench(data_name, freeze, seed)
        bench.time(HALF[0])  # everything is in the cache from here on
        for turn in range(3):
            for way, _ in (NEW_ONLY, HALF):
                line = {"timed": way, "data": data_name, "freeze": freeze, "turn": turn} | bench.time(way)
                _append(results, line)
                print(line, file=sys.stderr)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
