"""What the frameworks' scripts share: the CSV, timm's transform, the weights, the figures."""

from __future__ import annotations

import argparse
import csv
import json
import time

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch.utils.data import Dataset


def arguments() -> argparse.Namespace:
    """The options of every script here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="CSV with path,label,split")
    parser.add_argument("--weights", required=True, help="safetensors in timm's names")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    return parser.parse_args()


def rows_of(path):
    """Rows of the CSV, and the class names."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, sorted({row["label"] for row in rows})


def prepared(body, weights):
    """Put the weights in, freeze all but a new head; returns timm's own transform."""
    states = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")}
    body.load_state_dict(states, strict=False)
    body.requires_grad_(False)
    head = body.get_classifier()
    torch.nn.init.normal_(head.weight, std=0.01), torch.nn.init.zeros_(head.bias)
    head.requires_grad_(True)
    return timm.data.create_transform(**timm.data.resolve_model_data_config(body), is_training=False)


class Images(Dataset):
    """One side of the CSV: (tensor, class index), or what `item` makes of it."""

    def __init__(self, rows, split, classes, transform, item=None):
        self.rows = [row for row in rows if row["split"] == split]
        self.classes, self.transform, self.item = classes, transform, item

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        image = self.transform(Image.open(row["path"]).convert("RGB"))
        label = self.classes.index(row["label"])
        return self.item(image, label) if self.item else (image, label)


def report(probabilities, labels, imports, train, epochs, start):
    """Print the JSON line."""
    probabilities, labels = torch.as_tensor(probabilities), torch.as_tensor(labels)
    print(
        json.dumps(
            {
                "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
                "auroc": float(roc_auc_score(labels, probabilities[:, 1])),
                "seconds": {
                    "imports": imports,
                    "epochs": [train / epochs] * epochs,
                    "eval": time.perf_counter() - start - train,
                },
            }
        )
    )
