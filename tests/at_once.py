"""Many processes register at once; what is lost, doubled or damaged. File locks are made to do nothing first.

python tests/at_once.py                 # 8 processes, 200 registrations each: prints 1600/1600
python tests/at_once.py 4 50
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

WORKER = """
import fcntl, sys
from pathlib import Path
from zoo_core.layers import Registry
from zoo_core.registering import register

fcntl.flock = fcntl.lockf = lambda *args: None
number, each, weights = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.stdin.read()  # until all have started
won = 0
for i in range(each):
    register(Registry(()), f"mine/{number}-{i}", provider="tiny", architecture="tiny", weights=weights)
    try:
        register(Registry(()), f"both/{i}", provider="tiny", architecture="tiny", weights=weights, data=str(number))
        won += 1
    except Exception as error:
        assert type(error).__name__ == "CardExists", error
print(won)
"""


def run(processes: int, each: int, home: Path) -> dict[str, int]:
    """Let them register into an empty user layer at `home`, each its own names, and all of them `each` shared names.

    Returns:
        `asked` and `kept` registrations, `shared` names and how many times they were `won`, `strays` left behind.
    """
    home.mkdir(parents=True, exist_ok=True)
    weights = home / "w.safetensors"
    weights.write_bytes(b"weights")
    environ = os.environ | {"ZOO_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number), str(each), str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for number in range(processes)
    ]
    for worker in workers:
        assert worker.stdin
        worker.stdin.close()
    won = sum(int(worker.stdout.read()) for worker in workers if worker.stdout)
    assert [worker.wait() for worker in workers] == [0] * processes
    for worker in workers:
        assert worker.stdout
        worker.stdout.close()
    from zoo_core.entries import read_entry_folder
    from zoo_core.layers import cards_of

    entries, problems = read_entry_folder(home / "registry.d", cards_of)
    names = {f"mine/{number}-{i}" for number in range(processes) for i in range(each)}
    shared = {f"both/{i}" for i in range(each)}
    files = list((home / "registry.d").iterdir())
    return {
        "asked": len(names),
        "kept": len(names & entries.keys()),
        "shared": len(shared & entries.keys()),
        "won": won,
        "unreadable": len(problems),
        "strays": len(files) - len(entries),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    processes, each = (int(word) for word in (*sys.argv[1:], "8", "200")[:2]) if len(sys.argv) > 2 else (8, 200)
    with tempfile.TemporaryDirectory() as folder:
        found = run(processes, each, Path(folder))
    print(json.dumps({"benchmark": "registrations at once", "processes": processes, **found}))
    print(f"{found['kept']}/{found['asked']}")
