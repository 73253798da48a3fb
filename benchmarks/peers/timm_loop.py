"""A linear probe as it is usually written with timm and torch: every epoch decodes and runs every image.

`--tuned` is the same loop by someone who knows the CPU: allocator, channels-last, batches of 16.
Input: a CSV with path,label,split. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import sys
import time

START = time.perf_counter()
if "--tuned" in sys.argv and sys.platform.startswith("linux"):
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1), libc.mallopt(-2, 64 << 20)  # before the first allocation

import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402


class Images(Dataset):
    """One side of the CSV, through timm's own transform."""

    def __init__(self, rows, classes, transform):
        self.rows, self.classes, self.transform = rows, classes, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return self.transform(Image.open(row["path"]).convert("RGB")), self.classes.index(row["label"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--weights", required=True, help="safetensors in timm's names")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train-last", type=int, default=0, help="modules of the backbone that train, from the end")
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    imports = time.perf_counter() - START
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    with open(options.data, newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    model = timm.create_model(options.model, num_classes=len(classes))
    weights = {k: v for k, v in load_file(options.weights).items() if not k.startswith("classifier.")}
    model.load_state_dict(weights, strict=False)
    head = model.get_classifier()
    torch.nn.init.normal_(head.weight, std=0.01), torch.nn.init.zeros_(head.bias)  # as every runner here starts
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    batch = 16 if options.tuned and device.type == "cpu" else options.batch
    train = Images([r for r in rows if r["split"] == "train"], classes, transform)
    test = Images([r for r in rows if r["split"] == "test"], classes, transform)
    if options.tuned:
        model = model.to(memory_format=torch.channels_last)
    model.to(device).eval().requires_grad_(False)
    tail = [model.conv_head, model.bn2, *reversed(model.blocks)][: options.train_last]
    for module in [head, *tail]:
        module.requires_grad_(True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.01)

    def outputs(x):
        x = x.to(device, memory_format=torch.channels_last if options.tuned else torch.contiguous_format)
        if tail:
            return model(x)
        with torch.no_grad():
            features = model.forward_head(model.forward_features(x), pre_logits=True)
        return head(features)

    epochs = []
    loader = DataLoader(train, batch, shuffle=True, num_workers=options.workers)
    steps = len(loader) * options.epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(options.epochs):
        tick = time.perf_counter()
        for x, y in loader:
            loss = cross_entropy(outputs(x), y.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        epochs.append(time.perf_counter() - tick)
    tick = time.perf_counter()
    answers, labels = [], []
    with torch.no_grad():
        for x, y in DataLoader(test, batch, num_workers=options.workers):
            answers.append(outputs(x).softmax(1).cpu())
            labels.append(y)
    probabilities, truth = torch.cat(answers), torch.cat(labels)
    found = {
        "accuracy": float((probabilities.argmax(1) == truth).float().mean()),
        "auroc": float(roc_auc_score(truth, probabilities[:, 1])),
        "seconds": {"imports": imports, "epochs": epochs, "eval": time.perf_counter() - tick},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
