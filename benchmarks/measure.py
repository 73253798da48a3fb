"""What the benchmarks share: one process and what it used, the data, a table, bars."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BACKBONE = "cnn/tf_efficientnet_lite0.in1k"


def run(command: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[Any, dict[str, float]]:
    """The JSON that a process printed last, and its wall seconds, CPU seconds, page faults and peak memory (MB)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environ = {**os.environ, **(environ or {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    out, err = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(err)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = out.strip()
    result = json.loads(lines if lines.startswith("{\n") else lines.splitlines()[-1])
    used = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "page_faults": after.ru_minflt - before.ru_minflt,
        "load": round(os.getloadavg()[0], 2),
    }
    return result, used


def peak_memory(command: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[Any, dict[str, float]]:
    """As `run`, in a process of its own, since the peak is that of the largest child so far. MB."""
    script = (
        "import json, resource, sys; sys.path.insert(0, sys.argv[1]); from measure import run\n"
        "result, used = run(sys.argv[2:])\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024\n"
        "print(json.dumps([result, used | {'peak_mb': round(peak)}]))"
    )
    found, _ = run([sys.executable, "-c", script, str(HERE), *command], environ)
    return found[0], found[1]


def finetune(data: Path, out: Path, freeze: str = "head-only", epochs: int = 20) -> list[str]:
    """A whole process of `zoo finetune` on the training side alone, as the loops use it."""
    command = [sys.executable, "-m", "zoo_core", "finetune", str(data), "-b", BACKBONE, "--freeze", freeze]
    return [*command, "--epochs", str(epochs), "--set", "val_share=0", "--out", str(out), "--force", "--json"]


def machine() -> str:
    """One line about what the figures were taken on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next((row.split(":")[1].strip() for row in info.read_text().splitlines() if "model name" in row), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{name}, {os.cpu_count()} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def printed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a measurement, each printed as a JSON line as soon as it is there."""
    found = []
    for row in rows:
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


def done(path: Path) -> set[str]:
    """Keys of finished cells; a half-written last line is none."""
    keys = set()
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            keys.add(json.loads(line)["key"])
        except (ValueError, KeyError):
            continue
    return keys


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """A picture: one bar a name, lengths in proportion, the value written beside it. SVG, for light and dark pages."""
    longest, height = max(values.values()), 26 * len(values) + 40
    rows = []
    for i, (name, value) in enumerate(values.items()):
        y, width = 34 + 26 * i, max(2.0, 380 * value / longest)
        colour = "#c2410c" if name.startswith("ours") else "#64748b"
        rows.append(f'<text x="148" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        rows.append(f'<rect x="156" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>')
        rows.append(f'<text x="{162 + width:.1f}" y="{y + 13}">{value:,.1f} {escape(unit)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" role="img" aria-label="{escape(title)}" '
        f'font-family="sans-serif" font-size="13" fill="#808080">'
        f'<text x="8" y="20" font-size="14">{escape(title)}</text>'
        f"{''.join(rows)}</svg>\n"
    )
