"""Folders of weights and configuration as timm, open_clip and the Hugging Face hub lay them out. No torch here.

A folder says what its files hold; file names are looked up in it by the layout's own names, never taken
from the configuration.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zoo_core.card import Card, Facet, Openness
from zoo_core.errors import BadCard, NotAModelFolder, ZooError, shown
from zoo_core.files import read_json
from zoo_core.from_transformers import card_of_sound, card_of_text, is_sound, is_text
from zoo_core.layers import Registry
from zoo_core.open_clip_provider import OpenClipProvider
from zoo_core.registering import weights_facet
from zoo_core.weights import local_source

TEXT_TOWER = "/text"
"""Ends the name of a text tower, whose image tower has the name before it."""
_TIMM_ARGUMENTS = {"num_classes", "in_chans", "global_pool", "img_size"}
_CLIP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}
_NO_LICENCE = ("", "other", "unknown")


def card_of_folder(folder: Path, name: str, base: Card, registry: Registry, *, sized: bool, liked: bool) -> Card:
    """The card of a folder's weights; what `base` states goes before what the folder says.

    Args:
        name: that it will have; of open_clip's folders one that ends in `/text` is the text tower.
        base: from the user: perhaps a provider, an architecture, or all of another card.
        registry: where a card of the same architecture tells provider and package.
        sized: the user gave the input's size.
        liked: `base` is another card, whose preprocessing is the user's choice.

    Raises:
        NotAModelFolder: no known layout, or no provider can be told.
        WeightsMissing: it holds no weights file of its layout.
    """
    if not folder.is_dir():
        raise NotAModelFolder(f"{folder} is no folder. For a single file type: zoo register NAME --weights {folder}")
    if (folder / "open_clip_config.json").is_file():
        names: tuple[str, ...] = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        reader = partial(_open_clip, tower="text" if name.endswith(TEXT_TOWER) else "vision", named=base.architecture)
        found = _read(folder / "open_clip_config.json", reader)
    elif (folder / "config.json").is_file():
        names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
        found = _read(folder / "config.json", _timm_or_transformers)
    else:
        raise NotAModelFolder(
            f"{folder} holds neither config.json (timm, Hugging Face) nor open_clip_config.json (open_clip). "
            "Type: zoo register NAME --like CARD --weights FILE"
        )
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise NotAModelFolder(f"{folder} holds no {' or '.join(names)}.")
    spec = base.input if liked else replace(found.input, size=base.input.size) if sized else found.input
    card = replace(
        found,
        architecture=base.architecture or found.architecture,
        provider=base.provider or ("" if found.provider == "timm" else found.provider),  # timm's are several plugins'
        package=base.package or found.package,
        modality=base.modality if liked else found.modality,
        input=spec,
        sources=(local_source(files[0]),),
    )
    if found.provider == "text":
        code = Facet("open", "Apache-2.0", "transformers")
        return replace(card, openness=Openness(code, weights_facet(stated_licence(folder))))
    kin = base if liked else card if card.config else _kin(replace(card, provider=base.provider), registry) or card
    if not kin.provider:
        raise NotAModelFolder(
            f"{folder} is of the architecture {shown(card.architecture)}, which no card has. Add --like CARD, or "
            "--provider and --architecture."
        )
    same = kin.input.size == card.input.size  # of another size, positions are other parameters
    weights = found.openness.weights if found.openness.weights.licence else weights_facet(stated_licence(folder))
    return replace(
        card,
        provider=card.provider or kin.provider,
        package=card.package or kin.package,
        modality=kin.modality,
        feature_dim=kin.feature_dim,
        parameters=kin.parameters if same else 0,
        stages=kin.stages,
        classifier=found.classifier or kin.classifier,
        openness=Openness(kin.openness.code, weights, Facet()),
    )


def _read(path: Path, reader: Callable[[dict[str, Any], Path], Card]) -> Card:
    """What a configuration says; strangers write it, so it may be of any shape."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise NotAModelFolder(f"{path}: expected an object, got {type(config).__name__}.")
    try:
        return reader(config, path.parent)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotAModelFolder(f"{path} is not laid out as upstream writes it: {error}.") from error


def _timm_or_transformers(config: dict[str, Any], folder: Path) -> Card:
    if is_sound(config):
        return card_of_sound(config, folder)
    if is_text(config):
        return card_of_text(config, folder)
    return _timm(config, folder) if "architecture" in config else _transformers(config)


