"""Check every model family: at every depth the tail of the prefix equals the upstream model, bit for bit.

One small member of each of timm's model files and each of open_clip's image towers, with random weights, in eval
mode on the CPU. Prints one line for each family and a summary; exits 1 when a family that worked before, according
to `families.json`, no longer does.

    python benchmarks/families.py                    all of them
    python benchmarks/families.py --only resnet eva  some
    python benchmarks/families.py --update           and write families.json and docs/families.md
                                                     (delete the first to choose members again)
    python benchmarks/families.py --memory 16        with more memory: larger towers, deeper training

What a family takes is reckoned before it is built: 4 bytes a weight, and 16 more for each that trains (gradient, two
moments of AdamW, the best epoch's copy). One that needs more than `--memory` is not run: it is named, and what an
earlier run with more memory found stays in the table, marked so.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo_core.backbone import Backbone, Chain, Value
from zoo_core.card import Card, Input
from zoo_core.console import Console
from zoo_core.errors import ZooError
from zoo_core.fit import Model, Schedule, Side, fit
from zoo_core.heads import Linear
from zoo_core.open_clip_provider import OpenClipProvider, image_tower
from zoo_core.regimes import NewOnly
from zoo_core.timm_provider import TimmProvider, create
from zoo_core.types import FreezePlan, Phase

TABLE = Path(__file__).with_suffix(".json")
DOCUMENT = Path(__file__).parents[1] / "docs" / "families.md"
SIZES = (64, 96, 128, 160, 192, 224, 256)
MEMORY = 6.0
"""Gigabytes that a family may take, unless `--memory` says otherwise; the process itself has 1 GB more."""


def main() -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families (timm) or towers (open_clip)")
    parser.add_argument("--update", action="store_true", help="write families.json and docs/families.md")
    parser.add_argument("--memory", type=float, default=MEMORY, metavar="GB", help="what one family may take")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    before: dict[str, dict[str, Any]] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    after: dict[str, dict[str, Any]] = {}
    for name in wanted(options.only):
        after[name] = check(name, before.get(name, {}), options.memory * 1e9)
        if options.update:  # at once: a run that is stopped keeps what it found
            rows = {**before, **after}
            TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
            DOCUMENT.write_text(document(rows))
    print(summary(after))
    lost = [n for n, row in after.items() if "reason" in row and "reason" not in before.get(n, {"reason": ""})]
    if lost:
        print(f"worked before, and no longer: {', '.join(lost)}")
    return 1 if lost else 0


def wanted(only: list[str] | None) -> list[str]:
    """`timm:FILE` and `open_clip:TOWER`, all of the installed libraries or those asked for."""
    import open_clip
    from timm.models import _registry

    names = [f"timm:{file}" for file in sorted(_registry._module_to_models)]
    names += [f"open_clip:{tower}" for tower in (open_clip.list_models() if only else towers(open_clip.list_models()))]
    return [name for name in names if not only or name.partition(":")[2] in only or name in only]


def towers(models: list[str]) -> list[str]:
    """open_clip models with image towers that differ, by their vision configuration."""
    import open_clip

    seen: dict[str, str] = {}
    for model in models:
        config = open_clip.get_model_config(model)
        seen.setdefault(json.dumps([config["vision_cfg"], config["embed_dim"]], sort_keys=True), model)
    return list(seen.values())


def check(name: str, known: dict[str, Any], memory: float) -> dict[str, Any]:
    """Check one family in so many bytes; returns its row of the table and prints it."""
    start = time.perf_counter()
    library, _, family = name.partition(":")
    row: dict[str, Any] = {}
    try:
        row["model"] = known.get("model") or (smallest(family) if library == "timm" else family)
        refuse_large(library, row["model"], memory)
        backbone, row["size"] = build(library, row["model"], known.get("size"))
        row["stages"] = [stage.name for stage in backbone.stages]
        row["crossing"] = equal_at_every_cut(backbone)
        row["training"] = equal_in_training(backbone)
        row["frozen"] = stands_still(backbone, memory)
        row["with"] = versions()
    except Skip as skip:
        found = "stages" in known
        row = {**known, "kept": str(skip)} if found else {**row, "skipped": str(skip), "reason": str(skip)}
    except ZooError as error:
        row["reason"] = f"{type(error).__name__}: {error}"
    except Exception as error:  # upstream's code may raise anything; one family must not stop the others
        row["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    backbone = None
    give_back()
    said = (
        row.get("reason")
        or row.get("kept")
        or f"{len(row['stages'])} stages, tensors at the cuts {row['crossing']}, training {row['training']}"
    )
    print(
        f"{name:38} {row.get('model', '')} {row.get('size', '')} {time.perf_counter() - start:.1f} s, "
        f"most so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB: {said}",
        flush=True,
    )
    return row


def versions() -> str:
    """What a row was checked with."""
    import open_clip
    import timm

    return f"torch {torch.__version__.partition('+')[0]}, timm {timm.__version__}, open_clip {open_clip.__version__}"


def give_back() -> None:
    """Free what the last family left: cycles (a traced module knows itself), and the allocator's own store."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Skip(Exception):
    """Too large for this machine, with the number."""


