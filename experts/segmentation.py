"""Experts that draw: one mask a label, which may overlap, and what the masks measure.

The module is the kind `segmentation` of the entry points `fovea.experts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional

from experts import measure
from experts.calibration import Calibration
from experts.network import NetworkExpert, fill, load
from experts.preparation import Input, n_features
from experts.settings import ExpertConfig
from experts.training import Log, Pairs
from fovea.types import Bools, ExpertCard, Finding, Floats, Mask, Measure, Origin, Span


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
    """Train an expert and save it: see `experts.segmentation_training.train`."""
    from experts import segmentation_training

    return segmentation_training.train(config, train, validation, folder, seed, device, log)


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


def _slices(mask: Bools) -> Span | None:
    """The half-open span of slices that a mask touches, in a volume."""
    touched = np.flatnonzero(mask.any(axis=(1, 2)))
    return (int(touched[0]), int(touched[-1]) + 1) if len(mask) > 1 else None
