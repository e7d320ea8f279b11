"""The objective of stages 2 to 4: the next token of what the assistant says, over packed conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from torch import Tensor, nn

from curriculum.data.corpus import Item
from curriculum.data.dialogues import Writer
from curriculum.parts.fit import Objective
from curriculum.parts.packing import collate, encode, pack
from curriculum.recipe import StageConfig
from curriculum.workshop import Workshop, pick
from fovea.types import Record
from models.vlm.model import VisionLanguageModel

Write = Callable[[Writer, Item, Random, int], list[Record]]
"""A writer, an item, randomness and how many conversations are wanted, to records."""


def conversations(
    shop: Workshop,
    model: VisionLanguageModel,
    config: StageConfig,
    writer: Writer,
    write: Write,
    images: Mapping[str, Tensor],
) -> Objective:
    """An objective whose data depend on seed and step alone; `images` gives features, or pixels to learn from."""
    seed, device = f"{shop.recipe.seed}/{write.__name__}", model.tower.mean.device

    def objective(wrapped: nn.Module, step: int) -> Mapping[str, Tensor]:
        chosen = pick(list(writer.studies), shop.recipe.seed, step, config.batch or 1)
        written = [
            write(writer, writer.studies[name], Random(f"{seed}/{step}/{name}"), config.questions or 1)
            for name in chosen
        ]
        groups = [[encode(record, model) for record in records] for records in written if records]
        readings = writer.readings(Random(f"{seed}/{step}"), config.readings or 0)
        groups += [[encode(record, model)] for record in readings]
        rows = pack(groups, config.length or 1024, model.gap, model.pad_id)
        total, weight = wrapped(collate(rows, model.pad_id, images).to(device))
        return {"loss": total / weight}

    return objective
