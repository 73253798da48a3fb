"""Tables of a backbone's stages: what is in each, what it costs, what crosses its boundary, what a plan does to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo_core.backbone import Backbone, Value
from zoo_core.costs import Costs
from zoo_core.fit import Schedule
from zoo_core.training import epochs_of
from zoo_core.types import FreezePlan, StageInfo


def stage_table(backbone: Backbone) -> list[dict[str, Any]]:
    """One row a stage, from one forward pass of a blank input.

    Keys: depth (stages frozen when the cut is behind this one), stage, parameters, buffers,
    norm_buffers, flops_share (multiply-adds, of the whole chain), boundary (shapes without the
    batch axis), boundary_bytes (per example, fp32).
    """
    value: Value = backbone.reader.blank(1)
    infos = backbone.info()
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for depth, (stage, info) in enumerate(zip(backbone.stages, infos, strict=True), start=1):
            with FlopCounterMode(display=False) as counter:
                value = stage.module(value)
            parts = value if isinstance(value, tuple) else (value,)
            rows.append(
                {
                    "depth": depth,
                    "stage": stage.name,
                    "parameters": info.parameters,
                    "buffers": len(stage.tensors) - len(backbone.stage_parameters(depth - 1)),
                    "norm_buffers": info.norm_buffers,
                    "flops_share": counter.get_total_flops(),
                    "boundary": " + ".join("x".join(map(str, p.shape[1:])) for p in parts),
                    "boundary_bytes": sum(p[0].numel() * p.element_size() for p in parts),
                }
            )
    total = sum(row["flops_share"] for row in rows) or 1
    for row in rows:
        row["flops_share"] = round(row["flops_share"] / total, 4)
    return rows


def plan_table(stages: Sequence[StageInfo], plan: FreezePlan, schedule: Schedule, costs: Costs) -> list[dict[str, Any]]:
    """One row a stage, input side first, and one for the head.

    Keys: stage, parameters, boundary_bytes (per example), seconds (expected), phases (for each: trains,
    parameters that train, lr: the peak of its optimiser group, none where nothing trains).
    """
    rows = []
    for i, stage in enumerate(stages):
        phases = []
        for phase in plan.phases:
            scale = phase.scales(len(stages)).get(i)
            count = stage.trainable(phase.only) if scale else 0
            phases.append({"trains": count > 0, "parameters": count, "lr": schedule.lr * scale if scale else None})
        row = {"stage": stage.name, "parameters": stage.parameters, "boundary_bytes": costs.boundary_bytes[i]}
        rows.append(row | {"seconds": round(costs.stages[i], 2), "phases": phases})
    size = costs.head_parameters
    head = [{"trains": True, "parameters": size, "lr": schedule.lr * phase.rate} for phase in plan.phases]
    return [*rows, {"stage": "head", "parameters": size, "boundary_bytes": 0, "seconds": 0.0, "phases": head}]


def phase_names(plan: FreezePlan, schedule: Schedule) -> list[str]:
    """Headings of the phases: number and epochs."""
    counts = epochs_of(plan, schedule.epochs)
    plural = {n: f"{n} epoch{'' if n == 1 else 's'}" for n in counts}
    return [f"phase {i}: {plural[n]}" if len(counts) > 1 else plural[n] for i, n in enumerate(counts, start=1)]
