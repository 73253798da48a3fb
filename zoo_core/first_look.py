"""One decode for two purposes: images that are looked at for the first time pass the frozen stages at once.

The scan needs an image's pixels for its digest, the store needs them for the frozen pass. Apart they would decode each
image twice. Together they leave the same notes and the same rows, to the bit, so that whatever comes later finds them
as if they had been there before: the split and the plan are made afterwards, since the pass needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from zoo_core import activations, decoding, images, keeping, likeness
from zoo_core.activations import Numbers, Views
from zoo_core.backbone import Backbone, Value
from zoo_core.clock import Clock
from zoo_core.console import Console
from zoo_core.errors import BadExample
from zoo_core.readers import Pixels, Raw
from zoo_core.reading import map_examples
from zoo_core.recipe import Recipe
from zoo_core.shelves import Row
from zoo_core.types import Task


class FirstLook:
    """Looks at images for `data.scan`, and stores what the frozen stages give for them.

    Args:
        load: the backbone, on its device; called when there is something new to look at.
        cut_of: depth of the cut, and passes over it, for a task as far as labels and counts tell it. Raises what a
            run would raise, before anything is computed.

    Attributes:
        computed: digests of the contents that passed.
        depth: of the cut.
        measured: what `keeping.measure` found for it, where it had to be measured.
    """

    def __init__(
        self,
        recipe: Recipe,
        load: Callable[[], Backbone],
        cut_of: Callable[[Task], tuple[int, int]],
        console: Console,
        clock: Clock,
    ):
        self.recipe, self.load, self.cut_of = recipe, load, cut_of
        self.console, self.clock = console, clock
        self.computed: set[str] = set()
        self.task: Task | None = None
        self.depth: int | None = None
        self.measured: tuple[Mapping[str, int], Mapping[str, float]] | None = None

    def begin(self, task: Task) -> None:
        """Take the task before anything was read: contents are named by their files, and split so."""
        self.task = task

    def __call__(self, paths: Sequence[str], found: dict[str, tuple[str, str]]) -> None:
        """Put content digest and look of each readable file into `found`.

        What cannot be read is passed over; with `--on-bad-image fail` it is the end.
        """
        reader = self.load().reader
        if self.task is None or not isinstance(reader, Pixels):
            return
        depth, passes = self.cut_of(self.task)
        with self.clock.within("prefix"):
            self._pass(self.load(), reader, depth, passes, paths, found)

    def _pass(
        self,
        body: Backbone,
        reader: Pixels,
        depth: int,
        passes: int,
        paths: Sequence[str],
        found: dict[str, tuple[str, str]],
    ) -> None:
        """Decode, look, run the stages, keep; batch by batch."""
        numbers, (mode, folder) = Numbers.of(self.recipe), keeping.where(self.recipe.cache)
        body.freeze(len(body.stages))
        self.depth = depth
        some = {str(i): path for i, path in enumerate(paths)}
        if depth < len(body.stages):
            self.measured = keeping.measure(body, depth, some, folder, numbers, Views())
        cap = int(self.recipe.cache_cap * 1e9)
        choice = keeping.choose(mode, body, depth, some, folder, passes, cap, numbers, Views(), self.measured)
        pooled, shelf = activations.shelves_of(body, depth, folder, choice.mode, numbers, Views())

        def read(path: str) -> Tensor:
            image = decoding.decode(path)
            found[path] = decoding.content_digest(image), likeness.look(image)
            return images.pixels(image, reader.spec)

        filler = activations.Filler(body, depth, shelf, pooled, numbers, read, self.console)
        failed: dict[str, str] | None = None if self.recipe.on_bad_image == "fail" else {}

        def whole(names: Sequence[str], raw: Raw, x: Value) -> tuple[list[Row], list[int]]:
            return filler.whole([found[name][0] for name in names], raw, x)

        def fresh() -> Iterator[tuple[list[Row], list[int]]]:
            for rows, widths in map_examples(whole, paths, read, reader, filler.device, failed):
                new = {r.name: r for r in rows if r.name not in self.computed and not filler.has(r.name)}
                self.computed.update(new)
                advance(len(rows) - len(new))
                yield list(new.values()), widths

        try:
            with self.console.track("Frozen pass", len(paths)) as advance:
                filler.publish(fresh(), advance)
        except BadExample:
            return  # the scan says which, and how many
