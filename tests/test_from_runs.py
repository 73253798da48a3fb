"""A fine-tuned model becomes a backbone: its parent recorded, its weights whole, ready to be fine-tuned again."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo_core
from zoo_core.errors import RunDamaged, RunNotFound, ZooError
from zoo_core.layers import load_registry
from zoo_core.runs import Run
from zoo_core.weights import load_backbone


@pytest.mark.parametrize("freeze", ["last:1", "head-only", "full"])
def test_a_run_becomes_a_backbone(make, plugins, photos, tiny, freeze, tmp_path):
    """The backbone of a run, whatever was trained, comes back with the run's own digest, its parent on its card."""
    run = make(freeze=freeze)
    card = load_registry(plugins).register("mine/cells", run=run.path, plugins=plugins, licence="CC-BY-NC-4.0")
    assert (card.parent, card.provider, card.architecture) == ("tiny/net", "tiny", "tiny")
    assert load_registry(plugins).lineage("mine/cells") == ["tiny/net"]
    body = load_backbone(load_registry(plugins).get("mine/cells"), plugins)
    trained = run._predictor.model.backbone
    assert body.digest() == trained.digest()
    assert (body.digest() == tiny.digest()) is (freeze == "head-only")
    depth = run.summary["freeze"]["depth"]
    assert body.digest(depth) == tiny.digest(depth)
    assert (card.openness.weights.mark, card.licence) == ("restricted", "CC-BY-NC-4.0")
    assert card.openness.data.name.startswith(str(photos))
    assert card.extra["x-run"]["data"] == run.summary["data"]["digest"]
    kept = {path.stem for path in (tmp_path / "home" / "weights").iterdir()}
    assert card.sources[0].uri.removeprefix("store:") in kept


def test_it_is_fine_tuned_again(make, plugins):
    """A registered run is a backbone like any other: fine-tuned again, and registered again, with all its ancestors."""
    make(out="first", freeze="last:1")
    load_registry(plugins).register("mine/first", run="first", plugins=plugins)
    again = make(out="second", backbone="mine/first", freeze="last:1", seed=1)
    assert again.summary["frozen_digest_before"] == again.summary["frozen_digest_after"]
    load_registry(plugins).register("mine/second", run="second", plugins=plugins)
    registry = load_registry(plugins)
    assert registry.lineage("mine/second") == ["mine/first", "tiny/net"]
    first, second = (load_backbone(registry.get(name), plugins) for name in ("mine/first", "mine/second"))
    assert first.digest(2) == second.digest(2)
    assert first.digest() != second.digest()


def test_it_does_not_need_the_run(make, plugins):
    """The backbone stands on its own: the run that it came from may go."""
    import shutil

    run = make(freeze="last:1")
    digest = run._predictor.model.backbone.digest()
    load_registry(plugins).register("mine/cells", run=run.path, plugins=plugins)
    shutil.rmtree(run.path)
    assert load_backbone(load_registry(plugins).get("mine/cells"), plugins).digest() == digest


def test_what_is_unknown_stays_unknown(make, plugins):
    """The parent's licence is not the child's: what nobody stated of the new weights is unknown."""
    run = make(freeze="last:1")
    card = load_registry(plugins).register("mine/cells", run=run.path, plugins=plugins)
    assert (card.licence, card.openness.weights.mark) == ("unknown", "unknown")


def test_a_damaged_run_is_refused(make, plugins, tmp_path):
    """A folder that is no finished run, or whose weights changed since, becomes no backbone; nothing is written."""
    with pytest.raises(RunNotFound, match=r"is no run"):
        load_registry(plugins).register("mine/cells", run="nowhere", plugins=plugins)
    run = make(freeze="last:1")
    weights = run.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ZooError) as refused:
        load_registry(plugins).register("mine/cells", run=Run(run.path, plugins).path, plugins=plugins)
    assert isinstance(refused.value, RunDamaged), refused.value
    assert load_registry(plugins).names("mine") == []


def test_the_command(zoo, photos):
    """`zoo register NAME --run RUN`, then `zoo finetune -b NAME`: the new run's card says where it comes from."""
    options = ("--epochs", 1, "--device", "cpu", "--freeze", "last:1")
    assert zoo("finetune", photos, "-b", "tiny/net", "--out", "one", *options).code == 0
    answer = zoo("register", "mine/one", "--run", "one")
    assert (answer.code, answer.out) == (0, "mine/one registered. Next: zoo show mine/one\n")
    assert "lineage       mine/one <- tiny/net" in zoo("show", "mine/one").out
    assert zoo("verify", "mine/one").code == 0
    answer = zoo("finetune", photos, "-b", "mine/one", "--out", "two", *options)
    assert answer.code == 0, answer.err
    assert zoo_core.Run(Path("two")).card.parent == "tiny/net"
    assert zoo("register", "mine/two", "--run", "two", "--like", "tiny/net").code == 2
