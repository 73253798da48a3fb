"""This engine beside the loops people write, on elpv: whole processes in turn, as ratios.

    python benchmarks/loops.py                            the whole set, plain and tuned loop
    python benchmarks/loops.py --train 640 --test 128 --loops plain lightning hf-trainer fastai
    python benchmarks/loops.py --freeze last:2            partial fine-tuning in the place of the probe
    python benchmarks/loops.py --whole                    the loops run all their epochs (long)

A loop's time for E epochs is its whole process with one epoch, and E - 1 times that epoch, unless `--whole`; ours is
always a whole process, from a cold cache, and again from a warm one. Prints JSON lines and a table.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import BACKBONE, HERE, finetune, peak_memory, printed, run, table

LOOPS = {
    "plain": ["timm_loop.py"],
    "tuned": ["timm_loop.py", "--tuned"],
    "lightning": ["lightning_probe.py"],
    "hf-trainer": ["hf_trainer.py"],
    "fastai": ["fastai_probe.py"],
}
"""Scripts in `peers/`; the last three train a probe only."""
MODULES = {"last:1": 2, "last:2": 3}
"""Modules of timm's model, from the end, in our last stages: the neck is a convolution and its norm."""

ONE_BATCH = """
import json, torch, zoo_core as zoo
body = zoo.load_backbone("cnn/tf_efficientnet_lite0.in1k")
with torch.inference_mode():
    body.features(torch.randn(16, 3, 224, 224))
print("{}")
"""
"""Torch, the model and one batch: the yardstick for memory."""
IMPORTS = "import timm, zoo_core.engine, sklearn.metrics, sklearn.neighbors, scipy.stats, scipy.optimize; print('{}')"
"""What our run imports, and nothing else."""


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV with path,label (default: the installed elpv-dataset)")
    parser.add_argument("--train", type=int, default=1968)
    parser.add_argument("--test", type=int, default=656)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--freeze", default="head-only")
    parser.add_argument("--batch", type=int, default=64, help="of the loops, but the tuned one on a CPU; and of ours")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--loops", nargs="*", default=["plain", "tuned"], help=f"any of {', '.join(LOOPS)}")
    parser.add_argument("--python", default=sys.executable, help="of an environment that has the loops' libraries")
    options = parser.parse_args()
    print("\n" + section(printed(measure(**vars(options)))))


def measure(
    loops: Sequence[str],
    train: int = 1968,
    test: int = 656,
    epochs: int = 20,
    rounds: int = 1,
    freeze: str = "head-only",
    batch: int = 64,
    python: str = sys.executable,
    whole: bool = False,
    data: Path | None = None,
    warm: bool = True,
) -> Iterator[dict[str, Any]]:
    """Every runner in turn, `rounds` times; `warm` also runs ours again with what the first run kept."""
    about = {"train": train, "test": test, "epochs": epochs, "freeze": freeze, "batch": batch}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, weights = sample(train, test, folder / "data.csv", data), export(folder / "weights.safetensors")
        for _ in range(rounds):
            cache = Path(tempfile.mkdtemp(dir=folder))
            for state in ("cold", "warm") if warm else ("cold",):
                yield about | {"runner": f"ours, {state}"} | ours(rows, cache, folder / "run", freeze, epochs, batch)
            for runner, code in (("imports alone", IMPORTS), ("one batch", ONE_BATCH)):
                _, used = peak_memory([sys.executable, "-c", code])
                yield about | {"runner": runner} | used
            for loop in loops:
                command = [python, str(HERE / "peers" / LOOPS[loop][0]), str(rows), "--weights", str(weights)]
                command += [*LOOPS[loop][1:], "--batch", str(batch)]
                if freeze != "head-only":
                    command += ["--train-last", str(MODULES[freeze]), "--lr", "1e-3"]
                yield about | {"runner": loop} | theirs(command, epochs, whole)


def ours(data: Path, cache: Path, out: Path, freeze: str, epochs: int, batch: int) -> dict[str, Any]:
    """A whole process of `zoo finetune`."""
    command = [*finetune(data, out, freeze, epochs), "--batch-size", str(batch)]
    result, used = peak_memory(command, {"ZOO_CACHE": str(cache)})
    figures = {name: result["test"][name] for name in ("accuracy", "auroc")}
    return used | figures | {"phases": result["seconds"]}


def theirs(command: list[str], epochs: int, whole: bool) -> dict[str, Any]:
    """A loop: whole, or with one epoch, which is then multiplied."""
    result, used = run([*command, "--epochs", str(epochs if whole else 1)])
    parts = result["seconds"]
    epoch = statistics.median(parts["epochs"])
    figures = {"accuracy": result["accuracy"], "auroc": result["auroc"]} if whole else {}
    seconds = used["seconds"] + (epochs - len(parts["epochs"])) * epoch
    one = used["seconds"] - (len(parts["epochs"]) - 1) * epoch
    return used | {"seconds": round(seconds, 1), "one_epoch": round(one, 1), "epoch": round(epoch, 1)} | figures


def sample(train: int, test: int, path: Path, source: Path | None = None) -> Path:
    """A CSV of some images with a split, the same each time."""
    from zoo_core.demo import write_manifest

    with open(source or write_manifest(path.with_name("all.csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for i, row in enumerate(rows[: train + test]):
            out.writerow([row["path"], row["label"], "train" if i < train else "test"])
    return path


def export(path: Path) -> Path:
    """The packaged weights under timm's names, for the loops."""
    from safetensors.torch import save_file

    import zoo_core as zoo

    body = zoo.load_backbone(BACKBONE)
    save_file({n: t.contiguous() for n, t in body.model.state_dict().items()}, path)
    return path


def least(rows: list[dict[str, Any]], runner: str, key: str = "seconds") -> float:
    """The least over the rounds."""
    return min(row[key] for row in rows if row["runner"] == runner)


def section(rows: list[dict[str, Any]]) -> str:
    """Least and most over the rounds, and how many times ours each took at the least."""
    cold, lines = least(rows, "ours, cold"), []
    for runner in dict.fromkeys(row["runner"] for row in rows if row["runner"] != "one batch"):
        mine = [row for row in rows if row["runner"] == runner]
        every = [row["seconds"] for row in mine]
        one = f"{least(rows, runner, 'one_epoch'):.1f}" if "one_epoch" in mine[0] else ""
        cpu = min(row["cpu_seconds"] for row in mine)
        spread = f"{min(every):.1f} to {max(every):.1f}"
        lines.append((runner, spread, f"{min(every) / cold:.1f}", one, f"{cpu:.0f}", f"{min(r['load'] for r in mine)}"))
    about = rows[0]
    head: tuple[str, ...] = (
        f"seconds, {about['epochs']} epochs",
        "times ours, cold",
        "seconds, 1 epoch",
        "CPU s measured",
        "load",
    )
    return table(("runner", *head), lines)


if __name__ == "__main__":
    main()
