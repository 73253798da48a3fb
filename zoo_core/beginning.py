"""What a head begins with before it is trained: the same for every fold and seed, computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from zoo_core.backbone import Backbone
    from zoo_core.objective import Objective
    from zoo_core.types import Task


class Beginning:
    """Fills new heads as their builder's `begin` does; builders without one leave them to chance.

    Attributes:
        note: how, in words; empty for chance.
    """

    def __init__(self, builder: Objective, body: Backbone, task: Task):
        self.builder, self.body, self.task = builder, body, task
        self.note = ""
        self._state: dict[str, Tensor] = {}

    def __call__(self, head: nn.Module) -> None:
        if not self.builder.begins:
            return
        if not self._state:
            self.note = self.builder.begin(head, self.body, self.task)
            self._state = {name: t.detach().clone() for name, t in head.state_dict().items()}
        head.load_state_dict(self._state)
