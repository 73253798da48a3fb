"""A linear probe on elpv: this engine beside the loops people write, in one interleaved run, as ratios.

    python benchmarks/probe.py                       640 + 128 images, one epoch of each loop, times 20
    python benchmarks/probe.py --whole               the loops run all their epochs (long), for equal figures
    python benchmarks/probe.py --freeze last:2       partial fine-tuning in the place of the probe

The loops' time for E epochs is imports + E x the median epoch + evaluation, unless `--whole`; ours is always a
whole process from a cold cache, and again from a warm one. Prints JSON lines and a table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BACKBONE = "cnn/tf_efficientnet_lite0.in1k"
LOOPS = {
    "plain": ["timm_loop.py"],
    "tuned": ["timm_loop.py", "--tuned"],
    "lightning": ["lightning_probe.py"],
    "hf-trainer": ["hf_trainer.py"],
    "fastai": ["fastai_probe.py"],
}
"""Scripts in `peers/`; the last three train a probe only."""


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV with path,label (default: the installed elpv-dataset)")
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--freeze", default="head-only")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--loops", nargs="*", default=["plain", "tuned"], help=f"any of {', '.join(LOOPS)}")
    parser.add_argument("--python", default=sys.executable, help="of an environment that has the loops' libraries")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    table(rows, options.epochs)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every runner in turn, `rounds` times."""
    data = sample(options, folder / "data.csv")
    weights = export(folder / "weights.safetensors")
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        cache = Path(tempfile.mkdtemp(dir=folder))
        for name in ("ours, cold", "ours, warm"):
            found.setdefault(name, []).append(ours(options, data, cache, folder / "run"))
        for loop in options.loops:
            found.setdefault(loop, []).append(theirs(options, data, weights, loop))
    for name, results in found.items():
        for result in results:
            print(json.dumps({"runner": name, "epochs": options.epochs} | result))
    return found


def ours(options: argparse.Namespace, data: Path, cache: Path, out: Path) -> dict[str, Any]:
    """A whole process of `zoo finetune`."""
    command = [sys.executable, "-m", "zoo_core", "finetune", str(data), "-b", BACKBONE, "--freeze", options.freeze]
    command += ["--epochs", str(options.epochs), "--set", "val_share=0", "--out", str(out), "--force", "--json"]
    result, seconds, usage = run(command, {"ZOO_CACHE": str(cache)})
    test = result["test"]
    return {
        "seconds": seconds,
        "accuracy": test["accuracy"],
        "auroc": test["auroc"],
        "phases": result["seconds"],
    } | usage


def theirs(options: argparse.Namespace, data: Path, weights: Path, loop: str) -> dict[str, Any]:
    """A loop: whole, or one epoch of it multiplied."""
    script, *extra = LOOPS[loop]
    command = [options.python, str(HERE / "peers" / script), str(data), "--weights", str(weights), *extra]
    command += ["--epochs", str(options.epochs if options.whole else 1)]
    if options.freeze != "head-only":
        command += ["--train-last", {"last:1": "2", "last:2": "3"}[options.freeze], "--lr", "1e-3"]
    result, seconds, usage = run(command, {})
    parts = result["seconds"]
    missing = options.epochs - len(parts["epochs"])
    seconds += missing * statistics.median(parts["epochs"])
    figures = {"accuracy": result["accuracy"], "auroc": result["auroc"]} if options.whole else {}
    return {"seconds": seconds, "one epoch": statistics.median(parts["epochs"])} | figures | usage


def run(command: list[str], environ: dict[str, str]) -> tuple[Any, float, dict[str, float]]:
    """Output, wall seconds, and CPU seconds with page faults, of one process."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    usage = {"cpu seconds": cpu, "page faults": float(after.ru_minflt - before.ru_minflt), "load": os.getloadavg()[0]}
    lines = done.stdout.strip()
    return json.loads(lines if lines.startswith("{\n") else lines.splitlines()[-1]), seconds, usage


def sample(options: argparse.Namespace, path: Path) -> Path:
    """A CSV of some images with a split, the same each time."""
    from zoo_core.demo import write_manifest

    source = options.data or write_manifest(path.with_name("all.csv"))
    with open(source, newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    chosen = rows[: options.train + options.test]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for i, row in enumerate(chosen):
            out.writerow([row["path"], row["label"], "train" if i < options.train else "test"])
    return path


def export(path: Path) -> Path:
    """The packaged weights under timm's names, for the loops."""
    from safetensors.torch import save_file

    import zoo_core as zoo

    body = zoo.load_backbone(BACKBONE)
    save_file({n: t.contiguous() for n, t in body.model.state_dict().items()}, path)
    return path


def table(found: dict[str, list[dict[str, Any]]], epochs: int) -> None:
    """Minima over the rounds, and how many times ours each took."""
    cold = min(r["seconds"] for r in found["ours, cold"])
    print(f"\n| runner | seconds for {epochs} epochs | times ours, cold | accuracy | ROC AUC |\n|---|---|---|---|---|")
    for name, results in found.items():
        best = min(results, key=lambda r: r["seconds"])
        accuracy = f"{best['accuracy']:.3f} | {best['auroc']:.3f}" if "accuracy" in best else "- | -"
        print(f"| {name} | {best['seconds']:.1f} | {best['seconds'] / cold:.1f} | {accuracy} |")


if __name__ == "__main__":
    main()
