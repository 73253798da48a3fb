"""Data regimes of the core: which examples enter each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class NewOnly:
    """Case 1, a new task: only new data; the old task may be forgotten."""

    needs_old: ClassVar[bool] = False

    def batches(self, n_new: int, n_old: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        import numpy as np

        order = rng.permutation(n_new)
        # nearly equal batches: a last batch of one example would break batch norm
        return list(np.array_split(order, max(1, -(-n_new // batch_size))))
