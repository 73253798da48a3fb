"""Images that lie inside larger files: tar shards (WebDataset), Parquet, `datasets` saved on disk.

Each image is copied once into the cache under the sha256 of its bytes, so that every later step sees
plain files. Nothing is written to a path that the data names.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from zoo_core.decoding import ENDINGS
from zoo_core.errors import BadManifest, MissingExtra
from zoo_core.files import parse_json, read_json
from zoo_core.manifests import SIDES, Listing, choose_columns, make_row, parse_columns
from zoo_core.members import keep
from zoo_core.types import Split

SHARDS = (".tar", ".parquet", ".pq")
_MAX_BYTES = 512 << 20  # of one image or label inside a shard
_ROWS = 256  # read from a Parquet file at a time
_LABEL_ENDINGS = ("cls", "label", "class")


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets`' `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def shards_in(folder: Path) -> list[Path]:
    """Tar and Parquet files anywhere under a folder, hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SHARDS and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def read_shards(files: Sequence[Path], columns: str | None) -> Listing:
    """Read tar or Parquet files; names such as `train-000.tar` or `test/0.parquet` are sides, if all have one.

    Raises:
        BadManifest: a file is damaged, or has not the columns.
        MissingExtra: pyarrow is needed and not installed.
        DiskFull: the images cannot be copied into the cache.
    """
    listing = Listing()
    sides = _sides(files)
    for file in files:
        if file.suffix.lower() == ".tar":
            _read_tar(file, sides.get(file), columns, listing)
        else:
            _read_batches(file, _parquet_batches(file), sides.get(file), columns, listing)
    return listing


def read_saved_dataset(folder: Path, columns: str | None) -> Listing:
    """Read what `datasets`' `save_to_disk` wrote, without that library.

    Raises:
        BadManifest: files are missing or damaged, or have not the columns.
        MissingExtra: pyarrow is not installed.
    """
    listing = Listing()
    if not (folder / "dataset_dict.json").is_file():
        _read_saved_split(folder, None, columns, listing)
        return listing
    inside = {p.name: p for p in folder.iterdir() if p.is_dir()}
    listed = _facts(folder / "dataset_dict.json").get("splits")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    for name in names:
        if name not in inside:
            raise BadManifest(f"{folder} names the split {name!r}, but has no such folder. Save it again.")
        side = SIDES.get(name.lower())
        if side is None and len(names) > 1:
            listing.skip(f"splits called {name}")
            continue
        _read_saved_split(inside[name], side if len(names) > 1 else None, columns, listing)
    return listing


def _sides(files: Sequence[Path]) -> dict[Path, Split]:
    """The side that each file's folder or name tells, if every file tells one and they are not all the same."""
    found: dict[Path, Split] = {}
    for file in files:
        words = [file.parent.name, *re.split(r"[-_.]", file.stem)] if len(files) > 1 else []
        for word in words:
            if word.lower() in SIDES:
                found[file] = SIDES[word.lower()]
                break
    return found if len(found) == len(files) and len(set(found.values())) > 1 else {}


# Tar


def _read_tar(file: Path, side: Split | None, columns: str | None, listing: Listing) -> None:
    """Files that follow one another and share a name up to the first dot are one sample, as in WebDataset."""
    sample: dict[str, bytes] = {}
    last = ""
    try:
        with tarfile.open(file, "r:") as tar:
            while member := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # or tarfile remembers every one
                name = PurePosixPath(member.name)
                stem, _, ending = name.name.partition(".")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse() or member.size > _MAX_BYTES:
                    listing.skip("links, devices and giant files in shards")
                elif not stem:
                    listing.skip("hidden files")
                else:
                    key = str(name.parent / stem)
                    if key != last:
                        _add_sample(file, last, sample, side, columns, listing)
                        sample, last = {}, key
                    sample[ending.lower()] = _bytes(tar, member)
            _add_sample(file, last, sample, side, columns, listing)
    except (tarfile.TarError, EOFError, OSError, OverflowError, ValueError) as error:
        raise BadManifest(f"{file} cannot be read as an uncompressed tar file: {error}. Get it again.") from error


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    body = tar.extractfile(member)
    data = body.read() if body else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name!r} ends after {len(data)} of {member.size} bytes")
    return data


