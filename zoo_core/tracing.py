"""Turn any `nn.Module` into a chain of named stages, with nothing written per family.

The model is traced with torch.fx. Every module whose tensors lie in one stage stays a single call, so blocks
keep their own code and their own `training` flag; only what spans stages is traced into. Each call gets the
highest level among its own tensors and its inputs, and the chain is cut between levels. What crosses a cut:

- tensors with a batch axis travel, batch first, each one once;
- sizes are rebuilt from the batch size; image sizes are those of the example, and then the input is checked;
- tensors without a batch axis (position tables, rope, masks) are computed again in the stage that uses them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from zoo_core.backbone import Stage, Value
from zoo_core.crossing import enter, flat
from zoo_core.cutting import Cutter, stage_modules, tensor_names, tensors_of, tuples_of
from zoo_core.errors import NotAChain, UnstagedTensor

Levels: TypeAlias = Mapping[str, tuple[int, str]]
"""Name of a parameter or buffer -> (level, stage name); levels rise from the input to the output."""


def trace_stages(
    model: nn.Module,
    stage_of: Levels,
    example: Tensor,
    *,
    leaf_modules: Iterable[type[nn.Module]] = (),
    autowrap: Iterable[Callable[..., Any]] = (),
) -> tuple[Stage, ...]:
    """Cut `model` into stages that share its modules and together compute what it computes.

    A tensor belongs to the first stage that computes with it; levels that compute nothing vanish.

    Args:
        stage_of: (level, stage name) of every parameter and buffer.
        example: any input [B, ...]; sizes are taken from it, values are not (of whole numbers the largest is).
        leaf_modules: module classes that are never traced into.
        autowrap: functions that are never traced into.

    Raises:
        NotAChain: the model cannot be traced, or the stages cannot follow one another; says why.
        UnstagedTensor: `stage_of` lacks a tensor of the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> where = {n: (int(n[0]), f"layer{n[0]}") for n in net.state_dict()}
        >>> [stage.name for stage in trace_stages(net, where, torch.zeros(1, 3, 8, 8))]
        ['layer0', 'layer2']
    """
    leaves, functions, pair = tuple(leaf_modules), tuple(autowrap), _two_batches(example)
    with torch.inference_mode(False), torch.no_grad(), _left_as_found(model):
        cutters: list[Cutter] = []
        for training in (False, True):  # what a traced forward does with `self.training` is in the graph
            model.train(training)
            owners = _owners(model, stage_of)  # again: a forward may have replaced its buffers
            graph = _trace(_Tracer(owners, leaves, functions, tuples_of(model, pair[0])), model)
            if not cutters or str(graph) != str(cutters[0].graph):
                cutters.append(Cutter(model, graph, owners, pair))
        model.eval()
        stages = _stages(model, cutters, stage_of)
        _verify(model, stages, pair)
    for part in [m for stage in stages for m in stage.module.modules() if isinstance(m, fx.GraphModule | _ByMode)]:
        part.training = model.training
    return stages


class _Tracer(fx.Tracer):
    """Keeps every module that lies in one stage as a single call."""

    def __init__(
        self,
        owners: Mapping[int, tuple[str, int]],
        leaves: tuple[type, ...],
        functions: tuple[Any, ...],
        tuples: Mapping[str, Any],
    ):
        super().__init__(autowrap_functions=functions, param_shapes_constant=True)
        self.owners, self.leaves, self.tuples = owners, leaves, tuples
        self.traces_buffers = False

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """An attribute of a module: parameters are traced values, buffers where a plain trace has failed."""
        buffer = isinstance(attr_val, Tensor) and not isinstance(attr_val, nn.Parameter)
        if self.traces_buffers and buffer and id(attr_val) in self.owners:
            return self.create_proxy("get_attr", self.owners[id(attr_val)][0], (), {})
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.leaves) or len({self.owners[id(t)][1] for t in tensors_of(m)}) <= 1

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Unpack a tuple (`*size`) whose length only a run can tell."""
        try:
            found: Iterator[Any] = super().iter(obj)
        except fx.proxy.TraceError:
            value = self.seen(obj.node)
            if not isinstance(value, tuple | list):
                raise
            parts = [(obj, i) for i in range(len(value))]
            found = iter([self.create_proxy("call_function", operator.getitem, part, {}) for part in parts])
        return found

    def seen(self, node: fx.Node) -> Any:
        """What a run gave for a module's tuple, or for a part of it."""
        if node.op == "call_module":
            return self.tuples.get(str(node.target))
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            whole = self.seen(node.args[0])
            return whole and whole[node.args[1]]
        return None


class _Sized(fx.Proxy):
    """A proxy whose length is known where a run has shown it."""

    def __len__(self) -> int:
        value = self.tracer.seen(self.node) if isinstance(self.tracer, _Tracer) else None
        if not isinstance(value, tuple | list):
            raise TypeError("the length of a traced value is not known")
        return len(value)


class _ByMode(nn.Module):
    """Runs one of two graphs over the same modules: traced code that asks for `self.training` has two."""

    def __init__(self, evaluating: nn.Module, training: nn.Module):
        super().__init__()
        self.evaluating, self.in_training = evaluating, training

    def forward(self, value: Value) -> Value:
        result: Value = (self.in_training if self.training else self.evaluating)(value)
        return result