def smallest(family: str) -> str:
    """The member of a timm model file with the fewest parameters, the first by name among equals."""
    import timm
    from timm.models import _registry

    sizes: dict[str, int] = {}
    listed = set(timm.list_models())  # without the deprecated names
    for name in sorted(listed & _registry._module_to_models[family]):
        try:
            with torch.device("meta"):
                model = timm.create_model(name, num_classes=0)
        except Exception:  # some need real tensors to be made; another member will do
            continue
        sizes[name] = sum(p.numel() for p in model.parameters())
    return min(sizes, key=lambda name: sizes[name])


def build(library: str, model: str, size: int | None) -> tuple[Backbone, int]:
    """The backbone with random weights, at the smallest input it runs with."""
    provider: Any = TimmProvider() if library == "timm" else OpenClipProvider()
    for side in (
        [size] if size else [*[s for s in SIZES if s < default_size(library, model)], default_size(library, model)]
    ):
        card = Card(name=f"t/{model}", provider=library, architecture=model, input=Input(size=(3, side, side)))
        torch.manual_seed(0)
        try:
            upstream = create(card, 0) if library == "timm" else image_tower(card)
            with torch.no_grad():
                upstream.eval()(torch.randn(2, 3, side, side))
        except Exception:  # too small for this architecture
            if side == default_size(library, model):
                raise
            continue
        names = list(upstream.state_dict())
        del upstream
        backbone = provider.load(card, None)
        if list(backbone.model.state_dict()) != names:
            raise ValueError("the state dict's names are no longer upstream's")
        return backbone, side
    raise ValueError("no input size works")


def default_size(library: str, model: str) -> int:
    """Side of upstream's own input."""
    import open_clip
    import timm

    if library == "timm":
        return int(timm.get_pretrained_cfg(model).input_size[-1])
    size = open_clip.get_model_config(model)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def refuse_large(library: str, model: str, memory: float) -> None:
    """Raise `Skip` for what would not fit; made without memory, on the meta device."""
    card = Card(
        name="t/x",
        provider=library,
        architecture=model,
        input=Input(size=(3, *[default_size(library, model)] * 2)),
    )
    try:
        with torch.device("meta"):
            made = create(card, 0) if library == "timm" else image_tower(card)
    except Exception:  # cannot be made without memory; then try it with
        return
    parameters = sum(p.numel() for p in made.parameters())
    if 4 * parameters > memory:
        raise Skip(
            f"{parameters / 1e6:.0f} million parameters are {4 * parameters / 1e9:.1f} GB, more than this run's "
            f"{memory / 1e9:g} GB"
        )


@torch.no_grad()
def equal_at_every_cut(backbone: Backbone) -> list[int]:
    """Tensors that cross each cut; raises where a stage gives other bits.

    At each cut the value is stored and read back as a cache would; the next stage must give the same bits from
    both, and the whole chain upstream's. By induction every tail of every prefix does.
    """
    crossing: list[int] = []
    for batch in (1, 2, 5):
        x = torch.randn(batch, *backbone.card.input.size, generator=torch.Generator().manual_seed(batch))
        value: Value = x
        crossing = []
        for stage in backbone.stages:
            again = stage.module(reloaded(value))
            value = stage.module(value)
            if not same(value, again):
                raise ValueError(f"{stage.name} gives other bits from stored activations, batch size {batch}")
            crossing.append(len(tensors(value)))
            if any(len(t) != batch for t in tensors(value)):
                raise ValueError(f"{stage.name} gives a value that is not batch first")
        if not same(value, backbone.model(x)):
            raise ValueError(f"the chain differs from upstream, batch size {batch}")
    return crossing[:-1]


