"""The objective of stages 2 to 4: the next token of what the assistant says, over packed conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from torch import Tensor, nn

from curriculum.data.corpus import Item
from curriculum.parts.fit import Objective
from curriculum.parts.packing import collate, encode, pack
from curriculum.recipe import StageConfig
from curriculum.workshop import Workshop, pick
from fovea.types import Record
from models.vlm.model import VisionLanguageModel

Write = Callable[[Item, Random, int], list[Record]]
"""An item, randomness and how many conversations are wanted, to records."""


def conversations(
    shop: Workshop,
    model: VisionLanguageModel,
    config: StageConfig,
    write: Write,
    images: Mapping[str, Tensor],
    salt: str,
) -> Objective:
    """An objective whose data depend on seed and step alone; `images` gives features, or pixels to learn from."""
    items = {item.id: item for item in shop.corpus.split("train")}
    seed, device = shop.recipe.seed, model.tower.mean.device

    def objective(wrapped: nn.Module, step: int) -> Mapping[str, Tensor]:
        groups = []
        for name in pick(list(items), seed, step, config.batch or 1):
            records = write(items[name], Random(f"{seed}/{salt}/{step}/{name}"), config.questions or 1)
            encoded = [encode(record, model) for record in records]
            groups += [[e for e in encoded if bool(e.images) is pictured] for pictured in (True, False)]
        rows = pack([group for group in groups if group], config.length or 1024, model.gap, model.pad_id)
        total, n = wrapped(collate(rows, model.pad_id, images).to(device))
        return {"loss": total / max(n, 1)}

    return objective
