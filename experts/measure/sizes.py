"""How many, how large an area, how large a volume."""

from __future__ import annotations

import numpy as np

from experts.ground import weigh
from experts.measure import spread
from experts.measure.shapes import PLAIN, Context, pieces
from fovea.types import DETECTOR, LPS, Bools, Grid, Measure


def count(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure:  # noqa: ARG001
    """How many connected pieces there are."""
    return Measure("count", float(pieces(mask)[1]), "1", spread.of_count(context))


def area_cm2(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on a radiograph or a single slice in cm2."""
    return _area(mask, grid, context, "cm2", 100.0) if grid.frame in (DETECTOR, LPS) else None


def area_m2(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on the Earth's ellipsoid in m2."""
    return _area(mask, grid, context, "m2", 1.0) if grid.georeferenced else None


def area_ha(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on the Earth's ellipsoid in hectares of 10,000 m2."""
    return _area(mask, grid, context, "ha", 10_000.0) if grid.georeferenced else None


def fraction(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The share of the valid pixels, each weighted with its area."""
    valid = np.ones(grid.shape, bool) if context.valid is None else context.valid
    whole, inside = weigh(valid, grid), mask & valid
    if not whole:
        return None
    return Measure("fraction", weigh(inside, grid) / whole, "1", spread.of_area(inside, grid, context) / whole)


def volume(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The volume in a patient in mL."""
    if grid.frame != LPS or grid.shape[0] == 1:
        return None
    voxel = float(abs(np.linalg.det(grid.affine[:3, :3]))) / 1000
    return Measure("volume", np.count_nonzero(mask) * voxel, "mL", spread.of_volume(mask, grid, context) * voxel)


def _area(mask: Bools, grid: Grid, context: Context, unit: str, divisor: float) -> Measure | None:
    if grid.shape[0] > 1:
        return None
    return Measure("area", weigh(mask, grid) / divisor, unit, spread.of_area(mask, grid, context) / divisor)