def equal_in_training(backbone: Backbone) -> bool:
    """Whether chain and upstream agree in training mode under the same random state."""
    x = torch.randn(4, *backbone.card.input.size, generator=torch.Generator().manual_seed(9))
    kept = {n: t.clone() for n, t in backbone.model.named_buffers()}
    results = []
    for module in (backbone.model, Chain(backbone.stages)):
        with torch.no_grad():
            for n, t in backbone.model.named_buffers():
                t.copy_(kept[n])
            torch.manual_seed(1)
            results.append(module.train()(x))
    return same(*results)


def stands_still(backbone: Backbone, memory: float) -> list[int]:
    """Depths at which an epoch of training left every bit of the frozen stages as it was; raises where it did not.

    Those that would take more memory are left out.
    """
    count = len(backbone.stages)
    sizes = [stage.parameters for stage in backbone.info()]
    free = memory - 4 * sum(sizes)
    depths = [d for d in sorted({1, count // 2, count - 1, count} - {0}) if 16 * sum(sizes[d:]) <= free]
    for depth in depths:
        before, whole = backbone.digest(depth), backbone.digest()
        x = torch.randn(4, *backbone.card.input.size, generator=torch.Generator().manual_seed(depth))
        prefix, _ = backbone.cut(depth)
        backbone.freeze(depth)
        backbone.model.train()
        if any(module.training for module in prefix.modules() if module is not prefix and module is not prefix.links):
            raise ValueError(f"train() woke a module of the {depth} frozen stages")

        def boundary(rows: Sequence[str], prefix: Chain = prefix, x: Tensor = x) -> Value:
            with torch.no_grad():
                return prefix(x[[int(row) for row in rows]])

        model = Model(backbone, nn.Linear(backbone.feature_dim, 2), Linear(), FreezePlan((Phase(depth),), "a check"))
        side, none = Side("0123", torch.tensor([0, 1, 0, 1])), Side("", torch.empty(0, dtype=torch.long))
        fit(model, NewOnly(), Schedule(epochs=1, batch_size=2, lr=1e-4), boundary, side, none, 0, Console())
        if backbone.digest(depth) != before:
            raise ValueError(f"training changed one of the {depth} frozen stages")
        if depth < count and backbone.digest() == whole:
            raise ValueError(f"training behind {depth} frozen stages changed nothing")
    return depths


def tensors(value: Value) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def reloaded(value: Value) -> Value:
    stored = tuple(t.clone(memory_format=torch.contiguous_format) for t in tensors(value))
    return stored if isinstance(value, tuple) else stored[0]


def same(a: Value, b: Value) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(torch.equal(s.nan_to_num(), t.nan_to_num()) for s, t in pairs)


def summary(rows: dict[str, dict[str, Any]]) -> str:
    """`N of M families, K cuts, all equal`, then each exception with its reason."""
    good = {name: row for name, row in rows.items() if "reason" not in row}
    cuts = sum(len(row["stages"]) + 1 for row in good.values())
    lines = [f"{len(good)} of {len(rows)} families, {cuts} cuts, all equal"]
    lines += [f"  {name}: {row['reason']}" for name, row in rows.items() if "reason" in row]
    other = [name for name, row in good.items() if not row["training"]]
    if other:
        lines.append(f"  in training mode other random numbers than upstream: {', '.join(other)}")
    told = Counter(row.get("with", "versions that nobody noted") for row in good.values())
    lines += [f"  {count} of them with {what}" for what, count in told.most_common()]
    kept = [name for name, row in good.items() if "kept" in row]
    if kept:
        lines.append(f"  too large for this run's memory, as an earlier one with more found them: {', '.join(kept)}")
    lines.append("  one epoch of training at up to four depths each: every frozen bit stood still")
    return "\n".join(lines)


def document(rows: dict[str, dict[str, Any]]) -> str:
    """The table as a page of the documentation."""
    rows = dict(sorted(rows.items()))
    lines = [
        "# Families and cuts",
        "",
        "Made by `make families` (`python benchmarks/families.py --update`); what is checked: [stages.md](stages.md).",
        "",
        "```",
        summary(rows),
        "```",
        "",
        "Tensors: the most that cross one cut of that model. Input: the smallest side that the model was run with.",
        "",
        "| family | model | input | stages | tensors |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "reason" not in row:
            shown = row["stages"] if len(row["stages"]) < 7 else [*row["stages"][:3], "...", *row["stages"][-2:]]
            stages = f"{len(row['stages'])}: {', '.join(shown)}"
            lines.append(f"| {name} | {row['model']} | {row['size']} | {stages} | {max(row['crossing'], default=0)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
