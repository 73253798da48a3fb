"""Reading labelled images and splitting them by content."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photos import make_photos
from PIL import Image

from zoo_core import data, decoding
from zoo_core.errors import BadExample, BadManifest, NoData, TooFewExamples


def manifest(path: Path, rows, columns=("path", "label")) -> Path:
    """A CSV file."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def scene(seed: int) -> Image.Image:
    """120x100 pixels of soft colours, as smooth as a photo; noise has no near copies."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((120, 100), Image.Resampling.BICUBIC)


def sides(task) -> dict[str, str]:
    """Content digest to side."""
    return {e.digest: e.split for e in task.examples}


def test_class_folders(photos):
    """A folder of class folders: the folder's name is the label, shares are 25 % test and 15 % validation."""
    task = data.scan(photos)
    assert task.classes == ("blue", "green", "red")
    assert len(task.examples) == 30
    assert all(Path(e.path).parent.name == task.classes[e.label] for e in task.examples)
    assert task.counts("test") == {"blue": 2, "green": 2, "red": 2}
    assert task.counts("val") == {"blue": 2, "green": 2, "red": 2}
    assert task.counts("train") == {"blue": 6, "green": 6, "red": 6}


def test_shares(photos):
    """Shares are of all examples, class by class; a validation share of 0 leaves none."""
    task = data.scan(photos, test_share=0.5, val_share=0)
    assert task.counts("test") == {"blue": 5, "green": 5, "red": 5}
    assert task.split("val") == ()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST")])
def test_split_folders_are_respected(tmp_path, names):
    """Folders called train, val and test above the class folders are the user's own split, and kept."""
    for seed, name in enumerate(names):
        make_photos(tmp_path / "d" / name, each=seed + 2, seed=seed)
    task = data.scan(tmp_path / "d")
    assert {side: len(task.split(side)) for side in data.SPLITS} == {"train": 6, "val": 9, "test": 12}
    assert task.classes == ("blue", "green", "red")
    assert "your own split is kept (train, val, test)" in task.notes


def test_missing_sides_are_cut_out_of_train(tmp_path):
    """Where the user's split has no validation side it is cut out of train; test stays the user's."""
    make_photos(tmp_path / "d" / "train", each=10)
    make_photos(tmp_path / "d" / "test", each=4, seed=1)
    task = data.scan(tmp_path / "d")
    assert all(Path(e.path).parent.parent.name == "test" for e in task.split("test"))
    assert len(task.split("test")) == 12
    assert len(task.split("val")) > 0


def test_a_large_test_side_leaves_the_training_side_whole(tmp_path):
    """Validation is a share of what the user left for training, however large their test side is."""
    make_photos(tmp_path / "d" / "train", each=10)
    make_photos(tmp_path / "d" / "test", each=50, seed=1)
    task = data.scan(tmp_path / "d", val_share=0.2)
    assert {side: len(task.split(side)) for side in data.SPLITS} == {"train": 24, "val": 6, "test": 150}


def test_a_class_called_test(tmp_path):
    """Folders are taken for sides only where all of them are called like sides."""
    make_photos(tmp_path / "d", classes=("test", "cells"))
    assert data.scan(tmp_path / "d").classes == ("cells", "test")


def test_leaks_in_the_users_split_are_counted(tmp_path):
    """Copies that the user's own split has on both sides are counted and said."""
    make_photos(tmp_path / "d" / "train", each=4)
    make_photos(tmp_path / "d" / "test", each=4, seed=1)
    shutil.copy(tmp_path / "d/train/red/00.png", tmp_path / "d/test/red/copy.png")
    task = data.scan(tmp_path / "d", val_share=0)
    assert any("2 examples of your own split have copies on another side" in note for note in task.notes)


def test_what_is_skipped_is_counted(photos):
    """Hidden files and files with other endings are passed over, and counted by kind."""
    (photos / "red" / ".hidden.png").write_bytes(b"x")
    (photos / "red" / "notes.txt").write_text("x")
    (photos / "blue" / "more.TXT").write_text("x")
    (photos / "blue" / "README").write_text("x")
    (photos / "blue" / ".git").mkdir()
    (photos / "blue" / ".git" / "x.png").write_text("x")
    shutil.copytree(photos / "red", photos / ".cache")
    task = data.scan(photos)
    assert len(task.examples) == 30
    assert task.bad == {}
    assert task.skipped == {"hidden files": 2, "files ending in .txt": 2, "files ending in nothing": 1}


