"""Any transformers model that is embeddings, a list of blocks and what follows, as a chain of stages.

Nothing of a family's code is written again. Upstream's own forward runs with stand-ins in the place of its
blocks: the first one stops it and takes what would have entered the block, so masks, rotary embeddings and
ALiBi are made by upstream for every block alone; the last one hands the true hidden states to what follows.

Between stages travel (hidden [B, L, D], mask [B, L], positions [B, L]); (ids [B, L], mask [B, L]) enter. What a
reader gives beyond these (of a conversation the tokens that are to be said) travels along as it is, and the last stage
then gives tokens: there is something to say at each.
"""

from __future__ import annotations

import copy
import inspect
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo_core import NotAChain, Stage, chain_from_modules

Pooling = Literal["mean", "cls", "last"]
Inputs = tuple[Tensor, ...]

_hidden: ContextVar[Tensor] = ContextVar("hidden")
"""What the last stand-in gives back; each thread has its own."""


class Reached(Exception):
    """Raised by a stand-in, with the arguments that the block would have got."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        super().__init__()
        self.given, self.named = args, kwargs


class StandIn(nn.Module):
    """In the place of a block: `stop` raises `Reached`, `pass` gives back its input, `give` the true hidden states.

    Attributes it lacks are the block's: some models ask a block what kind of attention it has.
    """

    def __init__(self, block: nn.Module, role: Literal["stop", "pass", "give"], in_tuple: bool):
        super().__init__()
        self.role, self.in_tuple = role, in_tuple
        self.__dict__["block"] = [block]  # in a list: not a submodule of this one

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "block" not in self.__dict__:  # while it is being copied
                raise
            return getattr(self.__dict__["block"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.role == "stop":
            raise Reached(args, kwargs)
        given = args[0] if args else kwargs["hidden_states"]
        hidden = _hidden.get() if self.role == "give" else given
        return (hidden,) if self.in_tuple else hidden


class Upstream:
    """One transformers model, and what of it was found by running it once.

    Attributes:
        model: a base model (no language-model or classification head) in eval mode.
        path: name of the list of blocks, such as `layers` or `encoder.layer`.
        blocks: the list.
        in_tuple: whether a block gives a tuple.
        causal: whether each token sees only those before it.
        takes_positions: whether positions are counted from the first real token and handed in.
    """

    def __init__(self, model: nn.Module, causal: bool):
        self.model, self.causal = model, causal
        self.path, self.blocks = blocks_of(model)
        self.takes_positions = causal and "position_ids" in inspect.signature(model.forward).parameters
        self.in_tuple, self.after = self._probe()

    def run(self, model: nn.Module, mask: Tensor, positions: Tensor, **entry: Tensor) -> Any:
        """Upstream's forward of `model` (itself, or a copy with stand-ins)."""
        if self.takes_positions:
            entry["position_ids"] = positions
        return (
            model(attention_mask=mask, use_cache=False, **entry) if self.causal else model(attention_mask=mask, **entry)
        )

    def with_stand_ins(self, stop: int) -> nn.Module:
        """A copy that shares every tensor, with stand-ins for blocks: it stops at block `stop`, or nowhere."""
        count = len(self.blocks)
        roles = ["pass"] * count
        roles[min(stop, count - 1)] = "stop" if stop < count else "give"
        ins = [StandIn(block, role, self.in_tuple) for block, role in zip(self.blocks, roles, strict=True)]  # type: ignore[arg-type]
        return _with_blocks(self.model, self.path.split("."), nn.ModuleList(ins))

    def no_words(self, mask: Tensor) -> Tensor:
        """Embeddings of nothing, for runs of which only masks and positions matter."""
        table = self.model.get_input_embeddings()  # type: ignore[operator]
        return table.weight.new_zeros(*mask.shape, table.embedding_dim)

    def _probe(self) -> tuple[bool, list[str]]:
        """Run two tokens through; see what a block gives, and which modules are first called behind the last block."""
        called: list[str] = []
        outputs: list[Any] = []
        hooks = [
            m.register_forward_pre_hook(lambda *_, n=name: called.append(n)) for name, m in self.model.named_modules()
        ]
        hooks.append(self.blocks[-1].register_forward_hook(lambda *a: outputs.append(a[2])))
        device = next(self.model.parameters()).device
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        try:
            with torch.no_grad():
                self.run(self.model, ids + 1, ids, input_ids=ids)
        finally:
            for hook in hooks:
                hook.remove()
        if not outputs:
            raise NotAChain(
                f"{type(self.model).__name__} does not run the blocks of {self.path}; it has no plain chain."
            )
        last = max(i for i, name in enumerate(called) if name == f"{self.path}.{len(self.blocks) - 1}")
        before = {name for name in called[:last] if not name.startswith(f"{self.path}.")}
        after = [n for n in called[last + 1 :] if n not in before and not n.startswith(f"{self.path}.")]
        return isinstance(outputs[0], tuple), after


