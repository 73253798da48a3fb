"""The audit inside a run: what the files, the frozen backbone and the user's own split say about the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo_core import audit, doubts

if TYPE_CHECKING:
    import numpy as np

    from zoo_core.activations import Activations
    from zoo_core.backbone import Backbone
    from zoo_core.console import Console
    from zoo_core.targets import Target
    from zoo_core.types import Task

_FILES = ("odd", "duplicates", "near_duplicates", "label_conflicts", "groups", "suspicious")


def looked_at(task: Task, acts: Activations, body: Backbone, answers: np.ndarray, target: Target) -> dict[str, Any]:
    """What goes into a run's `audit.json`.

    Args:
        acts: pooled features of every example.
        answers: of the run for the test side [N, outputs].

    Returns:
        What `audit.of_task` says of images; what `doubts.doubts` says, where the weights are pretrained; `leaks`.
    """
    if task.kind == "next-token":  # conversations have neither a label nor one row of features
        return {"leaks": None}
    files = audit.of_task(task) if body.card.modality == "image" else {}
    found = {name: files[name] for name in _FILES if name in files}
    if body.pretrained:  # random features have no opinion
        found |= doubts.doubts(task, acts.features([e.digest for e in task.examples]))
    return found | {"leaks": doubts.leaks(task, target, answers)}


def judge_of(body: Backbone, console: Console) -> Callable[[Task], Mapping[str, Any]]:
    """For `audit.audit`: what a backbone says, from pooled features that are kept in the cache like a run's."""

    def judge(task: Task) -> Mapping[str, Any]:
        from zoo_core import activations
        from zoo_core.places import cache_folder

        body.freeze(len(body.stages))
        paths = {e.digest: e.path for e in task.examples}
        acts = activations.at(body, len(body.stages), paths, cache_folder(), console)
        return doubts.doubts(task, acts.features([e.digest for e in task.examples]))

    return judge
