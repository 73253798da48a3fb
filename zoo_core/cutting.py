"""Cut a traced graph between levels, and write each level's part as a module of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from zoo_core.crossing import (
    Constant,
    Number,
    Place,
    Stays,
    Travels,
    at,
    check_size,
    enter,
    item,
    kind_of,
    leave,
    leaves,
    memory_order,
    scaled,
)
from zoo_core.errors import NotAChain


def stage_modules(cutter: Cutter) -> dict[int, nn.Module]:
    """One graph module for each level."""
    carried = cutter.crossing()
    levels = list(cutter.work)
    writers = [_Writer(cutter, level, carried[level]) for level in levels]
    for writer, following in zip(writers, levels[1:], strict=False):
        writer.leave(carried[following])
    writers[-1].finish()
    if any(writer.sizes_frozen for writer in writers):
        writers[0].check_size(tuple(cutter.pair[0].shape[1:]))
    return {i: fx.GraphModule(cutter.model, w.graph, "Stage") for i, w in zip(levels, writers, strict=True)}


class Cutter:
    """Knows of every traced node its level and how its value may cross a cut.

    Attributes:
        data: nodes that depend on the input's values, not only on its sizes.
        work: level -> the data nodes computed there, in order.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        owners: Mapping[int, tuple[str, int]],
        pair: tuple[Tensor, Tensor],
    ):
        self.model, self.graph, self.pair = model, graph, pair
        self.held = {node: _held(model, node, owners) for node in graph.nodes}
        small, self.values = (values_of(model, graph, batch) for batch in pair)
        self.alone = self._in_mode(False, pair[1][:1])  # batch norm cannot train on one example
        self.other: dict[fx.Node, Any] = {}
        self.input = next(node for node in graph.nodes if node.op == "placeholder")
        self.output = next(node for node in graph.nodes if node.op == "output")
        self.kinds = {n: kind_of(n, small[n], self.values[n]) for n in graph.nodes if n is not self.output}
        self.data = {self.input}
        self.level: dict[fx.Node, int] = {}
        for node in graph.nodes:
            self.level[node] = max(
                [*self.held[node].values(), *(self.level[n] for n in node.all_input_nodes)], default=-1
            )
            if any(n in self.data and not self.is_size(n) for n in node.all_input_nodes):
                self.data.add(node)
        work = [n for n in graph.nodes if n in self.data - {self.input, self.output} and not self.is_size(n)]
        lowest = min((self.level[n] for n in work if self.level[n] >= 0), default=0)
        self.level.update({n: lowest for n in work if self.level[n] < 0})  # before any parameter: the first stage
        self.work = {i: [n for n in work if self.level[n] == i] for i in sorted({self.level[n] for n in work})}

    def is_size(self, node: fx.Node) -> bool:
        """Whether the value holds no tensor and follows from the sizes of the input alone."""
        return all(isinstance(kind, Number | Constant) for _, kind in leaves(self.kinds[node]))

    def crossing(self) -> dict[int, list[fx.Node]]:
        """For each level the nodes that cross the cut before it, in the order they were made."""
        position = {node: i for i, node in enumerate(self.graph.nodes)}
        carried: dict[int, list[fx.Node]] = {}
        wanted = set(self.output.all_input_nodes)
        for level in reversed(self.work):
            mine = set(self.work[level])
            wanted |= {arg for node in mine for arg in node.all_input_nodes}
            needed = {n for node in wanted - mine for n in self._needs(node)}
            wanted = needed
            carried[level] = sorted(needed, key=position.__getitem__)
        return carried

    def _needs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that must cross a cut so that `node`, made before it, is there after it."""
        if node not in self.data or self.is_size(node):
            return []
        kinds = [kind for _, kind in leaves(self.kinds[node])]
        if any(isinstance(kind, Travels) for kind in kinds) and not any(isinstance(kind, Stays) for kind in kinds):
            return [node]
        if self.held[node] or node is self.input:
            raise NotAChain(
                f"{node.name} gives a value of shape {_shape(self.values[node])} that later stages use, but no axis "
                "of it is the batch; expected [B, ...]. Stages before and after it must be one."
            )
        return [n for arg in node.all_input_nodes for n in self._needs(arg)]

    def slots(self, nodes: Sequence[fx.Node]) -> list[list[Place]]:
        """The tensors that cross a cut; places that hold the same tensor share a slot."""
        found: list[list[Place]] = []
        for node in nodes:
            for path, kind in leaves(self.kinds[node]):
                if isinstance(kind, Travels):
                    same = next((slot for slot in found if self._twins(slot[0], (node, path))), None)
                    found.append([(node, path)]) if same is None else same.append((node, path))
        return found

    def _twins(self, a: Place, b: Place) -> bool:
        """Whether two places hold one tensor, in training mode too (where dropout is no identity)."""
        if at(self.values, a) is not at(self.values, b):
            return False
        if not self.other:
            self.other = self._in_mode(not self.model.training, self.pair[0])
        return at(self.other, a) is at(self.other, b)

    def _in_mode(self, training: bool, batch: Tensor) -> dict[fx.Node, Any]:
        kept = self.model.training
        self.model.train(training)
        found = values_of(self.model, self.graph, batch)
        self.model.train(kept)
        return found

    def kind_at(self, place: Place) -> Travels:
        """How the tensor at `place` travels."""
        found: Travels = at(self.kinds, place)
        return found

    def first_use(self) -> dict[str, int]:
        """Level of the first stage that computes with each tensor, by tensor name."""
        found: dict[str, int] = {}
        names: dict[fx.Node, set[str]] = {}
        for node in self.graph.nodes:
            names[node] = set(self.held[node]).union(*(names[n] for n in node.all_input_nodes if n not in self.data))
            if node in self.data - {self.output}:
                found.update({n: min(found.get(n, self.level[node]), self.level[node]) for n in names[node]})
        return found


class _Writer:
    """Writes the graph of one stage, node by node."""

    def __init__(self, cutter: Cutter, level: int, entering: Sequence[fx.Node]):
        self.cutter, self.graph = cutter, fx.Graph()
        self.env: dict[fx.Node, Any] = {}
        self.sizes_frozen = False
        value = self.graph.placeholder("value")
        slots = cutter.slots(entering)
        self.parts = [self.graph.call_function(item, (value, i)) for i in range(len(slots))] if slots[1:] else [value]
        self.tensors: dict[Place, fx.Node] = {}
        for slot, part in zip(slots, self.parts, strict=True):
            kind = cutter.kind_at(slot[0])
            orders = (memory_order(at(cutter.alone, slot[0])), memory_order(at(cutter.values, slot[0])))
            first = slot[0][0] is cutter.input
            here = part if first else self.graph.call_function(enter, (part, kind.axis, kind.times, *orders))
            self.tensors.update(dict.fromkeys(slot, here))
        for node in entering:
            self.env[node] = self._rebuild(node, cutter.kinds[node], ())
        for node in cutter.work[level]:
            if node not in self.env:
                self._copy(node)

    def leave(self, nodes: Sequence[fx.Node]) -> None:
        """End the stage with what crosses the next cut."""
        slots = self.cutter.slots(nodes)
        out = []
        for slot in slots:
            kind = self.cutter.kind_at(slot[0])
            out.append(self.graph.call_function(leave, (self._place(slot[0]), kind.axis, kind.times)))
        self.graph.output(tuple(out) if out[1:] else out[0])

    def finish(self) -> None:
        """End the last stage with upstream's own output."""
        self.graph.output(fx.map_arg(self.cutter.output.args[0], self._get))

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuse inputs of another size at the start of the chain."""
        first = self.parts[0]
        with self.graph.inserting_after(first):
            self.graph.call_function(check_size, (first, shape))

    def _get(self, node: fx.Node) -> Any:
        if node not in self.env:
            if self.cutter.is_size(node) and not self._readable(node):
                self.env[node] = self._rebuild(node, self.cutter.kinds[node], ())
            else:
                self._copy(node)
        return self.env[node]

    def _readable(self, node: fx.Node) -> bool:
        """Whether a size can be read off a value that this stage has."""
        return node in self.env or (
            node.op != "placeholder"
            and (node not in self.cutter.data or self.cutter.is_size(node))
            and all(self._readable(n) for n in node.all_input_nodes)
        )

    def _copy(self, node: fx.Node) -> None:
        args = fx.map_arg(node.args, self._get)
        kwargs = fx.map_arg(node.kwargs, self._get)
        self.env[node] = self.graph.create_node(node.op, node.target, args, kwargs, node.name)

    def _place(self, place: Place) -> Any:
        found = self._get(place[0])
        for step in place[1]:
            found = self.graph.call_function(item, (found, step)) if isinstance(found, fx.Node) else found[step]
        return found

    def _rebuild(self, node: fx.Node, kind: Any, path: tuple[Any, ...]) -> Any:
        """The value of `node` from the tensors that entered, the batch size and constants."""
        if isinstance(kind, dict):
            return {key: self._rebuild(node, part, (*path, key)) for key, part in kind.items()}
        if isinstance(kind, tuple | list):
            return type(kind)(self._rebuild(node, part, (*path, i)) for i, part in enumerate(kind))
        if isinstance(kind, Travels):
            return self.tensors[node, path]
        if isinstance(kind, Number):
            self.sizes_frozen |= kind != Number(1, 0)
            arguments = (self.parts[0], kind.slope, kind.offset)
            return self.graph.call_function(scaled, arguments) if kind.slope else kind.offset
        self.sizes_frozen |= isinstance(kind.value, bool)
        return kind.value


class _Runner(fx.Interpreter):
    """Gives modules lists that they may write into, as the written graph does."""

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(_plain(a) for a in args), {k: _plain(v) for k, v in kwargs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return tuple(_plain(v) for v in value) if type(value) is tuple else value


def values_of(model: nn.Module, graph: fx.Graph, batch: Tensor) -> dict[fx.Node, Any]:
    """Every node's value for one batch; the model's buffers and the random state stay as they were."""
    runner = _Runner(model, garbage_collect_values=False, graph=graph)
    with undisturbed(model):
        runner.run(batch.clone())
    return {**dict.fromkeys(graph.nodes), **runner.env}


def tuples_of(model: nn.Module, batch: Tensor) -> dict[str, Any]:
    """Name -> output of the modules that return tuples or lists; the model stays as it was."""
    found: dict[str, Any] = {}

    def keep(name: str, output: Any) -> None:
        if isinstance(output, tuple | list):
            found[name] = output

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, module in model.named_modules()
    ]
    with undisturbed(model):
        model(batch.clone())
    for hook in hooks:
        hook.remove()
    return found


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Afterwards the model's buffers and the random state are as they were."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        yield
    for name, buffer in model.named_buffers():
        buffer.copy_(kept[name])


def tensor_names(model: nn.Module) -> dict[int, str]:
    return {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _held(model: nn.Module, node: fx.Node, owners: Mapping[int, tuple[str, int]]) -> dict[str, int]:
    """Name -> level of the tensors that a node brings in itself."""
    if node.op == "call_module":
        return dict(owners[id(t)] for t in tensors_of(model.get_submodule(str(node.target))))
    if node.op != "get_attr":
        return {}
    tensor: Any = model
    for step in str(node.target).split("."):
        tensor = getattr(tensor, step)
    return dict([owners[id(tensor)]]) if id(tensor) in owners else {}


def _shape(value: Any) -> object:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