def _timm(config: dict[str, Any], folder: Path) -> Card:
    """What timm's `save_for_hf` wrote; older ones have everything on one level."""
    about = config.get("pretrained_cfg", config)
    if not isinstance(about, dict) or not isinstance(config["architecture"], str):
        raise NotAModelFolder(f"{folder / 'config.json'}: expected timm's architecture and pretrained_cfg.")
    strange = sorted((config.get("model_args") or {}).keys() - _TIMM_ARGUMENTS)
    if strange:
        raise NotAModelFolder(
            f"{folder / 'config.json'}: the model was built with {shown(strange[0])}, which a card cannot say; "
            "expected an architecture as timm names it."
        )
    heads = about.get("classifier") or ()
    given = {"size": about.get("input_size"), "crop": about.get("crop_pct"), "crop_mode": about.get("crop_mode")}
    given |= {key: about.get(key) for key in ("mean", "std", "interpolation")}
    if given["interpolation"] == "random":
        given["interpolation"] = "bicubic"  # drawn at random in training; timm evaluates with bicubic
    entry = {
        "provider": "timm",
        "architecture": config["architecture"],
        "input": {key: value for key, value in given.items() if value is not None},
        "classifier": [heads] if isinstance(heads, str) else list(heads),
    }
    card = _card(entry, folder / "config.json")
    return replace(card, openness=Openness(weights=weights_facet(_licence(about.get("license")))))


def _open_clip(config: dict[str, Any], folder: Path, tower: Literal["vision", "text"], named: str) -> Card:
    """What open_clip's `save_for_hf` wrote; a model that open_clip does not have by name brings its configuration."""
    model, view = config.get("model_cfg"), config.get("preprocess_cfg") or {}
    both = isinstance(model, dict) and all(isinstance(model.get(part), dict) for part in ("vision_cfg", "text_cfg"))
    if not isinstance(model, dict) or not both or not isinstance(view, dict):
        raise NotAModelFolder(f"{folder / 'open_clip_config.json'}: expected model_cfg with vision_cfg and text_cfg.")
    same = [(name, theirs) for name, theirs in _open_clip_models() if _tower(theirs, tower) == _tower(model, tower)]
    whole = [name for name, theirs in same if _tower(theirs, "vision") == _tower(model, "vision")]
    known = named or next(iter([*whole, *(name for name, _ in same)]), "")
    entry: dict[str, Any] = {"provider": "clip", "package": "zoo-clip", "architecture": known or folder.name}
    entry |= {} if known else {"config": model}
    if tower == "text":
        entry |= {"modality": "text", "text": OpenClipProvider.text_input(model["text_cfg"], beside=True)}
    else:
        side = view.get("size") or model["vision_cfg"].get("image_size", 224)
        size = [side, side] if isinstance(side, int) else list(side)
        entry["input"] = {
            "size": [3, *size],
            "interpolation": "bilinear" if view.get("interpolation") == "bilinear" else "bicubic",
            "crop": 1.0,
            "crop_mode": _CLIP_MODES.get(view.get("resize_mode", "shortest"), "center"),
            **{key: view[key] for key in ("mean", "std") if key in view},
        }
    return _card(entry, folder / "open_clip_config.json")


def _transformers(config: dict[str, Any]) -> Card:
    """A folder of transformers: its configuration names a kind of model, its own path at best names which."""
    name = config.get("_name_or_path") or config.get("model_type") or ""
    return Card("folder", "", name if isinstance(name, str) else "")


def _card(entry: dict[str, Any], path: Path) -> Card:
    try:
        return Card.from_json("folder", entry)
    except BadCard as error:
        raise NotAModelFolder(f"{path}: {error}") from error


def _kin(card: Card, registry: Registry) -> Card | None:
    """A card of the same architecture, or the user's own statement of a provider."""
    if card.provider:
        return card
    base = card.architecture.partition(".")[0]
    for name, entry in registry.plain(problems=[]):
        alike = entry.get("modality", "image") == card.modality
        if alike and card.architecture and entry.get("architecture") in (card.architecture, base):
            try:
                return registry.get(name)
            except ZooError:
                continue
    return None


def _open_clip_models() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and configuration of every model of the installed open_clip, which is not imported."""
    spec = importlib.util.find_spec("open_clip")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "model_configs").glob("*.json")):
            config = read_json(path)
            if isinstance(config, dict) and "vision_cfg" in config:
                yield path.stem, config


def _tower(config: dict[str, Any], tower: Literal["vision", "text"]) -> tuple[Any, ...]:
    """What makes a tower: two models that share it are the same backbone."""
    aside = ("timm_model_pretrained", "hf_model_pretrained")
    about = {key: value for key, value in config.get(f"{tower}_cfg", {}).items() if key not in aside}
    own = tower == "text" and bool(config.get("custom_text"))
    return config.get("embed_dim"), about, bool(config.get("quick_gelu", False)), own


def stated_licence(folder: Path) -> str:
    """The licence in the front matter of the folder's README, as the hub's model cards have it."""
    try:
        with open(folder / "README.md", encoding="utf-8") as file:
            text = file.read(1 << 16)
    except (OSError, ValueError):
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", head[1], re.MULTILINE) if head else None
    return _licence(found[1]) if found else ""


def _licence(stated: Any) -> str:
    return stated if isinstance(stated, str) and stated not in _NO_LICENCE else ""
