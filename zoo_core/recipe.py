"""The whole request as data: reads and writes TOML; its digest names the run."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

from zoo_core import training
from zoo_core.components import convert
from zoo_core.errors import BadOption, BadRecipe, near, shown
from zoo_core.files import small_text, write_text

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600}
_MAX_BYTES = 1 << 20  # of a recipe
_MOST = {"epochs": 1_000_000, "batch_size": 1_000_000, "views": 10_000, "folds": 1000, "seeds": 1000}


@dataclass(frozen=True)
class Recipe:
    """Everything a run needs; what is `None` is chosen from the plan and the data, and recorded.

    Attributes:
        data: folder of class folders, a table of paths and labels, or shards: see docs/data.md.
        backbone: card name.
        freeze, head, regime: `name` or `name:field=value,field=value`.
        columns: a table's columns, such as `path=file,label=class`; guessed and said where not given.
        task: what the labels are: `single-label`, `multi-label`, `regression`, `ordinal`; `auto` guesses and says so.
        old: the old task's data: regimes that rehearse mix it in, and its test side shows what was lost.
        labels: of old and new task: `extend` has the classes of both in one head, `share` the same ones, `replace` the
            new ones only; `auto` takes the one of the first two that fits.
        then: data of further tasks, learnt one after another (`zoo finetune --then`); each run of them has none.
        max_forgetting: how much of the old task's accuracy may be lost, as a share of all examples; a run that loses
            more is kept, and fails.
        epochs: passes over the training side; 0 for a head that begins with something, such as `zero-shot`.
        budget: time for training, such as `90s`, `10m`, `1h`.
        lr: peak learning rate.
        batch_size: examples per step.
        weight_decay: of AdamW.
        seed: of the head's first weights, dropout and the order of examples; never of the split.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        weights: `pretrained`, or `none` for random weights, which are never used unasked.
        test_share, val_share: of what the data does not put on another side; unused where it brings its own.
        on_bad_image: `skip` lists bad images and goes on, `fail` stops.
        cache: what to keep at the cut: `auto` measures, `boundary`, `pixels`, `none`; a folder instead of the
            platform's for all that is kept.
        cache_cap: gigabytes that the cache may hold.
        cache_dtype: type in which boundary activations are kept.
        precision: of the frozen pass: `auto` takes bf16 only where the activations are kept as bf16.
        augment: `none`, `light` or `strong` views of the training images.
        views: how many views of each, where `augment` is on.
        folds, seeds: of a repetition for the figures' spread; 1 and 1 repeat nothing.
        balance: of uneven classes: `sampler` draws each class equally often, `loss` weighs it by its rarity,
            `logit-adjust` adds the logarithm of its share to its output while training.
        class_weights: in the loss, such as `cat=2,dog=0.5`; 1 for classes that are not named.
        training: further options of the tail's training, such as `clip=1,patience=5`: see docs/engine.md.
        ensemble: whether ridge on all stages answers beside the trained model, half a say each; the published
            backbone then runs at prediction too. By default as the plan says: only `auto` asks for it.
        calibrate: whether a temperature and thresholds are fitted on the validation side.
        wise_ft: whether the weights are mixed with those before training, as the validation sides like best.
    """

    data: str
    backbone: str
    freeze: str = "head-only"
    head: str = "linear"
    regime: str = "new-only"
    columns: str | None = None
    task: Literal["auto", "single-label", "multi-label", "regression", "ordinal"] = "auto"
    old: str | None = None
    labels: Literal["auto", "extend", "share", "replace"] = "auto"
    then: tuple[str, ...] = ()
    max_forgetting: float | None = None
    epochs: int | None = None
    budget: str | None = None
    lr: float | None = None
    batch_size: int | None = None
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "auto"
    weights: Literal["pretrained", "none"] = "pretrained"
    test_share: float = 0.25
    val_share: float = 0.15
    on_bad_image: Literal["skip", "fail"] = "skip"
    cache: str = "auto"
    cache_cap: float = 20.0
    cache_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augment: Literal["none", "light", "strong"] = "none"
    views: int = 4
    folds: int = 1
    seeds: int = 1
    balance: Literal["none", "sampler", "loss", "logit-adjust"] = "none"
    class_weights: str = ""
    training: str = ""
    ensemble: bool | None = None
    calibrate: bool = True
    wise_ft: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, str) and "\0" in value:
                raise BadOption(f"{name}: got {shown(value)}, which holds a zero byte; expected text without.")
        if self.epochs != 0:  # a head that begins with something need not be trained
            _positive("epochs", self.epochs)
        for name in ("batch_size", "lr", "views", "folds", "seeds", "cache_cap"):
            _positive(name, getattr(self, name))
        for name, most in _MOST.items():
            if (getattr(self, name) or 0) > most:
                raise BadOption(f"{name}: got {shown(getattr(self, name))}, expected at most {most:,}.")
        if not 0 <= self.weight_decay < math.inf:
            raise BadOption(f"weight_decay: got {self.weight_decay}, expected 0 or more.")
        training.read(self.training)
        if not 0 <= self.seed < 2**63:
            raise BadOption(f"seed: got {shown(self.seed)}, expected 0 to {2**63 - 1}.")
        if self.max_forgetting is not None and not 0 <= self.max_forgetting <= 1:
            raise BadOption(f"max_forgetting: got {self.max_forgetting}, expected a share from 0 to 1, such as 0.02.")
        for name in ("test_share", "val_share"):
            if not 0 <= getattr(self, name) < 1:
                raise BadOption(f"{name}: got {getattr(self, name)}, expected a share from 0 up to, not including, 1.")
        if self.test_share + self.val_share >= 1:
            raise BadOption(
                f"test_share + val_share is {self.test_share + self.val_share}; nothing is left to train on."
            )
        if self.budget is not None:
            self.budget_seconds  # noqa: B018  (raises where it cannot be read)

    @property
    def budget_seconds(self) -> float | None:
        """The time budget, where one was given."""
        if self.budget is None:
            return None
        return seconds_of(self.budget)

    @property
    def digest(self) -> str:
        """sha256 (hex) over every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def run_name(self) -> str:
        """A folder name that tells runs apart: data, freeze strategy, digest."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.data).resolve().stem).strip("-.") or "data"
        return f"{stem}-{self.freeze.partition(':')[0]}-{self.digest[:8]}"

    def to_toml(self) -> str:
        """TOML text that reads back as the same recipe; what was left to choose stays a comment."""
        lines = []
        for name, value in asdict(self).items():
            text = json.dumps(value, ensure_ascii=False) if value is not None else ""
            lines.append(f"{name} = {text}" if text else f"# {name} = (chosen from the plan and the data)")
        return "\n".join(lines) + "\n"

    def save(self, path: Path) -> None:
        """Write the recipe as TOML."""
        write_text(path, self.to_toml())

    @classmethod
    def load(cls, path: str | Path, settings: Sequence[str] = (), **given: Any) -> Recipe:
        """Read a TOML recipe; `given` and then `settings` (`key=value`) replace its fields."""
        try:
            data = tomllib.loads(small_text(Path(path), _MAX_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise BadRecipe(f"{path} cannot be read as a TOML recipe: {error}.") from error
        return cls.of({**data, **given}, settings, where=str(path))

    @classmethod
    def of(cls, values: dict[str, Any], settings: Sequence[str] = (), where: str = "recipe") -> Recipe:
        """Build from plain values, checking names and types."""
        hints = get_type_hints(cls)
        merged = dict(values)
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise BadOption(f"--set {shown(setting)}: expected key=value, such as --set lr=0.001.")
            merged[key] = convert(text, hints[key], key) if key in hints else text
        for key in merged:
            if key not in hints:
                raise BadRecipe(
                    f"{where}: unknown field {shown(key)}. {near(key[:100], hints)} Fields are {', '.join(hints)}."
                )
        missing = [f for f in ("data", "backbone") if not merged.get(f)]
        if missing:
            flag = "DATA" if missing[0] == "data" else "--backbone NAME"
            raise BadRecipe(f"{where}: no {missing[0]} given. Add {missing[0]} = ... or give {flag}.")
        return cls(**{key: _typed(key, value, hints[key]) for key, value in merged.items()})

    def with_values(self, **changes: Any) -> Recipe:
        """A copy with some fields replaced."""
        return replace(self, **changes)


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as 90s, 10m or 1h.

    Raises:
        BadOption: it is none.
    """
    found = _DURATION.fullmatch(str(duration).strip())
    if not found or not 0 < float(found[1]) < math.inf:
        raise BadOption(f"budget: got {shown(duration)}, expected a duration such as 90s, 10m or 1h.")
    return float(found[1]) * _SECONDS[found[2]]


def field_names() -> list[str]:
    """Names of the recipe's fields, in order."""
    return [f.name for f in fields(Recipe)]


def _typed(key: str, value: Any, hint: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return convert(value, hint, key)
    if isinstance(value, list | tuple) and get_origin(hint) is tuple and all(isinstance(part, str) for part in value):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in (hint, *getattr(hint, "__args__", ())):
        return float(value)
    allowed = getattr(hint, "__args__", (hint,))
    if type(value) not in allowed:
        raise BadRecipe(f"{key}: got {shown(value)}, expected {getattr(hint, '__name__', hint)}.")
    return value


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise BadOption(f"{name}: got {shown(value)}, expected more than 0.")
