"""Decoding under a grammar: the model can only write calls that its experts understand.

An assistant's turn is either calls, one after another, or words. Inside a call the next token must lead to one of
the given calls, so an invalid name or argument cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.text.tokenizer import CALL, END_CALL, token_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Trie = dict[int, Any]


class CallGrammar:
    """A logits processor for `generate`: allows at most `budget` of the given calls in a turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, calls: Iterable[str], budget: int = 4) -> None:
        self.open = token_id(tokenizer, CALL)
        self.close = token_id(tokenizer, END_CALL)
        self.end = token_id(tokenizer, str(tokenizer.eos_token))
        self.budget = budget
        self.banned = [i for i in tokenizer.all_special_ids if i not in (self.open, self.end)]
        self.trie: Trie = {}
        for call in calls:
            node = self.trie
            for token in tokenizer.encode(call, add_special_tokens=False)[1:]:
                node = node.setdefault(token, {})

    def allowed(self, written: list[int]) -> list[int] | None:
        """The tokens that may follow what this turn wrote so far; None for any word."""
        if not written:
            return None
        if written[0] != self.open:
            return []
        last = len(written) - 1 - written[::-1].index(self.open)
        node = self.trie
        for token in written[last + 1 :]:
            node = node.get(token, {})
        if node:
            return list(node)
        return [self.open, self.end] if written.count(self.open) < self.budget else [self.end]

    def __call__(self, written: Tensor, scores: Tensor) -> Tensor:
        """Mask `scores` (batch, vocabulary) by what each row of `written` (batch, token) allows."""
        scores = scores.clone()
        scores[:, self.banned] = -torch.inf
        for row, tokens in enumerate(written.tolist()):
            allowed = self.allowed(tokens)
            if allowed is None:
                if not self.trie:
                    scores[row, self.open] = -torch.inf
            elif not allowed:
                scores[row, self.open] = -torch.inf
            else:
                # Inside a call the banned tokens return where the grammar asks for them (the end of a call).
                kept = torch.full_like(scores[row], -torch.inf)
                kept[allowed] = self._raw(scores, row, allowed)
                scores[row] = kept
        return scores

    @staticmethod
    def _raw(scores: Tensor, row: int, allowed: list[int]) -> Tensor:
        values = scores[row, allowed]
        return torch.where(torch.isinf(values), torch.zeros_like(values), values)
