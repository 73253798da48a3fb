"""`zoo pull`: through the real client of the hub, against a server on the loopback that speaks its file API."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zoo_tiny
from hub import hub

from zoo_core.card import Card, Source
from zoo_core.errors import ClosedModel, DigestMismatch, PullFailed, WeightsMissing
from zoo_core.layers import load_registry
from zoo_core.pins import pinned
from zoo_core.pulling import pull
from zoo_core.weights import load_backbone, locate

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install 'zoo-core[hub]'")

WEIGHTS = Path(zoo_tiny.__file__).with_name("tiny.safetensors").read_bytes()
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILE = "lab/tiny/model.safetensors"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The hub, with the tiny network's weights, as the client of this process sees it; an empty cache."""
    from huggingface_hub import constants

    with hub() as state:
        state.files[FILE] = WEIGHTS
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        template = "{endpoint}/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace("{endpoint}", state.url))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield state


@pytest.fixture
def card(plugins):
    """The tiny network, its weights on the hub, their digest unknown."""
    known = load_registry(plugins).get("tiny/net")
    return replace(known, name="lab/net", sources=(Source(f"hf:{FILE}"),))


def test_it_comes_and_is_used(server, card, plugins, tiny):
    """What is pulled lies in the hub's cache, has the file's own digest, and loads; a second pull asks nobody."""
    pulled = pull(card)
    assert (pulled.sha256, pulled.fetched) == (SHA256, True)
    assert pulled.path.read_bytes() == WEIGHTS
    assert load_backbone(card, plugins).digest() == tiny.digest()
    before = len(server.asked)
    assert pull(card).fetched is False
    assert len(server.asked) == before


def test_redirects_are_followed(server, card):
    """A repository that was renamed, and content on another address, are found."""
    server.moved["old/name"] = "lab/tiny"
    pulled = pull(replace(card, sources=(Source("hf:old/name/model.safetensors"),)))
    assert pulled.sha256 == SHA256
    paths = [path for _, path, _ in server.asked]
    assert "/old/name/resolve/main/model.safetensors" in paths
    assert f"/content/{FILE}" in paths


def test_never_without_being_asked(server, card, plugins, zoo, photos, tmp_path):
    """Listing, showing, verifying, bundling, planning and fine-tuning never touch the network."""
    entry = {"schema": 1, "cards": {"lab/net": card.to_json()}}
    (tmp_path / "registry.json").write_text(json.dumps(entry))
    for args in (
        ("list", "--available"),
        ("show", "lab/net"),
        ("verify", "lab/net"),
        ("verify", "--all"),
        ("bundle", "lab/net", "--out", "stick"),
        ("plan", photos, "-b", "lab/net"),
    ):
        zoo(*args)
    answer = zoo("finetune", photos, "-b", "lab/net")
    assert answer.code == 1
    assert "the weights of lab/net are not on this machine. Type: zoo pull lab/net" in answer.err
    assert server.asked == []


def test_an_interrupted_download_goes_on(server, card, monkeypatch):
    """A connection that breaks is taken up where it stopped, to the client's chunk (10 MB; here 1 KiB)."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.break_after, server.breaks = 4000, 1
    assert pull(card).sha256 == SHA256
    assert server.content == ["", "bytes=3072-"]


def test_the_next_pull_goes_on(server, card, monkeypatch):
    """Where the hub gives up, nothing half is used: the weights are missing, and the next pull asks for the rest."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    server.break_after, server.breaks, server.refused = 4000, 1, True
    with pytest.raises(
        PullFailed, match=r"did not give lab/tiny/model\.safetensors: HfHubHTTPError: Server error '503"
    ):
        pull(card)
    assert locate(card.sources[0]) is None
    server.refused = False
    server.asked.clear()
    assert pull(card).path.read_bytes() == WEIGHTS
    assert server.content == ["bytes=3072-"]


def blobs(server):
    """The folder of the hub's cache that holds the content of the repository's files."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / "models--lab--tiny" / "blobs"


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (WEIGHTS[:2000], ["bytes=2000-"]),  # of a command that was killed
        (WEIGHTS, []),  # killed just before the last step
        (b"other" + WEIGHTS[5:2000], ["bytes=2000-", ""]),  # damaged since
        (WEIGHTS + b"more", [""]),
    ],
    ids=["a part", "all of it", "damaged", "too long"],
)
def test_what_a_killed_pull_left(left, asked, server, card):
    """What a killed pull left on the disk is gone on with; where it is not the hub's, all of it is fetched again."""
    blobs(server).mkdir(parents=True)
    (blobs(server) / f"{SHA256}.zoo.incomplete").write_bytes(left)
    assert pull(card).path.read_bytes() == WEIGHTS
    assert server.content == asked
    assert [path.name for path in blobs(server).iterdir()] == [SHA256]


def test_a_wrong_digest_is_refused(server, card, plugins):
    """What comes with another digest than the card's is not used, neither now nor later."""
    card = replace(card, sources=(Source(f"hf:{FILE}", "0" * 64),))
    with pytest.raises(DigestMismatch, match=r"the hub gave another file than expected, and it is not used: .* 0{64}"):
        pull(card)
    with pytest.raises(DigestMismatch, match=f"has sha256 {SHA256}, but the card says 0"):
        load_backbone(card, plugins)


