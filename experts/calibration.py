"""From what a network says to a probability, a decision, and how far both can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

Vector = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """How one label is read: probability = logistic(slope · evidence + intercept), present from `threshold` on.

    A pixel belongs to the label from the probability `cut` on. `support` is the number of pixels whose mean is the
    evidence of a segmentation: about as many as the smallest that training has shown.
    """

    slope: float = 1.0
    intercept: float = 0.0
    threshold: float = 0.5
    cut: float = 0.5
    support: int = 1

    def probability(self, evidence: float) -> float:
        """The calibrated probability that the label is there."""
        return float(expit(self.slope * evidence + self.intercept))


def platt(evidence: Vector, truth: Truth) -> tuple[float, float]:
    """Slope, above 0, and intercept of the logistic curve through (evidence, truth); Platt 1999, Lin et al. 2007.

    Its targets are drawn in from 0 and 1, so that a perfect separation does not make it a step. Where only one class
    occurs nothing can be learned: slope 1, intercept 0.
    """
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return 1.0, 0.0
    target = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    middle, spread = float(evidence.mean()), float(evidence.std()) or 1.0
    x = (evidence - middle) / spread

    def loss(weights: Vector) -> tuple[float, Vector]:
        z = weights[0] * x + weights[1]
        error = expit(z) - target
        value = float(np.sum(np.logaddexp(0, z) - target * z))
        return value, np.array([error @ x, error.sum()])

    slope, intercept = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)]
    ).x
    return float(slope / spread), float(intercept - slope * middle / spread)


def operating_point(probability: Vector, truth: Truth) -> float:
    """The threshold with the greatest sensitivity + specificity (Youden 1950), of several the one nearest to 0.5.

    Thresholds lie halfway between neighbouring probabilities. Where only one class occurs: 0.5.
    """
    values = np.unique(probability)
    if truth.all() or not truth.any() or len(values) == 1:
        return 0.5
    thresholds = (values[1:] + values[:-1]) / 2
    above = probability >= thresholds[:, None]
    youden = (above & truth).sum(1) / truth.sum() - (above & ~truth).sum(1) / (~truth).sum()
    best = thresholds[youden >= youden.max() - 1e-9]
    return float(best[np.argmin(np.abs(best - 0.5))])


def calibrate(evidence: Vector, truth: Truth) -> Calibration:
    """Slope, intercept and threshold from evidence of known truth."""
    slope, intercept = platt(evidence, truth)
    return Calibration(slope, intercept, operating_point(expit(slope * evidence + intercept), truth))


def decisions(evidence: Vector, truth: Truth, folds: int = 5) -> Truth:
    """Whether each is called present by a calibration that has not seen it: cross-fitted in stratified folds."""
    fold = np.empty(len(truth), int)
    for group in (truth, ~truth):
        fold[group] = np.arange(group.sum()) % folds
    out = np.zeros(len(truth), bool)
    for number in range(folds):
        held = fold == number
        if held.any() and not held.all():
            fitted = calibrate(evidence[~held], truth[~held])
            out[held] = expit(fitted.slope * evidence[held] + fitted.intercept) >= fitted.threshold
    return out


def auroc(evidence: Vector, truth: Truth) -> float:
    """The area under the ROC curve: how often a positive ranks above a negative; NaN without both."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks: Any = rankdata(evidence)[truth].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def interval(statistic: Callable[[NDArray[np.intp]], float], n: int, resamples: int = 500) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of indices, by resampling `n` studies with replacement."""
    rng = np.random.default_rng(0)
    draws = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])
    if np.isnan(draws).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)
