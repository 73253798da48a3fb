"""Head and tail on what the store gives: once for the run, again for every fold and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from zoo_core import activations, augment, collapse, device, fit, keeping, rates, repeats, upkeep
from zoo_core.activations import Activations, Numbers, Views
from zoo_core.adapting import adapted
from zoo_core.backbone import Backbone, Value
from zoo_core.beginning import Beginning
from zoo_core.checkpoints import Memory
from zoo_core.collapse import Watch
from zoo_core.console import Console
from zoo_core.errors import BadOption, Collapsed
from zoo_core.first_look import FirstLook
from zoo_core.keeping import Choice
from zoo_core.progress import Progress
from zoo_core.recipe import Recipe
from zoo_core.regimes import Balanced
from zoo_core.types import FreezePlan, Task

Trained: TypeAlias = tuple[fit.Model, list[dict[str, Any]]]
"""A model and its history."""


@dataclass(frozen=True)
class Kept:
    """What the store gives for one cut.

    Attributes:
        choice: what is kept, and why.
        numbers: the arithmetic of the frozen pass.
        plain: every image as it is.
        turned: augmented views of the training side, where asked for.
        views: how many of each.
    """

    choice: Choice
    numbers: Numbers
    plain: Activations
    turned: Activations | None = None
    views: int = 0

    def boundary(self, names: Sequence[str]) -> Value:
        """The value that enters the tail."""
        return self._of(names).boundary(names)

    def all_stages(self, names: Sequence[str]) -> Tensor:
        """Pooled features of every stage [B, sum of widths]."""
        return self._of(names).all_stages(names)

    def features(self, names: Sequence[str]) -> Tensor:
        """The pretrained backbone's pooled features [B, D]."""
        return self._of(names).features(names)

    def _of(self, names: Sequence[str]) -> Activations:
        return self.turned if self.turned is not None and "#" in names[0] else self.plain


def kept_at(
    recipe: Recipe,
    task: Task,
    body: Backbone,
    depth: int,
    passes: int,
    console: Console,
    views: bool = True,
    look: FirstLook | None = None,
) -> Kept:
    """What the tail reads at a cut: plain values of every image, and augmented views of the training side.

    Args:
        look: what passed already while the images were read.
    """
    numbers = Numbers.of(recipe)
    paths = {e.digest: e.path for e in task.examples}
    mode, folder = keeping.where(recipe.cache)
    cap = int(recipe.cache_cap * 1e9)
    measured = look.measured if look and look.depth == depth else None
    choice = keeping.choose(mode, body, depth, paths, folder, passes, cap, numbers, Views(), measured)
    console.say(f"Cache     {choice.why}")
    plain = activations.at(body, depth, paths, folder, console, mode=choice.mode, numbers=numbers)
    if look:
        plain = plain.counted(look.computed & paths.keys())
    if plain.misses and (gone := upkeep.trim(folder, cap, since=upkeep.STARTED)):
        freed = sum(item.size_bytes for item in gone) / 1e9
        console.say(f"          {freed:.1f} GB, used longest ago, went for --cache-cap {recipe.cache_cap:g} GB")
    if recipe.augment == "none" or not views:
        return Kept(choice, numbers, plain)
    turned = Views(recipe.augment, recipe.seed)
    rows = {augment.name(e.digest, k): e.path for e in task.split("train") for k in range(recipe.views)}
    console.say(f"          {recipe.views} {recipe.augment} views of each training image")
    acts = activations.at(body, depth, rows, folder, console, mode=choice.mode, numbers=numbers, views=turned)
    return Kept(choice, numbers, plain, acts, recipe.views)


def head_dim(builder: Any, body: Backbone, widths: Sequence[int]) -> int:
    """Width of what a head reads; `widths` are those of the stages' pooled features."""
    if getattr(builder, "reads_stages", False):
        return sum(widths)
    return widths[-2] if getattr(builder, "reads_positions", False) else body.feature_dim


