"""Stage 3: instruction tuning on questions about the picture alone."""

from __future__ import annotations

from pathlib import Path

from curriculum.conversation import conversations, unfit
from curriculum.data.dialogues import Writer
from curriculum.parts.features import FeatureCache
from curriculum.parts.fit import fit
from curriculum.workshop import Workshop
from models.vlm.model import VisionLanguageModel


def train(shop: Workshop, resume: bool) -> Path:
    """Train stage 2's model with a frozen tower; findings to be read are replayed."""
    config, _ = shop.recipe.stage(3)
    model = VisionLanguageModel.open(shop.folder(2) / "model")
    features = FeatureCache(shop.recipe.out / "features", model)
    decks = shop.decks(3, unfit(model, config.length or 0))
    features.add(shop.shown(3))
    objective = conversations(shop, model, config, shop.writer(False), Writer.instructions, features, decks)
    fit(model, objective, config, shop.folder(3), f"{shop.domain.name}: stage 3, instruction", shop.tracker.log, resume)
    model.save(shop.folder(3) / "model")
    return shop.folder(3)
