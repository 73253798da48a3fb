"""Time and memory of a head-only run against the number of images, cold and warm.

    python benchmarks/scale.py                   1,000 and 10,000 images
    python benchmarks/scale.py --images 1000 10000 100000   (an hour on two cores)

Images are cut from the real cells of elpv-dataset, each at its own place and size, so that no two are equal. The
yardstick for memory is a process that imports torch, loads the same model and runs one batch of 16.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import finetune, peak_memory, table

ONE_BATCH = """
import json, torch, zoo_core as zoo
body = zoo.load_backbone("cnn/tf_efficientnet_lite0.in1k")
with torch.inference_mode():
    body.features(torch.randn(16, 3, 224, 224))
print(json.dumps({}))
"""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    _, floor = peak_memory([sys.executable, "-c", ONE_BATCH])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.images:
            data = cut_out(count, folder / str(count))
            for state in ("cold", "warm"):
                result, used = peak_memory(finetune(data, folder / "run"), {"ZOO_CACHE": str(folder / f"cache{count}")})
                row = {"benchmark": "scale", "images": count, "state": state, "phases": result["seconds"]} | used
                rows.append(row | {"peak_times_one_batch": used["peak_mb"] / floor["peak_mb"]})
                print(json.dumps(rows[-1]), flush=True)
    print(f"\nimport torch + model + one batch of 16: {floor['peak_mb']} MB")
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
    print(table(("images", "cache", "seconds", "ms an image", "peak MB", "times one batch"), lines))


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
