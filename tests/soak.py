"""Kill a run at random, again and again, and compare what it ends with: `make soak`, or a dozen in the tests.

Each round is one recipe with a store and a folder of its own. A child runs it and is killed (SIGKILL) after a random
share of the time that an unbroken run takes, up to three times; the last child ends it. Then weights, optimiser,
metrics and predictions must be those of the unbroken run, and nothing unfinished may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

RECIPES = [
    {"freeze": "last:1"},
    {"freeze": "full:layer_decay=0.5,batch_norm=train", "head": "mlp:hidden=16,dropout=0.3"},
    {"freeze": "gradual", "epochs": 6},
    {"freeze": "head-only", "head": "cosine"},
    {"freeze": "lp-ft", "epochs": 4, "augment": "light", "views": 2},
    {"freeze": "last:2", "balance": "sampler", "regime": "few-shot:k=5"},
    {"freeze": "scratch", "folds": 2},
    {"freeze": "last:1", "lr": 1e30, "epochs": 2, "val_share": 0.0, "seed": 3},
    {"freeze": "auto", "epochs": 2},
]
SAME = ("predictions.csv", "labels.json", "recipe.toml")


def run(place: Path, fields: dict, name: str) -> None:
    """One run in a process that may be killed: every step of it writes a checkpoint."""
    import zoo_tiny

    from zoo_core import checkpoints, engine
    from zoo_core.errors import Collapsed
    from zoo_core.layers import load_registry
    from zoo_core.plugins import discover
    from zoo_core.recipe import Recipe

    checkpoints.SPARE, checkpoints.WITHIN = 0, 0.0
    os.environ["ZOO_CACHE"], os.environ["ZOO_HOME"] = str(place / "cache"), str(place / "home")
    dist = type("Dist", (), {"name": "zoo-tiny", "version": "1.0"})
    point = type("Point", (), {"name": "tiny", "value": "zoo_tiny", "dist": dist, "load": lambda self: zoo_tiny})
    plugins = discover([point()], {})
    given = {"data": "photos", "backbone": "tiny/net", "epochs": 3, "device": "cpu", "cache": "boundary"}
    try:
        engine.finetune(Recipe(**given | fields), load_registry(plugins), plugins, place / name)
    except Collapsed as error:
        (place / name).mkdir()
        (place / name / "collapsed").write_text(str(error))


def child(place: Path, fields: dict, name: str) -> int:
    """Start a run in a child; its process number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        run(place, fields, name)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> None:
    """Wait for a child that nobody kills."""
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "a run that was not killed failed"


def told(folder: Path) -> dict:
    """What must be equal of two runs."""
    if (folder / "collapsed").exists():
        return {"collapsed": (folder / "collapsed").read_text()}
    summary = json.loads((folder / "summary.json").read_text())
    files = {name: (folder / name).read_bytes() for name in SAME}
    parts = ("digests", "test", "baselines", "schedule", "data")
    return {part: summary[part] for part in parts} | files | {"repeats": summary.get("repeats")}


def where(place: Path) -> str:
    """What a killed run had come to, told by what it left."""
    folder, progress = place / "run.unfinished", place / "run.unfinished" / "progress"
    if (place / "run").exists():
        return "finished"
    if not folder.exists():
        return "before it began"
    steps = [p for p in progress.glob("*/*-*-*") if p.is_dir()]
    if any(not (step / "COMMIT").exists() for step in steps):
        return "inside a checkpoint"
    if (folder / "model.safetensors").exists():
        return "while it was saved"
    if steps:
        return "between checkpoints"
    return "inside the store" if list((place / "cache").rglob(".*.tmp")) else "before the first checkpoint"


def kills(count: int, seed: int) -> Counter:
    """Kill so many runs; how many were killed where."""
    rng, found = random.Random(seed), Counter()
    memory = Path("/dev/shm")  # nothing waits for a disk there; a kill, unlike a power cut, loses no written byte
    top = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    os.chdir(top)
    from conftest import make_photos

    make_photos(top / "photos")
    whole: dict[int, tuple[dict, float]] = {}
    done = number = 0
    while done < count:
        fields = RECIPES[number % len(RECIPES)]
        if number % len(RECIPES) not in whole:
            if number == 0:
                run(top / "warm", fields, "run")  # everything is imported: children are forks, and need not
            start = time.perf_counter()
            run(top / f"whole{number}", fields, "run")
            whole[number % len(RECIPES)] = told(top / f"whole{number}" / "run"), time.perf_counter() - start
        expected, seconds = whole[number % len(RECIPES)]
        place = top / f"round{number}"
        for _ in range(min(rng.randint(1, 3), count - done)):
            pid = child(place, fields, "run")
            time.sleep(rng.random() * seconds)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            state = where(place)
            found[state] += state != "finished"
            done += state != "finished"
            if state == "finished":
                break
        if not (place / "run").exists():
            ended(child(place, fields, "run"))
        assert told(place / "run") == expected, f"{fields} ended with other bits after a kill; see {place}"
        assert not (place / "run.unfinished" / "COMMIT").exists()
        shutil.rmtree(place)
        number += 1
    shutil.rmtree(top)
    return found


def main() -> None:
    """Kill, and print the count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    found = kills(given.kills, given.seed)
    count = sum(found.values())
    print(json.dumps({"kills": count, "same": count, "where": dict(found.most_common())}))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
