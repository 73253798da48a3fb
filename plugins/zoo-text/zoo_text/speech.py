"""From the last hidden states to words: losses of what is to be said, answers, and upstream's own files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from zoo_core import Backbone, BadOption, WeightsMismatch
from zoo_text.conversing import Chats
from zoo_text.provider import quiet

if TYPE_CHECKING:
    from zoo_core import Saying

_AT_ONCE = 512  # tokens whose scores over the whole vocabulary are held at a time
_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")


class Speech(nn.Module):
    """(hidden [B, L, D], mask, positions, wanted [B, L]) to [B, 3]: summed loss in nats, tokens asked for, right ones.

    `bind` gives it its weight: one of its own [V, D], or the table of words, which is not its parameter then.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.cap = 0.0
        self.__dict__["table"] = []  # in a list: not a submodule of this one

    @property
    def words(self) -> Tensor:
        """The output layer's weight [V, D]."""
        found: Tensor = self.weight if self.weight is not None else self.__dict__["table"][0].weight
        return found

    def forward(self, value: tuple[Tensor, ...]) -> Tensor:
        hidden, wanted = value[0], value[-1]
        asked = wanted > 0
        states, aims, rows = hidden[asked], wanted[asked] - 1, asked.nonzero()[:, 0]
        found = hidden.new_zeros(len(hidden), 3)
        for start in range(0, len(aims), _AT_ONCE):
            here = slice(start, start + _AT_ONCE)
            if torch.is_grad_enabled():  # scores are made again on the way back, not kept
                losses, right = checkpoint(
                    self._losses, states[here], aims[here], use_reentrant=False, preserve_rng_state=False
                )
            else:
                losses, right = self._losses(states[here], aims[here])
            found = found.index_add(0, rows[here], torch.stack([losses, torch.ones_like(losses), right], dim=1))
        return found

    def _losses(self, states: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
        scores = nn.functional.linear(states, self.words, self.bias)
        if self.cap:
            scores = self.cap * torch.tanh(scores / self.cap)
        return cross_entropy(scores, aims, reduction="none"), (scores.argmax(1) == aims).to(scores.dtype)


def bind(module: Speech, backbone: Backbone) -> None:
    """Take the language model's output layer: the table of words where the two are one, else what its file holds.

    Raises:
        WeightsMismatch: the file holds none.
        BadOption: the architecture does more than one linear layer there.
    """
    base = backbone.model.upstream_model
    config, table = base.config, base.get_input_embeddings()
    scaled = [name for name in _SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    if scaled:
        raise BadOption(
            f"{backbone.card.name} scales its outputs by {scaled[0]}, which --head causal-lm does not know."
        )
    module.cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
    if config.tie_word_embeddings:
        module.__dict__["table"] = [table]
        return
    given = {
        name.rpartition(".")[2]: t
        for name, t in backbone.classifier.items()
        if name.startswith(("lm_head.", "embed_out."))
    }
    if backbone.pretrained and "weight" not in given:
        raise WeightsMismatch(
            f"the weights of {backbone.card.name} hold no lm_head.weight: they are a base model, without words to say. "
            "Take the file of the language model."
        )
    drawn = torch.empty_like(table.weight).normal_(0.0, getattr(config, "initializer_range", 0.02))
    module.weight = nn.Parameter(given.get("weight", drawn).detach().clone().to(drawn))
    if "bias" in given:
        module.bias = nn.Parameter(given["bias"].detach().clone().to(drawn))


def language_model(backbone: Backbone, head: Speech) -> Any:
    """transformers' own language model over the backbone and the head; every tensor is shared, none copied."""
    base = backbone.model.upstream_model
    with torch.device("meta"), quiet():
        model: Any = AutoModelForCausalLM._model_mapping[type(base.config)]._from_config(base.config)
    setattr(model, model.base_model_prefix, base)
    layer = nn.Linear(head.words.shape[1], head.words.shape[0], bias=head.bias is not None, device="meta")
    layer.weight = head.weight if head.weight is not None else head.__dict__["table"][0].weight
    if head.bias is not None:
        layer.bias = head.bias
    model.set_output_embeddings(layer)
    return model.eval()


def say(model: Any, messages: Sequence[dict[str, str]], how: Saying) -> str:
    """What the assistant says next, through transformers' `generate`.

    Args:
        model: `fit.Model`: backbone, with a reader of conversations, and head.
    """
    body, reader = model.backbone, model.backbone.reader
    assert isinstance(reader, Chats)
    upstream = language_model(body, model.head)
    longest = getattr(upstream.config, "max_position_embeddings", None) or 1 << 20
    longest = min(reader.spec.length, longest)
    room = longest - how.max_tokens
    if room < 1:
        raise BadOption(f"--max-tokens {how.max_tokens} leaves no room for the question in {longest} tokens.")
    ids = torch.tensor([reader.prompt(messages, room)], device=model.device)
    config = GenerationConfig(
        max_new_tokens=how.max_tokens,
        do_sample=how.temperature > 0,
        eos_token_id=list(reader.ends),
        pad_token_id=reader.pad,
        **({"temperature": how.temperature, "top_k": 0, "top_p": 1.0} if how.temperature else {}),
    )
    training = [m for m in body.model.modules() if m.training]
    body.model.eval()
    try:
        with quiet(), torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            found = upstream.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    finally:
        for module in training:
            module.training = True
    said = [i for i in found[0, ids.shape[1] :].tolist() if i not in reader.ends]
    return str(reader.tokenizer.decode(said, skip_special_tokens=True)).strip()


def export(model: Any, folder: Path) -> None:
    """Write what `AutoModelForCausalLM` and `AutoTokenizer` read: weights, configuration, tokenizer, chat template."""
    body, reader = model.backbone, model.backbone.reader
    upstream = language_model(body, model.head)
    upstream.generation_config = GenerationConfig(eos_token_id=list(reader.ends), pad_token_id=reader.pad)
    with quiet():
        upstream.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=reader.tokenizer,
            padding_side="left",
            model_max_length=reader.spec.length,
            **reader.special,
        )
        tokenizer.chat_template = reader.template
        tokenizer.save_pretrained(folder)
