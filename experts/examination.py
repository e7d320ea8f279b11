"""How good an expert is: its findings on studies of known truth, with intervals over the studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from experts.calibration import Calibration, Truth, auroc, calibrate, decisions, interval
from fovea.types import Bools, Facts, Finding, Mask, Performance

Statistic = Callable[[NDArray[np.intp]], float]


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
    """Everything about one label on studies of known truth, gathered study by study."""

    evidence: list[float] = field(default_factory=list)
    truth: list[bool] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)

    def add(self, evidence: float, present: bool) -> None:
        """What the network says of a study, and whether the label is there."""
        self.evidence.append(evidence)
        self.truth.append(present)

    def calibration(self) -> Calibration:
        """The probability and the threshold that the evidence gives."""
        return calibrate(np.array(self.evidence, float), np.array(self.truth, bool))

    def rows(self, label: str, data: str, learned: bool = True) -> tuple[Performance, ...]:
        """The rows of the card.

        AUROC, and sensitivity and specificity by thresholds that have not seen the study (where they are `learned`;
        else evidence above 0 counts as present); over studies that show the label, the mean Dice and the share of right
        locations; over those in which it was found, the mean absolute error of each measure. A row that cannot be
        computed is left out. Intervals: 95 %, by bootstrap over studies.
        """
        evidence, present = np.array(self.evidence, float), np.array(self.truth, bool)
        called = decisions(evidence, present) if learned else evidence > 0
        rows: list[tuple[str, Statistic, int]] = [
            ("auroc", lambda i: auroc(evidence[i], present[i]), len(present)),
            _mean("sensitivity", called[present]),
            _mean("specificity", ~called[~present]),
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
                low, high = interval(statistic, n)
                out.append(Performance(metric, label, round(value, 4), round(low, 4), round(high, 4), n, data, today))
        return tuple(out)


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


def _mean(metric: str, values: Sequence[float] | Truth) -> tuple[str, Statistic, int]:
    table = np.asarray(values, float)
    return metric, lambda i: float(table[i].mean()), len(table)
