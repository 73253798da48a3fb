"""Tables that name examples, or hold texts, with their labels: CSV, TSV and JSON lines, columns called as people do."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_core import conversations, texts
from zoo_core.errors import BadManifest, BadOption, BadText, near
from zoo_core.files import parse_json
from zoo_core.members import keep
from zoo_core.places import expanded
from zoo_core.types import Split

SIDES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What folders, shards and cells call a side."""

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")

_GUESSES = {
    "path": ("image", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img"),
    "text": ("sentence", "content", "document", "body", "message", "review", "question", "utterance"),
    "messages": ("conversation", "conversations", "chat", "dialogue", "turns"),
    "label": ("class", "target", "category", "class_name", "label_name", "labels"),
    "split": (),
    "group": (),
}
"""Names taken for a column where the column itself is not there."""

_MAX_LINE = 1 << 20  # characters of one JSON line


@dataclass(frozen=True)
class Row:
    """One labelled file before it was looked at.

    Attributes:
        path: where it lies.
        label: its class.
        split: the side the user chose; None is for us to choose.
        group: what must stay on one side; empty for none.
        origin: where it came from, if `path` is a copy out of a shard.
    """

    path: str
    label: str
    split: Split | None = None
    group: str = ""
    origin: str = ""


@dataclass
class Listing:
    """What a source names: rows, counts of what was passed over, sentences for the user, the labels' column."""

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label_column: str = ""

    def skip(self, what: str) -> None:
        """Count one thing that was passed over."""
        self.skipped[what] = self.skipped.get(what, 0) + 1

    def note(self, sentences: Sequence[str]) -> None:
        """Add sentences that were not said yet."""
        self.notes += [s for s in sentences if s not in self.notes]


def read_manifest(path: Path, columns: str | None, column: str = "path") -> Listing:
    """Read a table; paths in it are relative to its own folder.

    Args:
        path: `.tsv` is split at tabs, `.jsonl` and `.ndjson` hold one JSON object a line, all else is a CSV.
        columns: `path=file,label=class`, or None to take `path` and `label` or to guess.
        column: `path`, or `text` or `messages` where the rows hold the examples themselves.

    Raises:
        BadManifest: without the columns, or with a row that cannot be used.
    """
    return _read(path, columns, ("messages",) if column == "messages" else (column, "label"))


def read_conversations(path: Path) -> list[Row]:
    """Conversations that wait for an answer, or texts that are each a message of the user's; each a file in the cache.

    Raises:
        BadManifest: it has no column of either.
    """
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    header = {name.lower() for name in next(_json_lines(path))[1]} if lines else set()
    if header & {"messages", *_GUESSES["messages"]}:
        return _read(path, None, ("messages",), to_train_on=False).rows
    return read_texts(path)


def read_texts(path: Path) -> list[Row]:
    """The texts of a table, whatever else it holds, each a file in the cache.

    Raises:
        BadManifest: it has no column of texts.
    """
    return _read(path, None, ("text",)).rows


def _read(path: Path, columns: str | None, needed: Sequence[str], to_train_on: bool = True) -> Listing:
    records = _json_lines(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _cells(path)
    listing = Listing()
    try:
        header = next(records)[1]
        names, notes = choose_columns(list(header), parse_columns(columns), str(path), needed)
        listing.note(notes)
        listing.label_column = names.get("label", "")
        for where, record in records:
            row = {noun: record.get(name) for noun, name in names.items()}
            if several(listing.label_column):
                row["labels"] = row.pop("label")
            if "messages" in needed:
                listing.rows.append(_chat_row(where, path.parent, row, to_train_on))
            elif "text" in needed:
                listing.rows.append(_text_row(where, path.parent, row, "label" in needed))
            else:
                listing.rows.append(make_row(where, path.parent, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadManifest(
            f"{path} cannot be read as a UTF-8 table: {error}. Expected a CSV, TSV, JSONL or Parquet file."
        ) from error
    return listing


def parse_columns(text: str | None) -> dict[str, str]:
    """`path=file,label=class` as a dict.

    Raises:
        BadOption: it is written otherwise, or names a column that we do not read.
    """
    asked: dict[str, str] = {}
    for part in (text or "").split(",") if text else []:
        noun, equals, name = (piece.strip() for piece in part.partition("="))
        if noun not in _GUESSES or not equals or not name:
            raise BadOption(
                f"columns: got {part!r}, expected {'|'.join(_GUESSES)}=NAME, such as path=file,label=class."
            )
        asked[noun] = name
    return asked


def choose_columns(
    found: Sequence[str], asked: Mapping[str, str], where: str, needed: Sequence[str] = ("path", "label")
) -> tuple[dict[str, str], list[str]]:
    """Which column is the path, the label, the split and the group; and a sentence where that was guessed.

    Args:
        found: the table's columns.
        asked: what the user named.

    Raises:
        BadManifest: a needed column is missing, or two could be it.
    """
    plain = [name.strip().lower() for name in found]
    chosen: dict[str, str] = {}
    guessed = []
    unwanted = {"path", "text", "messages"} - {*needed} | ({"label"} if "messages" in needed else set())
    for noun, guesses in _GUESSES.items():
        if noun in unwanted:
            continue
        if noun in asked:
            wanted = [asked[noun].lower()]
            if wanted[0] not in plain:
                hint = near(asked[noun], found)
                raise BadManifest(f"{where} has no column {asked[noun]!r}, but {_list(found)}. {hint}".rstrip())
        else:
            wanted = [noun] if noun in plain else [name for name in guesses if name in plain]
        places = [i for i, name in enumerate(plain) if name in wanted]
        if len(places) > 1:
            names = " and ".join(found[i] for i in places)
            raise BadManifest(f"{where}: {names} could be the {noun}. Say which: --columns {noun}={found[places[0]]}")
        if places:
            chosen[noun] = found[places[0]]
            if noun not in asked and plain[places[0]] != noun:
                guessed.append(f"{noun} is {found[places[0]]!r}")
        elif noun in needed:
            hint, rest = near(noun, found), [name for name in needed if name == "label"]
            hint = "Conversations are for --head causal-lm." if "messages" in plain else hint
            raise BadManifest(
                f"{where} has the columns {_list(found)}; expected {','.join([needed[0], *rest])}[,split][,group], "
                f"or name yours: --columns {','.join(f'{name}=NAME' for name in [needed[0], *rest])}. {hint}".rstrip()
            )
    return chosen, [f"columns guessed: {', '.join(guessed)}"] if guessed else []


def make_row(where: str, folder: Path, record: Mapping[str, Any], origin: str = "") -> Row:
    """A row from its cells.

    Args:
        where: the file and line, for errors.
        folder: what a relative path is relative to.
        record: `path` and `label`, and perhaps `split` and `group`; or `labels`, any number of them.

    Raises:
        BadManifest: path or label is missing, or the split is called otherwise.
    """
    file, label, side, group = (_text(where, noun, record.get(noun)) for noun in ("path", "label", "split", "group"))
    if "labels" in record:
        given = record["labels"]
        listed = given if isinstance(given, list) else [given]
        label = "|".join(_text(where, "label", name) for name in listed)
    if not file or not (label or "labels" in record):
        raise BadManifest(f"{where}: path {file!r} and label {label!r}; expected both.")
    if side and side.lower() not in SIDES:
        raise BadManifest(f"{where}: split {side!r}; expected train, val, test or nothing.")
    whole = expanded(file)
    return Row(str(whole if whole.is_absolute() else folder / whole), label, SIDES.get(side.lower()), group, origin)


def several(column: str) -> bool:
    """Whether a column may hold any number of labels, none among them: it is called so."""
    return column.lower() == "labels"


def _text_row(where: str, folder: Path, record: Mapping[str, Any], labelled: bool) -> Row:
    """A row whose text is in the table: it becomes a file of its own, named by what it holds."""
    text = texts.plain(_text(where, "text", record.get("text")))
    if not text:
        raise BadManifest(f"{where}: the text is empty; expected one text a row.")
    kept = {**record, "path": str(keep(text.encode(), ".txt"))}
    return make_row(where, folder, kept if labelled else kept | {"label": "-"}, where)


def _chat_row(where: str, folder: Path, record: Mapping[str, Any], to_train_on: bool) -> Row:
    """A row whose conversation is in the table, as a file of its own."""
    read = conversations.to_train_on if to_train_on else conversations.checked
    try:
        kept = keep(conversations.written(read(record.get("messages"))), ".json")
    except BadText as error:
        raise BadManifest(f"{where}: {error}.") from error
    return make_row(where, folder, {**record, "path": str(kept), "labels": []}, where)


def _cells(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The header, then every line, as (where, cells by column)."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
        header = [name.strip() for name in reader.fieldnames or []]
        count = Counter(name.lower() for name in header)
        for name in (name for name in _GUESSES if count[name] > 1):
            raise BadManifest(f"{path} has the column {name} twice; expected once.")
        reader.fieldnames = header
        yield str(path), dict.fromkeys(header)
        for record in reader:
            yield f"{path}, line {reader.line_num}", record


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All keys, then every object, as (where, object)."""
    found: list[tuple[str, dict[str, Any]]] = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), ""), 1):
            where = f"{path}, line {number}"
            if len(line) > _MAX_LINE:
                raise BadManifest(f"{where} is over {_MAX_LINE} characters; expected one small JSON object a line.")
            if not line.strip():
                continue
            record = parse_json(line, where)
            if not isinstance(record, dict):
                raise BadManifest(f'{where} is {type(record).__name__}; expected an object like {{"path": ...}}.')
            found.append((where, record))
    yield str(path), dict.fromkeys(key for _, record in found for key in record)
    yield from found


def _text(where: str, noun: str, value: Any) -> str:
    """A cell as text; 3.0 is 3, since tables of whole numbers with gaps come as floats."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise BadManifest(f"{where}: the {noun} is {type(value).__name__}; expected one text or number.")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadManifest(f"{where}: the {noun} {text!r} holds half a character; expected UTF-8 text.") from error
    return text


def _list(names: Sequence[str]) -> str:
    """Names of columns, not too many."""
    shown = ", ".join(names[:12])
    return f"{shown}, ... ({len(names)})" if len(names) > 12 else shown or "none"
