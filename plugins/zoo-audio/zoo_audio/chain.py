"""CLAP's audio tower as a chain: spectrogram to patches, every Swin block, every merging, the norm with pooling, the
projection.

Upstream's own modules run; what is written again here is the few lines of `ClapAudioEncoder.forward` between them,
held bit for bit by the tests. (mel [B, C, T, F], longer [B, 1]) enter, patches [B, N, D] travel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo_core import Stage, chain_from_modules

Mel = tuple[Tensor, Tensor]


class Patches(nn.Module):
    """(mel, longer) to patches: normalised by frequency, folded into a square picture, cut and embedded."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.batch_norm, self.patch_embed = encoder.batch_norm, encoder.patch_embed
        self.__dict__["encoder"] = [encoder]  # in a list: not a submodule of this one

    def forward(self, value: Mel) -> Tensor:
        mel, longer = value
        encoder = self.__dict__["encoder"][0]
        x = self.batch_norm(mel.transpose(1, 3)).transpose(1, 3)
        fused = torch.where(longer == 1)[0] if encoder.enable_fusion else None
        found: Tensor = self.patch_embed(encoder.reshape_mel2img(x), fused)
        return found


class Block(nn.Module):
    """One Swin block over patches of height x width."""

    def __init__(self, block: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.block, self.size = block, size

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x, self.size, False, False)[0]
        return found


class Merging(nn.Module):
    """Four neighbouring patches become one of twice the width."""

    def __init__(self, downsample: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.downsample, self.size = downsample, size

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.downsample(x, self.size)
        return found


class Pooled(nn.Module):
    """Norm, and the mean over all patches in upstream's order: [B, D]."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.norm = encoder.norm
        self.__dict__["encoder"] = [encoder]

    def forward(self, x: Tensor) -> Tensor:
        encoder = self.__dict__["encoder"][0]
        x = self.norm(x)
        side = encoder.spec_size // 2 ** (len(encoder.depths) - 1)
        height, width = side // encoder.patch_stride[0], side // encoder.patch_stride[1]
        x = x.permute(0, 2, 1).contiguous().reshape(len(x), x.shape[2], height, width)
        bands = height // encoder.freq_ratio
        x = x.reshape(len(x), x.shape[1], height // bands, bands, width)
        x = x.permute(0, 1, 3, 2, 4).contiguous().reshape(len(x), x.shape[1], bands, -1)
        return torch.flatten(encoder.avgpool(torch.flatten(x, 2)), 1)


class Whole(nn.Module):
    """Upstream's model called whole: audio embeddings before they are normalised; its tensors have upstream's names."""

    def __init__(self, model: Any):
        super().__init__()
        self.__dict__["upstream"] = [model]
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self._non_persistent_buffers_set = model._non_persistent_buffers_set

    def forward(self, value: Mel) -> Tensor:
        found: Tensor = self.__dict__["upstream"][0](input_features=value[0], is_longer=value[1]).audio_embeds
        return found


def stages_of(model: Any) -> tuple[Whole, tuple[Stage, ...]]:
    """transformers' `ClapAudioModelWithProjection` as a module and as its chain."""
    encoder = model.audio_model.audio_encoder
    parts: list[tuple[str, nn.Module]] = [("patch_embed", Patches(encoder))]
    for i, (layer, size) in enumerate(zip(encoder.layers, encoder.input_resolutions, strict=True)):
        parts += [(f"layers.{i}.blocks.{j}", Block(block, size)) for j, block in enumerate(layer.blocks)]
        if layer.downsample is not None:
            parts.append((f"layers.{i}.downsample", Merging(layer.downsample, size)))
    parts += [("norm", Pooled(encoder)), ("audio_projection", model.audio_projection)]
    whole = Whole(model)
    return whole, chain_from_modules(parts, whole)
