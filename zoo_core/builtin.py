"""The core's own strategies, supplied through the same hooks as anyone's."""

from __future__ import annotations

from zoo_core import auto, freeze, heads, instance_heads, regimes, worded_heads
from zoo_core.hookspecs import hookimpl


@hookimpl
def zoo_freeze_strategies() -> dict[str, type]:
    return {
        "auto": auto.Auto,
        "head-only": freeze.HeadOnly,
        "last": freeze.Last,
        "upto": freeze.UpTo,
        "full": freeze.Full,
        "scratch": freeze.Scratch,
        "gradual": freeze.Gradual,
        "lp-ft": freeze.LpFt,
        "norm-only": freeze.NormOnly,
        "bias-only": freeze.BiasOnly,
        "surgical": freeze.Surgical,
    }


@hookimpl
def zoo_head_builders() -> dict[str, type]:
    return {
        "linear": heads.Linear,
        "mlp": heads.Mlp,
        "multi-stage": heads.MultiStage,
        "cosine": heads.Cosine,
        "attentive": heads.Attentive,
        "prototype": instance_heads.Prototype,
        "knn": instance_heads.Knn,
        "zero-shot": worded_heads.ZeroShot,
        "tip-adapter": worded_heads.TipAdapter,
    }


@hookimpl
def zoo_data_regimes() -> dict[str, type]:
    return {
        "new-only": regimes.NewOnly,
        "few-shot": regimes.FewShot,
        "fraction": regimes.Fraction,
        "rehearsal": regimes.Rehearsal,
        "lwf": regimes.LwF,
    }
