"""Stage 2: vision-language pre-training, the decoder learns to say what the tower sees (LLaVA, Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from curriculum.conversation import conversations, unfit
from curriculum.data.dialogues import Writer
from curriculum.parts.features import FeatureCache, as_pixels
from curriculum.parts.fit import fit
from curriculum.workshop import Workshop
from models.vlm.model import VisionLanguageConfig, VisionLanguageModel


def train(shop: Workshop, resume: bool) -> Path:
    """Train on captions, and on findings to be read; the tower is stage 1's unless the recipe names another."""
    config, _ = shop.recipe.stage(2)
    torch.manual_seed(shop.recipe.seed)
    recipe = shop.recipe
    wanted = VisionLanguageConfig(
        tower=recipe.tower or f"openclip:{shop.folder(1) / 'clip'}", factor=recipe.factor, decoder=recipe.decoder
    )
    model = VisionLanguageModel.build(wanted, shop.tokenizer)
    decks, pictures = shop.decks(2, unfit(model, config.length or 0)), shop.shown(2)
    images: Mapping[str, Tensor] = as_pixels(pictures)
    if not any(prefix.startswith("tower") for phase in config.phases or () for prefix in phase.train):
        images = cache = FeatureCache(shop.recipe.out / "features", model)
        cache.add(pictures)
    objective = conversations(shop, model, config, shop.writer(False), Writer.captions, images, decks)
    fit(model, objective, config, shop.folder(2), f"{shop.domain.name}: stage 2, alignment", shop.tracker.log, resume)
    model.save(shop.folder(2) / "model")
    return shop.folder(2)