class Trainer:
    """Trains models of one recipe, any number of them, all from the same weights.

    Attributes:
        schedule: of the next training; one that collapsed leaves a gentler rate behind.
        beginning: what a new head begins with.
        first_head: the newest head before it was trained.
        collapses: what went wrong so far: `sign`, `lr`, and `again_at`, the rate tried next (none after the last).
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        body: Backbone,
        plan: FreezePlan,
        schedule: fit.Schedule,
        builder: Any,
        regime: Any,
        kept: Kept,
        console: Console,
        strategy: Any = None,
        start: Callable[[nn.Module], object] | None = None,
    ):
        self.recipe, self.task, self.body, self.plan, self.schedule = recipe, task, body, plan, schedule
        self.builder, self.regime, self.kept, self.console = builder, regime, kept, console
        self.strategy, self.start_old = strategy, start
        self.beginning = Beginning(builder, body, task)
        self.first_head: dict[str, Tensor] = {}
        self.where = next(iter(body.tensors().values())).device
        stages = getattr(builder, "reads_stages", False)
        self.boundary: fit.Boundary = kept.all_stages if stages else kept.boundary
        self.widths = kept.plain.pooled.widths if stages else ()
        self.head_dim = head_dim(builder, body, kept.plain.pooled.widths)
        usual = not stages and not any(getattr(builder, f"reads_{what}", False) for what in ("positions", "tokens"))
        whole = len(body.stages)
        self.deeper: dict[int, fit.Boundary] = {whole: kept.features} if usual and plan.depth < whole else {}
        self.start = {n: t.detach().clone() for n, t in body.tensors(plan.depth).items()}
        self.collapses: list[dict[str, Any]] = []

    def train(self, train: fit.Side, val: fit.Side, seed: int, memory: Memory | None = None) -> Trained:
        """A model trained from the start, and its history; after a collapse again, at a third of the rate.

        Args:
            memory: checkpoints, from the newest of which it goes on.

        Raises:
            Collapsed: the loss is no number at the last attempt either.
        """
        memory = memory or Memory()
        attempt, lines = 0, []
        if known := memory.look():
            attempt, lines, self.collapses = known["attempt"], known["lines"], known["collapses"]
            self.schedule = dataclasses.replace(self.schedule, lr=known["lr"])
        while True:
            watch = Watch(train.labels, last=attempt == collapse.RETRIES)
            memory.about = {"attempt": attempt, "lr": self.schedule.lr, "lines": lines, "collapses": self.collapses}
            try:
                model, history = self._once(train, val, seed, watch, memory)
            except Collapsed as error:
                if watch.last:
                    raise Collapsed(error.sign + self._files(error.rows), error.lr) from error
                gentler = float(f"{self.schedule.lr * collapse.GENTLER:.3g}")  # as printed, so that --lr repeats it
                lines.append(self._note(error.sign + self._files(error.rows), gentler))
                self.schedule = dataclasses.replace(self.schedule, lr=gentler)
                self.restart()
                memory.forget()
                attempt += 1
                continue
            if watch.sign:
                history[-1]["collapses"] = [self._note(watch.sign, None)]
            if lines:
                history[0]["collapses"] = [*lines, *history[0].get("collapses", [])]
            return model, history

    def _files(self, rows: Sequence[str]) -> str:
        """A batch's first file, for people."""
        paths = {e.digest: e.origin or e.path for e in self.task.examples}
        first = paths.get(rows[0].partition("#")[0], rows[0]) if rows else ""
        return f" ({first} and {len(rows) - 1} more)" if rows else ""

    def find_rate(self, train: fit.Side, seed: int) -> rates.Found:
        """Take the peak rate from a range test, and say it; afterwards the backbone is as it was."""
        model = self.fresh(seed)
        try:
            with adapted(self.strategy, self.body, self.plan):
                found = rates.find(model, self._regime(train), self.schedule, self.boundary, train, seed)
        finally:
            self.restart()
        self.schedule = dataclasses.replace(self.schedule, lr=found.rate)
        self.console.say(
            f"Rate      {found.rate:g}, from a range test of {len(found.rates)} steps: "
            f"the loss was lowest at {found.rate * rates.BELOW:.2g}"
        )
        return found

    def fresh(self, seed: int) -> fit.Model:
        """The backbone with a new head.

        Raises:
            BadOption: the head has nothing to train, and in some phase it would be alone.
        """
        torch.manual_seed(seed)
        head = self.builder.build(self.head_dim, self.task)
        if hasattr(self.builder, "bind"):
            self.builder.bind(head, self.body)
        alone = any(phase.depth == len(self.body.stages) for phase in self.plan.phases)
        if alone and getattr(self.builder, "reads_tokens", False) and not any(True for _ in head.parameters()):
            raise BadOption(
                f"nothing would train: --freeze {self.recipe.freeze} leaves the head alone, and that of "
                f"{self.body.card.name} is its table of words. Give --freeze last:1, lora or full."
            )
        self.beginning(head)
        if self.start_old and not self.builder.begins:  # class names say what old and new classes are
            self.start_old(head)
        head.to(self.where)
        self.first_head = {f"head.{name}": t.detach().clone() for name, t in head.state_dict().items()}
        return fit.Model(self.body, head, self.builder, self.plan)

    def _regime(self, train: fit.Side) -> Any:
        """The regime, drawing classes equally where that was asked for."""
        return Balanced(self.regime, train.labels.numpy()) if self.recipe.balance == "sampler" else self.regime

    def _note(self, sign: str, again_at: float | None) -> dict[str, Any]:
        """Write a collapse down, and say it."""
        then = f"begun again at {again_at:g}" if again_at else "kept, since no rate did better; try another --freeze"
        self.console.say(f"Collapse  {sign} at learning rate {self.schedule.lr:g}: {then}")
        self.collapses.append({"sign": sign, "lr": self.schedule.lr, "again_at": again_at})
        return self.collapses[-1]

    def _once(self, train: fit.Side, val: fit.Side, seed: int, watch: Watch, memory: Memory) -> Trained:
        model = self.fresh(seed)
        if getattr(self.builder, "solves", False):
            return model, [self._solve(model, train, val)]
        if not self.schedule.epochs:
            return model, [self._line(model, train, val, self.beginning.note)]
        small = self.plan.depth == len(self.body.stages) and self.where.type == "cpu"
        threads = device.threads(1 if small else torch.get_num_threads())
        with threads, adapted(self.strategy, self.body, self.plan):
            history = fit.fit(
                model,
                self._regime(train),
                self.schedule,
                self.boundary,
                train,
                val,
                seed,
                self.console,
                deeper=self.deeper,
                watch=watch,
                memory=memory,
            )
        return model, history

    def outputs(self, model: fit.Model, names: Sequence[str]) -> Tensor:
        """Head outputs [N, classes] on the CPU."""
        return model.outputs(self.boundary, names)

    def restart(self) -> None:
        """Put the backbone back to where training starts."""
        self._put(self.start)

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """The backbone as it was when training started; afterwards as it is now."""
        final = {n: t.detach().clone() for n, t in self.body.tensors(self.plan.depth).items()}
        self.restart()
        try:
            yield
        finally:
            self._put(final)

    def repeats(self, side: fit.Side, strata: Sequence[int], progress: Progress) -> dict[str, Any]:
        """Figures of every fold and seed; afterwards the backbone is as it was.

        Args:
            strata: are spread over the folds.
            progress: knows the folds that an earlier process has finished.
        """
        none = fit.Side([], torch.empty(0, dtype=torch.long))

        def scored(key: str, inside: fit.Side, seed: int, score: Callable[[fit.Model], dict[str, Any]]) -> Any:
            if known := progress.known(key):
                self.schedule = dataclasses.replace(self.schedule, lr=known["lr"])
                self.collapses = known["collapses"]
                return known["scores"]
            self.restart()
            model, _ = self.train(inside, none, self.recipe.seed + seed, progress.memory(key))
            note = {"scores": score(model), "lr": self.schedule.lr, "collapses": self.collapses}
            progress.note(key, note)
            return note["scores"]

        folds, before = max(2, self.recipe.folds), len(self.collapses)
        with self.as_before():
            target, seeds = self.builder.target, self.recipe.seeds
            found = repeats.repeat(scored, self.outputs, side, strata, target, folds, seeds)
            return found | {"collapses": self.collapses[before:]}

    def _solve(self, model: fit.Model, train: fit.Side, val: fit.Side) -> dict[str, Any]:
        names = [n for k in range(max(1, train.views)) for n in train.rows(range(len(train)), k)]
        labels = torch.cat([train.labels] * max(1, train.views))
        features = self.boundary(names)
        assert isinstance(features, Tensor)
        how = self.builder.solve(model.head, features, labels, self.widths)
        return self._line(model, train, val, "; ".join(filter(None, [self.beginning.note, how])))

    def _line(self, model: fit.Model, train: fit.Side, val: fit.Side, how: str) -> dict[str, Any]:
        """The history of a head that was not trained step by step."""
        line: dict[str, Any] = {"phase": 0, "epoch": 0, "solved": how}
        for name, side in (("train", train), ("val", val)):
            if len(side):
                answers = model.outputs(self.boundary, side.digests)
                line[f"{name}_loss"] = float(self.builder.loss(answers, side.labels).mean())
                if name == "val" and not side.labels.is_floating_point():
                    right = self.builder.probabilities(answers).argmax(1) == side.labels
                    line["val_accuracy"] = float(right.float().mean())
        return line

    def _put(self, tensors: dict[str, Tensor]) -> None:
        own = self.body.tensors(self.plan.depth)
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)
