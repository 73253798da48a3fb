"""What an audit found, as pictures: for a run's report, and as a page of its own. One file, no script, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_core import page_template
from zoo_core.errors import printable
from zoo_core.files import write_text
from zoo_core.gallery import thumbnail

SHOWN = 12  # pictures, or groups, of a kind


@dataclass(frozen=True)
class Found:
    """One thing to look at.

    Attributes:
        what: a sentence about it.
        files: name, path, label, side and picture of each file.
    """

    what: str
    files: list[dict[str, str]] = field(default_factory=list)


def sections(found: Mapping[str, Any], places: Mapping[str, str] | None = None) -> dict[str, tuple[int, list[Found]]]:
    """Heading -> how many there are, and the first of them with pictures; empty kinds are left out.

    Args:
        found: what `audit.audit` or a run's `audit.json` says; of texts there are no pictures.
        places: what people are shown -> where the file lies, if the two differ.
    """
    counts = found.get("how_many", {})
    groups = {
        "One picture under several labels": ("label_conflicts", _labels),
        "Copies (the same pixels)": ("duplicates", _sides),
        "Near copies": ("near_duplicates", _sides),
        "Alike to the backbone": ("alike", lambda group: _far(group) + ", ".join(("", *group["across"]))),
        "Labels to look at": (
            "doubtful_labels",
            lambda row: f"neighbours say {row['neighbours']} ({row['share']:.0%})",
        ),
        "Unlike all others": ("outliers", lambda row: f"{row['distance'] / max(row['usual'], 1e-9):.1f} times as far"),
    }
    made = {}
    for heading, (key, sentence) in groups.items():
        rows = found.get(key) or []
        if rows:
            made[heading] = (
                counts.get(key, len(rows)),
                [Found(sentence(row), _files(row, places or {})) for row in rows[:SHOWN]],
            )
    return made


def write(found: Mapping[str, Any], out: Path, places: Mapping[str, str]) -> None:
    """Publish the page of an audit."""
    text = page_template.of("audit.html").render(a=found, sections=sections(found, places))
    write_text(out, "\n".join(map(printable, text.split("\n"))))


def _files(row: Any, places: Mapping[str, str]) -> list[dict[str, str]]:
    files: Sequence[Mapping[str, str]] = row if isinstance(row, list) else row.get("files", [row])
    return [
        {
            "name": Path(file["path"]).name,
            "path": file["path"],
            "label": file["label"] or "none",
            "split": file["split"],
            "picture": thumbnail(places.get(file["path"], file["path"]), file["digest"]),
        }
        for file in files[:SHOWN]
    ]


def _labels(group: Sequence[Mapping[str, str]]) -> str:
    return "labelled " + " and ".join(sorted({file["label"] for file in group}))


def _sides(group: Sequence[Mapping[str, str]]) -> str:
    sides = sorted({file["split"] for file in group})
    return f"{len(group)} files, " + (f"on {len(sides)} sides: {', '.join(sides)}" if len(sides) > 1 else "on one side")


def _far(row: Mapping[str, Any]) -> str:
    return f"cosine {1 - row['distance']:.4f}"
