"""A finished run as a backbone: the parent's frozen prefix and the run's tail in one weights file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zoo_core import lineage
from zoo_core.card import Card, Facet, Openness, Source
from zoo_core.errors import RunDamaged
from zoo_core.old_model import keep_head
from zoo_core.run_files import reading
from zoo_core.weight_store import keep_copy, store_folder

if TYPE_CHECKING:
    from zoo_core.plugins import Plugins
    from zoo_core.runs import Run


def card_of_run(run: Run, name: str, plugins: Plugins) -> Card:
    """Write the run's whole backbone into the store of weights, and describe it.

    What was written is loaded again and its digest compared with the run's, so that the new backbone
    can be fine-tuned like any other.

    Raises:
        RunDamaged: the run's files contradict one another, or its backbone does not come back from the file.
    """
    with reading(run.path):
        return _card(run, name, plugins)


def _card(run: Run, name: str, plugins: Plugins) -> Card:
    from zoo_core.tensors import write_object
    from zoo_core.weights import load_backbone, locate, tokenizer_of

    body = run._predictor.model.backbone  # the frozen stages are compared with the run's digest on the way
    tensors = {n: t.clone() for n, t in body.model.state_dict().items()}
    chat = run.target.kind == "next-token"
    if chat:  # the words go along with the language model, and so does the way it is spoken to
        head = run._predictor.model.head.state_dict()
        tensors |= {f"lm_head.{n}": t.clone() for n, t in head.items()}
    path = write_object(store_folder(), tensors, {"format": "pt"})
    sha = path.stem
    parent, summary = run.card, run.summary
    about = lineage.told(run) | {"recipe": summary["recipe"], "head": keep_head(run)}
    trained = ", ".join(summary["freeze"]["stages_trained"]) or "nothing but the head"
    before = f", after {parent.openness.data.name}" if parent.openness.data.name else ""
    card = replace(
        parent,
        name=name,
        sources=(Source(f"store:{sha}", sha, path.stat().st_size),),
        openness=Openness(parent.openness.code, Facet(), Facet(name=f"{summary['data']['path']}{before}")),
        paper="",
        notes=f"{parent.name} fine-tuned by the run {summary['run']}; trained: {trained}.",
        parent=parent.name,
        extra={"x-run": about} | ({"x-chat": run.plan["reader"]} if chat else {}),
    )
    tokenizer = tokenizer_of(parent) if parent.modality == "text" else None
    here = locate(tokenizer) if tokenizer else None
    if tokenizer and here and getattr(body.reader, "several_files", False):
        card = replace(card, text=replace(card.text, tokenizer=tokenizer.uri))  # it needs what lies beside it
    elif here:  # it lies beside the parent's weights, not beside the new ones
        card = replace(card, text=replace(card.text, tokenizer=f"store:{keep_copy(here).stem}"))
    again = load_backbone(card, plugins)
    if again.digest() != body.digest():
        raise RunDamaged(
            f"{run.path}: the backbone does not come back from its own file (sha256 {again.digest()}, "
            f"expected {body.digest()}). Nothing was registered; please report it."
        )
    return card
