"""The reader of sounds: from a file to the spectrogram that CLAP's own feature extractor makes."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import soxr
import torch
import transformers
from torch import Tensor
from transformers import ClapFeatureExtractor

from zoo_core import AudioInput, BadOption, sounds

Mel = tuple[Tensor, Tensor]

_LOCK = threading.Lock()
"""Upstream draws from numpy's global state."""


@dataclass(frozen=True)
class Sounds:
    """Sounds as (mel [C, T, F], longer [1]): one channel, or four where the model fuses parts of longer sounds.

    Channels of the file are averaged, and another rate than the model's is resampled by soxr in high quality: what
    transformers' `load_audio` does. The spectrogram is upstream's own. Each file is alone, as in a batch of one.

    Attributes:
        spec: the card's preprocessing.
    """

    spec: AudioInput

    def about(self) -> dict[str, Any]:
        libraries = {"transformers": transformers.__version__, "soxr": soxr.__version__}
        return {"decoder": sounds.VERSION, "audio": asdict(self.spec), "libraries": libraries}

    def read(self, path: str, row: str = "") -> Mel:
        return self.encode(self.waveform(path))

    def waveform(self, path: str) -> np.ndarray:
        """Samples [n] in the model's rate, one channel."""
        samples, rate = sounds.decode(path)
        mono = samples.T.mean(axis=0) if samples.shape[1] > 1 else samples[:, 0]
        if rate != self.spec.sampling_rate:
            frames = math.ceil(len(mono) * self.spec.sampling_rate / rate)
            mono = soxr.resample(mono, rate, self.spec.sampling_rate, quality="soxr_hq")
            mono = np.pad(mono, (0, max(0, frames - len(mono))))[:frames]
        return np.ascontiguousarray(mono, dtype=np.float32)

    def encode(self, waveform: np.ndarray) -> Mel:
        """Samples to a spectrogram. Where upstream draws places of a long sound at random, the content draws them."""
        extractor = _extractor(self.spec)
        if len(waveform) <= extractor.nb_max_samples:
            found = extractor(waveform, sampling_rate=self.spec.sampling_rate, return_tensors="np")
        else:
            seed = int.from_bytes(hashlib.sha256(waveform.tobytes()).digest()[:4], "big")
            with _LOCK:
                before = np.random.get_state()
                np.random.seed(seed)
                try:
                    found = extractor(waveform, sampling_rate=self.spec.sampling_rate, return_tensors="np")
                finally:
                    np.random.set_state(before)
        longer = torch.tensor(np.asarray(found["is_longer"][0]), dtype=torch.uint8)
        return torch.from_numpy(np.asarray(found["input_features"][0], dtype=np.float32)), longer

    def stack(self, rows: Sequence[Mel]) -> Mel:
        return torch.stack([mel for mel, _ in rows]), torch.stack([longer for _, longer in rows])

    def to_input(self, raw: Mel, device: torch.device) -> Mel:
        return raw[0].to(device), raw[1].to(device)

    def groups(self, value: Any) -> list[tuple[list[int], Any]]:
        """Each sound alone: what a tower makes of one, to the last bit, then depends on no other beside it."""
        parts = value if isinstance(value, tuple) else (value,)
        alone = [tuple(part[i : i + 1] for part in parts) for i in range(len(parts[0]))]
        return [([i], row if isinstance(value, tuple) else row[0]) for i, row in enumerate(alone)]

    def widen(self, value: Any) -> Any:
        return value

    def trim(self, value: Any) -> Any:
        return value

    def blank(self, count: int) -> Mel:
        frames = _extractor(self.spec).nb_max_samples // self.spec.hop_length + 1
        channels = 4 if self.spec.truncation == "fusion" else 1
        longer = torch.full((count, 1), int(channels == 4), dtype=torch.uint8)
        rough = torch.Generator().manual_seed(0)  # of silence a random tower makes nothing at all
        return torch.randn(count, channels, frames, self.spec.feature_size, generator=rough), longer

    def varied(self, policy: str, seed: int) -> Sounds:
        raise BadOption(f"--augment {policy} is for images; leave it out for sounds.")

    def fitted(self, paths: Sequence[str]) -> tuple[Sounds, list[str]]:
        """Says how long the sounds are, and which are resampled or longer than the model hears at once."""
        lengths = [sounds.length(path) for path in paths]
        seconds = [frames / rate for frames, rate in lengths]
        notes = [f"sounds of {min(seconds, default=0):.1f} to {max(seconds, default=0):.1f} seconds"]
        other = sum(rate != self.spec.sampling_rate for _, rate in lengths)
        if other:
            notes.append(f"{other} of {len(paths)} are resampled to {self.spec.sampling_rate} Hz")
        long = sum(s > self.spec.max_length_s for s in seconds)
        if long:
            how = "parts and the whole are fused" if self.spec.truncation == "fusion" else "one part of each is heard"
            notes.append(f"{long} of {len(paths)} are longer than {self.spec.max_length_s} seconds: {how}")
        return self, notes

    def state(self) -> dict[str, Any]:
        return {}

    def restored(self, state: Mapping[str, Any]) -> Sounds:
        return self


@cache
def _extractor(spec: AudioInput) -> ClapFeatureExtractor:
    return ClapFeatureExtractor(**asdict(spec))
