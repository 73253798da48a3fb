"""Reading the user's data: folders, tables and shards of labelled images, to a `Task` with its splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from zoo_core import decoding, labels, manifests, scan_notes, shards
from zoo_core.console import Console
from zoo_core.errors import BadExample, BadOption, NoData, TooFewExamples, shown
from zoo_core.files import check_plain, sha256_file
from zoo_core.manifests import SIDES, Listing, Row
from zoo_core.modalities import CHAT, IMAGE, Modality
from zoo_core.places import cache_folder, expanded
from zoo_core.splits import SPLITS as SPLITS
from zoo_core.splits import split_by_content
from zoo_core.types import ONE_LABEL, Example, Kind, Split, Task

KINDS = (
    "a folder of class folders, a table (CSV, TSV, JSONL or Parquet with path,label), tar shards, or a saved dataset"
)


class Ahead(Protocol):
    """Looks at files that are new before the scan does."""

    def begin(self, task: Task) -> None:
        """The task as labels tell it, before anything is read: contents are named by their files, and split so."""
        ...

    def __call__(self, paths: Sequence[str], found: dict[str, tuple[str, str]]) -> None:
        """Put path -> (content digest, look) into `found`, for those that can be read."""
        ...


@dataclass(frozen=True)
class Seen:
    """Labelled examples after one look at each.

    Attributes:
        rows: those that can be used, in the source's order.
        bad: path, or place in a shard, -> reason, for the others.
        digests: path -> content digest.
        looks: content digest -> look, for near copies.
        skipped: what was passed over without a look, with counts.
        notes: sentences about how the source was read.
        kind: what the labels are.
    """

    rows: tuple[Row, ...]
    bad: Mapping[str, str]
    digests: Mapping[str, str]
    looks: Mapping[str, str]
    skipped: Mapping[str, int]
    notes: tuple[str, ...]
    kind: Kind = "single-label"

    @property
    def texts(self) -> list[str]:
        """Labels as the data spell them."""
        return [row.label for row in self.rows]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Label names in their order; none for numbers."""
        return labels.classes_of(self.kind, self.texts)

    @property
    def examples(self) -> tuple[Example, ...]:
        """All rows as examples that nobody has split."""
        strata = labels.strata_of(self.kind, self.texts, self.classes)
        plain = self.kind in ONE_LABEL
        found = (
            Example(r.path, stratum, self.digests[r.path], "test", r.group, r.origin, "" if plain else r.label)
            for r, stratum in zip(self.rows, strata, strict=True)
        )
        return tuple(found)


def scan(
    source: str | Path,
    *,
    columns: str | None = None,
    test_share: float = 0.25,
    val_share: float = 0.15,
    on_bad_image: str = "skip",
    for_training: bool = True,
    console: Console | None = None,
    modality: Modality = IMAGE,
    task: str = "auto",
    ahead: Ahead | None = None,
) -> Task:
    """Read labels, decode every example once, and split.

    Args:
        source: a folder of class folders (with train/ val/ test/ above them, or not), a table with
            `path,label[,split][,group]` (texts: `text,label`), tar shards, or a folder of `datasets`' `save_to_disk`.
        columns: what the table calls them, e.g. `path=file,label=class`.
        test_share, val_share: shares of all examples, used where the user gave no such side.
        on_bad_image: `skip` lists bad images and goes on; `fail` raises at the first.
        for_training: without it every example is for testing and one class is enough.
        modality: what the examples are; a backbone's card says it.
        task: what the labels are; `auto` guesses from a table's.
        ahead: looks at the files that are new, before all others.

    Raises:
        NoData, BadManifest, TooFewExamples, BadExample: each names the file and what to do.
    """
    path = expanded(source)

    def listed(seen: Seen) -> None:
        if ahead:
            labels.check(path, seen.kind, seen.texts, seen.classes, "")
            ahead.begin(split(path, seen, test_share, val_share))

    seen = look_at(path, columns, console, modality, task, ahead, listed)
    if seen.bad and on_bad_image == "fail":
        first, reason = next(iter(seen.bad.items()))
        raise BadExample(f"{first}: {reason}. {len(seen.bad)} bad in all; leave them out with --on-bad-image skip.")
    if not for_training:
        if not seen.rows:
            raise NoData(
                f"{path}: none of {len(seen.bad)} {modality.plural} can be read; "
                f"the first: {next(iter(seen.bad.items()))}."
            )
        return Task(str(path), seen.classes, seen.examples, seen.bad, seen.skipped, seen.notes, kind=seen.kind)
    lost = f" {len(seen.bad)} images could not be read: {next(iter(seen.bad.items()))}." if seen.bad else ""
    labels.check(path, seen.kind, seen.texts, seen.classes, lost)
    found = split(path, seen, test_share, val_share)
    if not found.split("train") or not found.split("test"):
        raise TooFewExamples(f"{path}: after the split one side is empty; expected examples to train and to test on.")
    return found


