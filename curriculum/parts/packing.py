"""Conversations as rows of tokens, several a row, none seeing another.

Conversations about the same picture share their beginning (system text and picture): it is kept once, and each
continues from it with its own positions. Decoders with short convolutions look a few tokens back whatever the
attention mask says, so a gap of hidden tokens stands behind every picture and between conversations. The loss is that
of the conversations one by one, in which a conversation with n supervised tokens counts as the root of n: by tokens a
report would outweigh all short answers (square averaging; Chen et al. 2024, InternVL 2.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fovea.errors import InputError
from fovea.types import Record
from models.vlm.model import IGNORED, Batch, VisionLanguageModel


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens: labels are IGNORED where the assistant does not speak; gap tokens are not visible;
    `shared` tokens at the beginning end with the first picture; images are named in order of mention."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    visible: tuple[bool, ...]
    shared: int
    images: tuple[str, ...]


def encode(record: Record, model: VisionLanguageModel) -> Encoded:
    """Tokenize by the chat template; each picture becomes its placeholders and a gap."""
    out: Any = model.tokenizer.apply_chat_template(
        record.to_chat(), return_dict=True, return_assistant_tokens_mask=True
    )
    labels: list[int] = []
    ids, visible, shared = model.expand(out["input_ids"])
    for token, spoken in zip(out["input_ids"], out["assistant_masks"], strict=True):
        width = len(model.expand([token])[0]) if token == model.image_id else 1
        labels += [token if spoken else IGNORED] * width
    order = [part.image for message in record.messages for part in message.parts if part.image is not None]
    return Encoded(tuple(ids), tuple(labels), tuple(visible), shared, tuple(record.images[i] for i in order))


@dataclass
class Row:
    """One packed row: beside the tokens, which document and which of its branches each belongs to (0: shared)."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    visible: list[bool] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def add(self, item: Encoded, start: int, stop: int, document: int, branch: int) -> None:
        """Append a stretch of a conversation; its positions count the visible tokens before it in the conversation."""
        position = sum(item.visible[:start])
        weight = max(1, sum(label != IGNORED for label in item.labels)) ** -0.5
        for at in range(start, stop):
            seen = item.visible[at]
            self.ids.append(item.ids[at])
            self.labels.append(item.labels[at])
            self.weights.append(weight)
            self.visible.append(seen)
            self.positions.append(position if seen else 0)
            self.documents.append(document if seen else 0)
            self.branches.append(branch if seen else 0)
            position += seen

    def gap(self, width: int, pad: int) -> None:
        """Append hidden tokens."""
        self.add(Encoded((pad,) * width, (IGNORED,) * width, (False,) * width, 0, ()), 0, width, 0, 0)


def pack(groups: Sequence[Sequence[Encoded]], length: int, gap: int, pad: int) -> list[Row]:
    """Rows of at most `length` tokens; conversations of a group share their beginning where it is the same.

    A conversation that is longer than a row raises InputError.
    """
    rows: list[Row] = []
    document = 0
    for group in groups:
        shared = group[0].shared if all(_same_beginning(group[0], item) for item in group) else 0
        pictures = 1 if shared else 0
        waiting = list(group)
        while waiting:
            item = waiting[0]
            if len(item.ids) > length:
                raise InputError(f"a conversation of {len(item.ids)} tokens", f"at most {length}", "Raise `length`.")
            if not rows or len(rows[-1].ids) + gap + len(item.ids) > length:
                rows.append(Row())
            row, document, branch = rows[-1], document + 1, 0
            if row.ids:
                row.gap(gap, pad)
            row.add(item, 0, shared, document, 0)
            row.images.extend(item.images[:pictures])
            while waiting and (branch == 0 or len(row.ids) + gap + len(waiting[0].ids) - shared <= length):
                if branch and not shared:
                    break
                item, branch = waiting.pop(0), branch + 1
                if branch > 1:
                    row.gap(gap, pad)
                row.add(item, shared, len(item.ids), document, branch)
                row.images.extend(item.images[pictures:])
    return rows


def _same_beginning(one: Encoded, other: Encoded) -> bool:
    end = one.shared
    return end == other.shared and one.ids[:end] == other.ids[:end] and one.images[:1] == other.images[:1]


def collate(rows: Sequence[Row], pad: int, features: Mapping[str, Tensor]) -> Batch:
    """Rows as tensors, padded to the longest; `features` gives each image's features (or pixels)."""
    length = max(len(row.ids) for row in rows)

    def tensor(name: str, fill: int) -> Tensor:
        return torch.tensor([getattr(row, name) + [fill] * (length - len(row.ids)) for row in rows])

    documents, branches = tensor("documents", 0), tensor("branches", 0)
    same = documents[:, :, None] == documents[:, None, :]
    line = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    mask = same & line & torch.ones(length, length, dtype=torch.bool).tril()
    images = [features[key] for row in rows for key in row.images]
    return Batch(
        ids=tensor("ids", pad),
        positions=tensor("positions", 0),
        visible=tensor("visible", 0).bool(),
        mask=mask[:, None],
        labels=tensor("labels", IGNORED),
        weights=tensor("weights", 0),
        features=torch.stack(images) if images else torch.empty(0),
    )
