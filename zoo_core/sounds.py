"""One way to read a sound: soundfile's samples as 32-bit floats, all channels. Needs no torch.

Digested are the samples and their rate, so a WAV and the FLAC made of it are one sound; an Ogg file is another one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from zoo_core.errors import BadSound, MissingExtra

VERSION = "soundfile-1"
"""Version of `decode`; part of every cache key."""

ENDINGS = (".wav", ".flac", ".ogg")
MAX_SECONDS = 3600
"""Longer files are refused: at 48 kHz in stereo an hour takes 1.4 GB."""


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Read one sound: samples [frames, channels] as float32, and frames a second.

    Raises:
        BadSound: it is no sound, empty, too long, or holds numbers that are none.
        MissingExtra: soundfile is not installed.
    """
    library = _soundfile()
    frames, rate = length(path)
    if not frames:
        raise BadSound("an empty sound")
    if frames / rate > MAX_SECONDS:
        raise BadSound(f"{frames / rate:.0f} seconds, more than {MAX_SECONDS}")
    try:
        samples, rate = library.read(str(path), dtype="float32", always_2d=True)
    except (library.SoundFileError, RuntimeError, MemoryError) as error:
        raise BadSound(f"cannot be decoded: {error}") from error
    if not len(samples) or not np.isfinite(samples).all():
        raise BadSound("it has no samples, or some that are no numbers")
    return samples, rate


def length(path: str | Path) -> tuple[int, int]:
    """Frames, and frames a second, as the file's header says.

    Raises:
        BadSound: it is no sound.
    """
    library = _soundfile()
    try:
        about = library.info(str(path))
    except (library.SoundFileError, RuntimeError) as error:
        raise BadSound(f"no sound that can be read: {str(error).rpartition(': ')[2]}") from error
    if about.samplerate < 1:
        raise BadSound(f"{about.samplerate} frames a second")
    return int(about.frames), int(about.samplerate)


def content_digest(samples: np.ndarray, rate: int) -> str:
    """sha256 (hex) over shape, rate and samples."""
    head = f"{samples.shape} {rate} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(samples).tobytes()).hexdigest()


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtra("soundfile is not installed. Type: pip install zoo-audio") from error
    return soundfile
