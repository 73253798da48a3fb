"""Sounds that are made here, in real files of each format, and a tiny CLAP in upstream's own files.

Tones with overtones against filtered noise: no real recordings, and no claim about any.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

TOWER = {
    "spec_size": 128,
    "patch_embeds_hidden_size": 16,
    "depths": [1, 2],
    "num_attention_heads": [2, 4],
    "hidden_size": 32,
    "window_size": 4,
    "num_mel_bins": 64,
}
HEARD = {"sampling_rate": 8000, "feature_size": 64, "max_length_s": 1, "hop_length": 80, "fft_window_size": 512}
HEARD |= {"frequency_min": 50, "frequency_max": 3800}
KINDS = {"unfused": {}, "fused": {"enable_fusion": True, "fusion_type": "aff_2d"}}
CARDS = Path(__file__).with_name("tiny_cards.json")
"""One card of the same tower, with weights at random."""
ENDINGS = ("wav", "flac", "ogg")


def tone(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """A note with three overtones that dies away."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(200, 600)
    return sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2, 3)) * np.exp(-2 * t) * 0.3


def noise(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Wind: noise without its highest frequencies, louder and softer."""
    n = int(seconds * rate)
    rough = np.convolve(rng.normal(size=n + 7), np.ones(8) / 8, mode="valid")
    return 0.3 * rough * (1 + np.sin(np.linspace(0, rng.uniform(3, 9), n)))


def write_sounds(folder: Path, each: int = 12, seed: int = 0) -> Path:
    """Class folders `tone` and `wind`; formats, rates, channels and lengths take turns."""
    rng = np.random.default_rng(seed)
    for name, make in (("tone", tone), ("wind", noise)):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            rate = (8000, 16000)[i % 2]
            samples = make(rng, rng.uniform(0.3, 1.6), rate)
            if i % 4 == 3:
                samples = np.stack([samples, 0.5 * samples], axis=1)
            soundfile.write(folder / name / f"{i}.{ENDINGS[i % 3]}", samples, rate)
    return folder


def write_clap(folder: Path, kind: str) -> Path:
    """A whole CLAP with weights at random, as `save_pretrained` writes it, and its feature extractor."""
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    text = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 16, "max_position_embeddings": 32}
    config = ClapConfig(text_config=text, audio_config=TOWER | KINDS[kind], projection_dim=24)
    torch.manual_seed(3)
    model = ClapModel(config).eval()
    for module in model.modules():  # as if it had been trained: no running statistic is what it begins as
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    model.save_pretrained(folder)
    truncation = "fusion" if kind == "fused" else "rand_trunc"
    ClapFeatureExtractor(**HEARD, truncation=truncation).save_pretrained(folder)
    return folder
