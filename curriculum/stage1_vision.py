"""Stage 1: vision pre-training, an image-text contrastive model of the domain (CLIP, Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from curriculum.conversation import forged
from curriculum.data.mix import deal
from curriculum.data.records import answer
from curriculum.parts.fit import fit
from curriculum.workshop import Workshop
from models.clip.model import ContrastiveModel


def train(shop: Workshop, resume: bool) -> Path:
    """Train on pictures with freshly worded captions, and those of sets; saves open_clip's layout to stage1/clip."""
    config, _ = shop.recipe.stage(1)
    torch.manual_seed(shop.recipe.seed)
    clip = shop.recipe.clip
    model = ContrastiveModel.open(clip) if isinstance(clip, str) else ContrastiveModel.build(clip, shop.tokenizer)
    items = {item.id: item for item in shop.corpus.split("train")}
    decks, shown = shop.decks(1, forged(model.tokenizer)), shop.shown(1)
    seed, loss = shop.recipe.seed, ClipLoss()
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (model.clip.visual.image_mean, model.clip.visual.image_std)
    )

    def objective(wrapped: nn.Module, step: int) -> Mapping[str, Tensor]:
        rng = Random(f"{seed}/stage1/{step}")
        names, dealt = deal(list(items), decks, seed, step, config.batch or 1)
        chosen = [items[name] for name in names]
        told = [Random(f"{seed}/{step}/{name}").choice(records) for name, records in dealt]
        pictures = [*(item.picture for item in chosen), *(shown[record.images[0]] for record in told)]
        pixels = torch.from_numpy(np.stack([_shifted(picture, rng) for picture in pictures]))
        captions = [shop.domain.caption(item.study, item.facts, rng) for item in chosen]
        tokens = model.tokenize(captions + [answer(record) for record in told])
        device = next(model.parameters()).device
        normal = (pixels.permute(0, 3, 1, 2).float() - mean) / std
        image, text, scale = wrapped(normal.to(device, memory_format=torch.channels_last), tokens.to(device))
        return {"loss": loss(image, text, scale)}

    fit(model, objective, config, shop.folder(1), f"{shop.domain.name}: stage 1, vision", shop.tracker.log, resume)
    model.save(shop.folder(1) / "clip")
    return shop.folder(1)


def _shifted(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], rng: Random
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The picture moved by up to 3 % and a little brighter or darker; never mirrored, for sides have names."""
    reach = max(1, round(0.03 * len(picture)))
    moved = np.roll(picture, (rng.randint(-reach, reach), rng.randint(-reach, reach)), (0, 1))
    bright: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (
        (moved * rng.uniform(0.85, 1.15)).clip(0, 255).astype(np.uint8)
    )
    return bright
