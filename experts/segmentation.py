"""Experts that draw: one mask a label, which may overlap, and what the masks measure.

The module is the kind `segmentation` of the entry points `fovea.experts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional

from experts import measure
from experts.calibration import Calibration
from experts.examination import Trial, compare, dice
from experts.network import NetworkExpert, card_of, digest_of, fill, load, save
from experts.preparation import Input, n_features
from experts.settings import ExpertConfig
from experts.training import Log, Pairs, batch, fit, gather, seeded, usable
from fovea.types import Bools, ExpertCard, Facts, Finding, Floats, Mask, Measure, Origin, Performance, Span

_CUTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Probabilities from which a pixel may belong to a label; calibration chooses."""


class Folded(nn.Module):
    """A network that works on blocks of 2 x 2 pixels, a quarter of the positions with four times the channels.

    Pixels go in and logits come out at full resolution (space to depth and back; Shi et al. 2016); a bias for each
    label starts at its share of the pixels, so that the first steps are not spent on learning that most are empty.
    """

    def __init__(self, inner: nn.Module, labels: int) -> None:
        super().__init__()
        self.inner = inner
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, pixels: Tensor) -> Tensor:  # (batch, channel, [slice,] row, column)
        volume = pixels.ndim == 5
        folded = functional.pixel_unshuffle(pixels.transpose(1, 2) if volume else pixels, 2)
        drawn: Tensor = self.inner(folded.transpose(1, 2) if volume else folded)
        out = functional.pixel_shuffle(drawn.transpose(1, 2) if volume else drawn, 2)
        out = out.transpose(1, 2) if volume else out
        return out + self.bias.view(-1, *([1] * (pixels.ndim - 2)))  # (batch, label, [slice,] row, column)


def build(config: ExpertConfig) -> Folded:
    """MONAI's basic U-Net, in 2-D or, where the input has several slices, in 3-D."""
    from monai.networks.nets.basic_unet import BasicUNet

    width, labels = config.training.width, len(config.drawn)
    inner = BasicUNet(
        spatial_dims=3 if config.size[0] > 1 else 2,
        in_channels=4 * n_features(config),
        out_channels=4 * labels,
        features=(width, width, 2 * width, 4 * width, 4 * width, width),
        act="RELU",
        norm="BATCH",
        upsample="nontrainable",
    )
    return Folded(inner, labels)


class Drawn(Mapping[str, Bools]):
    """The masks of one study on its own grid by label, each made when first asked for."""

    def __init__(
        self, config: ExpertConfig, calibrations: Mapping[str, Calibration], seen: Input, maps: Floats
    ) -> None:
        self.seen, self.maps = seen, maps
        self._config, self._calibrations = config, calibrations
        self._masks: dict[str, Bools] = {}

    def __getitem__(self, label: str) -> Bools:
        if label not in self._masks:
            whole = self.seen.enlarge(self.map(label), self._calibrations[label].cut)
            pixels = self.seen.known.size / self.seen.valid.size  # of the image in one of the network
            self._masks[label] = measure.without_specks(whole, self._config.labels[label].smallest * pixels)
        return self._masks[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.drawn)

    def __len__(self) -> int:
        return len(self._config.drawn)

    def map(self, label: str) -> Floats:
        """The probability of each pixel in the network's size, (slice, row, column)."""
        shares: Floats = self.maps[self._config.drawn.index(label)]
        return shares

    def evidence(self, label: str, support: int) -> float:
        """The logit of the mean of the `support` likeliest pixels."""
        flat = self.map(label).ravel()
        share = float(np.partition(flat, -support)[-support:].mean())
        return float(logit(np.clip(share, 1e-5, 1 - 1e-5)))


class SegmentationExpert(NetworkExpert[Drawn]):
    """Draws, measures what it drew, and says how sure it is."""

    def read(self, seen: Input, logits: Tensor) -> Drawn:
        maps = rivals(logits) if self.config.exclusive else torch.sigmoid(logits)
        return Drawn(
            self.config, self.calibrations, seen, maps.numpy().reshape(len(self.config.drawn), *self.config.size)
        )

    def finding(self, label: str, output: Drawn, by: Origin) -> Finding:
        wanted, calibration, code = self.config.labels[label], self.calibrations[label], self.config.code(label)
        if wanted.rule:
            value = measured(wanted.rule.measure, wanted.rule.of, output)
            if value is None:
                return Finding(label, code, False, 0.0, by)
            present = value.value > wanted.rule.above
            score = calibration.probability(value.value - wanted.rule.above)
            return Finding(label, code, present, score, by, measures=(value,) if present else ())
        score = calibration.probability(output.evidence(label, calibration.support))
        if score < calibration.threshold or not output[label].any():
            return Finding(label, code, False, score, by, image=output.seen.image)
        mask = output[label]
        found = [measured(name, label, output) for name in wanted.measures]
        return Finding(
            label,
            code,
            True,
            score,
            by,
            self._location(wanted.location, mask, output),
            tuple(item for item in found if item),
            Mask(mask),
            output.seen.image,
            _slices(mask),
        )

    def _location(self, how: str, mask: Bools, output: Drawn) -> str:
        grid = output.seen.grid
        if how == "quadrant":
            return measure.quadrant(mask, grid)
        if how == "side":
            pair = [output[label] for label in self.config.midline or ()]
            return measure.side(mask, grid, measure.midline(pair[0], pair[1], grid) if pair else None)
        return ""