def look_at(
    path: Path,
    columns: str | None = None,
    console: Console | None = None,
    modality: Modality = IMAGE,
    task: str = "auto",
    ahead: Ahead | None = None,
    listed: Callable[[Seen], None] | None = None,
) -> Seen:
    """Find the labelled examples and decode each one once; nothing is judged.

    Args:
        listed: called before anything is read; contents are then named by their files.

    Raises:
        NoData, BadManifest: nothing is there, or a table or shard cannot be read.
    """
    try:
        listing = _listing(path, columns, modality)
    except OSError as error:  # no permission, too long a name
        raise NoData(f"{shown(str(path))} cannot be read: {error.strerror or error}; expected {KINDS}.") from error
    kind, notes = labels.choose_kind(
        [row.label for row in listing.rows], "next-token" if modality is CHAT else task, listing.label_column
    )
    listing.note(notes)
    if listed:
        names = {row.path: row.path for row in listing.rows}
        listed(Seen(tuple(listing.rows), {}, names, {}, listing.skipped, tuple(listing.notes), kind))
    found, bad = _look(listing.rows, console or Console(), modality, ahead)
    return Seen(
        tuple(row for row in listing.rows if row.path in found),
        bad,
        {file: content for file, (content, _) in found.items()},
        dict(found.values()),
        listing.skipped,
        tuple(listing.notes),
        kind,
    )


def split(path: Path, seen: Seen, test_share: float, val_share: float) -> Task:
    """The task with a side for every example, and sentences about copies and leaks."""
    given = [row.split for row in seen.rows]
    alike: dict[str, str] = {}
    examples, notes = split_by_content(seen.examples, given, test_share, val_share, seen.looks, alike)
    told = (*seen.notes, *notes)
    return Task(str(path), seen.classes, examples, seen.bad, seen.skipped, told, kind=seen.kind, alike=alike)


def example_files(sources: Iterable[str | Path], modality: Modality = IMAGE) -> dict[Path, str]:
    """Files to predict on, and what people call them: folders are searched, files are taken as they are.

    A table of texts gives a file for each of its rows.
    """
    found: dict[Path, str] = {}
    for source in map(Path, sources):
        if source.is_dir():
            found |= {p: str(p) for p in sorted(source.rglob("*")) if modality.owns(p) and p.is_file()}
        elif source.is_file() and modality.column != "path" and source.suffix.lower() in manifests.ENDINGS:
            read = manifests.read_conversations if modality is CHAT else manifests.read_texts
            found |= {Path(row.path): row.origin for row in read(source)}
        elif source.is_file():
            found[source] = str(source)
        else:
            raise NoData(f"{source}: no such file or folder; expected {modality.plural}.")
    if not found:
        raise NoData(
            f"no {modality.name} in {', '.join(map(str, sources))}; "
            f"expected files ending in {' '.join(modality.endings)}."
        )
    return found


def task_digest(task: Task) -> str:
    """sha256 (hex) over classes and over (content, label, split), whatever the files are called."""
    lines = sorted(f"{e.digest} {task.text(e)} {e.split}" for e in task.examples)
    return hashlib.sha256("\n".join([*task.classes, *lines]).encode()).hexdigest()


def facts(task: Task) -> dict[str, Any]:
    """What a run's summary says about its data."""
    return {
        "path": task.source,
        "digest": task_digest(task),
        "n_train": len(task.split("train")),
        "n_val": len(task.split("val")),
        "n_test": len(task.split("test")),
        "classes": list(task.classes),
        "counts": {side: task.counts(side) for side in SPLITS},
        "bad": dict(task.bad),
        "skipped": dict(task.skipped),
        "notes": list(task.notes),
    }


def _listing(path: Path, columns: str | None, modality: Modality) -> Listing:
    if modality is CHAT and path.exists() and path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise NoData(
            f'{path}: conversations are read from a .jsonl file, one a line: {{"messages": [{{"role": "user", '
            '"content": "..."}, {"role": "assistant", "content": "..."}]}.'
        )
    if path.is_dir() and shards.is_saved_dataset(path):
        listing = shards.read_saved_dataset(path, columns)
    elif path.is_dir():
        listing = _folder_rows(path, modality)
        if not listing.rows and (files := shards.shards_in(path)):
            listing = shards.read_shards(files, columns)
        elif columns:
            raise BadOption(f"columns: got {columns!r}, but {path} is a folder of class folders. Leave them out.")
    elif path.suffix.lower() in shards.SHARDS and path.is_file():
        listing = shards.read_shards([path], columns)
    elif path.is_file():
        listing = manifests.read_manifest(path, columns, modality.column)
    else:
        raise NoData(f"{path}: no such file or folder; expected {KINDS}.")
    if not listing.rows:
        raise NoData(f"{path} holds no labelled {modality.name}. {_hint(path, listing, modality)}")
    if copied := sum(bool(row.origin) for row in listing.rows):
        listing.note(
            [f"{copied} {modality.plural} lie inside larger files and were copied into {cache_folder() / 'members'}"]
        )
    return listing


