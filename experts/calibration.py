"""From what a network says to a probability, a decision, and how far both can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import rankdata

from experts.operating import Truth, Vector, operating_point
from fovea.types import Floats

Method = Literal["logistic", "platt", "temperature", "isotonic"]
BINS = 15
"""Bins of equal width of the expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Calibration:
    """How one label is read: probability = logistic(slope · evidence + intercept), present from `threshold` on.

    With `knots` (evidence, probability) the probability is interpolated between them instead. `rule` set the
    threshold, or could not where `met` is false: see `experts.operating`. A pixel belongs to the label from the
    probability `cut` on; the logits of pixels have a slope and an intercept of their own. `support` is the number of
    pixels whose mean is the evidence of a segmentation: about as many as the smallest that training has shown.
    """

    slope: float = 1.0
    intercept: float = 0.0
    threshold: float = 0.5
    cut: float = 0.5
    support: int = 1
    knots: tuple[tuple[float, float], ...] = ()
    pixel_slope: float = 1.0
    pixel_intercept: float = 0.0
    method: Method = "platt"
    rule: str = "youden"
    met: bool = False

    def probability(self, evidence: float) -> float:
        """The calibrated probability that the label is there."""
        return float(self.probabilities(np.array([evidence]))[0])

    def probabilities(self, evidence: Vector) -> Vector:
        """The same of many studies."""
        if self.knots:
            x, y = np.array(self.knots).T
            return np.asarray(np.interp(evidence, x, y), float)
        return np.asarray(expit(self.slope * evidence + self.intercept), float)

    def pixel(self, probabilities: Floats) -> Floats:
        """The calibrated probabilities of pixels, from those of the network."""
        if (self.pixel_slope, self.pixel_intercept) == (1, 0):
            return probabilities
        logits = logit(np.clip(probabilities, 1e-7, 1 - 1e-7))
        return np.asarray(expit(self.pixel_slope * logits + self.pixel_intercept), np.float32)


def logistic(evidence: Vector, truth: Truth, unit: float = 1.0) -> tuple[float, float]:
    """Slope, above 0, and intercept of the likeliest logistic curve, where few studies leave the evidence as it is.

    Before any study is seen, the logarithm of slope · `unit` is normal about 0 with a variance of 1/2, the intercept
    with one of 1. Evidence that is no logit gives as `unit` what would be one. What is found fits the studies at least
    as well as slope 1 / `unit` and intercept 0, which is the answer where only one class occurs.
    """
    slope, intercept = _likeliest(evidence / unit, truth.astype(float), (2.0, 1.0))
    return slope / unit, intercept


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
    slope, intercept = _likeliest((evidence - middle) / spread, target, (0.0, 0.0))
    return slope / spread, intercept - slope * middle / spread


def _likeliest(x: Vector, target: Vector, prior: tuple[float, float]) -> tuple[float, float]:
    """The likeliest slope, from 1/1000 to 1000, and intercept, by prior precisions of log(slope) and intercept."""
    if (target == target[0]).all():
        return 1.0, 0.0
    precision = np.array(prior)

    def loss(weights: Vector) -> tuple[float, Vector]:
        slope = np.exp(weights[0])
        z = slope * x + weights[1]
        error = expit(z) - target
        value = float(np.sum(np.logaddexp(0, z) - target * z) + precision @ weights**2 / 2)
        return value, np.array([slope * (error @ x), error.sum()]) + precision * weights

    power, intercept = minimize(
        loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-np.log(1000), np.log(1000)), (None, None)]
    ).x
    return float(np.exp(power)), float(intercept)


def temperature(logits: Vector, truth: Truth) -> float:
    """What logits are divided by for the smallest cross-entropy (Guo et al. 2017), between 1/20 and 20.

    1 where only one class occurs.
    """
    if truth.all() or not truth.any():
        return 1.0

    def loss(power: float) -> float:
        z = logits * np.exp(-power)
        return float(np.mean(np.logaddexp(0, z) - truth * z))

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


