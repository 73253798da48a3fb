"""What is in a data set, said before anything is trained on it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from photos import make_photos
from PIL import Image

from zoo_core.audit import audit
from zoo_core.cli import main
from zoo_core.errors import NoData


def soft(seed: int, size: tuple[int, int] = (120, 100)) -> Image.Image:
    """Soft colours, as smooth as a photo."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def said(found: dict, words: str) -> str:
    """The one suspicious sentence with these words."""
    (sentence,) = (s for s in found["suspicious"] if words in s)
    return str(sentence)


def test_plain_photos(photos):
    """Of a clean data set the audit gives counts and sizes, and has nothing to complain of."""
    found = audit(photos)
    assert found["images"] == 30
    assert found["classes"]["red"] == {"train": 6, "val": 2, "test": 2, "all": 10}
    assert found["files"] == {"PNG RGB": 30}
    assert found["pixels"] == {"width": [40, 40, 40], "height": [36, 36, 36]}
    assert found["bytes"] == sum(p.stat().st_size for p in photos.rglob("*.png"))
    for name in ("odd", "duplicates", "near_duplicates", "label_conflicts", "bad", "skipped", "notes", "suspicious"):
        assert not found[name], name
    json.dumps(found, allow_nan=False)


def test_odd_files(photos):
    """Every file that is not plain 8-bit RGB is listed with what is done with it."""
    Image.new("CMYK", (40, 36)).save(photos / "red" / "00.tif")
    soft(0).convert("L").save(photos / "red" / "g.png")
    soft(1).save(photos / "blue" / "p.jpg", format="PNG")
    found = {odd["kind"]: odd for odd in audit(photos)["odd"]}
    assert {kind: [Path(f).name for f in odd["files"]] for kind, odd in found.items()} == {
        "8-bit gray": ["g.png"],
        "CMYK": ["00.tif"],
        "other ending": ["p.jpg"],
    }
    assert found["CMYK"]["done"].startswith("converted to RGB")
    assert found["CMYK"]["count"] == 1


def test_copies_and_conflicts(photos):
    """Copies, near copies, and one picture under two labels are listed with file, label and side."""
    shutil.copy(photos / "red" / "00.png", photos / "red" / "copy.png")
    soft(0).save(photos / "blue" / "soft.png")
    soft(0).save(photos / "green" / "soft.jpg", quality=70)
    found = audit(photos)
    ((first, second),) = found["duplicates"]
    assert {Path(first["path"]).name, Path(second["path"]).name} == {"00.png", "copy.png"}
    assert (first["label"], first["split"]) == (second["label"], second["split"])
    ((first, second),) = found["near_duplicates"]
    assert {first["label"], second["label"]} == {"blue", "green"}
    assert first["split"] == second["split"]
    assert found["label_conflicts"] == found["near_duplicates"]
    assert "2 examples have a near copy under another label" in found["notes"]


def test_bad_files(photos):
    """Files that cannot be read are listed with the reason; so is what was passed over."""
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "notes.txt").write_text("x")
    found = audit(photos)
    assert found["bad"] == {str(photos / "red" / "00.png"): "not a readable image: empty file"}
    assert found["skipped"] == {"files ending in .txt": 1}
    assert found["images"] == 29


def test_suspicious(tmp_path):
    """Very uneven classes, classes of a few, tiny, long, flat and almost black images are said."""
    make_photos(tmp_path / "d", classes=("many",), each=100)
    for i in range(5):
        (tmp_path / "d" / "few").mkdir(exist_ok=True)
        soft(i, (20, 30)).save(tmp_path / "d" / "few" / f"{i}.png")
    soft(9, (600, 40)).save(tmp_path / "d" / "many" / "long.png")
    Image.new("RGB", (40, 36), "white").save(tmp_path / "d" / "many" / "white.png")
    values = np.random.default_rng(0).integers(0, 4096, (36, 40)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "d" / "many" / "deep.png")
    found = audit(tmp_path / "d")
    assert said(found, "'many'").startswith("class 'many' holds 95% of all images")
    assert said(found, "'few' has").startswith("class 'few' has 5 images")
    assert said(found, "32 pixels").startswith("5 images are smaller")
    assert said(found, "10 times").startswith("1 images are over")
    assert said(found, "one colour").startswith("2 images")  # the almost black one too
    assert said(found, "12 bits").startswith("1 images of 16 bit")


