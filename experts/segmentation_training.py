"""How an expert that draws is trained, calibrated and examined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from experts.calibration import Calibration
from experts.examination import Trial, compare, dice, write_reliability
from experts.network import card_of, digest_of, save
from experts.segmentation import Drawn, SegmentationExpert, build, measured, rivals
from experts.settings import ExpertConfig
from experts.training import Data, Log, Pairs, apart, batch, fit, gather, seeded, usable
from experts.variation import Variation
from fovea.types import Bools, ExpertCard, Facts, Mask, Origin

_CUTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Probabilities from which a pixel may belong to a label; calibration chooses."""


def train(
    config: ExpertConfig,
    train: Pairs,
    validation: Pairs,
    folder: Path,
    seed: int,
    device: torch.device | str = "cpu",
    log: Log | None = None,
) -> ExpertCard:
    """Train, calibrate and examine on `validation`, and save; returns the card, with how good the expert is.

    The same seed gives the same weights on a CPU with the same number of threads. `log` takes name, value and step.
    """
    device, labels = torch.device(device), config.drawn
    learned, stopping, examined = apart(config, train, validation)
    data = gather(config, learned, labels, masks=True)
    held = gather(config, stopping, labels, masks=True) if stopping else None
    config = config.coded_by(data.codes)
    network = seeded(lambda: build(config), seed).to(device)
    share = data.sizes.sum(0) / (data.drawn * data.areas[:, None]).sum(0).clamp(min=1)
    with torch.no_grad():
        network.bias.copy_(torch.logit(share.clamp(0.02, 0.5)))
    rarity = share.clamp(min=1e-6).rsqrt().clamp(max=config.training.rare).to(device)
    vary = Variation(config, data.sides, seed)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        pixels, valid, masks = batch(config, data, indices, vary, generator, device)
        flat = [1] * (masks.ndim - 2)
        known = valid * data.drawn[indices].to(device).view(*masks.shape[:2], *flat)
        return segmentation_loss(network(pixels).float(), masks, known, config.exclusive, rarity.view(-1, *flat))

    shown = times(data.sizes > 0, config.training.rare)
    score = None if held is None else lambda: mean_dice(config, network, held, device)
    step = fit(network, loss, shown, config, seed, device, log, score)
    plain = {
        label: Calibration(support=support(data.sizes[data.sizes[:, place] > 0, place]))
        for place, label in enumerate(labels)
    }
    expert, trials, digests = _calibrated(
        SegmentationExpert(config, plain, network, card_of(config, network, data.digests), device), examined
    )
    rows = tuple(row for label, trial in trials.items() for row in trial.rows(label, digest_of(digests)))
    card = save(folder, config, expert.calibrations, network, replace(expert.card, performance=rows))
    write_reliability(folder, trials)
    if log:
        log(f"{config.name}/best step", step, step)
    return card


def mean_dice(config: ExpertConfig, network: nn.Module, data: Data, device: torch.device) -> float:
    """The mean of the labels' Dice over the studies that show them, in windows of the recipe's size (MONAI)."""
    from monai.inferers.utils import sliding_window_inference
    from monai.metrics.meandice import compute_dice

    found = []
    for study, pixels in enumerate(data.pixels):
        with torch.inference_mode():
            seen = pixels[None].to(device).float()
            logits = sliding_window_inference(seen, config.size[-seen.ndim + 2 :], 4, network)[0].float().cpu()
        said = (rivals(logits) if config.exclusive else torch.sigmoid(logits)) >= 0.5
        said &= data.planes[study][:1] > 0
        found.append(compute_dice(said[None].float(), data.masks(study)[None])[0])  # NaN where there is no mask
    return float(torch.stack(found).nanmean(0).nanmean().nan_to_num(0))


def support(sizes: Tensor) -> int:
    """The size of all but the smallest twentieth of a label's masks, in pixels; 1 where there is none."""
    return max(int(np.quantile(sizes.numpy(), 0.05)), 1) if len(sizes) else 1


def times(shown: Tensor, rare: float) -> Tensor:
    """How often a study comes in a pass, from what it shows (study, label): as its rarest label is rare, from once to
    `rare` times."""
    share = shown.float().mean(0).clamp(min=1e-6)
    return (shown / share).amax(1).clamp(1, rare).round().long()


