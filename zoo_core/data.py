"""Reading the user's data: a folder of class folders or a CSV, to a `Task` with its splits."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zoo_core import images
from zoo_core.console import Console
from zoo_core.errors import BadImage, BadManifest, NoData, TooFewExamples, near
from zoo_core.files import publish_object, sha256_file
from zoo_core.places import cache_folder
from zoo_core.splits import SPLITS as SPLITS
from zoo_core.splits import split_by_content
from zoo_core.types import Example, Split, Task

_FOLDER_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Row:
    """One labelled file before it was looked at; an empty `split` is for us to choose."""

    path: str
    label: str
    split: Split | None = None
    group: str = ""


def scan(
    source: str | Path,
    *,
    test_share: float = 0.25,
    val_share: float = 0.15,
    on_bad_image: str = "skip",
    for_training: bool = True,
    console: Console | None = None,
) -> Task:
    """Read labels, decode every image once, and split.

    Args:
        source: a folder of class folders (with train/ val/ test/ above them, or not), or a CSV
            with `path,label[,split][,group]`.
        test_share, val_share: shares of all examples, used where the user gave no such side.
        on_bad_image: `skip` lists bad images and goes on; `fail` raises at the first.
        for_training: without it every example is for testing and one class is enough.

    Raises:
        NoData, BadManifest, TooFewExamples, BadImage: each names the file and what to do.
    """
    console = console or Console()
    path = Path(source).expanduser()
    rows, skipped = _rows(path)
    digests, bad = _look(rows, console)
    if bad and on_bad_image == "fail":
        first, reason = next(iter(bad.items()))
        raise BadImage(f"{first}: {reason}. {len(bad)} bad in all; leave them out with --on-bad-image skip.")
    rows = [row for row in rows if row.path in digests]
    classes = tuple(sorted({row.label for row in rows}))
    examples = tuple(Example(row.path, classes.index(row.label), digests[row.path], "test", row.group) for row in rows)
    if not for_training:
        if not examples:
            raise NoData(f"{path}: none of {len(bad)} images can be read; the first: {next(iter(bad.items()))}.")
        return Task(str(path), classes, examples, bad, skipped)
    _check_classes(path, rows, classes, bad)
    examples, notes = split_by_content(examples, [row.split for row in rows], test_share, val_share)
    task = Task(str(path), classes, examples, bad, skipped, tuple(notes))
    if not task.split("train") or not task.split("test"):
        raise TooFewExamples(f"{path}: after the split one side is empty; expected examples to train and to test on.")
    return task


def image_files(sources: Iterable[str | Path]) -> list[Path]:
    """Files to predict on: folders are searched for image files, files are taken as they are."""
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            found += sorted(p for p in source.rglob("*") if _is_image(p) and p.is_file())
        elif source.is_file():
            found.append(source)
        else:
            raise NoData(f"{source}: no such file or folder; expected images.")
    if not found:
        raise NoData(
            f"no image in {', '.join(map(str, sources))}; expected files ending in {' '.join(images.ENDINGS)}."
        )
    return found


def task_digest(task: Task) -> str:
    """sha256 (hex) over classes and over (content, label, split), whatever the files are called."""
    lines = sorted(f"{e.digest} {task.classes[e.label]} {e.split}" for e in task.examples)
    return hashlib.sha256("\n".join([*task.classes, *lines]).encode()).hexdigest()


def _rows(path: Path) -> tuple[list[Row], dict[str, int]]:
    if path.is_dir():
        rows, skipped = _folder_rows(path)
    elif path.is_file():
        rows, skipped = _manifest_rows(path), {}
    else:
        raise NoData(f"{path}: no such file or folder; expected a folder of class folders or a CSV (path,label).")
    if not rows:
        beside = [p for p in path.iterdir() if _is_image(p)] if path.is_dir() else []
        hint = (
            f"It has {len(beside)} images directly inside: put them into one folder per class."
            if beside
            else f"Expected one folder per class with files ending in {' '.join(images.ENDINGS)}."
        )
        raise NoData(f"{path} holds no labelled image. {hint}")
    return rows, skipped


def _folder_rows(root: Path) -> tuple[list[Row], dict[str, int]]:
    """Class folders, under split folders where all top folders are named like splits."""
    tops = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    split_tops = [p for p in tops if p.name.lower() in _FOLDER_SPLITS]
    pairs: list[tuple[Split | None, Path]]
    if split_tops and len(split_tops) == len(tops):
        pairs = [
            (_FOLDER_SPLITS[top.name.lower()], c) for top in split_tops for c in sorted(top.iterdir()) if c.is_dir()
        ]
    else:
        pairs = [(None, top) for top in tops]
    rows: list[Row] = []
    skipped: Counter[str] = Counter()
    loose = sum(p.is_file() for p in root.iterdir())
    if loose:
        skipped["files outside class folders"] = loose
    for split, folder in pairs:
        if folder.name.startswith("."):
            continue
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                skipped["hidden files"] += 1
            elif not _is_image(file):
                skipped[f"files ending in {file.suffix.lower() or 'nothing'}"] += 1
            else:
                rows.append(Row(str(file), folder.name, split))
    return rows, dict(skipped)


def _manifest_rows(path: Path) -> list[Row]:
    """A CSV with a header; paths are relative to the CSV's own folder."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [c.strip().lower() for c in reader.fieldnames or []]
            for wanted in ("path", "label"):
                if wanted not in columns:
                    hint = near(wanted, columns)
                    raise BadManifest(
                        f"{path} has the columns {', '.join(columns) or 'none'}; "
                        f"expected path,label[,split][,group]. {hint}".rstrip()
                    )
            reader.fieldnames = columns
            return [_manifest_row(path, reader.line_num, record) for record in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadManifest(f"{path} cannot be read as a UTF-8 CSV: {error}.") from error


def _manifest_row(path: Path, line: int, record: dict[str, str]) -> Row:
    file, label = (record.get("path") or "").strip(), (record.get("label") or "").strip()
    split = (record.get("split") or "").strip().lower()
    if not file or not label:
        raise BadManifest(f"{path}, line {line}: path {file!r} and label {label!r}; expected both.")
    if split and split not in _FOLDER_SPLITS:
        raise BadManifest(f"{path}, line {line}: split {split!r}; expected train, val, test or nothing.")
    whole = Path(file).expanduser()
    return Row(
        str(whole if whole.is_absolute() else path.parent / whole),
        label,
        _FOLDER_SPLITS.get(split),
        (record.get("group") or "").strip(),
    )


def _look(rows: Sequence[Row], console: Console) -> tuple[dict[str, str], dict[str, str]]:
    """Content digest of every readable image, reason for every other one.

    Digests of files seen before come from the notes in the cache, by the file's own sha256.
    """
    folder = cache_folder() / "scan" / images.DECODER
    notes: dict[str, str] = {}
    for file in folder.glob("*.json"):
        try:
            notes.update(json.loads(file.read_text()))
        except ValueError:
            file.unlink()  # damaged: the images are simply looked at again
    fresh: dict[str, str] = {}

    def one(row: Row) -> tuple[str, str, str]:
        try:
            sha = sha256_file(Path(row.path))
            content = notes.get(sha) or images.content_digest(images.decode(row.path))
            return row.path, content, sha
        except OSError as error:
            return row.path, "", error.strerror or str(error)
        except (BadImage, ValueError) as error:  # ValueError: a path that no file can have
            return row.path, "", str(error)

    good: dict[str, str] = {}
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, console.track("Reading images", len(rows)) as advance:
        for path, content, detail in pool.map(one, rows):
            advance(1)
            if content:
                good[path] = content
                if detail not in notes:
                    fresh[detail] = content
            else:
                bad[path] = detail
    if fresh:
        publish_object(folder, "", ".json", lambda temp: temp.write_text(json.dumps(fresh)))
    return good, bad


def _check_classes(path: Path, rows: Sequence[Row], classes: Sequence[str], bad: dict[str, str]) -> None:
    lost = f" {len(bad)} images could not be read: {next(iter(bad.items()))}." if bad else ""
    if len(classes) < 2:
        raise TooFewExamples(
            f"{path} has {len(rows)} examples of {len(classes)} class ({', '.join(classes)}); "
            f"expected two classes or more, one folder each.{lost}"
        )
    counts = Counter(row.label for row in rows)
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < 2:
        raise TooFewExamples(
            f"{path}: class {label!r} has one example; expected at least 2, one to train and one to test on. "
            f"Add images or remove the class.{lost}"
        )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in images.ENDINGS and not path.name.startswith(".")
