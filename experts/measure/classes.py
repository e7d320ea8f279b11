"""What a class map holds, and what changed between two: areas of classes, weighed pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from experts.ground import areas, blocks
from fovea.errors import InputError
from fovea.image import Matrix
from fovea.types import DETECTOR, LPS, SLIDE, Bytes, Grid, Measure, Strip


@dataclass(frozen=True, eq=False)
class Changes:
    """How much of each class became each other one, over the pixels that both maps know.

    `areas` (from, to) in `unit`: class 0 is none of the labels, n the n-th label. In ha on the Earth, cm2 or mL in
    a patient, mm2 on a slide; in pixels ("1") without a frame.
    """

    areas: Matrix
    unit: str

    @property
    def before(self) -> Matrix:
        """What each class had, (class,)."""
        out: Matrix = self.areas.sum(axis=1)
        return out

    @property
    def after(self) -> Matrix:
        """What each class has, (class,)."""
        out: Matrix = self.areas.sum(axis=0)
        return out

    @property
    def lost(self) -> Matrix:
        """What each class had and has no more, (class,)."""
        return self.before - self.areas.diagonal()

    @property
    def gained(self) -> Matrix:
        """What each class has and had not, (class,)."""
        return self.after - self.areas.diagonal()


def change_matrix(before: Bytes, after: Bytes, grid: Grid, n: int) -> Changes:
    """From class to class, by area, between two class maps on one grid.

    Maps are uint8 (row, column) or (slice, row, column) as in `fovea.types.Strip`: 0 to `n`, and `Strip.NODATA`, which
    is left out in both where it stands in one. Raises InputError for a map of another shape or with other classes.
    """
    areas, unit = _table((before, after), grid, n)
    return Changes(areas, unit)


def class_areas(classes: Bytes, grid: Grid, n: int) -> tuple[tuple[Measure, Measure], ...]:
    """For each class, 0 to `n`, its area (volume) and its fraction of what has data; InputError as `change_matrix`."""
    areas, unit = _table((classes,), grid, n)
    whole = float(areas.sum())
    name = "volume" if unit == "mL" else "area"
    return tuple(
        (Measure(name, float(area), unit), Measure("fraction", float(area) / whole if whole else 0.0, "1"))
        for area in areas
    )


def _table(maps: Sequence[Bytes], grid: Grid, n: int) -> tuple[Matrix, str]:
    """Summed areas by the class in each map, (class, …), and their unit."""
    maps = [one[None] if one.ndim == 2 else one for one in maps]
    sides = (n + 1,) * len(maps)
    fit = all(one.shape == grid.shape for one in maps)
    if not fit or any(one[one != Strip.NODATA].max(initial=0) > n for one in maps):
        raise InputError(
            f"class maps of {' and '.join(str(one.shape) for one in maps)}" + ", with other classes" * fit,
            f"classes 0 to {n} or {Strip.NODATA} on the grid of {grid.shape}",
        )
    known = reduce(np.logical_and, (one != Strip.NODATA for one in maps))
    table = np.zeros(int(np.prod(sides)))
    for start, part, area in blocks(known, grid):
        rows = slice(start, start + part.shape[1])
        index = np.ravel_multi_index(tuple(one[:, rows][part].astype(np.intp) for one in maps), sides)
        table += np.bincount(index, np.broadcast_to(area, part.shape)[part], len(table))
    factor, unit = _unit(grid)
    return table.reshape(sides) * factor, unit


def _unit(grid: Grid) -> tuple[float, str]:
    """What the sums of `experts.ground.areas` are to be multiplied with, and the unit that this gives."""
    if grid.georeferenced:
        return 1e-4, "ha"
    if grid.frame == LPS and grid.shape[0] > 1:
        voxel = abs(np.linalg.det(grid.affine[:3, :3]))
        return float(voxel / areas(grid, (0, 1), (0, 1))[0, 0] / 1000), "mL"
    return {LPS: (0.01, "cm2"), DETECTOR: (0.01, "cm2"), SLIDE: (1.0, "mm2")}.get(grid.frame, (1.0, "1"))
