"""Write the tiny plugin's weights and cards."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from zoo_core.files import sha256_file, write_json
from zoo_tiny import TinyProvider, network

torch.manual_seed(0)
tensors = dict(network().state_dict())
for name, value in tensors.items():
    if name.endswith("running_mean"):
        value.normal_(std=0.1)
    if name.endswith("running_var"):
        value.uniform_(0.5, 1.5)
tensors |= {"classifier.weight": torch.randn(10, 32), "classifier.bias": torch.zeros(10)}
path = TinyProvider.cards.with_name("tiny.safetensors")
save_file(tensors, path)
source = {
    "uri": "package:zoo_tiny/tiny.safetensors",
    "sha256": sha256_file(path),
    "size_bytes": path.stat().st_size,
}
card = {
    "provider": "tiny",
    "architecture": "tiny",
    "package": "zoo-tiny",
    "feature_dim": 32,
    "input": {"size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"},
    "stages": ["stem", "block", "neck"],
    "classifier": ["classifier"],
    "sources": [source],
    "openness": {"weights": {"mark": "open", "licence": "Apache-2.0", "name": "made up by a seed"}},
}
write_json(TinyProvider.cards, {"schema": 1, "cards": {"tiny/net": card}})
