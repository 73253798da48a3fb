"""CLAP's audio tower: equal to upstream at every cut, from files of each format to a run and back."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny_sounds import CARDS, KINDS, TOWER, noise, tone
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor, ClapModel
from transformers.audio_utils import load_audio
from zoo_audio import AudioProvider

import zoo_core as zoo
from zoo_core import BadCard, WeightsMismatch, hookimpl, testing
from zoo_core.errors import NotAModelFolder
from zoo_core.plugins import discover


class Tiny(AudioProvider):
    """The provider with one small card: the kit's checks take a minute on the smallest published tower."""

    cards = CARDS


module = ModuleType("zoo_audio_tiny")
module.zoo_backbone_providers = hookimpl(lambda: {"audio": Tiny}, specname="zoo_backbone_providers")
dist = SimpleNamespace(name="zoo-audio", version="0.1.0")
POINT = SimpleNamespace(name="audio", value="zoo_audio", dist=dist, load=lambda: module)


@testing.parametrize("zoo-audio", discover([POINT], {}))
def test_keeps_what_zoo_promises(check):
    """The conformance kit, on a small tower."""
    check()


@pytest.fixture(params=KINDS)
def kind(request):
    """One part of a long sound, or three parts and the whole fused."""
    return request.param


@pytest.fixture
def body(claps, kind):
    """A tower loaded from upstream's folder."""
    zoo.registry().register("mine/clap", folder=claps[kind])
    return zoo.load_backbone("mine/clap")


def written(path, seconds, rate=8000, seed=1):
    """A made sound in a file."""
    soundfile.write(path, tone(np.random.default_rng(seed), seconds, rate), rate)
    return str(path)


def test_equals_upstream_at_every_cut(body, claps, kind, tmp_path):
    """Loaded from upstream's own files, a chain gives upstream's embeddings bit for bit, wherever it is cut."""
    upstream = ClapAudioModelWithProjection.from_pretrained(claps[kind]).eval()
    rows = [body.reader.read(written(tmp_path / f"{s}.wav", s)) for s in (0.4, 1.0, 2.5)]
    value = body.reader.to_input(body.reader.stack(rows), torch.device("cpu"))
    with torch.inference_mode():
        expected = upstream(input_features=value[0], is_longer=value[1]).audio_embeds
        assert torch.equal(body(value), expected)
        assert torch.equal(body.model(value), expected)
        for depth in range(len(body.stages) + 1):
            prefix, tail = body.cut(depth)
            assert torch.equal(tail(prefix(value)), expected), depth
        whole = ClapModel.from_pretrained(claps[kind]).eval()
        theirs = whole.get_audio_features(input_features=value[0], is_longer=value[1]).pooler_output
        assert torch.equal(torch.nn.functional.normalize(body(value), dim=-1), theirs)
    assert len(body.stages) == 1 + sum(TOWER["depths"]) + len(TOWER["depths"]) - 1 + 2


@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.0, 1.005, 1.7, 4.0])
@pytest.mark.parametrize("rate", [8000, 22050])
def test_spectrograms_are_upstreams(body, claps, kind, tmp_path, seconds, rate):
    """Loading, resampling, repeating, padding, cutting: the bits of transformers' own loader and feature extractor.

    Where upstream draws parts of long sounds at random, a sound draws them from its own content: the same every time.
    """
    import hashlib

    path = written(tmp_path / "sound.flac", seconds, rate)
    extractor = ClapFeatureExtractor.from_pretrained(claps[kind])
    waveform = load_audio(path, sampling_rate=8000, backend="soundfile")
    assert np.array_equal(body.reader.waveform(path), waveform)
    np.random.seed(int.from_bytes(hashlib.sha256(waveform.tobytes()).digest()[:4], "big"))
    expected = extractor(waveform, sampling_rate=8000, return_tensors="pt")
    mel, longer = body.reader.read(path)
    assert torch.equal(mel, expected["input_features"][0].float())
    assert longer.bool().tolist() == np.asarray(expected["is_longer"])[0].tolist()
    assert torch.equal(body.reader.read(path)[0], mel)


