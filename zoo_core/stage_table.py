"""The table of a backbone's stages: what is in each, what it costs, what crosses its boundary."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo_core.backbone import Backbone, Value


def stage_table(backbone: Backbone) -> list[dict[str, Any]]:
    """One row a stage, from one forward pass of a blank input.

    Keys: depth (stages frozen when the cut is behind this one), stage, parameters, buffers,
    norm_buffers, flops_share (multiply-adds, of the whole chain), boundary (shapes without the
    batch axis), boundary_bytes (per image, fp32).
    """
    value: Value = torch.zeros(1, *backbone.card.input.size)
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
