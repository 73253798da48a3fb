"""What goes wrong while a run is under way (disk, files, a thread) is said in a sentence, and the run goes on later."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from zoo_core import activations, data, engine, fit, images, upkeep
from zoo_core.errors import DiskFull, ExampleLost


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own, whose size and mode can be changed."""

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", "none", place], check=True, capture_output=True)

    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield place, change
    subprocess.run(["umount", "-l", place], check=True)


def test_the_cache_does_not_fit_the_disk(make, photos, disk, monkeypatch):
    """Without space for the cache: an error with the path, needed and free bytes, nothing half; later it goes on."""
    place, change = disk
    monkeypatch.setenv("ZOO_CACHE", str(place / "cache"))
    data.scan(photos)
    change("size=64k")
    with pytest.raises(
        DiskFull, match=r"/disk/cache/.* cannot be written: No space left.*needs [\d,]+ bytes; [\d,]+ bytes"
    ):
        make("run", freeze="last:1")
    assert not [p for p in place.rglob("*") if p.name.endswith((".tmp", ".damaged"))]
    assert not Path("run").exists()
    change("size=64m")
    assert make("run", freeze="last:1").summary["cache"]["hits"] == 0


def test_the_run_does_not_fit_the_disk(make, disk):
    """Without space for the run: an error, nothing half; with space again the same command ends with the same bits."""
    place, change = disk
    expected = make("roomy", freeze="last:1").summary["digests"]
    (place / "ballast").write_bytes(bytes(280 << 10))
    with pytest.raises(DiskFull, match=r"/disk/run\.unfinished/.* cannot be written: No space left"):
        make(place / "run", freeze="last:1")
    assert not (place / "run").exists()
    assert upkeep.strays(place) == []
    change("size=64m")
    assert make(place / "run", freeze="last:1").summary["digests"] == expected


def test_folders_that_are_read_only(make, disk, monkeypatch, photos):
    """A cache that is read only is read; what has to be written and cannot be is named, with another folder to give."""
    place, change = disk
    change("size=64m")
    monkeypatch.setenv("ZOO_CACHE", str(place / "cache"))
    make("first", freeze="last:1")
    make(place / "taken", freeze="last:1")
    change("ro")
    again = make("second", freeze="last:1", seed=1)
    assert again.summary["cache"]["misses"] == 0
    with pytest.raises(DiskFull, match=r"/disk/cache/.*Read-only file system.*another folder \(ZOO_CACHE\)"):
        make("third", freeze="last:2")
    with pytest.raises(DiskFull, match=r"/disk/run\.unfinished.*Read-only file system"):
        make(place / "run", freeze="last:1")
    change("rw")


def test_a_limit_for_files(make):
    """Where a limit for files stands in the place of a full disk, it is the same error."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            make("run", freeze="last:1")
        except DiskFull as error:
            os._exit(7 if "File too large" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def before(monkeypatch, place, name, act):
    """Do something just before a step of the engine."""
    step = getattr(place, name)

    def then(*args, **options):
        act()
        return step(*args, **options)

    monkeypatch.setattr(place, name, then)


def test_a_file_vanishes_before_it_is_computed(make, photos, monkeypatch):
    """A file that is gone since the scan is named; all others are computed and kept."""
    lost = photos / "red" / "03.png"
    data.scan(photos)  # new images would be computed while they are read
    with monkeypatch.context() as patch:
        before(patch, engine, "kept_at", lambda: lost.rename("away.png"))
        with pytest.raises(ExampleLost, match=r"1 files could be read .*red/03\.png: .*put them back"):
            make(freeze="last:1")
    assert not Path("run").exists()
    Path("away.png").rename(lost)
    assert make(freeze="last:1").summary["cache"] | {"bytes": 0} == {
        "hits": 29,
        "misses": 1,
        "bytes": 0,
        "mode": "boundary",
    }


def test_a_file_changes_before_it_is_computed(make, photos, monkeypatch):
    """A file that was replaced since the scan is not taken for what it was: and not kept under its name."""
    lost = photos / "red" / "03.png"
    shutil.copy(lost, "old.png")
    data.scan(photos)
    with monkeypatch.context() as patch:
        before(patch, engine, "kept_at", lambda: Image.new("RGB", (40, 36), "blue").save(lost))
        with pytest.raises(ExampleLost, match=r"red/03\.png: its content has changed since the run began"):
            make(freeze="last:1")
    shutil.copy("old.png", lost)
    run = make(freeze="last:1")
    assert run.summary["cache"]["misses"] == 1


def test_a_file_vanishes_while_nothing_is_kept(make, photos, monkeypatch):
    """Where every epoch reads the files, one that is gone is named as well."""
    before(monkeypatch, fit, "fit", lambda: shutil.rmtree(photos / "red"))
    with pytest.raises(ExampleLost, match=r"photos/red/\d\d\.png: "):
        make(freeze="last:1", cache="none")


def test_files_vanish_after_they_were_computed(make, photos, monkeypatch):
    """Once everything is computed the files are not needed: the run is finished without them."""
    before(monkeypatch, fit, "fit", lambda: shutil.rmtree(photos))
    assert make(freeze="last:1").summary["test"]["accuracy"] >= 0


def test_a_thread_that_dies(make, monkeypatch, zoo, photos):
    """Files are read by threads, not by processes that could die unseen: what goes wrong in one ends the run."""
    decode, calls = images.decode, []

    def broken(path):
        calls.append(path)
        if len(calls) == 5:
            raise MemoryError
        return decode(path)

    data.scan(photos)
    monkeypatch.setattr(images, "decode", broken)
    done = zoo("finetune", photos, "-b", "tiny/net", "--epochs", 1, "--out", "run")
    assert (done.code, done.err.splitlines()[-1][:44]) == (1, "zoo: this machine's memory is full. Close so")
    assert not Path("run").exists()
    monkeypatch.undo()


def test_no_process_is_started():
    """The core starts no processes of its own to read or compute."""
    for path in Path(activations.__file__).parent.rglob("*.py"):
        assert not re.search(r"\bmultiprocessing\b|ProcessPool|os\.fork", path.read_text())
