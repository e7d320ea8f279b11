"""From which probability on a label is called present: the rules that a recipe may name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Truth = NDArray[np.bool_]

FORMS = ("youden", "f1", "sensitivity>=0.95", "specificity>=0.9", "cost:fn=5,fp=1")
"""One example of each form of rule."""
_NUMBER = r"(\d+(?:\.\d+)?)"
_LIMIT = re.compile(rf"(sensitivity|specificity)>={_NUMBER}")
_COST = re.compile(rf"cost:fn={_NUMBER},fp={_NUMBER}")


@dataclass(frozen=True)
class Point:
    """A threshold, and whether the rule could set it: not where only one class occurs or no threshold meets it."""

    threshold: float
    met: bool


@dataclass(frozen=True, eq=False)
class _Counts:
    """What each threshold gives: true and false positives, of so many positives and negatives."""

    true: NDArray[np.intp]
    false: NDArray[np.intp]
    positives: int
    negatives: int

    @property
    def sensitivity(self) -> Vector:
        return self.true / self.positives

    @property
    def specificity(self) -> Vector:
        return 1 - self.false / self.negatives

    @property
    def f1(self) -> Vector:
        out: Vector = 2 * self.true / (self.true + self.false + self.positives)
        return out


_Merit = Callable[[_Counts], tuple[Vector, Truth]]
"""How good each threshold is, and whether it does what is asked."""


def read_rule(text: str) -> _Merit:
    """The merit that a rule gives to thresholds; raises ValueError for text of none of the `FORMS`.

    youden: the greatest sensitivity + specificity (Youden 1950). f1: the greatest F1. sensitivity>=x, specificity>=x:
    the greatest value of the other one where the limit is kept. cost: the smallest cost of missed and of false calls.
    """
    limit, cost = _LIMIT.fullmatch(text), _COST.fullmatch(text)
    if text == "youden":
        return lambda counts: _always(counts.sensitivity + counts.specificity)
    if text == "f1":
        return lambda counts: _always(counts.f1)
    if limit and 0 < float(limit[2]) <= 1:
        return lambda counts: _limited(counts, limit[1] == "sensitivity", float(limit[2]))
    if cost and float(cost[1]) + float(cost[2]) > 0:
        missed, wrong = float(cost[1]), float(cost[2])
        return lambda counts: _always(-missed * (counts.positives - counts.true) - wrong * counts.false)
    raise ValueError(f"no rule {text!r}; one of the form {', '.join(FORMS)}, with limits in (0, 1]")


def operating_point(probability: Vector, truth: Truth, rule: str = "youden") -> Point:
    """The best threshold by a rule, of several the one nearest to 0.5.

    Thresholds lie halfway between neighbouring probabilities: one that calls everything or nothing present is no
    choice. Where a limit cannot be kept, the threshold that comes nearest to it, not `met`. Where only one class or one
    probability occurs: 0.5, not `met`.
    """
    merit = read_rule(rule)
    values = np.unique(probability)
    positives, negatives = np.sort(probability[truth]), np.sort(probability[~truth])
    if not len(positives) or not len(negatives) or len(values) == 1:
        return Point(0.5, False)
    thresholds = (values[1:] + values[:-1]) / 2
    counts = _Counts(
        len(positives) - np.searchsorted(positives, values[1:]),
        len(negatives) - np.searchsorted(negatives, values[1:]),
        len(positives),
        len(negatives),
    )
    merits, met = merit(counts)
    best = np.flatnonzero(merits >= merits.max() - 1e-9)
    chosen = best[np.argmin(np.abs(thresholds[best] - 0.5))]
    return Point(float(thresholds[chosen]), bool(met[chosen]))


def _always(merit: Vector) -> tuple[Vector, Truth]:
    return merit, np.ones(len(merit), bool)


def _limited(counts: _Counts, sensitivity: bool, limit: float) -> tuple[Vector, Truth]:
    kept, other = counts.sensitivity, counts.specificity
    if not sensitivity:
        kept, other = other, kept
    met = kept >= limit - 1e-9
    # where none keeps the limit, the nearest to it and, of those, the best of the other kind
    return np.where(met, 2 + other, kept + 1e-6 * other), met
