"""A complete plugin for the tests: a three-stage network with batch norm and dropout, its cards, its weights.

The weights (`tiny.safetensors`) are those of `network()` after `torch.manual_seed(0)`, with running
statistics and a ten-class classifier made up by the same seed: `python -m zoo_tiny` in this folder
writes the file and the cards again.
"""

from __future__ import annotations

from pathlib import Path

from zoo_core import hookimpl


class TinyProvider:
    """Loads the tiny network."""

    cards = Path(__file__).with_name("cards.json")

    def load(self, card, weights):
        from zoo_core import Backbone, chain_from_modules

        net = network()
        classifier = {}
        if weights is not None:
            net.load_state_dict({n: t for n, t in weights.tensors.items() if not n.startswith("classifier")})
            classifier = {n: t for n, t in weights.tensors.items() if n.startswith("classifier")}
        parts = [("stem", net[0]), ("block", net[1]), ("neck", net[2])]
        labels = {f"thing{i}": i for i in range(10)} if classifier else {}
        return Backbone(card, net, chain_from_modules(parts, net), 32, classifier, labels=labels)


@hookimpl
def zoo_backbone_providers():
    return {"tiny": TinyProvider}


def network():
    """Images [B, 3, 32, 32] to features [B, 32]."""
    from torch import nn

    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    block = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2))
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 32), nn.ReLU())
    return nn.Sequential(stem, block, neck).eval()