def test_endings(tmp_path):
    """All listed endings are read, in capitals and in sub-folders too."""
    rng = np.random.default_rng(0)
    endings = ("jpg", "JPEG", "png", "WebP", "bmp", "tif", "TIFF", "gif")
    for label in ("a", "b"):
        (tmp_path / "d" / label / "deep").mkdir(parents=True)
        for i, ending in enumerate(endings):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(tmp_path / "d" / label / ("deep" if i % 2 else "") / f"x.{ending}")
    task = data.scan(tmp_path / "d")
    assert len(task.examples) == 2 * len(endings)
    assert task.skipped == {}


def test_manifest(photos):
    """A CSV gives paths relative to its own folder, or absolute; columns in any order, case and company."""
    rows = [("x", cls, f"{cls}/{i:02d}.png") for cls in ("red", "blue") for i in range(4)]
    rows.append(("x", "red", str(photos / "red" / "09.png")))
    task = data.scan(manifest(photos / "labels.csv", rows, ("extra", " Label", "PATH")))
    assert task.classes == ("blue", "red")
    assert len(task.examples) == 9
    assert {e.digest for e in task.examples} < {e.digest for e in data.scan(photos).examples}


def test_manifest_splits(photos):
    """The CSV's split column is kept; rows without one are for us to place."""
    rows = [(f"{c}/{i:02d}.png", c, "Test" if i < 2 else "") for c in ("red", "blue") for i in range(8)]
    task = data.scan(manifest(photos / "l.csv", rows, ("path", "label", "split")))
    assert {Path(e.path).name for e in task.split("test")} == {"00.png", "01.png"}
    assert task.split("val")


def test_groups_stay_together(photos):
    """Examples of one group, a patient or a module, never stand on two sides."""
    rows = [(f"{c}/{i:02d}.png", c, f"{c}-{i // 2}") for c in ("red", "blue") for i in range(10)]
    task = data.scan(manifest(photos / "l.csv", rows, ("path", "label", "group")))
    where = {}
    for example in task.examples:
        where.setdefault(example.group, set()).add(example.split)
    assert len(where) == 10
    assert all(len(found) == 1 for found in where.values())
    assert {e.split for e in task.examples} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flie,label\na,b\n", "has the columns flie, label; expected path,label"),
        ("path,labelle\na,b\n", "has the columns path, labelle; expected .*Did you mean labelle"),
        ("", "has the columns none; expected path,label"),
        ("path,label\n", "holds no labelled image"),
        ("path,label\na.png,\n", "line 2: path 'a.png' and label ''; expected both"),
        ("path,label,split\na.png,x,dev\n", "line 2: split 'dev'; expected train, val, test or nothing"),
    ],
)
def test_bad_manifests(tmp_path, text, message):
    """A CSV without the columns, or with a row that cannot be used, is an error with the line and what is expected."""
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises((BadManifest, NoData), match=message):
        data.scan(tmp_path / "l.csv")


@pytest.mark.parametrize("content", [b"path,label\n\xff\xfe,x\n", b"path,label\na\x00.png,x\nb.png,y\n"])
def test_a_manifest_that_is_no_text(tmp_path, content):
    """A file that is no UTF-8 CSV is refused by name, without a traceback of ours."""
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises((BadManifest, TooFewExamples), match=r"l\.csv"):
        data.scan(tmp_path / "l.csv")


def test_one_file_with_two_labels(photos):
    """A file listed under two labels is no reason to crash: both rows stand on the same side."""
    rows = [(f"{c}/{i:02d}.png", c) for c in ("red", "blue") for i in range(8)] + [("red/00.png", "blue")]
    task = data.scan(manifest(photos / "l.csv", rows))
    assert len({e.split for e in task.examples if e.path.endswith("red/00.png")}) == 1
    assert "2 examples show the same pixels under different labels" in task.notes


def test_the_split_is_a_function_of_content(photos, tmp_path):
    """Other file names, another folder, another order, a CSV in the place of folders: the split is the same."""
    expected = sides(data.scan(photos))
    assert sides(data.scan(photos)) == expected
    moved = tmp_path / "elsewhere" / "renamed"
    for folder in photos.iterdir():
        (moved / folder.name).mkdir(parents=True)
        for i, file in enumerate(sorted(folder.iterdir(), reverse=True)):
            shutil.copy(file, moved / folder.name / f"img_{i}.PNG")
    assert sides(data.scan(moved)) == expected
    rows = [(str(p), p.parent.name) for p in sorted(photos.rglob("*.png"), key=lambda p: p.name)]
    assert sides(data.scan(manifest(tmp_path / "l.csv", rows))) == expected
    assert data.task_digest(data.scan(moved)) == data.task_digest(data.scan(photos))


