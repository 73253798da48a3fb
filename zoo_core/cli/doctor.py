"""`zoo doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable
from typing import Any

import click

from zoo_core.cli.common import as_json, emit, table


@click.command("doctor")
@as_json
def doctor_command(as_json: bool) -> None:
    """Check versions, plugins, registry, cache, device and one backbone; say what to do about each problem.

    \b
    Example:
      zoo doctor
    """
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: platform.python_version(),
        "packages": _packages,
        "plugins": _plugins,
        "registry": _registry,
        "cache": _cache,
        "device": _device,
        "self-test": _self_test,
    }
    rows: list[dict[str, Any]] = []
    for name, check in checks.items():
        try:
            rows.append({"check": name, "ok": True, "detail": check()})
        except Exception as error:
            rows.append({"check": name, "ok": False, "detail": " ".join(str(error).split())})
    if as_json:
        emit(rows)
    else:
        table(("check", "", "detail"), [(r["check"], "ok" if r["ok"] else "PROBLEM", r["detail"]) for r in rows])
    if not all(r["ok"] for r in rows):
        sys.exit(1)


def _packages() -> str:
    names = ("zoo-core", "torch", "timm", "open_clip_torch", "pluggy", "safetensors", "pillow")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _plugins() -> str:
    from zoo_core.api import installed
    from zoo_core.errors import PluginBroken

    plugins = installed()
    if plugins.broken:
        raise PluginBroken(
            "; ".join(f"{p.distribution}: {p.error}" for p in plugins.broken) + " See 'zoo plugins --why'."
        )
    return ", ".join(f"{p.distribution} {p.version}" for p in plugins.found)


def _registry() -> str:
    from zoo_core.api import registry
    from zoo_core.errors import BadCard

    found = registry()
    if found.problems:
        raise BadCard(" ".join(found.problems))
    return f"{len(found.cards())} backbones in {len(found.layers)} layers"


def _cache() -> str:
    import shutil

    from zoo_core.files import scratch
    from zoo_core.places import cache_folder

    folder = cache_folder()
    with scratch(folder / "doctor.txt") as temp:
        temp.write_text("written by zoo doctor\n")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return f"{folder}, {size / 1e6:.0f} MB used, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"


def _device() -> str:
    import torch

    from zoo_core.device import choose

    name = choose()
    return f"{name}" + (
        f" ({torch.cuda.get_device_name()})" if name.type == "cuda" else f", {torch.get_num_threads()} threads"
    )


def _self_test() -> str:
    """Cut a small chain and compare it with the whole."""
    import torch
    from torch import nn

    from zoo_core.backbone import Backbone, chain_from_modules
    from zoo_core.card import Card
    from zoo_core.errors import NotAChain

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    parts = [("stem", net[:2]), ("neck", net[2:])]
    body = Backbone(Card("doctor/tiny", "none", "tiny"), net, chain_from_modules(parts, net), 8)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for depth in range(3):
            prefix, tail = body.cut(depth)
            if not torch.equal(tail(prefix(x)), net(x)):
                raise NotAChain(f"a two-stage chain cut at {depth} differs from the whole model on this machine.")
    return "a chain cut at every depth equals the whole, bit for bit"