def _hint(path: Path, listing: Listing, modality: Modality) -> str:
    """What to do where no labelled example was found."""
    beside = [p for p in path.iterdir() if modality.owns(p)] if path.is_dir() else []
    if beside:
        return f"It has {len(beside)} {modality.plural} directly inside: put them into one folder per class."
    passed = ", ".join(f"{count} {what}" for what, count in listing.skipped.items())
    found = f" Passed over: {passed}." if passed else ""
    return f"Expected one folder per class with files ending in {' '.join(modality.endings)}.{found}"


def _folder_rows(root: Path, modality: Modality) -> Listing:
    """Class folders, under split folders where all top folders are named like splits."""
    listing = Listing()
    tops = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    split_tops = [p for p in tops if p.name.lower() in SIDES]
    pairs: list[tuple[Split | None, Path]]
    if split_tops and len(split_tops) == len(tops):
        pairs = [(SIDES[top.name.lower()], c) for top in split_tops for c in sorted(top.iterdir()) if c.is_dir()]
    else:
        pairs = [(None, top) for top in tops]
    loose = sum(p.is_file() for p in root.iterdir())
    if loose:
        listing.skipped["files outside class folders"] = loose
    for side, folder in pairs:
        if folder.name.startswith("."):
            continue
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                listing.skip("hidden files")
            elif not modality.owns(file):
                listing.skip(f"files ending in {_plain(file.suffix.lower()) or 'nothing'}")
            else:
                listing.rows.append(Row(str(file), folder.name, side))
    return listing


def _look(
    rows: Sequence[Row], console: Console, modality: Modality, ahead: Ahead | None = None
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Path -> content digest and look of every readable example, reason for every other one.

    What was seen before comes from the notes in the cache, by the file's own sha256.
    """
    folder = cache_folder() / "scan" / modality.version
    notes = scan_notes.read(folder)
    shas = _ahead(rows, console, modality, ahead, notes, folder) if ahead else {}
    fresh: dict[str, tuple[str, str]] = {}

    def one(row: Row) -> tuple[Row, tuple[str, str] | None, str]:
        try:
            row.path.encode()  # a name that is no UTF-8 cannot be written into a run
            _check_size(row.path, modality)
            sha = shas.get(row.path) or sha256_file(Path(row.path))
            if sha in notes:
                return row, notes[sha], sha
            return row, modality.examine(row.path), sha
        except OSError as error:
            return row, None, error.strerror or str(error)
        except UnicodeEncodeError:
            return row, None, "the file's name is not UTF-8; rename it"
        except (BadExample, ValueError) as error:  # ValueError: a path that no file can have
            return row, None, str(error)

    good: dict[str, tuple[str, str]] = {}
    bad: dict[str, str] = {}
    told = Console() if ahead else console
    with ThreadPoolExecutor(os.cpu_count()) as pool, told.track(f"Reading {modality.plural}", len(rows)) as advance:
        for row, content, detail in pool.map(one, rows):
            advance(1)
            if content:
                good[row.path] = content
                if detail not in notes:
                    fresh[detail] = content
            else:
                bad[_plain(row.origin or row.path)] = detail
    scan_notes.add(folder, fresh)
    return good, bad


def _check_size(path: str, modality: Modality) -> None:
    """Before a file is read: devices say that they are empty, and never end. Raises `BadExample`, OSError."""
    size = check_plain(Path(path))
    if not size:
        raise BadExample(f"not a readable {modality.name}: empty file")
    if size > decoding.MAX_BYTES:
        raise BadExample(f"{size} bytes, more than {decoding.MAX_BYTES}")


def _ahead(
    rows: Sequence[Row],
    console: Console,
    modality: Modality,
    ahead: Ahead,
    notes: dict[str, tuple[str, str]],
    folder: Path,
) -> dict[str, str]:
    """Let `ahead` look at the files that no note knows, and add notes; returns path -> sha256 of readable files."""

    def sha_of(row: Row) -> str:
        try:
            row.path.encode()
            _check_size(row.path, modality)
            return sha256_file(Path(row.path))
        except (BadExample, OSError, ValueError):
            return ""

    shas: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, console.track(f"Reading {modality.plural}", len(rows)) as advance:
        for row, sha in zip(rows, pool.map(sha_of, rows), strict=True):
            advance(1)
            shas[row.path] = sha
    unseen = {sha: path for path, sha in shas.items() if sha and sha not in notes}
    found: dict[str, tuple[str, str]] = {}
    try:
        if unseen:
            ahead(list(unseen.values()), found)
    finally:  # Ctrl-C, too: what was seen is seen
        fresh = {shas[path]: content for path, content in found.items()}
        scan_notes.add(folder, fresh)
    notes.update(fresh)
    return shas


def _plain(name: str) -> str:
    """A file's name as text that can be written anywhere: what is no UTF-8 or does not print is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