def test_the_first_pull_records_the_digest(server, card, plugins):
    """Where the card states none, what came first is expected from then on; that another file came is an error."""
    note = "no digest was known; this one is recorded and expected from now on"
    assert pull(card).note == note
    assert pinned(card.sources[0]).sha256 == SHA256
    server.files[FILE] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    path = locate(card.sources[0])
    assert path is not None
    path.resolve().unlink()
    with pytest.raises(DigestMismatch, match=f"when it was first pulled it had {SHA256}"):
        pull(card)
    with pytest.raises(DigestMismatch, match=f"when it was first pulled it had {SHA256}"):
        load_backbone(card, plugins)
    server.files[FILE] = WEIGHTS
    assert pull(card).note == "as recorded when it was first pulled"


def test_a_damaged_file_is_fetched_again(server, card):
    """A file in the cache that is no longer what it was is fetched again when it is asked for."""
    path = pull(card).path.resolve()
    path.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    again = pull(card)
    assert (again.fetched, again.path.read_bytes()) == (True, WEIGHTS)


REFUSALS = {
    "gated": (f"hf:{FILE}", r"it is gated\. Accept its terms at http://127\.0\.0\.1:\d+/lab/tiny, type: hf auth login"),
    "no repository": ("hf:lab/none/model.safetensors", "there is no such repository, or it is private"),
    "no file": ("hf:lab/tiny/other.safetensors", "the repository has no such file"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, server, card):
    """A gated repository (401), a missing one and a missing file (404) are told apart, each with what to do."""
    uri, message = REFUSALS[case]
    if case == "gated":
        server.gated.add("lab/tiny")
    with pytest.raises(PullFailed, match=rf"lab/net: the hub did not give lab/.*: {message}"):
        pull(replace(card, sources=(Source(uri),)))
    assert server.content == []


def test_no_network(server, card, monkeypatch):
    """A hub that cannot be reached is one sentence, with the way to do without."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PullFailed, match=r"cannot be reached, or HF_HUB_OFFLINE is set\. Without network see zoo"):
        pull(card)
    assert server.asked == []


def test_what_cannot_be_pulled(server, card):
    """Weights of a package or a file, and closed models, are not asked for on the hub."""
    with pytest.raises(WeightsMissing, match="Type: pip install tiny-weights"):
        pull(replace(card, sources=(Source("package:tiny_weights/w.safetensors"),)))
    closed = Card.from_json("a/b", {"provider": "p", "architecture": "a", "openness": {"weights": {"mark": "closed"}}})
    with pytest.raises(ClosedModel, match=r"a/b cannot be fine-tuned: its weights are closed and the card names no"):
        pull(closed)
    assert server.asked == []


@pytest.mark.parametrize("config", [True, False])
def test_a_tokenizer_comes_along(config, server, card):
    """With a text backbone comes its tokenizer, and its `config.json` where the repository has one."""
    server.files["lab/tiny/tokenizer.json"] = b"{}"
    if config:
        server.files["lab/tiny/config.json"] = b"{}"
    card = replace(card, modality="text")
    assert pull(card).fetched
    assert locate(Source("hf:lab/tiny/tokenizer.json"))
    assert bool(locate(Source("hf:lab/tiny/config.json"))) is config
    assert not pull(card).fetched


def test_no_tokenizer(server, card):
    """A text backbone whose repository has no `tokenizer.json` is refused, and the message names the file."""
    with pytest.raises(PullFailed, match=r"did not give lab/tiny/tokenizer\.json: the repository has no such file"):
        pull(replace(card, modality="text"))


def test_a_tokenizer_from_elsewhere(server, card):
    """A card may name a tokenizer in another repository: it comes with what lies beside it, as far as that is there."""
    server.files |= {"lab/words/tokenizer.json": b"{}", "lab/words/tokenizer_config.json": b"{}"}
    named = replace(card, modality="text", text=replace(card.text, tokenizer="hf:lab/words/tokenizer.json"))
    assert pull(named).fetched
    assert locate(Source("hf:lab/words/tokenizer_config.json"))
    assert not locate(Source("hf:lab/words/config.json"))
    server.files.pop("lab/words/tokenizer.json")
    gone = replace(named, text=replace(card.text, tokenizer="hf:lab/other/tokenizer.json"))
    with pytest.raises(PullFailed, match="there is no such repository"):
        pull(gone)


def test_the_command(server, card, installed, tmp_path):
    """`zoo pull NAME` prints the path on stdout, the digest on stderr; a refusal is one line and exit code 1."""
    (tmp_path / "registry.json").write_text(json.dumps({"schema": 1, "cards": {"lab/net": card.to_json()}}))
    environ = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "other"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", "zoo_core", "pull", "lab/net"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == WEIGHTS
    assert f"zoo: sha256 {SHA256}: no digest was known" in done.stderr
    server.gated.add("lab/tiny")
    environ["HF_HOME"] = str(tmp_path / "third")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(
        "zoo: lab/net: the hub did not give lab/tiny/model.safetensors: it is"
    )
    assert "Traceback" not in done.stderr