def segmentation_loss(
    logits: Tensor, masks: Tensor, weight: Tensor, exclusive: bool = False, rarity: Tensor | float = 1.0
) -> Tensor:
    """Cross-entropy of the pixels plus MONAI's Dice loss over the whole batch for each label that it shows.

    `weight` is 0 where there is no data, or where the label's mask is not known: MONAI's losses have one mask for all
    labels, so that the cross-entropy is summed here. Of `exclusive` labels a pixel has one or none; of others, a pixel
    that has the label counts `rarity` times.
    """
    known = masks * weight
    if exclusive:
        none = torch.zeros_like(logits[:, :1])
        shares = torch.log_softmax(torch.cat((none, logits), 1), dim=1)
        nothing = (1 - masks.sum(1, keepdim=True)).clamp(min=0) * weight.amin(1, keepdim=True)
        entropy = -masks.shape[1] * ((shares[:, 1:] * known).sum() + (shares[:, :1] * nothing).sum())
        inside = shares[:, 1:].exp() * weight
    else:
        entropy = (functional.softplus(logits) * (weight - known) + rarity * functional.softplus(-logits) * known).sum()
        inside = torch.sigmoid(logits) * weight
    shown = known.sum([0, *range(2, logits.ndim)]) > 0
    dice: Tensor = DiceLoss(batch=True, reduction="none", smooth_nr=1, smooth_dr=1)(inside, known)
    return entropy / weight.sum().clamp(min=1) + (dice.flatten() * shown).sum() / shown.sum().clamp(min=1)


def _calibrated(expert: SegmentationExpert, pairs: Pairs) -> tuple[SegmentationExpert, dict[str, Trial], list[str]]:
    """The expert with thresholds learned from studies of known truth, how it did on each label, and their digests.

    The studies pass twice: the network's maps decide thresholds and cuts, with which the masks are then measured.
    """
    config = expert.config
    looks, digests = [], []
    trials = {
        label: Trial(config.training.calibration, wanted.operating, wanted.rule is None)
        for label, wanted in config.labels.items()
    }
    overlaps: dict[str, list[list[float]]] = {label: [] for label in config.labels}
    for (study, facts), drawn in expert.looks(usable(config, pairs)):
        looks.append(drawn)
        digests.append(study.digest)
        for label in facts.assessed.intersection(config.drawn):
            present = facts.finding(label) is not None
            trials[label].add(drawn.evidence(label, expert.calibrations[label].support), present)
            mask = _truth(label, facts, drawn)
            if mask is not None:
                shares = drawn.map(label)
                trials[label].draw(shares[drawn.seen.valid], mask[drawn.seen.valid])
                overlaps[label] += [[dice(mask, shares >= cut) for cut in _CUTS]] if present else []
    calibrations = dict.fromkeys(config.labels, Calibration())
    for label, plain in expert.calibrations.items():
        slope, intercept = trials[label].pixel_curve()
        calibrations[label] = replace(
            trials[label].calibration(),
            cut=_best_cut(overlaps[label]),
            support=plain.support,
            pixel_slope=slope,
            pixel_intercept=intercept,
        )
    ready = SegmentationExpert(config, calibrations, expert.network, expert.card, expert.device)
    for (_, facts), look in zip(usable(config, pairs), looks, strict=True):
        drawn = Drawn(config, calibrations, look.seen, look.maps)
        for label in facts.assessed.intersection(config.labels):
            rule = config.labels[label].rule
            value = measured(rule.measure, rule.of, drawn) if rule else None
            if rule and value:
                trials[label].add(value.value - rule.above, facts.finding(label) is not None)
            if value or not rule:
                trials[label].cases.append(compare(facts, ready.finding(label, drawn, Origin(config.name, ""))))
    calibrations |= {label: trials[label].calibration() for label, wanted in config.labels.items() if wanted.rule}
    return ready, trials, digests


def _truth(label: str, facts: Facts, drawn: Drawn) -> Bools | None:
    """The true mask in the network's size; None where it is not known. An absent label has an empty one."""
    truth = facts.finding(label)
    if truth is None:
        return np.zeros_like(drawn.seen.valid)
    if not isinstance(truth.region, Mask) or truth.image != drawn.seen.image:
        return None
    return drawn.seen.shrink(truth.region.data)


def _best_cut(overlaps: list[list[float]]) -> float:
    """The cut with the greatest mean Dice; of equal ones the nearest to 0.5."""
    mean = np.mean(overlaps or [[0.0] * len(_CUTS)], axis=0)
    return _CUTS[int(np.argmax(mean - 1e-9 * np.abs(np.array(_CUTS) - 0.5)))]