def _stages(model: nn.Module, cutters: Sequence[Cutter], stage_of: Levels) -> tuple[Stage, ...]:
    """Write the stages' graphs and say which tensors each holds."""
    parts = [stage_modules(cutter) for cutter in cutters]
    if parts[0].keys() != parts[-1].keys():
        raise NotAChain("training mode and eval mode run different stages of this model.")
    modules = {i: _ByMode(m, parts[1][i]) if parts[1:] else m for i, m in parts[0].items()}
    uses = cutters[0].first_use()
    held: dict[int, list[str]] = {level: [] for level in modules}
    for name in tensor_names(model).values():
        level = uses.get(name, stage_of[name][0])  # what nothing uses stays where it was declared, or before that
        held[max((i for i in modules if i <= level), default=min(modules))].append(name)
    names = dict(stage_of.values())
    return tuple(Stage(names.get(i, "stem"), modules[i], tuple(held[i])) for i in modules)


def _verify(model: nn.Module, stages: Sequence[Stage], pair: tuple[Tensor, Tensor]) -> None:
    """Run the chain in eval mode against upstream; note which stages write into what they are given."""
    small, large = pair
    for stage in stages:
        stage.module.eval()
    few: Value = small.clone()
    many: Value = large.clone()
    for i, stage in enumerate(stages):
        given = flat(many)
        before = [t._version for t in given]
        few, many = stage.module(few), stage.module(many)
        written = [n for n, t in enumerate(given) if t._version != before[n]]
        if written and i:
            _keep_inputs(stage.module, written)
        for a, b in zip(flat(few), flat(many), strict=True):
            if not torch.allclose(
                a.float(), b[: len(a)].float(), rtol=0.1, atol=0.01 * float(b.float().abs().max()), equal_nan=True
            ):
                raise NotAChain(f"the values after stage {stage.name} do not have the examples on their first axis.")
    expected = flat(model(large.clone()))
    if not all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(flat(many), expected, strict=True)):
        raise NotAChain(f"the stages of {type(model).__name__} compute something else than the model does.")


def _keep_inputs(module: nn.Module, written: Sequence[int]) -> None:
    """Let a stage copy the inputs it writes into: a cached activation must stay as it is."""
    for part in [m for m in module.modules() if isinstance(m, fx.GraphModule)]:
        enters = [node for node in part.graph.nodes if node.target is enter]
        for i in written:
            enters[i].args = (*enters[i].args, True)
        part.recompile()


def _trace(tracer: _Tracer, model: nn.Module) -> fx.Graph:
    """The traced graph, with every argument but the first at its default."""
    _, *more = signature(model.forward).parameters.values()
    defaults = {p.name: p.default for p in more if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)}
    try:
        try:
            graph = tracer.trace(model, concrete_args=defaults)
        except TypeError:  # a buffer sliced by a traced size: then buffers are traced values, too
            tracer.traces_buffers = True
            graph = tracer.trace(model, concrete_args=defaults)
    except Exception as error:  # whatever the model's own code raises on a traced value
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotAChain(
            f"{type(model).__name__} cannot be traced between its stages: {reason} "
            "Use fewer stages there, or chain_from_modules."
        ) from error
    for node in [n for n in graph.nodes if n.op == "placeholder"][1:]:
        for user in reversed(_users(node)):
            graph.erase_node(user)
        graph.erase_node(node)
    _name_types(model, graph)
    return graph


def _name_types(model: nn.Module, graph: fx.Graph) -> None:
    """Write a parameter's type down where code asks for it: that is no use of the parameter."""
    for node in [n for n in graph.nodes if n.target is getattr and n.args[1] == "dtype"]:
        tensor = node.args[0]
        if tensor.op != "get_attr":
            continue
        owner, _, name = str(tensor.target).rpartition(".")
        found = getattr(model.get_submodule(owner), name).dtype

        def known(arg: fx.Node, node: fx.Node = node, found: torch.dtype = found) -> Any:
            return found if arg is node else arg

        for user in list(node.users):
            user.args, user.kwargs = fx.map_arg(user.args, known), fx.map_arg(user.kwargs, known)
        graph.erase_node(node)
        if not tensor.users:
            graph.erase_node(tensor)


def _users(node: fx.Node) -> list[fx.Node]:
    """Every node that depends on `node`, in order: fx's checks of the default arguments."""
    found: list[fx.Node] = []
    for user in node.users:
        found += [n for n in [user, *_users(user)] if n not in found]
    return found


def _two_batches(example: Tensor) -> tuple[Tensor, Tensor]:
    """2 and 3 examples like `example`; the first two are the same."""
    generator, shape = torch.Generator().manual_seed(0), (3, *example.shape[1:])
    if example.is_floating_point():
        large = torch.randn(shape, generator=generator).to(example)
    else:
        large = torch.randint(int(example.max()) + 1, shape, generator=generator).to(example)
    return large[:2].clone(), large


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Put every module's training flag back, and take away the constants that fx leaves on the model."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
        for name in [n for n in vars(model) if n.startswith("_tensor_constant")]:
            delattr(model, name)


def _owners(model: nn.Module, stage_of: Levels) -> dict[int, tuple[str, int]]:
    names = tensor_names(model)
    missing = [name for name in names.values() if name not in stage_of]
    if missing:
        raise UnstagedTensor(f"no stage is given for {', '.join(missing[:3])}; expected one for every tensor.")
    return {key: (name, stage_of[name][0]) for key, name in names.items()}