def test_what_gives_a_class_away(tmp_path):
    """A class that alone has a file format or a size is said: a model may learn that in the place of the picture."""
    for label, ending, size in (("a", "png", (60, 50)), ("b", "jpg", (60, 50)), ("c", "jpg", (70, 50))):
        (tmp_path / "d" / label).mkdir(parents=True)
        for i in range(12):
            soft(len(label) + i + 100 * ord(label), size).save(tmp_path / "d" / label / f"{i}.{ending}")
    found = audit(tmp_path / "d")
    assert found["suspicious"] == [
        "the file format gives class 'a' away: all of it, and no other, is PNG",
        "the size in pixels gives class 'c' away: all of it, and no other, is 70x50",
    ]


def test_what_cannot_be_trained_on(tmp_path):
    """One class, classes of one image and unreadable images only are described, not refused; nothing at all is."""
    make_photos(tmp_path / "one", classes=("only",))
    assert said(audit(tmp_path / "one"), "one class only")
    make_photos(tmp_path / "two", each=1)
    assert audit(tmp_path / "two")["images"] == 3
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "x.png").write_text("no")
    found = audit(tmp_path / "bad")
    assert (found["images"], len(found["bad"]), found["pixels"]) == (0, 1, {"width": [], "height": []})
    (tmp_path / "none").mkdir()
    with pytest.raises(NoData, match="holds no labelled image"):
        audit(tmp_path / "none")


def test_places_in_shards(tmp_path):
    """What lies in a shard is named by its place in the shard, not by its copy in the cache."""
    members = {f"{c}/{i}.png": soft(20 * i + len(c)) for c in ("a", "bb") for i in range(4)}
    with tarfile.open(tmp_path / "s.tar", "w") as out:
        for name, image in {**members, "a/copy.png": members["a/0.png"]}.items():
            buffer = io.BytesIO()
            image.convert("L").save(buffer, "PNG")
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            out.addfile(info, io.BytesIO(buffer.getvalue()))
    found = audit(tmp_path / "s.tar")
    assert [file["path"] for file in found["duplicates"][0]] == [
        f"{tmp_path}/s.tar:a/0.png",
        f"{tmp_path}/s.tar:a/copy.png",
    ]
    assert all(file.startswith(f"{tmp_path}/s.tar:") for file in found["odd"][0]["files"])


def run(monkeypatch, capsys, *args) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `zoo audit`."""
    monkeypatch.setattr(sys, "argv", ["zoo", "audit", *map(str, args)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main()
    return (exit.value.code or 0, *capsys.readouterr())


def test_the_command(photos, monkeypatch, capsys):
    """`zoo audit` prints a page, `--json` everything; both with exit code 0, whatever is found."""
    shutil.copy(photos / "red" / "00.png", photos / "blue" / "copy.png")
    (photos / "green" / "00.png").write_bytes(b"")
    code, out, err = run(monkeypatch, capsys, photos)
    assert (code, err) == (0, "Reading images: 31 done\n")
    for line in (
        "30 images, ",
        "class  all  train  val  test",
        "Files     30 PNG RGB",
        "1 groups of copies (the same pixels)",
        "1 groups with different labels",
        f"1 files cannot be read and are left out\n  {photos}/green/00.png: not a readable image: empty file",
        "class 'green' has 9 images",
    ):
        assert line in out
    code, out, err = run(monkeypatch, capsys, photos, "--json", "--test-share", 0.5)
    assert code == 0
    assert json.loads(out) == audit(photos, test_share=0.5)
    assert run(monkeypatch, capsys, "nowhere")[0] == 2
    code, _, err = run(monkeypatch, capsys, photos, "--columns", "path=x")
    assert (code, "photos is a folder of class folders. Leave them out." in err) == (2, True)


def test_no_torch(photos):
    """An audit imports no torch: it starts as fast as it reads."""
    code = "import sys, json; from zoo_core.audit import audit; audit('photos'); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not modules & {"torch", "timm", "sklearn", "pyarrow", "safetensors"}
