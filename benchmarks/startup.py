"""What the command line costs before it does anything, as multiples of a bare `python -c pass`.

    python benchmarks/startup.py

CPU seconds, the least of several runs, commands and the bare interpreter in turn.
"""

from __future__ import annotations

import compileall
import json
import resource
import subprocess
import sys
from pathlib import Path

from measure import table

import zoo_core

COMMANDS = ("--help", "list", "list lite", "show cnn/tf_efficientnet_lite0.in1k", "plugins", "strategies")


def main(rounds: int = 25) -> None:
    """Measure, print. An installed package is compiled; a checkout may not be yet."""
    compileall.compile_dir(Path(zoo_core.__file__).parent, quiet=2)
    best = {name: float("inf") for name in ("bare", *COMMANDS)}
    for _ in range(rounds):
        for name in best:
            zoo = [str(Path(sys.executable).with_name("zoo")), *name.split()]
            best[name] = min(best[name], cpu([sys.executable, "-c", "pass"] if name == "bare" else zoo))
    bare = best.pop("bare")
    for name, seconds in best.items():
        print(json.dumps({"benchmark": "startup", "command": name, "seconds": seconds, "times_bare": seconds / bare}))
    print(f"\nbare python: {1000 * bare:.1f} ms")
    rows = [(f"zoo {name}", f"{1000 * seconds:.0f} ms", f"{seconds / bare:.1f}") for name, seconds in best.items()]
    print(table(("command", "CPU time", "times bare python"), rows))


def cpu(command: list[str]) -> float:
    """CPU seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
