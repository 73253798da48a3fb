"""Images inside larger files: tar shards, Parquet, saved data sets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from photos import make_photos
from PIL import Image

from zoo_core import data
from zoo_core.errors import BadManifest, DiskFull, MissingExtra, NoData, ZooError

FIXTURES = Path(__file__).parent / "fixtures"


def picture(seed: int = 0) -> bytes:
    """A small PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """An uncompressed tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
    return path


def files_below(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def attempt(source: Path) -> data.Seen | str:
    """What a look at the source gives, or the message of our own error; any other error fails the test."""
    try:
        return data.look_at(source)
    except ZooError as error:
        return str(error)


@pytest.mark.parametrize("name", ["saved", "hub.parquet"])
def test_what_datasets_wrote(name):
    """What `datasets` 5.2 wrote, by `save_to_disk` or as Parquet, is read without it, class names included."""
    task = data.scan(FIXTURES / "datasets-5.2" / name)
    assert task.classes == ("green", "red")
    assert len(task.examples) == {"saved": 10, "hub.parquet": 8}[name]
    assert task.bad == {}
    assert "columns guessed: path is 'image'" in task.notes
    assert ("your own split is kept (train, test)" in task.notes) == (name == "saved")


def test_what_webdataset_wrote():
    """Shards that webdataset 1.0 wrote: `.cls` is the label, and the shards' names are the split."""
    task = data.scan(FIXTURES / "webdataset-1.0")
    assert task.classes == ("0", "1")
    assert task.counts("test") == {"0": 3, "1": 3}
    assert len(task.split("train")) + len(task.split("val")) == 6


def test_members_are_plain_files(tmp_path):
    """Each image becomes a file of the cache named by its own sha256; the next reading writes nothing."""
    source = tar(tmp_path / "s.tar", {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(4)})
    first = data.scan(source)
    for example in first.examples:
        path = Path(example.path)
        assert path.parent == tmp_path / "cache" / "members"
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.suffix == ".png"
    files = {e.path: os.stat(e.path).st_ino for e in first.examples}
    assert data.scan(source) == first
    assert {e.path: os.stat(e.path).st_ino for e in first.examples} == files
    assert first.notes == (f"8 images lie inside larger files and were copied into {tmp_path / 'cache' / 'members'}",)


def test_a_damaged_copy_is_written_again(tmp_path):
    """A copy in the cache with a flipped bit is found when the shard is read again."""
    source = tar(tmp_path / "s.tar", {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(4)})
    first = data.scan(source)
    path = Path(first.examples[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    assert data.scan(source) == first
    assert path.read_bytes() == whole


def test_shards_equal_folders(photos, tmp_path):
    """The same images as folders and as a tar of those folders give the same task."""
    with tarfile.open(tmp_path / "s.tar", "w") as out:
        for file in sorted(photos.rglob("*.png")):
            out.add(file, file.relative_to(photos))
    assert data.task_digest(data.scan(tmp_path / "s.tar")) == data.task_digest(data.scan(photos))


def test_samples_with_json(tmp_path):
    """A sample's `.json` gives label, split and group; a `.cls` file goes before it; both go before the folder."""
    members = {}
    for i in range(8):
        facts = {"category": "xy"[i % 2], "group": f"g{i // 2}", "split": "test" if i < 2 else None}
        members |= {f"f/{i}.png": picture(i), f"f/{i}.json": json.dumps(facts).encode()}
    task = data.scan(tar(tmp_path / "s.tar", members))
    assert task.classes == ("x", "y")
    assert [e.split for e in task.examples][:3] == ["test", "test", "train"]
    assert {e.group for e in task.examples} == {"g0", "g1", "g2", "g3"}
    assert "columns guessed: label is 'category'" in task.notes
    task = data.scan(tar(tmp_path / "t.tar", members | {"f/7.cls": b"z\n", "f/8.png": picture(9)}), for_training=False)
    assert task.classes == ("f", "x", "y", "z")


def test_what_is_passed_over(tmp_path):
    """Links, devices, hidden files, and samples without an image or a label are passed over and counted."""
    members = {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(4)}
    source = tar(tmp_path / "s.tar", members | {"9.png": picture(9), "a/8.txt": b"x", "a/._0.png": b"x"})
    with tarfile.open(source, "a") as out:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("a/link.png")
            info.type, info.linkname = kind, "/etc/hostname"
            out.addfile(info)
    task = data.scan(source)
    assert len(task.examples) == 8
    assert task.skipped == {
        "samples without a label in shards": 1,
        "samples without an image in shards": 1,
        "hidden files": 1,
        "links, devices and giant files in shards": 4,
    }


def test_nothing_is_written_where_the_data_says(tmp_path):
    """Names such as ../../x or /x in a shard are read as names: nothing appears outside the cache."""
    place = tmp_path / "deep" / "er"
    names = ("../../a/0", "../../a/1", "/a/2", "/a/3", "b/../../b/0", "b/1", "b/2\n", "b/\x1b[31m3")
    source = tar(place / "s.tar", {f"{name}.png": picture(i) for i, name in enumerate(names)})
    before = files_below(tmp_path)
    task = data.scan(source)
    assert len(task.examples) == 8
    assert task.classes == ("a", "b")
    assert all(name.startswith("cache/") for name in files_below(tmp_path) - before)
    assert not Path("/a").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tar", "cannot be read as an uncompressed tar file"),
        (b"\x1f\x8b" + bytes(600), "cannot be read as an uncompressed tar file"),
        (b"", "cannot be read as an uncompressed tar file|holds no labelled image"),
    ],
)
def test_no_tar(tmp_path, content, message):
    """A file called .tar that is none is refused by name."""
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises((BadManifest, NoData), match=message):
        data.scan(tmp_path / "s.tar")


