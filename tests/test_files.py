"""Strict JSON and publishing in one step."""

from __future__ import annotations

import hashlib
import json

import pytest

from zoo_core import files
from zoo_core.errors import BadJson


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": NaN}', "contains NaN; expected finite numbers"),
        ('{"a": -Infinity}', "contains -Infinity; expected finite"),
        ('{"a": 1e999}', "contains 1e999; expected finite"),
        ("[" * 100_000, "x.json is not valid JSON"),
        ("{", "x.json is not valid JSON"),
        ("", "x.json is not valid JSON"),
    ],
)
def test_strict_json(tmp_path, text, message):
    """A JSON file with duplicate keys, numbers that are not finite or endless nesting is refused, and named."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BadJson, match=message):
        files.read_json(path)


def test_json_size_is_bounded(tmp_path):
    """A JSON file over 64 MiB is refused before it is read."""
    path = tmp_path / "big.json"
    with open(path, "wb") as file:
        file.truncate(files.MAX_JSON_BYTES + 1)
    with pytest.raises(BadJson, match=r"big\.json cannot be read as JSON: it is larger than 64 MiB"):
        files.read_json(path)


def test_unreadable_json(tmp_path):
    """A missing file and a file that is not UTF-8 give the same kind of error."""
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    for name in ("missing.json", "latin.json"):
        with pytest.raises(BadJson, match=f"{name} cannot be read as JSON"):
            files.read_json(tmp_path / name)


def test_json_round_trip(tmp_path):
    """What is written reads back, with sorted keys and a final newline."""
    value = {"b": [1, 2.5, "é"], "a": None}
    files.write_json(tmp_path / "new" / "x.json", value)
    assert files.read_json(tmp_path / "new" / "x.json") == value
    text = (tmp_path / "new" / "x.json").read_text()
    assert text == json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """A write that fails half-way leaves the old file as it was and nothing beside it."""
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def write_half():
        with files.publishing(path) as temp:
            temp.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_objects_are_named_by_their_content(tmp_path):
    """A published object carries the sha256 of its bytes in its name; the same bytes give one file."""
    first = files.publish_object(tmp_path, "a-", ".bin", lambda temp: temp.write_bytes(b"zoo"))
    again = files.publish_object(tmp_path, "a-", ".bin", lambda temp: temp.write_bytes(b"zoo"))
    assert first == again == tmp_path / f"a-{hashlib.sha256(b'zoo').hexdigest()}.bin"
    assert files.sha256_file(first) == first.stem.removeprefix("a-")
    assert list(tmp_path.iterdir()) == [first]
