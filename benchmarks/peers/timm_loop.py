"""A linear probe as it is usually written with timm and torch: every epoch decodes and runs every image.

`--tuned` is the same loop by someone who knows the CPU: allocator, channels-last, batches of 16, threads
that do not spin. `--remember` keeps what the frozen modules gave, to learn the loop's figures for many seeds in
short; never for its time.
Input: a CSV with path,label,split. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import sys
import time

START = time.perf_counter()
if "--tuned" in sys.argv:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: waiting threads do not spin
if "--tuned" in sys.argv and sys.platform.startswith("linux"):
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1), libc.mallopt(-2, 64 << 20)  # before the first allocation

import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.data import DataLoader, Dataset, TensorDataset  # noqa: E402


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
    options = arguments()
    imports = time.perf_counter() - START
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open(options.data, newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    model = timm.create_model(options.model, num_classes=len(classes))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    batch = 16 if options.tuned and device.type == "cpu" else options.batch
    train, test = (Images([r for r in rows if r["split"] == side], classes, transform) for side in ("train", "test"))
    if options.tuned:
        model = model.to(memory_format=torch.channels_last)
    layout = torch.channels_last if options.tuned else torch.contiguous_format
    trained = min(options.train_last, 2), max(0, options.train_last - 2)  # of the neck, of the blocks
    after = len(model.blocks) - trained[1]

    def frozen(x):
        """The part of the model that stands still: all but the classifier, or up to the first module that trains."""
        with torch.no_grad():
            x = x.to(device, memory_format=layout)
            if not options.train_last:
                return model.forward_head(model.forward_features(x), pre_logits=True)
            return model.blocks[:after](model.bn1(model.conv_stem(x)))

    def outputs(x):
        x = x.to(device) if options.remember else frozen(x)
        if not options.train_last:
            return model.get_classifier()(x)
        return model.forward_head(model.bn2(model.conv_head(model.blocks[after:](x))))

    weights = {k: v for k, v in load_file(options.weights).items() if not k.startswith("classifier.")}
    model.load_state_dict(weights, strict=False)
    model.to(device).eval().requires_grad_(False)
    if options.remember:
        train, test = (remembered(frozen, side, batch, options.workers) for side in (train, test))
    found = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model.load_state_dict(weights, strict=False)
        model.requires_grad_(False)
        head = model.get_classifier()
        torch.nn.init.normal_(head.weight, std=0.01), torch.nn.init.zeros_(head.bias)  # as every runner here starts
        for module in [head, *[model.conv_head, model.bn2][: trained[0]], *model.blocks[after:]]:
            module.requires_grad_(True)
        found.append(fit([p for p in model.parameters() if p.requires_grad], outputs, train, test, batch, options))
    seconds = {"imports": imports, **found[0].pop("seconds")}
    rest = [{k: v for k, v in one.items() if k != "seconds"} for one in found]
    print(json.dumps({**found[0], "seeds": rest, "seconds": seconds}))


def fit(parameters, outputs, train, test, batch, options):
    """Train, then look at the test side; figures and seconds."""
    device, epochs = parameters[0].device, []
    optimiser = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.01)
    workers = 0 if options.remember else options.workers
    loader = DataLoader(train, batch, shuffle=True, num_workers=workers)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(loader) * options.epochs)
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
        for x, y in DataLoader(test, batch, num_workers=workers):
            answers.append(outputs(x).softmax(1).cpu())
            labels.append(y)
    probabilities, truth = torch.cat(answers), torch.cat(labels)
    return {
        "accuracy": float((probabilities.argmax(1) == truth).float().mean()),
        "auroc": float(roc_auc_score(truth, probabilities[:, 1])),
        "seconds": {"epochs": epochs, "eval": time.perf_counter() - tick},
    }


def remembered(frozen, side, batch, workers):
    """What the frozen modules give for one side, in order."""
    parts = [(frozen(x).cpu(), y) for x, y in DataLoader(side, batch, num_workers=workers)]
    return TensorDataset(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def arguments():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--weights", required=True, help="safetensors in timm's names")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="one of timm's EfficientNets")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train-last", type=int, default=0, help="modules of the backbone that train, from the end")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--remember", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
