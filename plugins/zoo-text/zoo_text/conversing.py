"""The reader of conversations: from messages to token ids, a mask, and the tokens that are to be said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers.utils.chat_template_utils import render_jinja_template

from zoo_core import Backbone, BadExample, BadOption, conversations, read_json, weights
from zoo_text.tokens import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Messages = Sequence[dict[str, str]]

PLAIN = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ m['role'] | capitalize }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nAssistant:' }}{% endif %}"
)
"""Where the family has no template of its own: one line a message, an end mark where the assistant has spoken."""

_DATE = "26 Jul 2024"
"""What Llama's templates take for today where nobody says: the same text gives the same tokens on any day."""


@dataclass(frozen=True)
class Chats(Tokens):
    """Conversations as (ids, mask, wanted), all [L].

    `wanted` is, at each place, the id of the token that comes next plus one, where the assistant says it; else 0.

    Attributes:
        template: jinja, as chat templates are written; it runs in jinja2's sandbox, through transformers' own code.
        special: `eos_token` and the like, as the template knows them.
        ends: ids that end an answer.
    """

    template: str = PLAIN
    special: Mapping[str, str] | None = None
    ends: tuple[int, ...] = ()

    def about(self) -> dict[str, Any]:
        found = super().about() | {"decoder": conversations.VERSION, "special": dict(self.special or {})}
        found["template"] = hashlib.sha256(self.template.encode()).hexdigest()
        if "strftime_now" in self.template and "date_string" not in self.template:
            found["day"] = date.today().isoformat()  # the template writes it into every conversation
        return found

    def read(self, path: str, row: str = "") -> tuple[Tensor, ...]:
        ids, said = self.tokens(conversations.decode(path))
        ids, said = ids[: self.spec.length], said[: self.spec.length]
        padded, mask = self.filled(ids)
        wanted = torch.zeros_like(padded)
        wanted[mask > 0] = torch.tensor([i + 1 if s else 0 for i, s in zip(ids[1:], said[1:], strict=True)] + [0]).int()
        return padded, mask, wanted

    def tokens(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, as upstream's tokenizer gives them, and which of them the assistant says.

        Raises:
            BadExample: a message spells a token of control, or the template takes earlier messages back.
        """
        text, spans = self.rendered(messages)
        found = self.tokenizer.encode(text, add_special_tokens=False)
        said = [any(start <= a and b <= end for start, end in spans) for a, b in found.offsets]
        return found.ids, said

    def rendered(self, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as the model reads it, and from where to where the assistant speaks."""
        self._check(messages)
        text, spans = self._render(messages), []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, after = self._render(messages[:i], True) if i else "", self._render(messages[: i + 1])
            if not after.startswith(before) or not text.startswith(after):
                raise BadExample(
                    "the chat template writes earlier messages differently once others follow, so nobody can tell "
                    "what the assistant says. Give --head causal-lm:template=plain"
                )
            spans.append((len(before), len(after)))
        return text, spans

    def prompt(self, messages: Messages, room: int) -> list[int]:
        """Ids after which the assistant speaks; of a long conversation the last `room`."""
        self._check(messages)
        ids: list[int] = self.tokenizer.encode(self._render(messages, True), add_special_tokens=False).ids
        return ids[-room:]

    def lengths(self, paths: Sequence[str]) -> list[int]:
        return [len(self.tokens(conversations.decode(path))[0]) for path in paths]

    def fitted(self, paths: Sequence[str]) -> tuple[Chats, list[str]]:
        found, notes = super().fitted(paths)
        assert isinstance(found, Chats)
        notes = [note.replace("texts", "conversations") for note in notes]
        silent = sum(not bool(self.read(path)[2].any()) for path in paths)
        if silent:
            notes.append(f"in {silent} the assistant says nothing within {self.spec.length} tokens: they teach nothing")
        whose = "a plain one" if self.template == PLAIN else "the family's own"
        return found, [*notes, f"chat template: {whose}"]

    def blank(self, count: int) -> tuple[Tensor, ...]:
        ids, mask = super().blank(count)
        return ids, mask, ids + 1

    def state(self) -> dict[str, Any]:
        return super().state() | {"template": self.template, "special": dict(self.special or {}), "ends": self.ends}

    def restored(self, state: Mapping[str, Any]) -> Chats:
        found = super().restored(state)
        assert isinstance(found, Chats)
        ends = tuple(state.get("ends", self.ends))
        return replace(found, template=state.get("template", self.template), special=state.get("special"), ends=ends)

    @property
    def tokenizer(self) -> Tokenizer:
        """Cuts and pads nothing; the end mark is one token, wherever it stands."""
        return _tokenizer(self.file, (self.special or {}).get("eos_token", ""))

    def _check(self, messages: Messages) -> None:
        """Nobody may write a token of control into what they say."""
        special = _special(self.file, (self.special or {}).get("eos_token", ""))
        for message in messages:
            spelled = next((token for token in special if token in message["content"]), None)
            if spelled:
                raise BadExample(f"a message of the {message['role']} spells the token {spelled!r}, which controls")

    def _render(self, messages: Messages, prompt: bool = False) -> str:
        try:
            (text,), _ = render_jinja_template(
                [list(messages)],
                chat_template=self.template,
                add_generation_prompt=prompt,
                date_string=_DATE,
                **(self.special or {}),
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise BadExample(f"the chat template refuses it: {error}") from error
        return str(text)


def reader_of(backbone: Backbone, asked: str) -> Chats:
    """The reader of conversations for a language model.

    Raises:
        BadOption: the backbone is none, or has no token that ends an answer.
    """
    plain, kept = backbone.reader, backbone.card.extra.get("x-chat") if asked == "auto" else None
    config = getattr(getattr(backbone.model, "upstream_model", None), "config", None)
    if not isinstance(plain, Tokens) or config is None or not backbone.model.causal:  # type: ignore[union-attr]
        raise BadOption(
            f"{backbone.card.name} is no language model that says one token after another; --head causal-lm needs one, "
            "such as text/gpt2."
        )
    if kept:  # the backbone comes from a chat model
        return Chats(**_fields(plain)).restored(kept | {"floor": plain.floor})
    beside = _beside(plain)
    special = {k: v for k in ("bos_token", "eos_token", "unk_token", "pad_token") if (v := _word(beside.get(k)))}
    configured = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [i for i in configured if isinstance(i, int)]
    if "eos_token" not in special and ends:
        special["eos_token"] = _tokenizer(plain.file, "").id_to_token(ends[0]) or ""
    if not special.get("eos_token"):
        raise BadOption(f"{backbone.card.name} names no token that ends a text (eos_token); an answer would never end.")
    template = beside.get("chat_template") if asked == "auto" else None
    found = Chats(**_fields(plain), template=template or PLAIN, special=special)
    ends += [i for i in (found.tokenizer.token_to_id(special["eos_token"]), _turn_end(found)) if i is not None]
    return replace(found, ends=tuple(dict.fromkeys(ends)))


def _fields(plain: Tokens) -> dict[str, Any]:
    return {f.name: getattr(plain, f.name) for f in fields(Tokens)}


def _beside(plain: Tokens) -> dict[str, Any]:
    """What lies beside the tokenizer: tokenizer_config.json, with the chat template in it or as a file of its own."""
    assert plain.source is not None
    where = {
        name: weights.locate(weights.beside(plain.source, name))
        for name in ("tokenizer_config.json", "chat_template.jinja")
    }
    found = read_json(where["tokenizer_config.json"]) if where["tokenizer_config.json"] else {}
    found = found if isinstance(found, dict) else {}
    given = found.get("chat_template")
    if isinstance(given, list):  # several, each with a name
        given = next((t.get("template") for t in given if isinstance(t, dict) and t.get("name") == "default"), None)
    if where["chat_template.jinja"]:
        given = where["chat_template.jinja"].read_text(encoding="utf-8")
    return found | {"chat_template": given if isinstance(given, str) else None}


def _word(value: Any) -> str:
    """A token as tokenizer_config.json has it: a text, or an object with its content."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _turn_end(reader: Chats) -> int | None:
    """The token of control that the template writes after an answer, such as <|im_end|>; None where there is none."""
    word = "zoo"
    try:
        text, spans = reader.rendered([{"role": "user", "content": word}, {"role": "assistant", "content": word}])
    except BadExample:
        return None
    tail = text[spans[0][0] : spans[0][1]].partition(word)[2]
    ids = reader.tokenizer.encode(tail.strip(), add_special_tokens=False).ids
    added = reader.tokenizer.get_added_tokens_decoder()
    return ids[0] if ids and ids[0] in added and added[ids[0]].special else None


@cache
def _tokenizer(path: Path, end: str) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer

    found = Tokenizer.from_file(str(path))
    found.no_padding()
    found.no_truncation()
    if end and found.token_to_id(end) is not None:  # base models often know it as a word only
        found.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    return found


@cache
def _special(path: Path, end: str) -> tuple[str, ...]:
    return tuple(t.content for t in _tokenizer(path, end).get_added_tokens_decoder().values() if t.special)
