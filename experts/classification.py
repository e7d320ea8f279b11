"""Experts that say what is there, without saying where: one calibrated probability a label.

The module is the kind `classification` of the entry points `fovea.experts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from experts.examination import Trial, write_reliability
from experts.network import NetworkExpert, card_of, digest_of, fill, load, save
from experts.preparation import Input, n_features
from experts.settings import ExpertConfig
from experts.training import Data, Log, Pairs, apart, batch, fit, gather, seeded, usable
from experts.variation import Variation
from fovea.errors import ConfigError
from fovea.types import ExpertCard, Finding, Origin


class ClassificationExpert(NetworkExpert[Mapping[str, float]]):
    """Gives a probability for each label, and nothing that would need a place."""

    def read(self, seen: Input, logits: Tensor) -> Mapping[str, float]:  # noqa: ARG002
        return dict(zip(self.config.labels, logits.double().tolist(), strict=True))

    def finding(self, label: str, output: Mapping[str, float], by: Origin) -> Finding:
        calibration = self.calibrations[label]
        score = calibration.probability(output[label])
        return Finding(label, self.config.code(label), score >= calibration.threshold, score, by)


def build(config: ExpertConfig) -> nn.Module:
    """MONAI's ResNet with one basic block a level, in 2-D or, where the input has several slices, in 3-D."""
    from monai.networks.nets.resnet import ResNet

    width = config.training.width
    network: nn.Module = ResNet(
        "basic",
        [1, 1, 1, 1],
        [width, 2 * width, 4 * width, 8 * width],
        spatial_dims=3 if config.size[0] > 1 else 2,
        n_input_channels=n_features(config),
        conv1_t_stride=2,
        num_classes=len(config.labels),
    )
    return network


def open(folder: Path | None) -> ClassificationExpert:
    """The expert that `train` saved in a folder; raises ModelError."""
    config, calibrations, weights, card = load(folder, "classification")
    return ClassificationExpert(config, calibrations, fill(build(config), weights, card.name), card)


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
    placed = [label for label, wanted in config.labels.items() if wanted.measures or wanted.location or wanted.rule]
    if placed:
        raise ConfigError(
            f"{config.name} classifies, but {', '.join(placed)} asks for measures, a location or a rule",
            "labels alone",
            "Use the kind segmentation.",
        )
    device, labels = torch.device(device), tuple(config.labels)
    learned, stopping, examined = apart(config, train, validation)
    data = gather(config, learned, labels, masks=False)
    held = gather(config, stopping, labels, masks=False) if stopping else None
    config = config.coded_by(data.codes)
    network = seeded(lambda: build(config), seed).to(device)
    vary = Variation(config, data.sides, seed)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        pixels, _, _ = batch(config, data, indices, vary, generator, device)
        return _cross_entropy(network(pixels).float(), data.present[indices], data.assessed[indices])

    score = None if held is None else lambda: -mean_loss(network, held, device)
    once = torch.ones(len(data), dtype=torch.long)
    step = fit(network, loss, once, config, seed, device, log, score)
    trials = {label: Trial(config.training.calibration, wanted.operating) for label, wanted in config.labels.items()}
    expert = ClassificationExpert(config, {}, network, card_of(config, network, data.digests), device)
    digests = []
    for (study, facts), output in expert.looks(usable(config, examined)):
        digests.append(study.digest)
        for label in facts.assessed.intersection(labels):
            trials[label].add(output[label], facts.finding(label) is not None)
    calibrations = {label: trial.calibration() for label, trial in trials.items()}
    rows = tuple(row for label, trial in trials.items() for row in trial.rows(label, digest_of(digests)))
    card = save(folder, config, calibrations, network, replace(expert.card, performance=rows))
    write_reliability(folder, trials)
    if log:
        log(f"{config.name}/best step", step, step)
    return card


def mean_loss(network: nn.Module, data: Data, device: torch.device) -> float:
    """The cross-entropy over studies: finer than the AUROC, which a few studies soon bring to 1."""
    with torch.inference_mode():
        logits = torch.cat([network(pixels[None].to(device).float()).float() for pixels in data.pixels])
    return float(_cross_entropy(logits, data.present, data.assessed))


def _cross_entropy(logits: Tensor, present: Tensor, assessed: Tensor) -> Tensor:
    """Over the labels that were looked for."""
    truth, known = present.to(logits), assessed.to(logits)
    return functional.binary_cross_entropy_with_logits(logits, truth, known, reduction="sum") / known.sum().clamp(1)
