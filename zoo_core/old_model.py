"""The old model: a head on the backbone's published features, whose answers on the old task are to be kept.

It is the head of the run that the backbone was registered from, the classifier that came with the weights, or,
where there is neither, a linear probe fitted to the old data: the best that the published features give for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo_core import components, solvers, targets
from zoo_core.backbone import Backbone
from zoo_core.card import Source
from zoo_core.heads import Linear, fill
from zoo_core.objective import Objective
from zoo_core.tensors import write_object
from zoo_core.types import Task
from zoo_core.weight_store import store_folder, stored

if TYPE_CHECKING:
    from zoo_core.plugins import Plugins
    from zoo_core.runs import Run
    from zoo_core.trainer import Kept


@dataclass(frozen=True)
class OldModel:
    """A head that answers for the old task.

    Attributes:
        head: from features, as it reads them, to outputs.
        builder: its builder.
        classes: names of its outputs.
        origin: where it comes from, in words.
        names: every name that an output is known by -> its index; `classes` are among them.
    """

    head: nn.Module
    builder: Any
    classes: tuple[str, ...]
    origin: str
    names: Mapping[str, int] = field(repr=False, default_factory=dict)

    def outputs(self, kept: Kept, names: Sequence[str]) -> Tensor:
        """Outputs [N, classes] for examples in the store."""
        features = kept.all_stages if getattr(self.builder, "reads_stages", False) else kept.features
        found: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(names), 1024):
                found.append(self.head(features(names[start : start + 1024])))
        return torch.cat(found).clone() if found else torch.empty(0, len(self.classes))

    @property
    def rows(self) -> tuple[Tensor, Tensor] | None:
        """Weight [classes, D] and bias [classes] where the head is one linear layer on the pooled features."""
        if not isinstance(self.head, nn.Linear) or getattr(self.builder, "reads_stages", False):
            return None
        bias = self.head.bias if self.head.bias is not None else torch.zeros(self.head.out_features)
        return self.head.weight.detach(), bias.detach()


def known_model(body: Backbone, plugins: Plugins) -> OldModel | None:
    """What came with the weights: the head of the run they were registered from, else their classifier with names."""
    return _of_run(body, plugins) or _of_classifier(body)


def probe(features: Tensor, labels: Tensor, classes: Sequence[str]) -> OldModel:
    """Logistic regression on features [N, D] in the place of an old model that nobody has."""
    head = nn.Linear(features.shape[1], len(classes))
    fill(head, solvers.logistic(features, labels, len(classes)), "")
    return OldModel(head.eval(), Linear(), tuple(classes), "a linear probe on the old data's training side")


def keep_head(run: Run) -> dict[str, Any]:
    """Write a run's head into the store of weights; what a card has to say to find it again."""
    model = run._predictor.model
    path = write_object(store_folder(), {n: t.clone() for n, t in model.head.state_dict().items()})
    about = {"sha256": path.stem, "head": run.summary["head"], "target": targets.written(run.target)}
    return about | {"head_dim": run.plan["head_dim"]}


def _of_run(body: Backbone, plugins: Plugins) -> OldModel | None:
    from zoo_core.weights import read

    about = body.card.extra.get("x-run", {}).get("head")
    path = stored(about["sha256"]) if about else None
    if path is None:
        return None
    target = targets.read(about["target"])
    builder = Objective(components.build(plugins, "head", about["head"]), target)
    if target.kind != "single-label" or builder.reads_positions:
        return None
    head = builder.build(about["head_dim"], Task("", target.classes, ()))
    head.load_state_dict(read(path, Source(f"store:{about['sha256']}", about["sha256"])).tensors)
    names = {name: i for i, name in enumerate(target.classes)}
    return OldModel(head.eval(), builder, target.classes, f"the head {about['head']} of the run it comes from", names)


def _of_classifier(body: Backbone) -> OldModel | None:
    """One linear layer whose outputs have names; a 1x1 convolution is one, too."""
    weights = [
        t for n, t in body.classifier.items() if n.endswith("weight") and t.flatten(1).shape[1:] == (body.feature_dim,)
    ]
    if len(weights) != 1 or not body.labels:
        return None
    weight = weights[0].flatten(1)
    biases = [t for n, t in body.classifier.items() if n.endswith("bias") and t.shape == weight.shape[:1]]
    if set(body.labels.values()) != set(range(len(weight))):
        return None
    head = nn.Linear(body.feature_dim, len(weight))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(biases[0]) if biases else head.bias.zero_()
    first: dict[int, str] = {}
    for name, i in body.labels.items():
        first.setdefault(i, name)
    classes = tuple(first[i] for i in range(len(weight)))
    return OldModel(head.eval(), Linear(), classes, f"the classifier of {body.card.name}", body.labels)
