"""The reader of texts: from a file to open_clip's own token ids, at the one length that the tower has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo_core import BadCard, BadOption, Source, TextInput, WeightsMismatch, WeightsMissing, texts

_CLEAN = ("canonicalize", "lower", "whitespace")
_OPTIONS: dict[str, tuple[Any, ...]] = {"clean": _CLEAN, "strip_sep_token": (True, False)}
_OWN_OPTIONS: dict[str, tuple[Any, ...]] = {"clean": _CLEAN, "additional_special_tokens": ()}
"""Options of transformers' tokenizers and of open_clip's own that are handed on, with their values; () for words."""


@dataclass(frozen=True)
class Tokens:
    """Texts as ids [L], made by open_clip's tokenizer of that model; what is longer loses its end.

    Attributes:
        spec: the card's preprocessing.
        source: of the tokenizer: open_clip's own table of byte pairs, or a `tokenizer.json` with what lies beside it.
        card: name of the card, for errors.
        about_text: `text_cfg` of open_clip's configuration, which says how texts are cleaned.
    """

    one_size: ClassVar[bool] = True
    spec: TextInput
    source: Source | None
    card: str
    about_text: Mapping[str, Any] = field(hash=False)

    def about(self) -> dict[str, Any]:
        options = {key: self.about_text.get(key) for key in ("tokenizer_kwargs", "tokenizer_mode")}
        found = {"decoder": texts.VERSION, "tokenizer": texts.tokenizer_digest(self.file), "options": options}
        return found | {"text": {k: v for k, v in asdict(self.spec).items() if k != "tokenizer"}}

    def read(self, path: str, row: str = "") -> Tensor:
        return self.encode([texts.decode(path)])[0].int()

    def encode(self, words: Sequence[str]) -> Tensor:
        """Texts that are no files, to ids [N, L]."""
        ids: Tensor = self._tokenizer(list(words))
        return ids

    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(rows))

    def groups(self, value: Any) -> list[tuple[list[int], Any]]:
        first = value[0] if isinstance(value, tuple) else value
        return [(list(range(len(first))), value)]

    def widen(self, value: Any) -> Any:
        return value

    def trim(self, value: Any) -> Any:
        return value

    def to_input(self, raw: Tensor, device: torch.device) -> Tensor:
        """The 64-bit integers that upstream takes."""
        return raw.to(device).long()

    def blank(self, count: int) -> Tensor:
        """One token again and again."""
        return torch.full((count, self.spec.length), 3)

    def varied(self, policy: str, seed: int) -> Tokens:
        raise BadOption(f"--augment {policy} is for images; leave it out for texts.")

    def fitted(self, paths: Sequence[str]) -> tuple[Tokens, list[str]]:
        return self, [f"texts are read up to {self.spec.length} tokens; longer ones lose their ends"]

    def state(self) -> dict[str, Any]:
        return {}

    def restored(self, state: Mapping[str, Any]) -> Tokens:
        return self

    @property
    def file(self) -> Path:
        """The tokenizer's file.

        Raises:
            WeightsMissing: it is not on this machine.
        """
        return texts.tokenizer_file(self.source, self.card, "its tokenizer.json and tokenizer_config.json")

    @property
    def several_files(self) -> bool:
        """Whether the tokenizer is more than its one file, which then cannot be moved alone."""
        return bool(self.about_text.get("hf_tokenizer_name"))

    @property
    def _tokenizer(self) -> Any:
        options = plain_options(self.about_text, self.card)
        mode = self.about_text.get("tokenizer_mode")
        if self.several_files and not self.file.with_name("tokenizer_config.json").is_file():
            raise WeightsMissing(
                f"the tokenizer of {self.card} is more than {self.file}: no tokenizer_config.json lies beside it. "
                f"Type: zoo pull {self.card}, or put both into one folder."
            )
        try:
            return _made(self.file, self.spec.length, mode, json.dumps(options, sort_keys=True))
        except (AttributeError, KeyError, OSError, TypeError, UnicodeDecodeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsMismatch(
                f"{self.file} is no tokenizer that open_clip reads for {self.card}: {reason}"
            ) from error


@cache
def _made(path: Path, length: int, mode: str | None, options: str) -> Any:
    """open_clip's tokenizer: its own byte pairs, or transformers' from the folder of a `tokenizer.json`."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if path.suffix != ".json":
        return SimpleTokenizer(str(path), context_length=length, **json.loads(options))
    return HFTokenizer(
        str(path.parent),
        context_length=length,
        tokenizer_mode=mode,
        local_files_only=True,
        trust_remote_code=False,
        **json.loads(options),
    )


def plain_options(about: Mapping[str, Any], card: str) -> dict[str, Any]:
    """What a configuration says of its tokenizer; a stranger may have written it.

    Raises:
        BadCard: it says more than how texts are cleaned and which tokens are special: nothing else is handed on.
    """
    found = about.get("tokenizer_kwargs") or {}
    known = _OWN_OPTIONS if not about.get("hf_tokenizer_name") else _OPTIONS
    plain = isinstance(found, dict) and all(
        key in known and (value in known[key] if known[key] else _strings(value)) for key, value in found.items()
    )
    if not plain:
        raise BadCard(
            f"{card}: its configuration has tokenizer_kwargs {json.dumps(found, default=str)[:200]}; "
            f"expected {', '.join(known)} alone, as open_clip's own models have them."
        )
    return found


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
