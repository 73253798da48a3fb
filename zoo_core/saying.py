"""What a chat model says: one answer, answers to many files, and a few for the run's page. The head does the saying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo_core import conversations
from zoo_core.conversations import Messages, Saying
from zoo_core.errors import BadExample, BadOption

if TYPE_CHECKING:
    from zoo_core.fit import Model
    from zoo_core.recipe import Recipe
    from zoo_core.runs import Prediction, Run
    from zoo_core.trainer import Trainer
    from zoo_core.types import Task

SAMPLES = 3
"""Answers on the page, before and after; chosen by place in the test side, not by how well they went."""
_SHORT = Saying(max_tokens=40)


def say(run: Run, messages: Messages, how: Saying) -> str:
    """What the run's model says after these messages.

    Raises:
        BadOption: it is no chat model.
        BadText: the messages are none.
    """
    if run.target.kind != "next-token":
        raise BadOption(f"{run.path} is no chat model; one is made by: zoo finetune CHATS.jsonl --head causal-lm")
    model = run._predictor.model
    answer: str = model.builder.builder.say(model, conversations.checked(list(messages)), how)
    return answer


def answered(run: Run, files: Mapping[Path, str], how: Saying) -> Iterator[Prediction]:
    """The answer to each file's conversation: to all before its last message of the assistant's."""
    from zoo_core.runs import Prediction

    for path, name in files.items():
        try:
            messages = conversations.to_answer(conversations.decode(path))
            yield Prediction(name, say(run, messages, how))
        except BadExample as error:
            yield Prediction(name, error=str(error))


def samples(recipe: Recipe, builder: Any, trainer: Trainer, model: Model, task: Task) -> list[dict[str, str]]:
    """A few questions of the test side with what the data, the model before and the model after answer.

    The backbone is put back to where training began, and then to where it ended.
    """
    test = task.split("test")
    chosen = [test[i] for i in sorted({0, len(test) // 2, len(test) - 1})][:SAMPLES]
    asked = [conversations.to_answer(conversations.decode(e.path)) for e in chosen]
    whole = [conversations.decode(e.path) for e in chosen]
    after = [builder.builder.say(model, messages, _SHORT) for messages in asked]
    with trainer.as_before():
        first = trainer.fresh(recipe.seed)
        before = [builder.builder.say(first, messages, _SHORT) for messages in asked]
    return [
        {
            "asked": messages[-1]["content"],
            "expected": full[len(messages)]["content"] if len(full) > len(messages) else "",
            "before": b,
            "after": a,
        }
        for messages, full, b, a in zip(asked, whole, before, after, strict=True)
    ]
