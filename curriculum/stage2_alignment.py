"""Stage 2: vision-language pre-training, the decoder learns to say what the tower sees (LLaVA, Liu et al. 2023)."""

from __future__ import annotations

from pathlib import Path

import torch

from curriculum.conversation import conversations
from curriculum.data.dialogues import Writer
from curriculum.parts.features import as_pixels
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
    images = as_pixels(shop.pictures, list(shop.pictures))
    objective = conversations(shop, model, config, shop.writer(False), Writer.captions, images)
    fit(model, objective, config, shop.folder(2), f"{shop.domain.name}: stage 2, alignment", shop.tracker.log, resume)
    model.save(shop.folder(2) / "model")
    return shop.folder(2)
