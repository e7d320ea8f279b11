"""The objective of stages 2 to 4: the next token of what the assistant says, over packed conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from torch import Tensor, nn

from curriculum.data.corpus import Item
from curriculum.data.dialogues import Writer
from curriculum.data.mix import Deck, deal
from curriculum.parts.fit import Objective
from curriculum.parts.packing import collate, encode, pack
from curriculum.recipe import StageConfig
from curriculum.workshop import Workshop
from fovea.types import Record
from models.vlm.model import VisionLanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Write = Callable[[Writer, Item, Random, int], list[Record]]
"""A writer, an item, randomness and how many conversations are wanted, to records."""


def conversations(
    shop: Workshop,
    model: VisionLanguageModel,
    config: StageConfig,
    writer: Writer,
    write: Write,
    images: Mapping[str, Tensor],
    decks: Sequence[Deck] = (),
) -> Objective:
    """An objective whose data depend on seed and step alone; `images` gives features, or pixels to learn from.

    Of a unit of `decks` as of a study at most `config.questions` conversations are taken.
    """
    seed, device = f"{shop.recipe.seed}/{write.__name__}", model.tower.mean.device

    def objective(wrapped: nn.Module, step: int) -> Mapping[str, Tensor]:
        chosen, dealt = deal(list(writer.studies), decks, shop.recipe.seed, step, config.batch or 1)
        written = [
            write(writer, writer.studies[name], Random(f"{seed}/{step}/{name}"), config.questions or 1)
            for name in chosen
        ]
        for name, records in dealt:
            written.append(Random(f"{seed}/{step}/{name}").sample(records, min(config.questions or 1, len(records))))
        groups = [[encode(record, model) for record in records] for records in written if records]
        readings = writer.readings(Random(f"{seed}/{step}"), config.readings or 0)
        groups += [[encode(record, model)] for record in readings]
        rows = pack(groups, config.length or 1024, model.gap, model.pad_id)
        total, weight = wrapped(collate(rows, model.pad_id, images).to(device))
        return {"loss": total / weight}

    return objective


def forged(tokenizer: PreTrainedTokenizerBase) -> Callable[[Record], str]:
    """Why a record cannot be tokenized ("" if it can): its text would be taken for a turn or a picture."""
    marks = tuple(tokenizer.all_special_tokens)

    def fault(record: Record) -> str:
        texts = [part.text for message in record.messages for part in message.parts]
        return "a text holds a special token" if any(mark in text for text in texts for mark in marks) else ""

    return fault


def unfit(model: VisionLanguageModel, length: int) -> Callable[[Record], str]:
    """Why a record cannot be learned from ("" if it can): it is forged, or longer than a row."""
    fault = forged(model.tokenizer)

    def longer(record: Record) -> str:
        return "" if len(encode(record, model).ids) <= length else f"longer than `length`, {length} tokens"

    return lambda record: fault(record) or longer(record)