def open(folder: Path | None) -> SegmentationExpert:
    """The expert that `train` saved in a folder; raises ModelError."""
    config, calibrations, weights, card = load(folder, "segmentation")
    return SegmentationExpert(config, calibrations, fill(build(config), weights, card.name), card)


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
    data = gather(config, train, labels, masks=True)
    config = config.coded_by(data.codes)
    network = seeded(lambda: build(config), seed).to(device)
    share = data.sizes.sum(0) / (data.drawn.sum(0) * math.prod(config.size)).clamp(min=1)
    with torch.no_grad():
        network.bias.copy_(torch.logit(share.clamp(0.02, 0.5)))
    rarity = share.clamp(min=1e-6).rsqrt().clamp(max=config.training.rare).to(device)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        pixels, valid, masks = batch(config, data, indices, generator, device)
        flat = [1] * (masks.ndim - 2)
        known = valid * data.drawn[indices].to(device).view(*masks.shape[:2], *flat)
        return segmentation_loss(network(pixels).float(), masks, known, config.exclusive, rarity.view(-1, *flat))

    fit(network, loss, times(data.sizes > 0, config.training.rare), config, seed, device, log)
    plain = {
        label: Calibration(support=support(data.sizes[data.sizes[:, place] > 0, place]))
        for place, label in enumerate(labels)
    }
    expert, rows = _calibrated(
        SegmentationExpert(config, plain, network, card_of(config, network, data.digests), device), validation
    )
    return save(folder, config, expert.calibrations, network, replace(expert.card, performance=rows))


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
    """Cross-entropy of the pixels plus 1 - Dice over the whole batch for each label that it shows.

    `weight` is 0 where there is no data, or where the label's mask is not known. Of `exclusive` labels a pixel has one
    or none; of others, a pixel that has the label counts `rarity` times.
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
    axes = [0, *range(2, logits.ndim)]
    both, either, shown = ((inside * known).sum(axes), (inside + known).sum(axes), known.sum(axes) > 0)
    dice = 1 - (2 * both + 1) / (either + 1)
    return entropy / weight.sum().clamp(min=1) + (dice * shown).sum() / shown.sum().clamp(min=1)


def rivals(logits: Tensor) -> Tensor:
    """Of exclusive labels (label, …), each against the likeliest other or none: above 0.5 for one label at most."""
    if len(logits) == 1:
        return torch.sigmoid(logits)
    best = logits.clamp(min=0).topk(2, dim=0).values
    return torch.sigmoid(logits - torch.where(logits == best[:1], best[1:], best[:1]))


def measured(name: str, label: str, drawn: Drawn) -> Measure | None:
    """One measure of a label's mask; None where the grid or the picture does not support it."""
    seen = drawn.seen
    return measure.MEASURES[name](drawn[label], seen.grid, measure.Context(seen.known, drawn, seen.coarseness))


def _calibrated(expert: SegmentationExpert, pairs: Pairs) -> tuple[SegmentationExpert, tuple[Performance, ...]]:
    """The expert with thresholds learned from studies of known truth, and how good it is on them.

    The studies pass twice: the network's maps decide thresholds and cuts, with which the masks are then measured.
    """
    config = expert.config
    looks, digests, trials = [], [], {label: Trial() for label in config.labels}
    overlaps: dict[str, list[list[float]]] = {label: [] for label in config.labels}
    for (study, facts), drawn in expert.looks(usable(config, pairs)):
        looks.append(drawn)
        digests.append(study.digest)
        for label in facts.assessed.intersection(config.drawn):
            trials[label].add(
                drawn.evidence(label, expert.calibrations[label].support), facts.finding(label) is not None
            )
            overlaps[label] += _overlaps(label, facts, drawn)
    calibrations = dict.fromkeys(config.labels, Calibration())
    for label, plain in expert.calibrations.items():
        calibrations[label] = replace(
            trials[label].calibration(), cut=_best_cut(overlaps[label]), support=plain.support
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
    data = digest_of(digests)
    rows = [
        row for label, trial in trials.items() for row in trial.rows(label, data, config.labels[label].rule is None)
    ]
    return ready, tuple(rows)


def _overlaps(label: str, facts: Facts, drawn: Drawn) -> list[list[float]]:
    """Dice in the network's size at each possible cut; nothing where the truth has no mask."""
    truth = facts.finding(label)
    if truth is None or not isinstance(truth.region, Mask) or truth.image != drawn.seen.image:
        return []
    mask, shares = drawn.seen.shrink(truth.region.data), drawn.map(label)
    return [[dice(mask, shares >= cut) for cut in _CUTS]]


def _best_cut(overlaps: list[list[float]]) -> float:
    """The cut with the greatest mean Dice; of equal ones the nearest to 0.5."""
    mean = np.mean(overlaps or [[0.0] * len(_CUTS)], axis=0)
    return _CUTS[int(np.argmax(mean - 1e-9 * np.abs(np.array(_CUTS) - 0.5)))]


def _slices(mask: Bools) -> Span | None:
    """The half-open span of slices that a mask touches, in a volume."""
    touched = np.flatnonzero(mask.any(axis=(1, 2)))
    return (int(touched[0]), int(touched[-1]) + 1) if len(mask) > 1 else None