def test_task_digest(photos):
    """The task's digest changes with an image, a label or the split."""
    first = data.task_digest(data.scan(photos))
    assert data.task_digest(data.scan(photos, test_share=0.4)) != first
    (photos / "red").rename(photos / "rouge")
    assert data.task_digest(data.scan(photos)) != first


def test_copies_never_stand_on_both_sides(photos):
    """Identical images, whatever they are called and however often they come, stand on one side together."""
    for file in sorted(photos.rglob("*.png")):
        for i in range(3):
            shutil.copy(file, file.with_name(f"copy-{i}-{file.name}"))
        Image.open(file).save(file.with_suffix(".bmp"))  # other bytes, same pixels
    task = data.scan(photos)
    assert len(task.examples) == 150
    where = {}
    for example in task.examples:
        where.setdefault(example.digest, set()).add(example.split)
    assert len(where) == 30
    assert all(len(found) == 1 for found in where.values())
    assert Counter(e.split for e in task.examples)["test"] > 0


def test_near_copies_never_stand_on_both_sides(photos):
    """JPEG copies and smaller copies stand on their original's side, whatever they are called."""
    for seed, file in enumerate(sorted(photos.rglob("*.png"))):
        scene(seed).save(file)
        scene(seed).save(file.with_name(f"z{file.stem}.jpg"), quality=70)
        scene(seed).resize((80, 72), Image.Resampling.BICUBIC).save(file.with_name(f"a{file.stem}.png"))
    task = data.scan(photos)
    assert len(task.examples) == len({e.digest for e in task.examples}) == 90
    where = {}
    for example in task.examples:
        key = (example.label, Path(example.path).stem.strip("az"))
        where.setdefault(key, set()).add(example.split)
    assert len(where) == 30
    assert all(len(found) == 1 for found in where.values())
    assert {e.split for e in task.examples} == {"train", "val", "test"}
    assert "30 groups of near copies were found and kept on one side each" in task.notes


def test_near_leaks_in_the_users_split(tmp_path):
    """Near copies on two sides of the user's own split, and under two labels, are counted and said."""
    make_photos(tmp_path / "d" / "train", each=4)
    make_photos(tmp_path / "d" / "test", each=4, seed=1)
    scene(0).save(tmp_path / "d/train/red/00.png")
    scene(0).save(tmp_path / "d/test/green/copy.jpg", quality=70)
    task = data.scan(tmp_path / "d", val_share=0)
    assert "2 examples of your own split have near copies on another side" in task.notes
    assert "2 examples have a near copy under another label" in task.notes
    assert "1 groups of near copies were found" in task.notes


def test_a_film_of_one_thing(photos):
    """Where near copies are most of a class they are split like others, since nothing would be left to test on."""
    still = scene(0)
    for i in range(30):
        still.putpixel((5, 5), (i, 0, 0))
        still.save(photos / "red" / f"frame{i}.png")
    task = data.scan(photos)
    assert 5 <= task.counts("test")["red"] <= 15
    (note,) = (note for note in task.notes if "look so much alike" in note)
    assert note.startswith("30 examples look so much alike that they are most of a class")


def test_every_class_is_trained_on(tmp_path):
    """However small a class is, one of its examples is trained on, and one tested on."""
    make_photos(tmp_path / "d", classes=("big", "small"), each=2)
    make_photos(tmp_path / "more", classes=("big",), each=30, seed=5)
    for file in (tmp_path / "more" / "big").iterdir():
        shutil.copy(file, tmp_path / "d" / "big" / f"m{file.name}")
    task = data.scan(tmp_path / "d")
    assert task.counts("train")["small"] == task.counts("test")["small"] == 1


def test_one_class(tmp_path):
    """One class only is an error that says what is expected."""
    make_photos(tmp_path / "d", classes=("only",))
    with pytest.raises(TooFewExamples, match=r"10 examples of 1 class \(only\); expected two classes or more"):
        data.scan(tmp_path / "d")
    assert data.scan(tmp_path / "d", for_training=False).counts("test") == {"only": 10}


def test_a_class_of_one(photos):
    """A class with one image is an error that names the class."""
    (photos / "white").mkdir()
    shutil.copy(photos / "red" / "00.png", photos / "white" / "00.png")
    with pytest.raises(TooFewExamples, match="class 'white' has one example; expected at least 2"):
        data.scan(photos)


