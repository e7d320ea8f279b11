"""How good an expert is: its findings on studies of known truth, with intervals over the studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from experts.calibration import (
    Calibration,
    Method,
    auroc,
    binned,
    calibrate,
    calibration_error,
    cross_fitted,
    error_by_chance,
    interval,
    logistic,
)
from experts.operating import Truth, Vector, operating_point
from fovea.files import whole
from fovea.types import Bools, Facts, Finding, Floats, Mask, Performance

Statistic = Callable[[NDArray[np.intp]], float]
_PIXELS = 2000
"""Pixels of one study from which the calibration of pixels is learned."""
_DOUBT = 0.01
"""Pixels of a smaller probability are left out: there are so many that they would hide all others."""


@dataclass(frozen=True)
class Case:
    """One study's truth of one label against what was found: the overlap of the masks, whether the location is right,
    and the absolute error of each measure. What one side does not tell is left out."""

    dice: float | None = None
    located: bool | None = None
    errors: Mapping[str, float] = field(default_factory=dict)


def compare(facts: Facts, found: Finding) -> Case:
    """A finding against the truth; where the label is there but was missed, overlap and location are wrong."""
    truth = facts.finding(found.label)
    if truth is None:
        return Case()
    overlap = None
    if isinstance(truth.region, Mask) and (isinstance(found.region, Mask) or not found.present):
        overlap = dice(truth.region.data, found.region.data) if isinstance(found.region, Mask) else 0.0
    located = truth.location == found.location if truth.location and (found.location or not found.present) else None
    errors = {
        f"error of {a.name}" + (f" in {a.unit}" if a.unit != "1" else ""): deviation(a.value, b.value, a.unit)
        for a in truth.measures
        if (b := found.measure(a.name)) and b.unit == a.unit
    }
    return Case(overlap, located, errors)


@dataclass
class Trial:
    """Everything about one label on studies of known truth, gathered study by study.

    `rule` sets the threshold of the label's probability. Not `learned`: the evidence is no logit but by how much a
    measure exceeds its limit, and counts as present above 0, whatever its probability.
    """

    method: Method = "logistic"
    rule: str = "youden"
    learned: bool = True
    evidence: list[float] = field(default_factory=list)
    truth: list[bool] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    pixels: list[tuple[Vector, Truth]] = field(default_factory=list)

    def add(self, evidence: float, present: bool) -> None:
        """What the network says of a study, and whether the label is there."""
        self.evidence.append(evidence)
        self.truth.append(present)

    def draw(self, probabilities: Floats, mask: Bools) -> None:
        """The logits and the truth of a study's pixels that may be the label's: from a probability of 1 % on."""
        doubtful = np.flatnonzero(probabilities >= _DOUBT)
        doubtful = doubtful[:: max(1, len(doubtful) // _PIXELS)]
        shares = probabilities.ravel()[doubtful].astype(float)
        self.pixels.append((logit(np.clip(shares, 1e-7, 1 - 1e-7)), mask.ravel()[doubtful]))

    def pixel_curve(self) -> tuple[float, float]:
        """The slope and the intercept that calibrate the logits of pixels; 1 and 0 where no pixel was drawn."""
        return _curve(self.pixels)

    def calibration(self) -> Calibration:
        """The probability and the threshold that the evidence gives."""
        return calibrate(*self._arrays, self.method, self.rule, self._unit)

    def _cross_fitted(self) -> tuple[Vector, Truth]:
        return cross_fitted(*self._arrays, self.method, self.rule, self._unit)

    @property
    def _arrays(self) -> tuple[Vector, Truth]:
        return np.array(self.evidence, float), np.array(self.truth, bool)

    @property
    def _unit(self) -> float:
        """What counts as one logit; of a measure, a quarter of how far it usually is from its limit."""
        usual = float(np.sqrt(np.mean(np.square(self.evidence)))) if self.evidence else 0.0
        return 1.0 if self.learned or not usual else usual / 4

    def reliability(self) -> dict[str, list[list[float]]]:
        """Bins [mean probability, share of present, studies], "before" calibration and "after", cross-fitted."""
        evidence, present = self._arrays
        after, _ = self._cross_fitted()
        sides = {"before": np.asarray(expit(evidence), float)} if self.learned else {}
        out = {}
        for name, probability in (sides | {"after": after}).items():
            n, sums, hits = binned(probability, present)
            out[name] = [[float(s / k), float(h / k), float(k)] for k, s, h in zip(n, sums, hits, strict=True) if k]
        return out

    def rows(self, label: str, data: str) -> tuple[Performance, ...]:
        """The rows of the card.

        AUROC; sensitivity, specificity, expected calibration error (15 bins of equal width) and Brier score by
        calibrations that have not seen the study, the last two "uncalibrated" too; the calibration error "by chance",
        which so many studies would show were their probabilities true; the threshold by its rule. Of pixels from a
        probability of 1 % on, the calibration error before and after their calibration. Over studies that
        show the label, the mean Dice and the share of right locations; over those in which it was found, the mean
        absolute error of each measure. A row that cannot be computed is left out. Intervals: 95 %, by bootstrap over
        studies.
        """
        rows = self._decisions() + self._pixels()
        rows += [
            _mean("dice", [case.dice for case in self.cases if case.dice is not None]),
            _mean("location", [case.located for case in self.cases if case.located is not None]),
        ]
        names = dict.fromkeys(name for case in self.cases for name in case.errors)
        rows += [_mean(name, [case.errors[name] for case in self.cases if name in case.errors]) for name in names]
        today = date.today().isoformat()
        out = []
        for metric, statistic, n in rows:
            value = statistic(np.arange(n)) if n else float("nan")
            if np.isfinite(value):
                low, high = interval(statistic, n, centered="ece" in metric)
                out.append(Performance(metric, label, round(value, 4), round(low, 4), round(high, 4), n, data, today))
        if self.truth:
            value, low, high = error_by_chance(self._cross_fitted()[0])
            chance = round(value, 4), round(low, 4), round(high, 4), len(self.truth)
            out.append(Performance("ece_by_chance", label, *chance, data, today))
        return tuple(out)

    def _decisions(self) -> list[tuple[str, Statistic, int]]:
        evidence, present = self._arrays
        before = np.asarray(expit(evidence), float)
        after, called = self._cross_fitted()
        if not self.learned:
            called = evidence > 0
        rows: list[tuple[str, Statistic, int]] = [
            ("auroc", lambda i: auroc(evidence[i], present[i]), len(present)),
            _mean("sensitivity", called[present]),
            _mean("specificity", ~called[~present]),
        ]
        for name, probability in (("_uncalibrated", before), ("", after)) if self.learned else (("", after),):
            rows += [_error(f"ece{name}", probability, present), _mean(f"brier{name}", (probability - present) ** 2)]
        if self.learned and present.any() and not present.all():
            fitted = self.calibration()
            scores = fitted.probabilities(evidence)
            by = f"threshold by {self.rule}{'' if fitted.met else ' (not met)'}"
            rows.append((by, lambda i: operating_point(scores[i], present[i], self.rule).threshold, len(present)))
        return rows

    def _pixels(self) -> list[tuple[str, Statistic, int]]:
        """Each half of the studies is examined with the calibration of the other."""
        pixels = [pair for pair in self.pixels if len(pair[1])]
        if len(pixels) < 2:
            return []
        other = [_curve(pixels[1::2]), _curve(pixels[::2])]
        rows = []
        for name, curves in (("_uncalibrated", [(1.0, 0.0)] * 2), ("", other)):
            by = [curves[at % 2] for at in range(len(pixels))]
            bins = np.stack([binned(expit(a * z + b), truth) for (a, b), (z, truth) in zip(by, pixels, strict=True)])
            rows.append(_summed(f"pixel_ece{name}", bins))
        return rows


def write_reliability(folder: Path, trials: Mapping[str, Trial]) -> None:
    """Write reliability.json beside a trained expert: the bins of each label."""
    told = {label: trial.reliability() for label, trial in trials.items() if trial.truth}
    with whole(folder / "reliability.json") as partial:
        partial.write_text(json.dumps(told) + "\n")


def dice(first: Bools, second: Bools) -> float:
    """Twice the overlap over the sum of the sizes; 1 for two empty masks, 0 for masks of different grids."""
    if first.shape != second.shape:
        return 0.0
    both, whole = float((first & second).sum()), float(first.sum() + second.sum())
    return 2 * both / whole if whole else 1.0


def deviation(truth: float, value: float, unit: str) -> float:
    """The absolute difference; of axes, at most 90 degrees."""
    if unit == "deg":
        return abs((value - truth + 90) % 180 - 90)
    return abs(value - truth)


def _curve(pixels: Sequence[tuple[Vector, Truth]]) -> tuple[float, float]:
    if not any(len(truth) for _, truth in pixels):
        return 1.0, 0.0
    logits, truth = (np.concatenate(column) for column in zip(*pixels, strict=True))
    return logistic(logits, truth)


def _mean(metric: str, values: Sequence[float] | Vector | Truth) -> tuple[str, Statistic, int]:
    table = np.asarray(values, float)
    return metric, lambda i: float(table[i].mean()), len(table)


def _error(metric: str, probability: Vector, truth: Truth) -> tuple[str, Statistic, int]:
    return metric, lambda i: calibration_error(binned(probability[i], truth[i])), len(truth)


def _summed(metric: str, bins: Vector) -> tuple[str, Statistic, int]:
    return metric, lambda i: calibration_error(bins[i].sum(0)), len(bins)
