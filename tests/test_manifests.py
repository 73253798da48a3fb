"""Tables of images and labels, with columns called as people call them."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zoo_core import data
from zoo_core.errors import BadJson, BadManifest, BadOption, ZooError
from zoo_core.manifests import choose_columns, parse_columns, read_manifest


@pytest.mark.parametrize(
    ("name", "line"),
    [("t.csv", "{0},{1}"), ("t.tsv", "{0}\t{1}"), ("t.jsonl", '{{"path": "{0}", "label": "{1}"}}')],
)
def test_one_table_in_three_forms(photos, name, line):
    """CSV, TSV and JSON lines with the same rows give the same task."""
    pairs = [(f"{c}/{i:02d}.png", c) for c in ("red", "blue") for i in range(8)]
    header = [] if name.endswith("jsonl") else [line.format("path", "label")]
    (photos / name).write_text("\n".join([*header, *(line.format(*pair) for pair in pairs)]) + "\n")
    task = data.scan(photos / name)
    assert task.classes == ("blue", "red")
    assert len(task.examples) == 16
    assert task.notes == ()
    (photos / "other.csv").write_text("path,label\n" + "\n".join(map(",".join, pairs)))
    assert data.task_digest(task) == data.task_digest(data.scan(photos / "other.csv"))


def test_a_comma_in_a_tab_separated_name(tmp_path):
    """A TSV is split at tabs alone."""
    (tmp_path / "t.tsv").write_text("path\tlabel\na,b.png\tx\n")
    assert read_manifest(tmp_path / "t.tsv", None).rows[0].path == str(tmp_path / "a,b.png")


def test_json_lines(tmp_path):
    """JSON lines: empty lines are passed over, whole numbers are labels, a split may come in later lines only."""
    lines = ['{"image": "a.png", "class": 3}', "", '{"image": "b.png", "class": 4.0, "split": "test"}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = read_manifest(tmp_path / "t.jsonl", None)
    assert [(row.label, row.split) for row in found.rows] == [("3", None), ("4", "test")]
    assert found.notes == ["columns guessed: path is 'image', label is 'class'"]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('["a.png", "x"]', BadManifest, "line 1 is list; expected an object"),
        ('{"path": "a.png", "label": ["x", "y"]}', BadManifest, "the label is list; expected one text or number"),
        ('{"path": null, "label": "x"}', BadManifest, "line 1: path '' and label 'x'; expected both"),
        ('{"path": "a.png", "label": "x", "label": "y"}', BadJson, "the key 'label' twice"),
        ('{"path": "a.png", "label": NaN}', BadJson, "contains NaN"),
        ('{"path": "a.png", "label": "\\ud800"}', BadJson, "half of a surrogate pair"),
        ("[" * 100_000, BadJson, "line 1 is not valid JSON"),
        ('{"path": "' + "a" * (1 << 20) + '", "label": "x"}', BadManifest, "line 1 is over 1048576 characters"),
        ("", BadManifest, "has the columns none; expected path,label"),
    ],
)
def test_bad_json_lines(tmp_path, line, error, message):
    """A line that is no small, strict JSON object with a path and a label is an error that names the line."""
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(error, match=message):
        read_manifest(tmp_path / "t.jsonl", None)


@pytest.mark.parametrize("path", ["image", "file", "filename", "file_name", "filepath", "image_path", "FileName"])
@pytest.mark.parametrize("label", ["class", "target", "category", " Class "])
def test_guessed_columns(photos, path, label):
    """Columns under near names are taken, and that is said in the task's notes."""
    rows = "\n".join(f"{c}/{i:02d}.png,{c}" for c in ("red", "blue") for i in range(4))
    (photos / "t.csv").write_text(f"{path},{label}\n{rows}\n")
    assert data.scan(photos / "t.csv").notes == (f"columns guessed: path is {path!r}, label is {label.strip()!r}",)


def test_named_columns(photos):
    """Columns that the user names are taken without a guess, whatever else the table has."""
    rows = "\n".join(f"{i},{c}/{i:02d}.png,{c},x,{c}{i // 2}" for c in ("red", "blue") for i in range(8))
    (photos / "t.csv").write_text(f"path,where,What,label,module\n{rows}\n")
    task = data.scan(photos / "t.csv", columns="path=where,label=what,group=module")
    assert task.classes == ("blue", "red")
    assert {e.group for e in task.examples} == {f"{c}{i}" for c in ("red", "blue") for i in range(4)}
    assert not [note for note in task.notes if "guessed" in note]


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        (["file", "image", "label"], None, "file and image could be the path. Say which: --columns path=file"),
        (["path", "class", "target"], None, "class and target could be the label"),
        (["path", "label"], "label=clas", "has no column 'clas', but path, label"),
        (["path", "klass"], "label=class", "has no column 'class', but path, klass. Did you mean klass"),
        (["a", "b"], None, "has the columns a, b; expected path,label.*--columns path=NAME,label=NAME"),
        ([f"c{i}" for i in range(50)], None, r"c11, ... \(50\); expected"),
    ],
)
def test_columns_that_do_not_tell(columns, asked, message):
    """Where a column is missing, or two could be meant, the error says what to type."""
    with pytest.raises(BadManifest, match=message):
        choose_columns(columns, parse_columns(asked), "t.csv")


@pytest.mark.parametrize("text", ["path", "path=", "=x", "paths=x", "path=a,,label=b", ","])
def test_columns_that_cannot_be_read(text):
    """`--columns` is NOUN=NAME, with the nouns we read."""
    with pytest.raises(BadOption, match=r"expected path\|text\|messages\|label\|split\|group=NAME, such as path=file"):
        parse_columns(text)


def test_a_doubled_column(tmp_path):
    """A column that stands twice in a CSV is refused: which one is meant?"""
    (tmp_path / "t.csv").write_text("path,label,Label\na.png,x,y\n")
    with pytest.raises(BadManifest, match="the column label twice"):
        read_manifest(tmp_path / "t.csv", None)


def test_paths(tmp_path, monkeypatch):
    """Paths are relative to the table, absolute, or start at the user's home; nobody's home is no crash."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    paths = ["a.png", "../b.png", "/c.png", "~/d.png", "~nobody-of-that-name/e.png"]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"path": p, "label": "x"}) for p in paths))
    found = [row.path for row in read_manifest(tmp_path / "t.jsonl", None).rows]
    assert found[:4] == [str(tmp_path / "a.png"), str(tmp_path / "../b.png"), "/c.png", str(tmp_path / "me" / "d.png")]
    assert found[4].endswith("~nobody-of-that-name/e.png")


HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.lists(st.text(max_size=20), max_size=4), max_size=4).map(
        lambda rows: "\n".join(["path,label,split,group", *map(",".join, rows)]).encode("utf-8", "surrogatepass")
    ),
    st.dictionaries(st.sampled_from(["path", "label", "split"]), st.recursive(st.text(), st.lists)).map(
        lambda record: json.dumps(record).encode()
    ),
)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "tar", "parquet"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=HOSTILE)
@example(content=b'path,label\n"a,b\n')
@example(content=b"path,label\n" + b"a" * 200_000 + b",x\n")
@example(content=b'{"path": "a\\u0000.png", "label": "x"}')
def test_any_bytes(tmp_path, ending, content):
    """Whatever a table or shard holds, it is read, or refused by an error of ours that names it."""
    source = tmp_path / f"t.{ending}"
    source.write_bytes(content)
    try:
        seen = data.look_at(source)
    except ZooError as error:
        said = str(error)
    else:
        said = "".join(seen.bad) + str(tmp_path)
        assert seen.rows == ()
    assert str(tmp_path) in said
