"""Time and memory of a head-only run against the number of images, cold and warm.

    python benchmarks/scale.py                   1,000 and 10,000 images
    python benchmarks/scale.py --images 1000 10000 100000   (an hour on two cores)

Images are cut from the real cells of elpv-dataset, each at its own place and size, so that no two are equal. The
yardstick for memory is a process that imports torch, loads the same model and runs one batch of 16.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from loops import ONE_BATCH
from measure import finetune, peak_memory, printed, table


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    print("\n" + section(printed(measure(parser.parse_args().images))))


def measure(counts: Sequence[int] = (1000, 10_000)) -> Iterator[dict[str, Any]]:
    """A cold and a warm run for each number of images."""
    _, floor = peak_memory([sys.executable, "-c", ONE_BATCH])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in counts:
            data = cut_out(count, folder / str(count))
            for state in ("cold", "warm"):
                result, used = peak_memory(finetune(data, folder / "run"), {"ZOO_CACHE": str(folder / f"cache{count}")})
                row = {"images": count, "state": state, "phases": result["seconds"], "one_batch_mb": floor["peak_mb"]}
                yield row | used | {"peak_times_one_batch": used["peak_mb"] / floor["peak_mb"]}


def section(rows: list[dict[str, Any]]) -> str:
    """Time and memory, whole process."""
    lines = [
        (
            f"{row['images']:,}",
            row["state"],
            row["seconds"],
            f"{1000 * row['seconds'] / row['images']:.1f}",
            row["peak_mb"],
            f"{row['peak_times_one_batch']:.2f}",
        )
        for row in rows
    ]
    floor = f"Python, torch, the model and one batch of 16: {rows[0]['one_batch_mb']} MB."
    return table(("images", "cache", "seconds", "ms an image", "peak MB", "times one batch"), lines) + f"\n\n{floor}"


def cut_out(count: int, folder: Path) -> Path:
    """A table of `count` PNG images, each a part of a real cell at full size."""
    from PIL import Image

    from zoo_core.demo import write_manifest

    folder.mkdir()
    with open(write_manifest(folder / "cells.csv"), newline="") as file:
        cells = list(csv.DictReader(file))
    rng = random.Random(0)
    with open(folder / "data.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "group"])
        for i in range(count):
            cell = cells[i % len(cells)]
            side = rng.uniform(200, 299)
            x, y = rng.uniform(0, 300 - side), rng.uniform(0, 300 - side)
            path = folder / f"{i:06}.png"
            with Image.open(cell["path"]) as image:
                image.resize((300, 300), box=(x, y, x + side, y + side)).save(path, compress_level=1)
            out.writerow([path, cell["label"], i % len(cells)])
    return folder / "data.csv"


if __name__ == "__main__":
    main()
