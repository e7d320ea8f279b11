"""What the made radiographs and CT series share: the patient, the sides, and measures of masks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from fovea.types import Bools, Measure

LEFT, RIGHT = 1, -1
SIDES = {LEFT: "left", RIGHT: "right"}
"""The sign of the patient's x axis and its word."""


@dataclass(frozen=True)
class Patient:
    """Whom the phantom stands for: age in years, size and bone density relative to the mean, fat in mm at the flank,
    and how far breasts stand out in mm."""

    sex: str
    age: int
    size: float
    bone: float
    fat: float
    breast: float

    @classmethod
    def draw(cls, rng: Generator) -> Patient:
        """A patient at random; women are smaller, and bone thins with age."""
        female = bool(rng.random() < 0.5)
        age = int(rng.integers(19, 92))
        return cls(
            "F" if female else "M",
            age,
            float(np.clip(rng.normal(0.96 if female else 1.04, 0.05), 0.84, 1.14)),
            float((1.25 - 0.006 * max(age - 35, 0)) * rng.uniform(0.8, 1.2)),
            float(rng.gamma(3.0, 7.0) + 6),
            float(rng.uniform(15, 60)) if female else 0.0,
        )


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one label that is present: its mask, bool (slice, row, column), side and measures."""

    label: str
    mask: Bools | None
    location: str = ""
    measures: tuple[Measure, ...] = ()


def side_word(sides: Collection[int]) -> str:
    """The closed word for one side or two."""
    return "both" if len(set(sides)) > 1 else SIDES[next(iter(sides))]


def caliper(mask: Bools, spacing: float) -> float:
    """The longest diameter in mm (maximum Feret) of a mask, bool (row, column), with square pixels of `spacing` mm.

    Outer pixels count a quarter of a pixel outwards: a disc then keeps its diameter within half a pixel.
    """
    quarter = np.array([(0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)])
    corners = (np.argwhere(mask)[:, None] + quarter).reshape(-1, 2)
    return float(pdist(corners[ConvexHull(corners).vertices]).max()) * spacing
