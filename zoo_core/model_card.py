"""The model card of an export: what it is, how good, made of what, under which licences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zoo_core.errors import printable
from zoo_core.report import baseline_name

if TYPE_CHECKING:
    from zoo_core.exporting import Compared
    from zoo_core.runs import Run


def text(run: Run, to: str, use: str, compared: Compared) -> str:
    """Markdown with the header that model hubs read (https://huggingface.co/docs/hub/model-cards)."""
    summary, card = run.summary, run.card
    figures = [[name, *_cells(run, scores)] for name, scores in _scored(run).items()]
    facets = {"code": card.openness.code, "weights": card.openness.weights, "training data": card.openness.data}
    lines = [
        *_header(run),
        f"# {_plain(summary['run'])}",
        "",
        f"{card.name}, fine-tuned on {summary['data']['n_train']} {run.modality.plural} by zoo "
        f"({_plain(summary['freeze']['requested'])}, head {_plain(summary['head'])}). "
        f"{_plain(summary['freeze']['reason'])}",
        "",
        "## Use",
        "",
        "```python",
        use,
        "```",
        "",
        _prepared(run),
        "",
        "## How good it is",
        "",
        f"On {summary['data']['n_test']} test {run.modality.plural}, looked at once; 95 % intervals in brackets.",
        "",
        *_table(["", *run.target.figures.values()], figures),
        "",
        f"Compared with the run before this was called done: {compared.samples} stored samples differ by "
        f"{compared.worst:.1g} at most; of {compared.test} test {run.modality.plural} {compared.same} have the same "
        "answer.",
        "",
        "## Data",
        "",
        f"`{_plain(summary['data']['path'])}`, sha256 over its content `{summary['data']['digest']}`. "
        "Its licence is not known to zoo.",
        "",
        *(_table(["class", "train", "validation", "test"], _counts(run)) if run.classes else []),
        "",
        "## Made of",
        "",
        *_table(
            ["", "openness", "licence", "name"],
            [[k, f.mark, f.licence or "unknown", f.name] for k, f in facets.items()],
        ),
        "",
        f"Lineage: {' <- '.join(filter(None, (_plain(summary['run']), card.name, card.parent)))}. "
        f"Weights: {_plain(summary['weights'])}. Recipe sha256 `{summary['recipe']}`.",
    ]
    return "\n".join(lines) + "\n"


def _prepared(run: Run) -> str:
    """How an example becomes an input, in words."""
    spec = run.card.input
    if run.modality.name == "chat":
        return (
            "The chat template lies beside the tokenizer; `tokenizer.apply_chat_template` writes what the model reads."
        )
    return (
        f"Labels are in `labels.json`, in the order of the answers. Images are prepared as `preprocessing.json` says: "
        f"{spec.size[1]} x {spec.size[2]} pixels, {spec.interpolation}, crop {spec.crop:g} ({spec.crop_mode})."
    )


def _header(run: Run) -> list[str]:
    """YAML; what stands in quotes is JSON, which YAML reads."""
    licence = run.card.openness.weights.licence
    tasks = {"regression": "image-feature-extraction", "next-token": "text-generation"}
    task = tasks.get(run.target.kind, "image-classification")
    return [
        "---",
        f"license: {'other' if not licence else json.dumps(licence.lower())}",
        f"base_model: {json.dumps(run.card.name)}",
        f"pipeline_tag: {task}",
        'tags: ["zoo"]',
        "---",
        "",
    ]


def _scored(run: Run) -> dict[str, dict[str, Any]]:
    return {"this model": run.metrics} | {baseline_name(run, k): v for k, v in run.summary["baselines"].items()}


def _cells(run: Run, scores: dict[str, Any]) -> list[str]:
    intervals = scores["intervals"] | {"accuracy": scores.get("accuracy_ci")}
    found = []
    for key in run.target.figures:
        value, interval = scores[key], intervals.get(key)
        within = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        found.append(f"{value:.3f}{within}" if value is not None else "-")
    return found


def _counts(run: Run) -> list[list[str]]:
    counts = run.summary["data"]["counts"]
    return [[name, *(str(counts[side][name]) for side in ("train", "val", "test"))] for name in run.classes]


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(map(_plain, row)) + " |" for row in (heading, ["---"] * len(heading), *rows)]


def _plain(text: str) -> str:
    """Text of the user's inside Markdown: no markup, no HTML, no new line, no new column."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#&" else c for c in printable(str(text)))
    return escaped if text != "---" else "---"
