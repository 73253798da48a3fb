"""The core's own strategies, supplied through the same hooks as anyone's."""

from __future__ import annotations

from zoo_core import auto, freeze, heads, regimes
from zoo_core.hookspecs import hookimpl


@hookimpl
def zoo_freeze_strategies() -> dict[str, type]:
    return {
        "auto": auto.Auto,
        "head-only": freeze.HeadOnly,
        "last": freeze.Last,
        "full": freeze.Full,
        "scratch": freeze.Scratch,
    }


@hookimpl
def zoo_head_builders() -> dict[str, type]:
    return {"linear": heads.Linear, "mlp": heads.Mlp, "multi-stage": heads.MultiStage}


@hookimpl
def zoo_data_regimes() -> dict[str, type]:
    return {"new-only": regimes.NewOnly}
