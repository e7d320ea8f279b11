"""First weights with which a new decoder learns to copy sooner.

In trained transformers the product of query and key weights resembles the identity, and so does that of value and
output weights: a token looks for its like and passes on what it finds (Trockman and Kolter 2023).
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Decoder = TypeVar("Decoder", bound=nn.Module)
_LIKE, _PASSED = 0.7, 0.7
"""How much of the queries are the keys, and how strongly values come out again."""


@torch.no_grad()
def mimetic(decoder: Decoder) -> Decoder:
    """Give the attention layers of a decoder such weights, in place; other layers keep theirs."""
    for layer in decoder.modules():
        output: Any = getattr(layer, "o_proj", getattr(layer, "out_proj", None))
        if output is None or not all(hasattr(layer, f"{name}_proj") for name in "qkv"):
            continue
        query, key, value = (_weight(layer, f"{name}_proj") for name in "qkv")
        width = int(layer.head_dim)  # type: ignore[arg-type]
        query.mul_(1 - _LIKE).add_(_repeated(key, query, width), alpha=_LIKE)
        nn.init.orthogonal_(value, gain=_PASSED)
        output.weight.copy_(_repeated(value, query, width).T)
    return decoder


def _weight(layer: nn.Module, name: str) -> Tensor:
    weight: Tensor = getattr(layer, name).weight
    return weight


def _repeated(shared: Tensor, query: Tensor, width: int) -> Tensor:
    """The weights of key or value heads (head · width, channel), each repeated for the query heads that share it."""
    heads = shared.view(-1, width, shared.shape[1])
    return heads.repeat_interleave(len(query) // len(shared), 0).reshape(query.shape)
