"""Language models and encoders as chains: equal to upstream, at every cut, padded on either side."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_texts import CONFIGS
from transformers import AutoModel
from zoo_text import TextProvider
from zoo_text.chain import pooled

import zoo_core as zoo
from zoo_core import BadCard, WeightsMismatch, WeightsMissing, testing
from zoo_core.errors import NotAModelFolder
from zoo_core.pulling import pull

pytestmark = pytest.mark.filterwarnings("error")


@testing.parametrize("zoo-text")
def test_keeps_what_zoo_promises(check):
    """The conformance kit."""
    check()


@pytest.fixture(params=CONFIGS)
def kind(request):
    """Each architecture in turn."""
    return request.param


def load(folder, **more):
    """Register a folder, and load it as any other backbone."""
    zoo.registry().register("mine/model", folder=folder, **more)
    return zoo.load_backbone("mine/model")


def padded(side):
    """Ids and mask [3, 10] of texts of 6, 3 and 10 tokens."""
    given = torch.randint(3, 40, (3, 10), generator=torch.Generator().manual_seed(1))
    ids, mask = torch.zeros(2, 3, 10, dtype=torch.long)
    for row, length in enumerate((6, 3, 10)):
        here = slice(0, length) if side == "right" else slice(10 - length, 10)
        ids[row, here], mask[row, here] = given[row, :length], 1
    return ids, mask


@pytest.mark.parametrize("side", ["right", "left"])
def test_equals_upstream_at_every_cut(folders, kind, side):
    """Loaded from upstream's own files, a chain gives upstream's features bit for bit, wherever it is cut."""
    body = load(folders[kind])
    upstream = AutoModel.from_pretrained(folders[kind], dtype=torch.float32).eval()
    ids, mask = padded(side)
    more = {} if side == "right" or kind in ("bert", "bloom") else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    with torch.inference_mode():
        hidden = upstream(ids, attention_mask=mask, **more).last_hidden_state
        expected = pooled((hidden, mask), body.card.text.pooling)
        assert torch.equal(body((ids, mask)), expected)
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            assert torch.equal(tail(prefix((ids, mask))), expected), depth
    blocks = CONFIGS[kind].get("num_hidden_layers", 3)
    assert len(body.stages) == 1 + blocks + (kind != "bert")  # embeddings, blocks, and a final norm but in BERT


def test_tensors_have_upstreams_names(folders, kind):
    """The backbone's state dict has the names and the bits of upstream's base model, without its heads."""
    body = load(folders[kind])
    upstream = AutoModel.from_pretrained(folders[kind], dtype=torch.float32).state_dict()
    own = body.model.state_dict()
    assert own.keys() == {name for name in upstream if not name.startswith("pooler.")}
    assert all(torch.equal(own[name], upstream[name]) for name in own)


def test_padding_changes_nothing_but_rounding(folders, kind):
    """A text alone, padded right or padded left gives the same features, but for the last bits of longer sums.

    BERT is padded right only: its positions count from the first place, whatever stands there.
    """
    body = load(folders[kind])
    (short, *_), (row, *_) = padded("right")
    with torch.inference_mode():
        alone = body((short[row > 0][None], row[row > 0][None]))
        for side in ("right", "left")[: 1 if kind == "bert" else 2]:
            assert torch.allclose(body(padded(side))[:1], alone, atol=1e-5)


def test_threads_do_not_meet(folders, kind):
    """Many texts computed at once on several threads give what each gives alone, bit for bit."""
    from concurrent.futures import ThreadPoolExecutor

    body = load(folders[kind])
    inputs = [(torch.randint(3, 40, (2, n)), torch.ones(2, n, dtype=torch.long)) for n in range(2, 12)]

    def features(value):
        with torch.inference_mode():
            return body(value)

    expected = [features(value) for value in inputs]
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(features, inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_weights_in_several_files(folders, tmp_path):
    """A model that upstream wrote in several files with an index loads to the same bits, and its digest is pinned."""
    whole = load(folders["llama"])
    AutoModel.from_pretrained(folders["llama"], dtype=torch.float32).save_pretrained(tmp_path, max_shard_size="16KB")
    (tmp_path / "tokenizer.json").write_bytes((folders["llama"] / "tokenizer.json").read_bytes())
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2
    card = zoo.registry().register("mine/parts", folder=tmp_path)
    assert card.sources[0].size_bytes == sum(part.stat().st_size for part in parts)
    assert zoo.load_backbone("mine/parts").digest() == whole.digest()
    parts[1].write_bytes(parts[1].read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(zoo.ZooError, match=r"has sha256 .*, but the card says"):
        zoo.load_backbone("mine/parts")
    parts[1].unlink()
    with pytest.raises(WeightsMissing, match=r"the weights of mine/parts are not on this machine"):
        zoo.load_backbone("mine/parts")


def test_an_index_that_leads_away(folders, tmp_path):
    """An index that names a file of another folder, or no safetensors, is refused."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folders["llama"] / name).read_bytes())
    for name in ("../away.safetensors", "model.bin"):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"norm.weight": name}}))
        with pytest.raises(WeightsMismatch, match=r"expected names of \.safetensors beside it"):
            zoo.registry().register("mine/away", folder=tmp_path)


def test_the_hubs_own_cache(folders, tmp_path, monkeypatch):
    """Weights and tokenizer lie where the hub's client keeps them: nothing is fetched, nothing is copied."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--small"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for file in folders["gpt2"].iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    card = zoo.registry().register("mine/folder", folder=folders["gpt2"])
    hub = zoo.Source("hf:someone/small/model.safetensors")
    from zoo_text import TextProvider

    card = replace(card, sources=(hub,))
    body = TextProvider().load(card, zoo.weights.find(card))
    assert body.digest() == zoo.load_backbone("mine/folder").digest()
    assert body.reader.encode("the deep blue sea")[1].sum() == 4
    assert not pull(card).fetched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt5"}, "transformers has no architecture 'gpt5'; expected a model_type"),
        ({"n_head": "four"}, "its configuration is none of gpt2"),
        ({"n_layers": 3}, r"gpt2 has no 'n_layers' to configure\. Did you mean n_layer\?"),
        ({"n_embd": 64}, r"do not fit gpt2: .* has shape \[96\], expected \[192\]"),
        ({"n_layer": 4}, r"do not fit gpt2: h\.3\..* is missing"),
        ({"n_layer": 2}, r"do not fit gpt2: the architecture has no place for .*h\.2\."),
    ],
)
def test_weights_that_do_not_fit(folders, tmp_path, change, message):
    """A configuration that does not fit its weights is named by the first tensor that is wrong."""
    for file in folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((BadCard, WeightsMismatch), match=message):
        load(tmp_path)


def test_a_card_that_contradicts_the_folder(folders):
    """Where the `config.json` beside the weights says otherwise than the card, nothing is loaded in silence."""
    card = zoo.registry().register("mine/llama", folder=folders["llama"])
    other = replace(card, config=dict(card.config) | {"rms_norm_eps": 0.1})
    with pytest.raises(WeightsMismatch, match=r"card has rms_norm_eps=0\.1, but .*config\.json has 1e-06.* --folder"):
        TextProvider().load(other, zoo.weights.find(other))


def test_no_code_from_a_folder(folders, tmp_path):
    """A folder or a card that names code of its own is refused: nothing can switch that on."""
    for file in folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for more in ({"auto_map": {"AutoModel": "evil.Model"}}, {"trust_remote_code": True}):
        (tmp_path / "config.json").write_text(json.dumps(config | more))
        with pytest.raises((NotAModelFolder, BadCard), match="which is never"):
            load(tmp_path)