def test_cut_shards(tmp_path):
    """Tar, Parquet and saved files cut anywhere are refused, or read up to a whole sample; nothing else happens."""
    whole = tar(tmp_path / "s.tar", {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(4)})
    for source in (whole, FIXTURES / "datasets-5.2" / "hub.parquet"):
        content = source.read_bytes()
        for size in range(100, len(content), 577):
            cut = tmp_path / f"cut{source.suffix}"
            cut.write_bytes(content[:size])
            found = attempt(cut)
            assert str(cut) in found if isinstance(found, str) else found.bad == {}


def test_flipped_bits_in_arrow(tmp_path):
    """A saved data set or Parquet file with flipped bits is refused or read, and never ends the process."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "saved"
    shutil.copytree(FIXTURES / "datasets-5.2" / "saved", folder)
    shutil.copy(FIXTURES / "datasets-5.2" / "hub.parquet", tmp_path)
    for source, file in ((folder, next(folder.glob("train/*.arrow"))), (tmp_path / "hub.parquet",) * 2):
        whole = file.read_bytes()
        for place in rng.integers(0, len(whole), 60):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            found = attempt(source)
            assert isinstance(found, data.Seen) or str(tmp_path) in found
        file.write_bytes(whole)


def test_a_saved_set_that_names_other_files(tmp_path):
    """Names in state.json are looked up among the folder's own files, never joined to a path."""
    folder = tmp_path / "saved"
    shutil.copytree(FIXTURES / "datasets-5.2" / "saved", folder)
    (folder / "train" / "state.json").write_text('{"_data_files": [{"filename": "../test/data-00000-of-00001.arrow"}]}')
    with pytest.raises(BadManifest, match=r"names \['../test/data-00000-of-00001.arrow'\], which is not there"):
        data.scan(folder)
    (folder / "dataset_dict.json").write_text('{"splits": ["../train"]}')
    with pytest.raises(BadManifest, match=r"names the split '../train', but has no such folder"):
        data.scan(folder)


def test_a_bad_image_in_a_shard(tmp_path):
    """An image in a shard that cannot be read is listed by its place in the shard."""
    members = {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(4)}
    source = tar(tmp_path / "s.tar", members | {"a/9.png": b"<html>"})
    assert data.scan(source).bad == {f"{source}:a/9.png": "not a readable image: starts with b'<html>'"}


def test_parquet_of_paths_and_of_bytes(photos):
    """A Parquet table may name files, hold their bytes, or hold pairs of both as `datasets` does."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted(p for p in photos.rglob("*.png"))
    expected = data.task_digest(data.scan(photos))
    for images in (
        [str(p.relative_to(photos)) for p in files],
        [p.read_bytes() for p in files],
        [
            {"bytes": p.read_bytes() if i % 2 else None, "path": p.relative_to(photos).as_posix()}
            for i, p in enumerate(files)
        ],
    ):
        parquet.write_table(
            pyarrow.table({"img": images, "target": [p.parent.name for p in files]}), photos / "t.parquet"
        )
        task = data.scan(photos / "t.parquet")
        assert data.task_digest(task) == expected
        assert "columns guessed: path is 'img', label is 'target'" in task.notes
    with pytest.raises(BadManifest, match=r"t\.parquet has no column 'image'. but img, target"):
        data.scan(photos / "t.parquet", columns="path=image")


def test_without_pyarrow(monkeypatch):
    """Without pyarrow the error says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"need pyarrow. Type: pip install 'zoo-core\[parquet\]'"):
        data.scan(FIXTURES / "datasets-5.2" / "hub.parquet")


def test_sides_from_names(tmp_path):
    """Names of shards are sides only where each shard tells one, and they are not all the same."""
    for name in ("set-train-0.tar", "set-train-1.tar", "val/0.tar", "set-extra.tar"):
        seed = len(files_below(tmp_path)) * 100
        tar(
            tmp_path / "d" / name,
            {f"{c}/{i}.png": picture(seed + 10 * i + len(c)) for c in ("a", "bb") for i in range(3)},
        )
    assert not [n for n in data.scan(tmp_path / "d").notes if "your own split" in n]
    (tmp_path / "d" / "set-extra.tar").unlink()
    task = data.scan(tmp_path / "d")
    assert "your own split is kept (train, val)" in task.notes
    assert len(task.split("val")) == 6
    shutil.rmtree(tmp_path / "d" / "val")
    assert not [n for n in data.scan(tmp_path / "d").notes if "your own split" in n]


def test_class_folders_go_before_shards(tmp_path):
    """A folder with class folders of images is read as such, though a shard lies beside them."""
    make_photos(tmp_path / "d", each=4)
    tar(tmp_path / "d" / "s.tar", {"x/0.png": picture()})
    task = data.scan(tmp_path / "d")
    assert task.classes == ("blue", "green", "red")
    assert task.skipped == {"files outside class folders": 1}


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    """Where the copies cannot be written the error names the place, the bytes needed and the bytes free."""
    source = tar(tmp_path / "s.tar", {"a/0.png": picture()})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DiskFull, match=r"cannot be written: .* needs \d+ bytes; [\d,]+ bytes are free.*ZOO_CACHE"):
        data.scan(source)
