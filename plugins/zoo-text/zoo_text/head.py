"""Head `causal-lm`: a language model's own output layer, trained on what the assistant says. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from zoo_core import Backbone, Reader, Saying, Task


@dataclass(frozen=True)
class CausalLm:
    """The language model's own output layer, for conversations: the loss is on the assistant's tokens only.

    Where the output layer is the table of words (GPT-2), it trains as the embeddings do, in `full` only; where it is
    a layer of its own (Llama), it trains with every strategy. `template=auto` takes the chat template that lies
    beside the tokenizer, and a plain one (`User: ...`, `Assistant: ...`) where there is none.
    """

    template: Literal["auto", "plain"] = "auto"

    kinds: ClassVar[tuple[str, ...]] = ("next-token",)
    examples: ClassVar[str] = "chat"
    reads_tokens: ClassVar[bool] = True

    def reader(self, backbone: Backbone) -> Reader:
        from zoo_text.conversing import reader_of

        return reader_of(backbone, self.template)

    def build(self, feature_dim: int, task: Task) -> nn.Module:
        from zoo_text.speech import Speech

        return Speech()

    def bind(self, module: Any, backbone: Backbone) -> None:
        from zoo_text.speech import bind

        bind(module, backbone)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs [B, 3] to nats a token [B]."""
        return outputs[:, 0] / outputs[:, 1].clamp_min(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs [B, 3] as they are: nats, tokens, and how many of these were right."""
        return outputs

    def say(self, model: Any, messages: Sequence[dict[str, str]], how: Saying) -> str:
        from zoo_text.speech import say

        return say(model, messages, how)

    def export(self, model: Any, folder: Path) -> None:
        from zoo_text.speech import export

        export(model, folder)
