"""The sound demo's data and tower: both made on the spot, and said to be.

Four kinds of sound are computed: a bell's partials that die away, wind (rough noise), a siren that rises and falls, and
clicks. The tower has CLAP's architecture, thirty thousand parameters, and weights at random; only its head is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo_core.card import AudioInput, Card
from zoo_core.errors import MissingExtra
from zoo_core.files import make_folder

if TYPE_CHECKING:
    from zoo_core.backbone import Backbone
    from zoo_core.plugins import Plugins
    from zoo_core.recipe import Recipe

RATE = 8000
EACH = 30
KINDS = ("bell", "clicks", "siren", "wind")
CARD = Card(
    "demo/tiny-clap",
    "audio",
    "clap",
    package="zoo-audio",
    modality="audio",
    audio=AudioInput(RATE, max_length_s=1, hop_length=80, fft_window_size=512, frequency_max=3800.0),
    config={
        "projection_dim": 64,
        "audio_config": {
            "spec_size": 128,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 2],
            "num_attention_heads": [2, 4],
            "hidden_size": 32,
            "window_size": 4,
        },
    },
    notes="For the demo: weights at random.",
)


def prepared(plugins: Plugins) -> tuple[Recipe, Backbone]:
    """The recipe of the run, and the tower; the sounds are made."""
    from zoo_core.places import cache_folder
    from zoo_core.recipe import Recipe
    from zoo_core.weights import load_backbone

    folder = write_sounds(cache_folder() / "demo" / "sounds")
    recipe = Recipe(data=str(folder), backbone=CARD.name, weights="none", head="linear:solver=lbfgs")
    import torch

    torch.manual_seed(0)
    return recipe, load_backbone(CARD, plugins, pretrained=False)


def write_sounds(folder: Path) -> Path:
    """Class folders of WAV files, the same ones every time.

    Raises:
        MissingExtra: soundfile is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtra("soundfile is not installed. Type: pip install zoo-audio") from error
    rng = np.random.default_rng(0)
    for kind in KINDS:
        make_folder(folder / kind)
        for i in range(EACH):
            soundfile.write(folder / kind / f"{i:02d}.wav", made(kind, rng), RATE)
    return folder


def made(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Samples [n] of one sound of half a second to a second and a half, within noise of another strength each."""
    n = int(RATE * rng.uniform(0.5, 1.5))
    t = np.arange(n) / RATE
    pitch = rng.uniform(250, 700)
    if kind == "bell":
        found = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2.76, 5.4)) * np.exp(-4 * t)
    elif kind == "siren":
        found = np.sin(2 * np.pi * pitch * t + 40 * np.sin(2 * np.pi * rng.uniform(1, 3) * t))
    elif kind == "clicks":
        found = np.zeros(n)
        found[:: int(RATE / rng.uniform(5, 15))] = 1.0
        found = np.convolve(found, np.exp(-np.arange(40) / 6), mode="same")
    else:
        found = np.convolve(rng.normal(size=n + 11), np.ones(12) / 4, mode="valid")
    loud = 0.5 * found / abs(found).max()
    return np.asarray(loud + rng.uniform(0.01, 0.05) * rng.normal(size=n))
