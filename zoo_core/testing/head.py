"""Checks of a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_core.testing.components import CHECKS as COMMON
from zoo_core.testing.components import CLASSES, Component, task
from zoo_core.testing.outcome import Skip, expect

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 12
"""Of the features that the checks give to a head."""


def shapes_are_right(component: Component) -> str:
    """Features [B, D] give outputs [B, classes], and outputs with labels one finite loss per example [B]."""
    builder, module, features, labels = _made(component)
    outputs = module(features)
    shape, wanted = tuple(outputs.shape), (len(features), len(CLASSES))
    expect(shape == wanted, f"outputs have shape {shape}; expected {wanted}.")
    losses = builder.loss(outputs, labels)
    expect(losses.shape == labels.shape, f"the loss has shape {tuple(losses.shape)}; expected {tuple(labels.shape)}.")
    expect(bool(losses.isfinite().all()), "the loss is not finite.")
    return f"{WIDTH} features to {len(CLASSES)} outputs"


def takes_one_example(component: Component) -> None:
    """One image can be predicted: a batch of one passes in eval mode."""
    _, module, features, _ = _made(component)
    shape = tuple(module.eval()(features[:1]).shape)
    expect(shape == (1, len(CLASSES)), f"outputs of one example have shape {shape}; expected (1, {len(CLASSES)}).")


def gradients_reach_the_weights(component: Component) -> str:
    """Every parameter gets a gradient, and one of them is not zero; a head without any is solved at once."""
    builder, module, features, labels = _made(component)
    if not list(module.parameters()):
        expect(getattr(builder, "solves", False), "it has no parameters; expected some, or `solves` and a method.")
        return "no parameters: it is solved at once"
    builder.loss(module(features), labels).mean().backward()
    parameters = dict(module.named_parameters())
    lacking = [name for name, p in parameters.items() if p.requires_grad and p.grad is None]
    expect(not lacking, f"no gradient reaches {', '.join(lacking)}.")
    moved = [name for name, p in parameters.items() if p.grad is not None and bool(p.grad.any())]
    expect(moved or not parameters, "every gradient is zero.")
    return f"{len(parameters)} tensors"


def probabilities_sum_to_1(component: Component) -> None:
    """Probabilities are between 0 and 1, and those of an example sum to 1."""
    builder, module, features, _ = _made(component)
    rows = builder.probabilities(module.eval()(features).detach())
    expect(rows.shape == (len(features), len(CLASSES)), f"probabilities have shape {tuple(rows.shape)}.")
    expect(bool(((rows >= 0) & (rows <= 1)).all()), "a probability is not between 0 and 1.")
    worst = float((rows.sum(1) - 1).abs().max())
    expect(worst < 1e-5, f"the probabilities of an example miss 1 by {worst:.2g}.")


def state_survives_saving(component: Component) -> None:
    """Its state dict, put into a head built anew, gives the same outputs bit for bit."""
    import torch

    builder, module, features, labels = _made(component)
    _learn(builder, module, features, labels, steps=3)
    again = builder.build(WIDTH, task())
    again.load_state_dict(module.state_dict())
    with torch.no_grad():
        same = torch.equal(again.eval()(features), module.eval()(features))
    expect(same, "another head with the same state gives other outputs; expected all of its state in state_dict().")


def first_weights_follow_the_seed(component: Component) -> None:
    """The same torch seed gives the same first weights."""
    first, second = (_made(component)[1].state_dict() for _ in range(2))
    expect(first.keys() == second.keys(), "two heads have tensors of different names.")
    differing = [name for name, value in first.items() if not bool((value == second[name]).all())]
    expect(not differing, f"{', '.join(differing)} differ between two heads of the same seed.")


def labels_are_kept(component: Component) -> str:
    """Trained on three clusters, it predicts the label that each cluster was given: column i is class i."""
    import torch

    builder, module, features, labels = _made(component)
    _learn(builder, module, features, labels, steps=100)
    with torch.no_grad():
        guesses = builder.probabilities(module.eval()(features)).argmax(1)
    right = float((guesses == labels).float().mean())
    expect(right > 0.9, f"it labels {right:.0%} of three well separated clusters as it was told; expected all.")
    return f"{right:.0%} of {len(labels)} examples"


def _made(component: Component) -> tuple[Any, Any, Tensor, Tensor]:
    """Builder, module, features [30, D] of three clusters, labels [30]; all from one seed.

    A head that reads positions gets four of them [30, 4, D].
    """
    import torch

    builder = component.make()
    if getattr(builder, "examples", ""):
        raise Skip(f"{component.name} begins from a language model's own output layer, which is not at hand here.")
    torch.manual_seed(0)
    labels = torch.arange(30) % len(CLASSES)
    features = torch.randn(30, WIDTH)
    features[torch.arange(30), labels] += 6
    if getattr(builder, "reads_positions", False):
        features = features[:, None].repeat(1, 4, 1)
    torch.manual_seed(1)
    return builder, builder.build(WIDTH, task()), features, labels


def _learn(builder: Any, module: Any, features: Tensor, labels: Tensor, steps: int) -> None:
    """As a run would: solved at once where the head says so, else trained step by step."""
    import torch

    if getattr(builder, "solves", False):
        builder.solve(module, features, labels, (WIDTH,))
        return
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.03)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        builder.loss(module(features), labels).mean().backward()
        optimiser.step()


CHECKS = (
    *COMMON,
    shapes_are_right,
    takes_one_example,
    gradients_reach_the_weights,
    probabilities_sum_to_1,
    state_survives_saving,
    first_weights_follow_the_seed,
    labels_are_kept,
)