def _add_sample(
    file: Path, key: str, sample: Mapping[str, bytes], side: Split | None, columns: str | None, listing: Listing
) -> None:
    """A row from one sample: its label is a `.cls` file, a field of its `.json`, or its folder."""
    image = next((e for e in sample if f".{e.rpartition('.')[2]}" in ENDINGS), None)
    if not sample:
        return
    if image is None:
        listing.skip("samples without an image in shards")
        return
    where = f"{file}, {key!r}"
    facts: dict[str, Any] = {"split": side, "group": None, "label": PurePosixPath(key).parent.name}
    if "json" in sample:
        facts |= _json_facts(where, sample["json"], columns, listing)
    for ending in _LABEL_ENDINGS:
        if ending in sample:
            facts["label"] = _utf8(sample[ending], where)
    if facts["label"] in ("", None):
        listing.skip("samples without a label in shards")
        return
    path = str(keep(sample[image]))
    listing.rows.append(make_row(where, file.parent, facts | {"path": path}, f"{file}:{key}.{image}"))


def _json_facts(where: str, data: bytes, columns: str | None, listing: Listing) -> dict[str, Any]:
    record = parse_json(_utf8(data, where), where)
    if not isinstance(record, dict):
        raise BadManifest(f"{where}: its .json is {type(record).__name__}; expected an object.")
    asked = {noun: name for noun, name in parse_columns(columns).items() if noun != "path"}
    names, notes = choose_columns([k for k in record if k.strip().lower() != "path"], asked, where, needed=())
    listing.note(notes)
    return {noun: record[name] for noun, name in names.items() if noun != "path"}


def _utf8(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise BadManifest(f"{where}: a label that is no UTF-8 text: {error}.") from error


# Arrow and Parquet


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet and saved datasets need pyarrow. Type: pip install 'zoo-core[parquet]'") from error
    return pyarrow


def _parquet_batches(file: Path) -> Iterator[Any]:
    """The schema, then record batches."""
    with _pyarrow().parquet.ParquetFile(file) as table:
        yield table.schema_arrow
        yield from table.iter_batches(batch_size=_ROWS)


def _arrow_batches(files: Sequence[Path]) -> Iterator[Any]:
    """The schema, then record batches of Arrow streams that have one schema."""
    for i, file in enumerate(files):
        with open(file, "rb") as stream, _pyarrow().ipc.open_stream(stream) as reader:
            if i == 0:
                yield reader.schema
            yield from reader


def _facts(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise BadManifest(f"{path} holds {type(found).__name__}; expected an object. Save the data set again.")
    return found


def _read_saved_split(folder: Path, side: Split | None, columns: str | None, listing: Listing) -> None:
    entries = _facts(folder / "state.json").get("_data_files")
    inside = {p.name: p for p in folder.glob("*.arrow")}
    named = [str(e.get("filename")) for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    missing = [name for name in named if name not in inside]
    if missing or not named:
        raise BadManifest(f"{folder}: its state.json names {missing or 'no file'}, which is not there. Save it again.")
    _read_batches(folder, _arrow_batches([inside[name] for name in named]), side, columns, listing)


def _read_batches(
    source: Path, batches: Iterator[Any], side: Split | None, columns: str | None, listing: Listing
) -> None:
    """Rows of a table whose images are paths, bytes, or `datasets`' pairs of both."""
    arrow = _pyarrow()
    try:
        schema = next(batches)
        names, notes = choose_columns(schema.names, parse_columns(columns), str(source))
        listing.note(notes)
        classes = _class_names(schema, names["label"], source)
        number = 0
        for batch in batches:
            batch.validate(full=True)  # or damaged offsets are followed out of the file
            cells = {noun: batch.column(schema.names.index(name)) for noun, name in names.items()}
            for i in range(batch.num_rows):
                number += 1
                record = {noun: column[i].as_py() for noun, column in cells.items()}
                _add_record(source, number, record | ({"split": side} if side else {}), classes, listing)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadManifest(f"{source} cannot be read: {first}. Get it again.") from error


def _add_record(source: Path, number: int, record: dict[str, Any], classes: Sequence[str], listing: Listing) -> None:
    where = f"{source}, row {number}"
    label, image = record["label"], record["path"]
    if classes and label in (None, -1):
        listing.skip("examples without a label")
        return
    if classes:
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise BadManifest(f"{where}: label {label!r}; expected 0 to {len(classes) - 1}.")
        record["label"] = classes[label]
    origin = ""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        origin = f"{source}:{number}"
        image = str(keep(image))
    folder = source if source.is_dir() else source.parent
    listing.rows.append(make_row(where, folder, record | {"path": image}, origin))


def _class_names(schema: Any, label: str, source: Path) -> list[str]:
    """Class names that `datasets` keeps in the schema; empty where labels are what they are."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return []
    found = parse_json(_utf8(stored, str(source)), f"{source}, huggingface metadata")
    for key in ("info", "features", label):
        found = found.get(key) if isinstance(found, dict) else None
    names = found.get("names") if isinstance(found, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, Iterable) else []
