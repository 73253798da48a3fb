"""What the text tower beside an image tower makes of prompts: loaded from the same file when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo_clip.text import load
from zoo_core import Card, OpenClipProvider, TextInput, weights

_BATCH = 64


@dataclass(frozen=True)
class Words:
    """Prompts to unit vectors [N, D] in the space of the image tower's features, and the scale of their cosines."""

    card: Card

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, float]:
        found = weights.find(self.card)
        about = OpenClipProvider.config(self.card)["text_cfg"]
        near = weights.tokenizer_of(replace(self.card, text=TextInput()), found.source)
        beside = near is not None and weights.locate(near) is not None
        spec = TextInput(**OpenClipProvider.text_input(about, beside=beside))
        tower = load(replace(self.card, modality="text", text=spec), found)
        parts = [list(prompts[i : i + _BATCH]) for i in range(0, len(prompts), _BATCH)]
        with torch.no_grad():
            rows = torch.cat([normalize(tower(tower.reader.encode(part)), dim=-1) for part in parts])
        return rows, float(found.tensors["logit_scale"].exp())
