"""Stage 4: expert-informed tuning: when to call, what to read, when to doubt (VILA-M3, Nath et al. 2024)."""

from __future__ import annotations

from pathlib import Path

from curriculum.conversation import conversations, unfit
from curriculum.data.dialogues import Writer
from curriculum.parts.features import FeatureCache
from curriculum.parts.fit import fit
from curriculum.workshop import Workshop
from models.vlm.model import VisionLanguageModel


def train(shop: Workshop, resume: bool) -> Path:
    """Train stage 3's model, its tower frozen, on dialogues with right, missing, wrong, failed and false results."""
    config, _ = shop.recipe.stage(4)
    model = VisionLanguageModel.open(shop.folder(3) / "model")
    features = FeatureCache(shop.recipe.out / "features", model)
    decks = shop.decks(4, unfit(model, config.length or 0))
    features.add(shop.shown(4) | (shop.overlays if shop.recipe.dialogues.overlay else {}))
    objective = conversations(shop, model, config, shop.writer(True), Writer.consultations, features, decks)
    fit(
        model,
        objective,
        config,
        shop.folder(4),
        f"{shop.domain.name}: stage 4, expert-informed",
        shop.tracker.log,
        resume,
    )
    model.save(shop.folder(4) / "model")
    return shop.folder(4)