def test_channels_and_formats(body, tmp_path):
    """Stereo is averaged as upstream does; WAV and FLAC of one recording are one sound, Ogg is another."""
    from zoo_core import sounds

    samples = noise(np.random.default_rng(0), 0.5, 8000)
    recorded = (20000 * np.stack([samples, -0.2 * samples], axis=1)).astype(np.int16)
    for ending in ("wav", "flac", "ogg"):
        soundfile.write(tmp_path / f"a.{ending}", recorded, 8000)
    expected = load_audio(str(tmp_path / "a.wav"), sampling_rate=8000, backend="soundfile")
    assert np.array_equal(body.reader.waveform(str(tmp_path / "a.wav")), expected)
    digests = {e: sounds.content_digest(*sounds.decode(tmp_path / f"a.{e}")) for e in ("wav", "flac", "ogg")}
    assert digests["wav"] == digests["flac"] != digests["ogg"]


@pytest.mark.parametrize("freeze", ["head-only", "last:2", "full"])
def test_a_run_of_each_depth(claps, sounds, freeze):
    """Class folders train head, tail or all with the prefix unchanged; the saved run predicts what it wrote down."""
    zoo.registry().register("mine/clap", folder=claps["unfused"])
    run = zoo.finetune(sounds, backbone="mine/clap", freeze=freeze, epochs=4, device="cpu", out="run")
    assert run.summary["frozen_digest_before"] == run.summary["frozen_digest_after"]
    notes = " ".join(run.summary["data"]["notes"])
    assert "are resampled to 8000 Hz" in notes
    assert "longer than 1 seconds: one part of each is heard" in notes
    with open("run/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = {a.path: a.probabilities["tone"] for a in zoo.Run("run").predict(sounds)}
    assert all(answers[row["path"]] == pytest.approx(float(row["p:tone"]), abs=1e-4) for row in rows)


def test_tones_are_told_from_wind(claps, sounds):
    """Even a tower with random weights, frozen, tells made tones from made wind: what is heard reaches the head."""
    zoo.registry().register("mine/clap", folder=claps["fused"])
    run = zoo.finetune(sounds, backbone="mine/clap", head="linear:solver=lbfgs", device="cpu", out="run")
    assert run.metrics["accuracy"] >= 0.8 > run.summary["baselines"]["majority"]["accuracy"] + 0.2


def test_the_cache_changes_nothing(claps, sounds):
    """Training from kept activations ends with the bits of training without a cache."""
    zoo.registry().register("mine/clap", folder=claps["fused"])
    saved = [
        (zoo.finetune(sounds, backbone="mine/clap", freeze="last:3", cache=c, epochs=1, device="cpu", out=c).path)
        for c in ("boundary", "none")
    ]
    first, second = ((path / "model.safetensors").read_bytes() for path in saved)
    assert first == second


def test_a_table_and_a_bad_file(claps, sounds):
    """A CSV of paths does as well; a file that is no sound, or holds no number, is left out with the reason."""
    (sounds / "tone" / "bad.wav").write_bytes(b"RIFF nothing")
    soundfile.write(sounds / "tone" / "nan.wav", np.full(800, np.nan, np.float32), 8000, subtype="FLOAT")
    with open("all.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label"])
        out.writerows((path, path.parent.name) for path in sorted(sounds.rglob("*.*")))
    zoo.registry().register("mine/clap", folder=claps["unfused"])
    run = zoo.finetune("all.csv", backbone="mine/clap", epochs=1, device="cpu", out="run")
    reasons = " ".join(run.summary["data"]["bad"].values())
    assert "no sound that can be read" in reasons
    assert "some that are no numbers" in reasons
    (answer,) = run.predict("sounds/tone/bad.wav")
    assert "no sound that can be read" in answer.error
    zoo.registry().register("mine/tuned", run="run")
    again = zoo.finetune(sounds, backbone="mine/tuned", epochs=1, device="cpu", out="again")
    assert again.summary["weights"].startswith("store:")


