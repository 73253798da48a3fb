"""What the command line costs before it does anything, as multiples of a bare `python -c pass`.

    python benchmarks/startup.py

CPU seconds, the least of several runs, commands and the bare interpreter in turn. Beside the plugins that are installed
stand as many more as make ten, freshly written by `zoo plugins new`.
"""

from __future__ import annotations

import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import table

import zoo_core
from zoo_core.layers import ShippedCards, index_path
from zoo_core.plugins import GROUP
from zoo_core.points import installed_points
from zoo_core.scaffold import plugin_files

COMMANDS = ("--help", "list", "list lite", "show cnn/tf_efficientnet_lite0.in1k", "plugins", "strategies")
PLUGINS = 10


def main() -> None:
    """Measure, print."""
    rows = list(measure())
    for row in rows:
        print(json.dumps({"benchmark": "startup"} | row))
    print("\n" + section(rows))


def measure(rounds: int = 25) -> Iterator[dict[str, Any]]:
    """One line for each command. An installed package is compiled; a checkout may not be yet."""
    compileall.compile_dir(Path(zoo_core.__file__).parent, quiet=2)
    best = {name: float("inf") for name in ("bare", *COMMANDS)}
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"PYTHONPATH": folder} if add_plugins(Path(folder)) else dict(os.environ)
        for _ in range(rounds):
            for name in best:
                zoo = [str(Path(sys.executable).with_name("zoo")), *name.split()]
                best[name] = min(best[name], cpu([sys.executable, "-c", "pass"] if name == "bare" else zoo, environ))
    bare, setting = best.pop("bare"), {"cards": len(ShippedCards(index_path())), "plugins": PLUGINS}
    for name, seconds in best.items():
        yield {"command": name, "seconds": seconds, "bare": bare, "times_bare": seconds / bare} | setting


def section(rows: list[dict[str, Any]]) -> str:
    """CPU time and multiples."""
    lines = [(f"`zoo {r['command']}`", f"{1000 * r['seconds']:.0f} ms", f"{r['times_bare']:.1f}") for r in rows]
    about = rows[0]
    setting = f"{about['cards']:,} cards, {about['plugins']} plugins"
    bare = f"A bare `python -c pass`: {1000 * about['bare']:.1f} ms; {setting}."
    return table(("command", "CPU time", "times bare python"), lines) + f"\n\n{bare}"


def add_plugins(folder: Path) -> int:
    """Install as many more plugins into the folder as make ten, as pip would have; returns how many."""
    found, _ = installed_points(GROUP)
    missing = PLUGINS - len(list(found))
    for number in range(missing):
        name = f"zoo-extra{number}"
        for path, text in plugin_files(name, "freeze").items():
            if path.endswith("__init__.py"):
                (folder / path).parent.mkdir()
                (folder / path).write_text(text)
        info = folder / f"zoo_extra{number}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nextra{number} = zoo_extra{number}\n")
    compileall.compile_dir(folder, quiet=2)
    return missing


def cpu(command: list[str], environ: dict[str, str]) -> float:
    """CPU seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
