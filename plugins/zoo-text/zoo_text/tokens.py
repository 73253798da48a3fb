"""The reader of texts: from a file to token ids and a mask, padded to one length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo_core import BadOption, Source, TextInput, texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Pair = tuple[Tensor, Tensor]

_STEP = 16  # lengths are multiples of it


@dataclass(frozen=True)
class Tokens:
    """Texts as (ids, mask), both [L]; `mask` is 1 for a token and 0 for padding.

    A text is computed at a length that is its own (a multiple of 16, wider steps for longer ones), together with others
    of that length only. On a shelf all texts of a run have the length `floor`, that of the longest of them.

    Attributes:
        spec: the card's preprocessing.
        source: of the `tokenizer.json`; None where no place is known.
        card: name of the card, for errors.
        pad: id that fills up; the mask hides it.
        floor: length of rows on a shelf.
    """

    spec: TextInput
    source: Source | None
    card: str = ""
    pad: int = 0
    floor: int = _STEP

    def about(self) -> dict[str, Any]:
        spec = {k: v for k, v in asdict(self.spec).items() if k != "tokenizer"}
        return {
            "decoder": texts.VERSION,
            "text": spec,
            "floor": self.floor,
            "tokenizer": texts.tokenizer_digest(self.file),
        }

    def read(self, path: str, row: str = "") -> Pair:
        return self.encode(texts.decode(path))

    def encode(self, text: str) -> Pair:
        """One text that is no file."""
        return self.filled(_tokenizer(self.file, self.spec.length).encode(text).ids)

    def filled(self, ids: Sequence[int]) -> Pair:
        """Ids and mask at the length that is this text's own."""
        length = _rounded(len(ids), self.spec.length)
        filled, mask = torch.full((length,), self.pad, dtype=torch.int32), torch.zeros(length, dtype=torch.uint8)
        here = slice(length - len(ids), length) if self.spec.padding == "left" else slice(0, len(ids))
        filled[here], mask[here] = torch.tensor(ids, dtype=torch.int32), 1
        return filled, mask

    def stack(self, rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        length = max(len(row[0]) for row in rows)
        widened = [self._padded(tuple(t[None] for t in row), length) for row in rows]
        return tuple(torch.cat(parts) for parts in zip(*widened, strict=True))

    def groups(self, value: tuple[Tensor, ...]) -> list[tuple[list[int], tuple[Tensor, ...]]]:
        """Texts of one length together, without what is empty in all of them; the mask comes second."""
        lengths = [_rounded(n, self.spec.length) for n in value[1].sum(1).tolist()]
        places = {length: [i for i, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))}
        return [(where, self._cut(tuple(t[where] for t in value), length)) for length, where in places.items()]

    def widen(self, value: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        return value if isinstance(value, Tensor) else self._padded(value, max(self.floor, value[1].shape[1]))

    def trim(self, value: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(value, Tensor):
            return value
        return self._cut(value, _rounded(int(value[1].sum(1).max()), self.spec.length))

    def to_input(self, raw: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
        """Ids and mask as the 64-bit integers that upstream takes."""
        return tuple(part.to(device).long() for part in raw)

    def blank(self, count: int) -> tuple[Tensor, ...]:
        """One token again and again, at the most usual length; all of them count."""
        shape = (count, min(self.spec.length, 128))
        word = 1 if self.pad == 0 else 0  # some models know padding as a row of zeros
        return torch.full(shape, word), torch.ones(shape, dtype=torch.long)

    def varied(self, policy: str, seed: int) -> Tokens:
        raise BadOption(f"--augment {policy} is for images; leave it out for texts.")

    def fitted(self, paths: Sequence[str]) -> tuple[Tokens, list[str]]:
        """Padded to the longest of these texts; those that lose their end are counted."""
        lengths = self.lengths(paths)
        longest = max(lengths, default=1)
        long = sum(n > self.spec.length for n in lengths)
        notes = [f"texts have up to {longest} tokens; each is padded to {_rounded(longest, self.spec.length)}"]
        if long:
            most = self.spec.length
            notes.append(f"{long} of {len(paths)} texts have more than {most} tokens: their ends are cut off")
        return replace(self, floor=_rounded(longest, self.spec.length)), notes

    def lengths(self, paths: Sequence[str]) -> list[int]:
        """Tokens of each text, none cut off."""
        whole = _tokenizer(self.file, None)
        return [len(e.ids) for part in _parts(paths) for e in whole.encode_batch([texts.decode(p) for p in part])]

    def state(self) -> dict[str, Any]:
        return {"floor": self.floor}

    def restored(self, state: Mapping[str, Any]) -> Tokens:
        return replace(self, floor=int(state.get("floor", self.floor)))

    @property
    def file(self) -> Path:
        """The `tokenizer.json`.

        Raises:
            WeightsMissing: it is not on this machine.
        """
        return texts.tokenizer_file(self.source, self.card)

    def _padded(self, value: tuple[Tensor, ...], length: int) -> tuple[Tensor, ...]:
        """Every part [B, L, ...] filled up to `length`: ids with the padding's, all else with zeros."""
        missing = length - value[1].shape[1]
        if not missing:
            return value

        def filled(part: Tensor) -> Tensor:
            is_ids = part is value[0] and not part.is_floating_point()
            more = part.new_full((len(part), missing, *part.shape[2:]), self.pad if is_ids else 0)
            return torch.cat([more, part] if self.spec.padding == "left" else [part, more], dim=1)

        return tuple(filled(part) for part in value)

    def _cut(self, value: tuple[Tensor, ...], length: int) -> tuple[Tensor, ...]:
        start = value[1].shape[1] - length if self.spec.padding == "left" else 0
        return tuple(part[:, start : start + length].contiguous() for part in value)


@cache
def _tokenizer(path: Path, length: int | None) -> Tokenizer:
    """A tokenizer that cuts at `length` tokens, special ones included, and never pads."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(path))
    found.no_padding()
    found.no_truncation()
    if length is not None:
        found.enable_truncation(length)
    return found


def _rounded(length: int, most: int) -> int:
    """A multiple of 16, for longer texts of a quarter to a half of the length, so that lengths are few."""
    step = max(_STEP, 1 << max(0, length.bit_length() - 2))
    return min(most, math.ceil(max(1, length) / step) * step)


def _parts(paths: Sequence[str], size: int = 256) -> list[Sequence[str]]:
    return [paths[i : i + size] for i in range(0, len(paths), size)]