def test_a_class_of_copies(photos):
    """A class whose images are all copies of one cannot be tested on, which is an error and no empty side."""
    for name in ("green", "blue"):
        shutil.rmtree(photos / name)
    for name in ("a", "b"):
        (photos / name).mkdir()
        Image.new("RGB", (8, 8), (1, 2, 3 if name == "a" else 4)).save(photos / name / "0.png")
        shutil.copy(photos / name / "0.png", photos / name / "1.png")
    shutil.rmtree(photos / "red")
    with pytest.raises(TooFewExamples, match="one side is empty; expected examples to train and to test on"):
        data.scan(photos)


def test_nothing_there(tmp_path):
    """A missing path, an empty folder and images without class folders are errors that say what to do."""
    with pytest.raises(NoData, match="nowhere: no such file or folder; expected a folder of class folders, a table"):
        data.scan("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoData, match=r"empty holds no labelled image\. Expected one folder per class"):
        data.scan(tmp_path / "empty")
    make_photos(tmp_path / "d", classes=("flat",))
    with pytest.raises(NoData, match="10 images directly inside: put them into one folder per class"):
        data.scan(tmp_path / "d" / "flat")


def test_bad_images_are_listed(photos):
    """Bad images are left out and listed with their reason; with `fail` the first one stops."""
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "01.png").write_text("<html>")
    (photos / "blue" / "05.png").write_bytes((photos / "blue" / "05.png").read_bytes()[:200])
    task = data.scan(photos)
    reasons = {Path(path).name: reason for path, reason in task.bad.items()}
    assert len(task.examples) == 27
    assert "empty file" in reasons["00.png"]
    assert "starts with b'<html>'" in reasons["01.png"]
    assert reasons.keys() == {"00.png", "01.png", "05.png"}
    with pytest.raises(BadExample, match=r"05\.png.*3 bad in all; leave them out with --on-bad-image skip"):
        data.scan(photos, on_bad_image="fail")


def test_a_missing_file_of_a_manifest_is_bad(photos):
    """A row whose file is not there is listed as bad, and the rest goes on."""
    rows = [(f"{c}/{i:02d}.png", c) for c in ("red", "blue") for i in range(4)] + [("red/99.png", "red")]
    task = data.scan(manifest(photos / "l.csv", rows))
    assert list(task.bad.values()) == ["No such file or directory"]


def test_all_bad(tmp_path):
    """Where no image can be read the error names one of them and its reason."""
    for label in ("a", "b"):
        (tmp_path / "d" / label).mkdir(parents=True)
        (tmp_path / "d" / label / "x.png").write_text("no")
    with pytest.raises(TooFewExamples, match="2 images could not be read"):
        data.scan(tmp_path / "d")
    with pytest.raises(NoData, match="none of 2 images can be read"):
        data.scan(tmp_path / "d", for_training=False)


def test_a_second_scan_decodes_nothing(photos, monkeypatch):
    """What a scan has decoded is noted by the file's digest: the next scan, even of copies, decodes nothing."""
    expected = data.scan(photos)
    monkeypatch.setattr(decoding, "decode", lambda path: pytest.fail("decoded again"))
    assert data.scan(photos) == expected


@pytest.mark.parametrize("damage", ["{", "[1]", '{"x": 3}', '{"x": ["a"]}', ""])
def test_damaged_notes_are_forgotten(photos, tmp_path, damage):
    """Damaged notes of an earlier scan are dropped and the images looked at again."""
    expected = data.scan(photos)
    for note in (tmp_path / "cache" / "scan").rglob("*.json"):
        note.write_text(damage)
    assert data.scan(photos) == expected


def test_a_name_that_is_no_text(photos):
    """A file name that is no UTF-8 is listed as bad, escaped, and stops nothing."""
    try:
        shutil.copy(photos / "red" / "00.png", bytes(photos / "red") + b"/\xff\n.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    task = data.scan(photos)
    assert task.bad == {f"{photos}/red/\\udcff\\n.png": "the file's name is not UTF-8; rename it"}
    assert len(task.examples) == 30


def test_example_files(photos):
    """Folders to predict on are searched for images, files are taken as they are, nothing found is an error."""
    (photos / "red" / "notes.txt").write_text("x")
    assert len(data.example_files([photos])) == 30
    notes = photos / "red" / "notes.txt"
    assert data.example_files([notes]) == {notes: str(notes)}
    assert len(data.example_files([photos, photos / "red", photos / "red" / "00.png"])) == 30
    with pytest.raises(NoData, match=r"nowhere\.png: no such file or folder"):
        data.example_files(["nowhere.png"])
    (photos / "none").mkdir()
    with pytest.raises(NoData, match=r"no image in .*none"):
        data.example_files([photos / "none"])