def test_on_the_command_line(claps, sounds):
    """Listed under its modality, and shown with its licence and its paper."""

    def zoo_(*args):
        command = [sys.executable, "-m", "zoo_core", *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    listed = zoo_("list", "--modality", "audio")
    names = ("clap-htsat-unfused", "clap-htsat-fused", "larger-clap-general", "larger-clap-music")
    assert all(f"audio/{name}" in listed for name in names)
    shown = zoo_("show", "audio/clap-htsat-fused")
    assert "Apache-2.0" in shown
    assert "arXiv:2211.06687" in shown


def test_the_cards_build():
    """Every card's configuration builds a tower with the stages and the parameters that the card states."""
    from transformers import ClapConfig
    from zoo_audio.chain import stages_of

    for card in zoo.backbones("audio/*"):
        with torch.device("meta"):
            config = ClapConfig(**{k: dict(v) for k, v in card.config.items()})
            model = ClapAudioModelWithProjection._from_config(config.audio_config)
        assert tuple(stage.name for stage in stages_of(model)[1]) == card.stages
        assert sum(p.numel() for p in model.parameters()) == card.parameters
    small = next(card for card in zoo.backbones("audio/larger-clap-general"))
    # 776 MB of the published file, less RoBERTa base (124,645,632) and its projection: what is left is this tower
    assert small.parameters + 124_645_632 + 656_384 == pytest.approx(776e6 / 4, rel=0.002)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": [1, 3]}, r"layers\.1\.blocks\.2\..* is missing"),
        ({"depths": [1, 1]}, r"the architecture has no place for .*blocks\.1"),
        ({"num_attention_heads": "four"}, "its configuration is none of clap"),
    ],
)
def test_weights_that_do_not_fit(claps, tmp_path, change, message):
    """A configuration that does not fit its weights is named by the first tensor that is wrong."""
    shutil.copytree(claps["unfused"], tmp_path / "clap")
    config = json.loads((tmp_path / "clap" / "config.json").read_text())
    config["audio_config"] |= change
    (tmp_path / "clap" / "config.json").write_text(json.dumps(config))
    zoo.registry().register("mine/odd", folder="clap")
    with pytest.raises((BadCard, WeightsMismatch), match=message):
        zoo.load_backbone("mine/odd")


def test_no_code_from_a_folder(claps, tmp_path):
    """A folder that names code of its own is refused: nothing can switch that on."""
    shutil.copytree(claps["unfused"], tmp_path / "clap")
    config = json.loads((tmp_path / "clap" / "config.json").read_text())
    (tmp_path / "clap" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(NotAModelFolder, match="which is never"):
        zoo.registry().register("mine/odd", folder="clap")


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng (Debian) is not installed: no real speech here")
def test_real_speech(claps, tmp_path):
    """Two sentences spoken by espeak-ng are heard as different sounds."""
    for name in ("one", "two"):
        subprocess.run(["espeak-ng", "-w", str(tmp_path / f"{name}.wav"), f"This is number {name}."], check=True)
    zoo.registry().register("mine/clap", folder=claps["unfused"])
    body = zoo.load_backbone("mine/clap")
    rows = [body.reader.read(str(tmp_path / f"{name}.wav")) for name in ("one", "two")]
    assert not torch.equal(rows[0][0], rows[1][0])


def test_the_demo(monkeypatch, capsys):
    """`zoo demo audio` says that sounds and weights are made, and ends with what to type next."""
    from zoo_core import demo_sounds
    from zoo_core.cli import main

    monkeypatch.setattr(demo_sounds, "EACH", 6)
    monkeypatch.setattr(sys, "argv", ["zoo", "demo", "audio"])
    with pytest.raises(SystemExit) as exit:
        main()
    printed = capsys.readouterr()
    assert not exit.value.code
    assert "made on the spot; weights random" in printed.err
    assert "zoo finetune YOUR_FOLDER --backbone audio/clap-htsat-unfused" in printed.out