def isotonic(evidence: Vector, truth: Truth) -> tuple[tuple[float, float], ...]:
    """The knots of the monotone curve of least squares (Zadrozny and Elkan 2002); it needs many studies."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(evidence, truth)
    return tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))


def calibrate(
    evidence: Vector, truth: Truth, method: Method = "logistic", rule: str = "youden", unit: float = 1.0
) -> Calibration:
    """The curve and the threshold from evidence of known truth; where only one class occurs, the evidence is kept.

    `unit` is what evidence of one logit is, for the method `logistic`.
    """
    slope, intercept = 1.0, 0.0
    knots: tuple[tuple[float, float], ...] = ()
    if truth.any() and not truth.all():
        if method == "logistic":
            slope, intercept = logistic(evidence, truth, unit)
        elif method == "platt":
            slope, intercept = platt(evidence, truth)
        elif method == "temperature":
            slope = 1 / temperature(evidence, truth)
        else:
            knots = isotonic(evidence, truth)
    plain = Calibration(slope, intercept, knots=knots)
    point = operating_point(plain.probabilities(evidence), truth, rule)
    return Calibration(slope, intercept, point.threshold, knots=knots, method=method, rule=rule, met=point.met)


def cross_fitted(
    evidence: Vector, truth: Truth, method: Method = "logistic", rule: str = "youden", unit: float = 1.0, folds: int = 5
) -> tuple[Vector, Truth]:
    """The probability of each study, and whether it is called present, by a calibration that has not seen it.

    The folds are stratified.
    """
    fold = np.empty(len(truth), int)
    for group in (truth, ~truth):
        fold[group] = np.arange(group.sum()) % folds
    probability, called = np.asarray(expit(evidence), float), np.zeros(len(truth), bool)
    for number in range(folds):
        held = fold == number
        if held.any() and not held.all():
            fitted = calibrate(evidence[~held], truth[~held], method, rule, unit)
            probability[held] = fitted.probabilities(evidence[held])
            called[held] = probability[held] >= fitted.threshold
    return probability, called


def binned(probability: Vector, truth: Truth) -> Vector:
    """Bins of equal width: how many, the sum of their probabilities, and how many of them are true; (3, `BINS`)."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(place, weights, BINS) for weights in (np.ones(len(truth)), probability, truth)])


def calibration_error(bins: Vector) -> float:
    """The expected calibration error (Guo et al. 2017) of `binned` probabilities; NaN without any."""
    n = float(bins[0].sum())
    return float(np.abs(bins[1] - bins[2]).sum() / n) if n else float("nan")


def error_by_chance(probability: Vector, resamples: int = 500) -> tuple[float, float, float]:
    """The calibration error that these probabilities would show if they were true: the mean, and where 95 % lie.

    Few studies do not show the share of present ones that each bin foretells, so that it is above 0 (Bröcker and Smith
    2007).
    """
    rng = np.random.default_rng(0)
    draws = [
        calibration_error(binned(probability, rng.random(len(probability)) < probability)) for _ in range(resamples)
    ]
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(np.mean(draws)), float(low), float(high)


def auroc(evidence: Vector, truth: Truth) -> float:
    """The area under the ROC curve: how often a positive ranks above a negative; NaN without both."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks: Any = rankdata(evidence)[truth].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def interval(
    statistic: Callable[[NDArray[np.intp]], float], n: int, resamples: int = 500, centered: bool = False
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of indices, by resampling `n` studies with replacement.

    `centered`: moved to the value of all studies, at least 0. A calibration error is larger in resamples, as they are
    noisier.
    """
    rng = np.random.default_rng(0)
    draws = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])
    if np.isnan(draws).all():
        return float("nan"), float("nan")
    if centered:
        draws = np.maximum(draws + statistic(np.arange(n)) - np.nanmean(draws), 0)
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)
