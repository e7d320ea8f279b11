"""How good an expert is that finds objects: its candidates against the boxes of studies of known truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from experts import boxes as rectangles
from experts.boxes import Boxes
from experts.calibration import Calibration, Method, binned, calibrate, calibration_error, interval
from experts.detection import OVERLAP, Candidates
from experts.operating import Point, Truth, Vector, operating_point
from fovea.types import Performance

_DOUBT = 0.05
"""Candidates of a smaller probability are left out of the calibration error: there are so many that they would hide all
others."""
_FOLDS = 5


@dataclass
class Trial:
    """One label on studies of known truth: for each, the logits of the candidates, which of them are right, and how
    many objects there are. `rule` sets the threshold."""

    method: Method = "platt"
    rule: str = "youden"
    evidence: list[Vector] = field(default_factory=list)
    right: list[Truth] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)

    def add(self, label: str, found: Candidates, wanted: Boxes) -> None:
        """A study: what was found against the boxes of the truth."""
        self.evidence.append(found.evidence[label])
        self.right.append(matched(found.boxes[label], wanted))
        self.objects.append(len(wanted))

    def calibration(self, studies: NDArray[np.intp] | None = None) -> Calibration:
        """The probability of a candidate, and the threshold, from all studies or some."""
        chosen = np.arange(len(self.objects)) if studies is None else studies
        evidence, right = self._joined(chosen)
        fitted = calibrate(evidence, right, self.method)
        objects = sum(self.objects[i] for i in chosen)
        point = told_from(fitted.probabilities(evidence), right, objects, self.rule)
        return replace(fitted, threshold=point.threshold, rule=self.rule, met=point.met)

    def average_precision(self, studies: NDArray[np.intp] | None = None) -> float:
        """The average precision at an overlap of 0.5, over all studies or some; NaN without objects."""
        chosen = np.arange(len(self.objects)) if studies is None else studies
        return average_precision(*self._joined(chosen), sum(self.objects[i] for i in chosen))

    def rows(self, label: str, data: str) -> list[Performance]:
        """The rows of the card, with 95 % intervals by bootstrap over studies.

        Average precision at an overlap of 0.5; then, by calibrations that have not seen the study, of what is told
        precision, recall, F1 and the mean absolute error of the count, and of candidates from a probability of 5 % on
        the expected calibration error, also "uncalibrated".
        """
        n, today = len(self.objects), date.today().isoformat()
        fair, told = self._cross_fitted()
        hits = np.array([float((a & b).sum()) for a, b in zip(told, self.right, strict=True)])
        called, objects = np.array([float(a.sum()) for a in told]), np.array(self.objects, float)
        plain = [np.asarray(expit(evidence), float) for evidence in self.evidence]

        def share(over: Vector, under: Vector) -> Callable[[NDArray[np.intp]], float]:
            return lambda i: float(over[i].sum() / under[i].sum()) if under[i].sum() else float("nan")

        rows: Mapping[str, Callable[[NDArray[np.intp]], float]] = {
            "ap50": self.average_precision,
            "precision": share(hits, called),
            "recall": share(hits, objects),
            "f1": share(2 * hits, called + objects),
            "error of count": lambda i: float(np.abs(called - objects)[i].mean()),
            "ece_uncalibrated": self._error(plain),
            "ece": self._error(fair),
        }
        out = []
        for metric, statistic in rows.items():
            value = statistic(np.arange(n)) if n else float("nan")
            if np.isfinite(value):
                low, high = interval(statistic, n, centered="ece" in metric)
                out.append(Performance(metric, label, round(value, 4), round(low, 4), round(high, 4), n, data, today))
        return out

    def _cross_fitted(self) -> tuple[list[Vector], list[Truth]]:
        """For each study the probabilities of its candidates, and which are told, by a calibration from others."""
        studies = np.arange(len(self.objects))
        folds = [self.calibration(studies[studies % _FOLDS != fold]) for fold in range(_FOLDS)]
        fair = [folds[i % _FOLDS].probabilities(evidence) for i, evidence in enumerate(self.evidence)]
        return fair, [chances >= folds[i % _FOLDS].threshold for i, chances in enumerate(fair)]

    def _error(self, chances: list[Vector]) -> Callable[[NDArray[np.intp]], float]:
        doubtful = [one >= _DOUBT for one in chances]
        bins = [binned(p[d], r[d]) for p, r, d in zip(chances, self.right, doubtful, strict=True)]
        return lambda i: calibration_error(np.array(bins)[i].sum(0))

    def _joined(self, studies: NDArray[np.intp]) -> tuple[Vector, Truth]:
        """Evidence and truth of the candidates of some studies."""
        return (
            np.concatenate([np.zeros(0), *(self.evidence[i] for i in studies)]),
            np.concatenate([np.zeros(0, bool), *(self.right[i] for i in studies)]),
        )


def matched(found: Boxes, wanted: Boxes) -> Truth:
    """Which boxes, the likeliest first, fit an object that none before has taken: the one they overlap most, by at
    least 0.5 (Everingham et al. 2010)."""
    overlap, right = rectangles.overlaps(found, wanted), np.zeros(len(found), bool)
    for place, row in enumerate(overlap):
        if len(row) and row.max() >= OVERLAP:
            right[place] = True
            overlap[:, row.argmax()] = 0
    return right


def average_precision(evidence: Vector, right: Truth, objects: int) -> float:
    """The area under the curve of precision, made monotone, over recall; NaN without objects."""
    if not objects:
        return float("nan")
    hits = right[np.argsort(-evidence, kind="stable")].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.diff(hits, prepend=0) > 0].sum() / objects)


def told_from(chances: Vector, right: Truth, objects: int, rule: str) -> Point:
    """The probability from which on candidates are told, by a rule of `experts.operating`; 0.5 where none is right.

    Objects that are no candidate count as missed at every threshold. For youden the best F1 is taken.
    """
    if not right.any():
        return Point(0.5, False)
    missed = objects - int(right.sum())
    beyond = np.concatenate(
        (np.ones(missed, bool), [False])
    )  # never told: the missed, and one for the lack of wrong ones
    everything = np.concatenate((chances, np.full(len(beyond), -1e-6)))
    point = operating_point(everything, np.concatenate((right, beyond)), "f1" if rule == "youden" else rule)
    return Point(max(point.threshold, 0.0), point.met)