class Front(nn.Module):
    """(ids, mask) to what enters the first block."""

    def __init__(self, upstream: Upstream, parts: list[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.__dict__["shell"] = [upstream, upstream.with_stand_ins(0)]

    def forward(self, value: Inputs) -> Inputs:
        ids, mask, *more = value
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        upstream, shell = self.__dict__["shell"]
        try:
            upstream.run(shell, mask, positions, input_ids=ids)
        except Reached as reached:
            hidden = reached.given[0] if reached.given else reached.named["hidden_states"]
            return hidden, mask, positions, *more
        raise AssertionError("the first block was not reached")


class Block(nn.Module):
    """One block, called as upstream's forward would call it."""

    def __init__(self, upstream: Upstream, index: int):
        super().__init__()
        self.block = upstream.blocks[index]
        self.__dict__["shell"] = [upstream, upstream.with_stand_ins(index)]

    def forward(self, value: Inputs) -> Inputs:
        hidden, mask, positions, *more = value
        upstream, shell = self.__dict__["shell"]
        try:
            with torch.no_grad():
                upstream.run(shell, mask, positions, inputs_embeds=upstream.no_words(mask))
        except Reached as reached:
            args, kwargs = reached.given, reached.named
        if not args:
            args, kwargs = (hidden,), {k: v for k, v in kwargs.items() if k != "hidden_states"}
        found = self.block(hidden, *args[1:], **kwargs)
        return (found[0] if isinstance(found, tuple) else found), mask, positions, *more


class End(nn.Module):
    """What follows the blocks (a final norm, or nothing), and pooling: features [B, D]; tokens where more travels."""

    def __init__(self, upstream: Upstream, pooling: Pooling, parts: list[nn.Module]):
        super().__init__()
        self.pooling, self.parts = pooling, nn.ModuleList(parts)
        self.__dict__["shell"] = [upstream, upstream.with_stand_ins(len(upstream.blocks))]

    def forward(self, value: Inputs) -> Tensor | Inputs:
        found = (self.tokens(value), *value[1:])
        return found if len(found) > 3 else pooled(found, self.pooling)

    def tokens(self, value: Inputs) -> Tensor:
        """The last hidden states [B, L, D]."""
        hidden, mask, positions = value[:3]
        upstream, shell = self.__dict__["shell"]
        token = _hidden.set(hidden)
        try:
            found: Tensor = upstream.run(
                shell, mask, positions, inputs_embeds=upstream.no_words(mask)
            ).last_hidden_state
        finally:
            _hidden.reset(token)
        return found


class Whole(nn.Module):
    """Upstream's model called whole, then pooled; its tensors have upstream's names."""

    def __init__(self, upstream: Upstream, pooling: Pooling):
        super().__init__()
        self.pooling, self.causal = pooling, upstream.causal
        self.__dict__["upstream"] = [upstream]
        model = upstream.model
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self._non_persistent_buffers_set = model._non_persistent_buffers_set

    @property
    def upstream_model(self) -> nn.Module:
        """transformers' base model itself."""
        found: nn.Module = self.__dict__["upstream"][0].model
        return found

    def forward(self, value: Inputs) -> Tensor | Inputs:
        ids, mask, *more = value
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        upstream = self.__dict__["upstream"][0]
        hidden = upstream.run(upstream.model, mask, positions, input_ids=ids).last_hidden_state
        return (hidden, mask, positions, *more) if more else pooled((hidden, mask), self.pooling)


def pooled(value: Tensor | Inputs, pooling: Pooling) -> Tensor:
    """Hidden states [B, L, D] and mask [B, L] to one row a text [B, D]: padding counts for nothing."""
    if isinstance(value, Tensor):
        return value
    hidden, mask = value[:2]
    if pooling == "mean":  # as sentence-transformers does it
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    place = (mask * steps).argmax(1) if pooling == "last" else mask.argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def stages_of(model: nn.Module, causal: bool, pooling: Pooling) -> tuple[Whole, tuple[Stage, ...]]:
    """The model with its pooling, and its chain: embeddings, every block, and what follows the blocks.

    What follows joins the last block where it holds no tensor.

    Raises:
        NotAChain: it is no list of blocks that run one after another.
    """
    upstream = Upstream(model, causal)
    path = upstream.path.split(".")
    names = beside(model, path)
    after = [name for name in names if name in upstream.after]
    front = Front(upstream, [model.get_submodule(name) for name in names if name not in after])
    end = End(upstream, pooling, [model.get_submodule(name) for name in after])
    blocks = [(f"{upstream.path}.{i}", Block(upstream, i)) for i in range(len(upstream.blocks))]
    parts: list[tuple[str, nn.Module]] = [("embeddings", front), *blocks]
    if any(True for _ in end.parameters()):
        parts.append((after[-1], end))
    else:
        parts[-1] = (parts[-1][0], nn.Sequential(parts[-1][1], end))
    whole = Whole(upstream, pooling)
    first, *rest = chain_from_modules(parts, whole)
    loose = tuple(name for name in _loose(model, path) if name not in first.tensors)
    return whole, (replace(first, tensors=first.tensors + loose), *rest)


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The longest list of modules of one class that lies in no other such list."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    lists = [
        (n, m)
        for n, m in lists
        if len({type(block) for block in m}) == 1 and not any(p.isdigit() for p in n.split("."))
    ]
    if not lists:
        raise NotAChain(
            f"{type(model).__name__} has no list of blocks; expected an encoder or a decoder of equal blocks."
        )
    return max(lists, key=lambda item: len(item[1]))


def _with_blocks(model: nn.Module, path: list[str], blocks: nn.ModuleList) -> nn.Module:
    """A copy of the modules along `path`, with other blocks at its end; everything else is shared."""
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    inner = blocks if len(path) == 1 else _with_blocks(model.get_submodule(path[0]), path[1:], blocks)
    twin._modules[path[0]] = inner
    return twin


def beside(model: nn.Module, path: list[str]) -> list[str]:
    """Names of the modules beside the way to the blocks."""
    found = [name for name, _ in model.named_children() if name != path[0]]
    if len(path) > 1:
        found += [f"{path[0]}.{name}" for name in beside(model.get_submodule(path[0]), path[1:])]
    return found


def _loose(model: nn.Module, path: list[str]) -> list[str]:
    """Names of the tensors that the modules on the way to the blocks hold themselves."""
    own = [n for n, _ in [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]]
    if len(path) > 1:
        own += [f"{path[0]}.{name}" for name in _loose(model.get_submodule(path[0]), path[1:])]
    return own
