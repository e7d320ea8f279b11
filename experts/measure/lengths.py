"""How long, how wide, and which way."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experts.ground import offsets, steps
from experts.measure.shapes import PLAIN, Context, largest, outer, pieces, trim
from experts.measure.spread import BOTH_ENDS, of_quartiles
from fovea.image import Matrix
from fovea.types import DETECTOR, LPS, Bools, Grid, Measure

_QUARTER = np.vstack([sign * np.eye(3) / 4 for sign in (-1, 1)])
_SAMPLE = 20_000
"""Pixels from which the direction of a large piece is told."""


def longest_diameter(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The longest in-plane diameter of the largest piece, in mm: the slice with the longest counts (RECIST 1.1).

    The largest distance between outer pixels (maximum Feret diameter), each taken a quarter of a pixel outwards:
    a disc of four or more pixels then keeps its diameter within about half a pixel.
    """
    return _diameter("longest_diameter", 0, mask, grid, context)


def short_axis(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The longest diameter of the largest piece perpendicular to its `longest_diameter`, in the same slice, in mm
    (RECIST 1.1; the second of a nodule's pair): the longest chord of the convex hull in that direction."""
    return _diameter("short_axis", 1, mask, grid, context)


def longest_diameter_3d(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The longest diameter of the largest piece in any direction, in mm (the maximum 3D diameter of IBSI)."""
    if grid.frame != LPS or grid.shape[0] == 1 or not mask.any():
        return None

    def widest(piece: Bools) -> float:
        points = outer(piece)
        if np.linalg.matrix_rank(points - points[0]) == 3:  # corners of the corners' hull: far fewer
            points = points[_hull(points)]
        return _feret(_corners(points) @ grid.affine[:3, :3][:, ::-1].T)[0]

    slices, plane = grid.spacing[0], _pixel(steps(grid, np.zeros((1, 2)))[0]) * context.coarseness
    ends = max(slices, plane) * BOTH_ENDS
    value = widest(largest(mask))
    return Measure("longest_diameter_3d", value, "mm", float(np.hypot(ends, of_quartiles(widest, mask, context))))


def length(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The length in metres of the longest piece, along its principal axis."""
    found = _longest(mask, grid)
    if found is None:
        return None
    ends = _pixel(found.plane) * context.coarseness * BOTH_ENDS
    spread = of_quartiles(lambda piece: one.size if (one := _longest(piece, grid)) else 0.0, found.piece, context)
    return Measure("length", found.size, "m", float(np.hypot(ends, spread)))


def bearing(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The direction of the longest piece's principal axis: degrees clockwise from geographic north, in [0, 180).

    The axis of second moments: on rotated rectangles and hulls of a few pixels its error is a half to a sixth of that
    of the rectangle of least area.
    """
    found = _longest(mask, grid)
    if found is None:
        return None
    angle = float(np.degrees(np.arctan2(*found.axis)) % 180)
    return Measure(
        "bearing",
        0.0 if angle == 180 else angle,  # the remainder of a tiny negative number rounds to 180
        "deg",
        float(np.degrees(np.arctan(_pixel(found.plane) * context.coarseness * BOTH_ENDS / found.size))),
    )


def cardiothoracic_ratio(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The widest heart (`mask`) over the widest thorax, across the patient (Danzer 1919).

    The thorax reaches from the outer edge of one lung to that of the other, in the row where that is widest; lungs are
    the structures left_lung and right_lung. A ratio needs no pixel size. None without both lungs and a heart.
    """
    lungs = [context.structures.get(name, np.zeros_like(mask)) for name in ("left_lung", "right_lung")]
    if grid.georeferenced or grid.shape[0] > 1 or not mask.any() or not all(lung.any() for lung in lungs):
        return None
    heart = float(np.ptp(np.flatnonzero(largest(mask).any(axis=(0, 1))))) + 1
    both = (largest(lungs[0]) | largest(lungs[1]))[0]
    columns = np.arange(both.shape[1])
    rows = both[both.any(axis=1)]
    thorax = float((np.where(rows, columns, -1).max(1) - np.where(rows, columns, len(columns)).min(1)).max()) + 1
    ratio = heart / thorax
    spread = context.coarseness * BOTH_ENDS * float(np.hypot(1 / heart, 1 / thorax))
    return Measure("cardiothoracic_ratio", ratio, "1", ratio * spread)


def _diameter(name: str, which: int, mask: Bools, grid: Grid, context: Context) -> Measure | None:
    """The longest diameter (0) or the one perpendicular to it (1), with its uncertainty."""
    if grid.frame not in (DETECTOR, LPS) or not mask.any():
        return None
    plane = steps(grid, np.zeros((1, 2)))[0]

    def measured(piece: Bools) -> float:
        return _axes(piece, plane)[which]

    ends = _pixel(plane) * context.coarseness * BOTH_ENDS
    spread = float(np.hypot(ends, of_quartiles(measured, mask, context)))
    return Measure(name, measured(largest(trim(mask, grid)[0])), "mm", spread)


def _axes(piece: Bools, plane: Matrix) -> tuple[float, float]:
    """The longest diameter within a slice, and the longest one perpendicular to it there."""
    points = outer(piece)
    layers = [points[points[:, 0] == layer] for layer in np.unique(points[:, 0])]
    found = [_feret(_corners(layer)[:, 1:] @ plane.T) for layer in layers]
    long, direction, hull = max(found, key=lambda one: one[0])
    across = np.array([-direction[1], direction[0]])
    along, side = (hull - hull[0]) @ direction, (hull - hull[0]) @ across
    # along the diameter, the hull is bounded by two chains from its start to its end
    first, last = int(np.argmin(along)), int(np.argmax(along))
    turn = np.roll(np.arange(len(hull)), -first)
    stop = int(np.flatnonzero(turn == last)[0])
    chains = turn[: stop + 1], np.append(turn[stop:], first)[::-1]
    sides = [np.interp(along, along[chain], side[chain]) for chain in chains]
    return long, float(np.abs(sides[0] - sides[1]).max())


def _corners(points: NDArray[np.intp]) -> Matrix:
    """Index points (n, 3), each taken a quarter of a pixel outwards along the axes."""
    out: Matrix = (points[:, None] + _QUARTER).reshape(-1, 3)
    return out


def _feret(points: Matrix) -> tuple[float, Matrix, Matrix]:
    """The largest distance between points, its direction, and the corners of their convex hull, in a plane in order."""
    from scipy.spatial.distance import cdist

    hull = points[_hull(points)]
    longest, ends = 0.0, (0, 0)
    for start in range(0, len(hull), 1024):
        apart = cdist(hull[start : start + 1024], hull)
        i, j = divmod(int(np.argmax(apart)), len(hull))
        if apart[i, j] > longest:
            longest, ends = float(apart[i, j]), (start + i, j)
    return longest, (hull[ends[1]] - hull[ends[0]]) / longest, hull


def _hull(points: NDArray[Any]) -> NDArray[Any]:
    """Which points are corners of the convex hull of all, in a plane in order."""
    from scipy.spatial import ConvexHull

    corners: NDArray[Any] = ConvexHull(points).vertices
    return corners


def _pixel(plane: Matrix) -> float:
    """The side of a square of a pixel's area."""
    return float(np.sqrt(abs(np.linalg.det(plane))))


class _Longest(NamedTuple):
    """The piece that is longest along its principal axis: its length, that axis (east, north), and local steps."""

    size: float
    axis: Matrix
    plane: Matrix
    piece: Bools


def _longest(mask: Bools, grid: Grid) -> _Longest | None:
    """The longest piece, found with the steps at the middle of each and then laid out by geodesics."""
    if not grid.georeferenced or grid.shape[0] > 1 or not mask.any():
        return None
    numbers = pieces(mask)[0]
    order = np.argsort(numbers[mask], kind="stable")
    points = np.argwhere(mask)[order][:, 1:].astype(float)
    groups = np.split(points, np.cumsum(np.bincount(numbers[mask])[1:-1]))
    planes = steps(grid, np.array([group.mean(0) for group in groups]))
    flat = [_extent((group - group.mean(0)) @ plane.T, plane) for group, plane in zip(groups, planes, strict=True)]
    best = int(np.argmax([size for size, _ in flat]))
    piece: Bools = numbers == best + 1
    sample = groups[best][:: 1 + len(groups[best]) // _SAMPLE]
    ends = outer(piece)[:, 1:].astype(float)
    weights = np.abs(np.linalg.det(steps(grid, sample)))
    origin = groups[best].mean(0)
    for _ in range(3):  # to the middle on the Earth: near a pole, that of the pixels is elsewhere and has another north
        shift = np.average(offsets(grid, origin, sample), axis=0, weights=weights)
        origin = origin + np.linalg.solve(steps(grid, origin)[0], shift)
    metric = offsets(grid, origin, np.concatenate((sample, ends)))
    weights = np.append(weights, np.zeros(len(ends)))
    return _Longest(*_extent(metric, planes[best], weights), planes[best], piece)


def _extent(metric: Matrix, plane: Matrix, weights: Matrix | None = None) -> tuple[float, Matrix]:
    """Extent of points (n, 2) along their principal axis, from pixel edge to pixel edge, and that axis."""
    weights = np.ones(len(metric)) if weights is None else weights
    metric = metric - np.average(metric, axis=0, weights=weights)
    axis: Matrix = np.linalg.eigh((metric * weights[:, None]).T @ metric)[1][:, 1]
    half = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    return float(np.ptp(metric @ axis) + np.ptp(half @ plane.T @ axis)), axis
