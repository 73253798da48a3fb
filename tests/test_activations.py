"""What frozen stages compute is computed once, kept exactly, and checked when it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo_core import activations, augment, data, images, keeping, reading
from zoo_core.card import Card
from zoo_core.errors import BadExample, BadOption
from zoo_core.readers import Pixels

DEPTHS = range(4)


@pytest.fixture
def paths(photos):
    """Content digest to path of all photos."""
    return {e.digest: e.path for e in data.scan(photos).examples}


@pytest.fixture
def cache(tmp_path):
    """Where the store lies."""
    return tmp_path / "store"


def on_the_spot(body, depth, paths):
    """The boundary of some images, computed without the store."""
    prefix, _ = body.cut(depth)
    reader, cpu = body.reader, torch.device("cpu")
    return torch.cat(
        list(reading.map_examples(lambda _, raw, x: prefix(x), [*paths.values()], reading.files(reader), reader, cpu))
    )


@pytest.mark.parametrize("depth", DEPTHS)
def test_stored_equals_computed(tiny, paths, cache, depth):
    """What the store gives at any depth equals what the prefix computes, bit for bit; at depth 0 the input itself."""
    acts = activations.at(tiny, depth, paths, cache)
    assert torch.equal(acts.boundary(list(paths)), on_the_spot(tiny, depth, paths))
    assert torch.equal(acts.features(list(paths)), on_the_spot(tiny, 3, paths))


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_second_time_nothing_is_computed(tiny, paths, cache, depth, monkeypatch):
    """Asked again, in another run with another head or seed, nothing is decoded and nothing computed."""
    first = activations.at(tiny, depth, paths, cache)
    assert (first.hits, first.misses) == (0, 30)
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    second = activations.at(tiny, depth, paths, cache)
    assert (second.hits, second.misses) == (30, 0)
    assert torch.equal(second.boundary(list(paths)), first.boundary(list(paths)))
    assert second.size_bytes == first.size_bytes > 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_only_new_images_are_computed(tiny, paths, cache, depth):
    """Of a grown data set only the new images are computed; the result is that of computing all."""
    some = dict(list(paths.items())[:16])  # a whole batch: the size of a batch decides the last bits of a product
    activations.at(tiny, depth, some, cache)
    grown = activations.at(tiny, depth, paths, cache)
    assert (grown.hits, grown.misses) == (16, 14)
    assert torch.equal(grown.boundary(list(paths)), on_the_spot(tiny, depth, paths))


def test_names_do_not_matter(tiny, paths, cache, monkeypatch):
    """Rows are found by content: moved and renamed files are not computed again."""
    activations.at(tiny, 2, paths, cache)
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    assert activations.at(tiny, 2, dict.fromkeys(paths, "elsewhere.png"), cache).misses == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_order(tiny, paths, cache, depth):
    """Rows come in the order asked, as often as asked, over the borders of shards."""
    digests = list(paths)
    for start in (0, 10, 20):  # three shards
        activations.at(tiny, depth, {d: paths[d] for d in digests[start : start + 10]}, cache)
    acts = activations.at(tiny, depth, paths, cache)
    asked = [digests[i] for i in (29, 3, 3, 15, 0, 29)]
    together = acts.boundary(asked)
    for row, digest in zip(together, asked, strict=True):
        assert torch.equal(row, acts.boundary([digest])[0])


@pytest.mark.parametrize("depth", DEPTHS)
def test_damaged_shards(tiny, paths, cache, depth):
    """A shard whose bytes changed on disk is put aside and its rows computed again, with equal result."""
    expected = activations.at(tiny, depth, paths, cache).boundary(list(paths))
    shards = sorted(cache.rglob("*.safetensors"))
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[-5] ^= 1
        shard.write_bytes(content)
    again = activations.at(tiny, depth, paths, cache)
    assert again.misses == 30
    assert torch.equal(again.boundary(list(paths)), expected)
    assert sorted(p.stem for p in cache.rglob("*.damaged")) == sorted(s.name for s in shards)
    assert activations.at(tiny, depth, paths, cache).misses == 0


def test_a_truncated_shard(tiny, paths, cache):
    """A shard cut short, as by a full disk, is noticed too."""
    activations.at(tiny, 2, paths, cache)
    for shard in cache.rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:100])
    assert activations.at(tiny, 2, paths, cache).misses == 30


def test_other_weights_have_a_shelf_of_their_own(tiny, paths, cache):
    """Changed weights never meet the activations of others; stages behind the cut do not matter for the boundary."""
    first = activations.at(tiny, 1, paths, cache)
    with torch.no_grad():
        tiny.tensors()["2.2.weight"].add_(1)  # the neck, behind the cut
    second = activations.at(tiny, 1, paths, cache)
    assert second.cut.folder == first.cut.folder
    assert second.pooled.folder != first.pooled.folder
    with torch.no_grad():
        tiny.tensors()["0.1.running_mean"].add_(1)
    third = activations.at(tiny, 1, paths, cache)
    assert third.cut.folder != first.cut.folder
    assert third.misses == 30


def test_other_preprocessing_has_a_shelf_of_its_own(tiny, paths, cache):
    """Another input size or interpolation never meets the pixels or activations of this one."""
    folders = {activations.at(tiny, 0, paths, cache).cut.folder}
    for change in ({"interpolation": "bicubic"}, {"size": (3, 40, 40)}, {"crop": 1.0}):
        tiny.reader = Pixels(replace(tiny.card.input, **change))
        folders.add(activations.at(tiny, 0, paths, cache).cut.folder)
    assert len(folders) == 4


def test_pixels_are_shared_by_backbones(tiny, paths, cache):
    """At depth 0 the decoded pixels are kept as bytes, for every backbone of that preprocessing."""
    acts = activations.at(tiny, 0, paths, cache)
    (raw,) = acts.cut.gather(list(paths))
    assert (raw.dtype, raw.shape) == (torch.uint8, (30, 3, 32, 32))
    with torch.no_grad():
        tiny.tensors()["0.0.weight"].add_(1)
    tiny.card = replace(tiny.card, name="other/net", architecture="other")
    assert activations.at(tiny, 0, paths, cache).cut.folder == acts.cut.folder


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("gray_first", [True, False])
def test_gray_and_colour(tiny, photos, cache, depth, gray_first):
    """Gray and colour images may be mixed in one data set, and come in any order."""
    for file in sorted((photos / "red").iterdir()):
        Image.open(file).convert("L").save(file)
    paths = {e.digest: e.path for e in data.scan(photos).examples}
    gray = {d: p for d, p in paths.items() if Path(p).parent.name == "red"}
    colour = {d: p for d, p in paths.items() if d not in gray}
    for part in (gray, colour) if gray_first else (colour, gray):
        activations.at(tiny, depth, part, cache)
    acts = activations.at(tiny, depth, paths, cache)
    assert acts.misses == 0
    assert torch.equal(acts.boundary(list(paths)), on_the_spot(tiny, depth, paths))


def test_stage_features(tiny, paths, cache):
    """The same pass keeps the pooled features of every stage, input side first."""
    acts = activations.at(tiny, 3, paths, cache)
    assert acts.pooled.widths == (8, 16, 32)
    assert acts.all_stages(list(paths)).shape == (30, 56)
    means = on_the_spot(tiny, 1, paths).mean((2, 3))
    torch.testing.assert_close(acts.all_stages(list(paths))[:, :8], means)


def test_stages_of_tuples(paths, cache):
    """A stage may hand over a tuple of tensors: all of it is kept and given back."""
    from torch import nn

    from zoo_core.backbone import Backbone, chain_from_modules

    class Fork(nn.Conv2d):
        def forward(self, x):
            return x.mean((2, 3)), super().forward(x)

    class Join(nn.Module):
        def forward(self, value):
            return value[0] + value[1].mean((2, 3))

    net = nn.Sequential(Fork(3, 3, 4, stride=4), Join())
    card = Card("x/fork", "none", "fork")
    body = Backbone(card, net, chain_from_modules([("fork", net[0]), ("join", net[1])], net), 3)
    acts = activations.at(body, 1, paths, cache)
    value = acts.boundary(list(paths)[:4])
    assert [tuple(part.shape) for part in value] == [(4, 3), (4, 3, 56, 56)]
    with torch.inference_mode():  # a mean over space: its last bits depend on how the values lay in memory
        assert torch.equal(body.cut(1)[1](value), acts.features(list(paths)[:4]))


def test_map_examples(photos, tiny):
    """Images come in order, batch by batch; bad ones are left out with their reason, or stop where nobody asks."""
    (photos / "red" / "03.png").write_text("no")
    files = [str(p) for p in sorted(photos.rglob("*.png"))]
    reader, cpu, failed = tiny.reader, torch.device("cpu"), {}
    batches = list(
        reading.map_examples(lambda paths, raw, x: (paths, raw, x), files, reading.files(reader), reader, cpu, failed)
    )
    (bad,) = [f for f in files if f.endswith("red/03.png")]
    assert sum((list(paths) for paths, _, _ in batches), []) == [f for f in files if f != bad]  # noqa: RUF017
    assert failed == {bad: "not a readable image: starts with b'no'"}
    assert all(len(paths) == len(raw) == len(x) for paths, raw, x in batches)
    with pytest.raises(BadExample, match=r"03\.png: not a readable image.*Remove it and start again"):
        list(reading.map_examples(lambda paths, raw, x: x, files, reading.files(reader), reader, cpu))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("mode", ["pixels", "none"])
def test_other_things_to_keep(tiny, paths, cache, depth, mode):
    """Keeping pixels, or nothing, gives the tail the same bits as keeping the value at the cut."""
    expected = activations.at(tiny, depth, paths, cache / "a").boundary(list(paths))
    acts = activations.at(tiny, depth, paths, cache / "b", mode=mode)
    assert acts.mode == mode
    assert torch.equal(acts.boundary(list(paths)), expected)
    assert torch.equal(acts.features(list(paths)), on_the_spot(tiny, 3, paths))
    assert activations.at(tiny, depth, paths, cache / "b", mode=mode).misses == 0


@pytest.mark.parametrize("before", [0, 1])
def test_a_deeper_cut_carries_on(tiny, paths, cache, before, monkeypatch):
    """A deeper cut starts from what a shallower one, or the pixels, left there: nothing is decoded again."""
    activations.at(tiny, before, paths, cache)
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    acts = activations.at(tiny, 2, paths, cache)
    assert acts.misses == 30
    monkeypatch.undo()
    assert torch.equal(acts.boundary(list(paths)), on_the_spot(tiny, 2, paths))
    assert torch.equal(acts.features(list(paths)), on_the_spot(tiny, 3, paths))


@pytest.mark.parametrize("stored", ["bf16", "fp16"])
def test_fewer_bits(tiny, paths, cache, stored):
    """Activations may be kept in 16 bits: half the space, rounded, on a shelf of their own, in every mode alike."""
    exact = activations.at(tiny, 1, paths, cache)
    numbers = activations.Numbers(stored=stored)
    small = activations.at(tiny, 1, paths, cache, numbers=numbers)
    kept, whole = small.boundary(list(paths)), exact.boundary(list(paths))
    assert kept.dtype == torch.float32
    assert small.cut.folder != exact.cut.folder
    torch.testing.assert_close(kept, whole, rtol=0.01, atol=0.01)
    assert not torch.equal(kept, whole)
    again = activations.at(tiny, 1, paths, cache, mode="none", numbers=numbers)
    assert torch.equal(again.boundary(list(paths)), kept)


def test_views(tiny, paths, cache):
    """The k-th view of an image is the same each time it is asked for, differs from the others, and is kept."""
    digest, path = next(iter(paths.items()))
    rows = {augment.name(digest, k): path for k in range(3)}
    views = activations.Views("strong", seed=1)
    first = activations.at(tiny, 1, rows, cache, views=views)
    value = first.boundary(list(rows))
    assert not torch.equal(value[0], value[1])
    assert torch.equal(activations.at(tiny, 1, rows, cache / "again", views=views).boundary(list(rows)), value)
    assert activations.at(tiny, 1, rows, cache, views=views).misses == 0
    assert activations.at(tiny, 1, rows, cache, views=activations.Views("strong", seed=2)).misses == 3
    assert activations.at(tiny, 1, rows, cache, views=activations.Views("light", seed=1)).misses == 3


def test_what_to_keep_is_measured(tiny, paths, cache):
    """`auto` forecasts each way from measured seconds and takes the cheapest that there is room for."""
    numbers, views = activations.Numbers(), activations.Views()
    seconds = {"decode": 2.0, "prefix": 8.0, "read": 1.0, "read_pixels": 0.5}
    assert keeping.forecast(seconds, 5, depth=1) == {"boundary": 15.0, "pixels": 52.5, "none": 60.0}
    assert keeping.forecast(seconds, 5, depth=0).keys() == {"pixels", "none"}
    choice = keeping.choose("auto", tiny, 1, paths, cache, 5, 10**9, numbers, views)
    assert choice.seconds.keys() == seconds.keys()
    assert choice.bytes_per_image == {"boundary": 8 * 15 * 15 * 4, "pixels": 3 * 32 * 32, "none": 0}[choice.mode]
    assert keeping.choose("auto", tiny, 1, paths, cache, 5, 10, numbers, views).mode == "none"
    with pytest.raises(BadOption, match=r"--cache boundary would take 0.0 GB for 30 images; there is room for 0.0 GB"):
        keeping.choose("boundary", tiny, 1, paths, cache, 5, 10, numbers, views)


def test_where_to_keep():
    """`--cache` names a way of keeping, or a folder."""
    assert keeping.where("pixels")[0] == "pixels"
    assert keeping.where("./here") == ("auto", Path("here"))
    with pytest.raises(BadOption, match=r"--cache pixel: expected auto, boundary.*Did you mean pixels\?"):
        keeping.where("pixel")


def test_pooled_features_are_kept_once(tiny, paths, cache):
    """A cut that is computed from the pixels, beside one that is there, does not keep pooled features a second time."""
    first = activations.at(tiny, 2, paths, cache, numbers=activations.Numbers(stored="fp16"))
    second = activations.at(tiny, 1, paths, cache, numbers=activations.Numbers(stored="fp16"))
    assert second.misses == len(paths)
    assert second.pooled.size_bytes == first.pooled.size_bytes
    assert len(second.pooled.shards) == 1
