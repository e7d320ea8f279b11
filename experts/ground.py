"""How far apart the pixels of a grid lie: in mm in a patient, in metres on the Earth's ellipsoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebpts1, chebvander
from numpy.typing import NDArray

from fovea.errors import GeometryError
from fovea.image import Matrix
from fovea.types import Bools, Grid, Span

_ROWS = 1024
"""Rows of a grid whose areas are held at a time."""
_CLOSE = 1e-7
"""How near, relative to the largest value, a polynomial must come to what it stands for."""


def steps(grid: Grid, points: Matrix) -> Matrix:
    """What one step along the row and one along the column axis is worth at index points (n, 2) of (row, column).

    Returns (n, 2, 2): [:, :, 0] is a step to the next row, [:, :, 1] one to the next column, each as
    (east, north) in metres for a CRS, as in-plane (x, y) in mm for a patient, in pixels without a frame.
    Metres are geodesic (Karney 2013), so that scale, convergence and axis units of the projection drop out.
    Raises GeometryError for a CRS that is not tied to the Earth.
    """
    points = np.asarray(points, float).reshape(-1, 2)
    if not grid.georeferenced:
        # the triangular factor keeps lengths and angles within the plane
        plane = np.linalg.qr(np.array(grid.affine[:3, [1, 0]]))[1]
        return np.tile(plane, (len(points), 1, 1))
    return _placed(_steps(grid, points))


def offsets(grid: Grid, origin: Matrix, points: Matrix) -> Matrix:
    """(east, north) in metres, (n, 2), of index points (row, column) as seen from others, by geodesics.

    `origin` is one point (2,) or one for each; seen from one, this is the azimuthal equidistant projection. Raises
    GeometryError for a CRS that is not tied to the Earth, and for points outside its domain.
    """
    return _placed(_offsets(grid, origin, points))


def areas(grid: Grid, rows: Span, columns: Span) -> Matrix:
    """The area of each pixel of a part of the grid, (row, column): m2 for a CRS, mm2 for a patient, 1 without a frame.

    Each is that of the parallelogram of its `steps`; where there are many, of a polynomial through some of them that
    is checked against others to 1e-7. NaN where a pixel has no place on the Earth.
    """
    shape = rows[1] - rows[0], columns[1] - columns[0]
    if not grid.georeferenced:
        return np.full(shape, abs(np.linalg.det(steps(grid, np.zeros((1, 2)))[0])))
    across = np.arange(*columns, dtype=float)
    smooth = _polynomial(lambda points: _areas(grid, points), rows, columns)
    if smooth is not None:
        first, values, second = smooth
        out: Matrix = first(np.arange(*rows, dtype=float)) @ values @ second(across).T
        return out
    return np.stack([_areas(grid, np.stack((np.full(shape[1], row), across), axis=1)) for row in range(*rows)])


def blocks(mask: Bools, grid: Grid) -> Iterator[tuple[int, Bools, Matrix]]:
    """A mask (slice, row, column) in parts: the first row, the part, and the areas (row, column) of its pixels.

    The areas are 0 where no slice has a pixel. Raises GeometryError for a pixel that has no place on the Earth.
    """
    for start in range(0, grid.shape[1], _ROWS):
        part = mask[:, start : start + _ROWS]
        held: Bools = np.any(part, axis=0)
        if held.any():
            yield start, part, _placed(np.where(held, areas(grid, (start, start + len(held)), (0, grid.shape[2])), 0.0))


def weigh(mask: Bools, grid: Grid) -> float:
    """The summed area of the pixels of a mask, over all slices."""
    if not grid.georeferenced:
        return float(np.count_nonzero(mask) * areas(grid, (0, 1), (0, 1))[0, 0])
    return float(sum((area * part.sum(axis=0)).sum() for _, part, area in blocks(mask, grid)))


def _offsets(grid: Grid, origin: Matrix, points: Matrix) -> Matrix:
    """As `offsets`, NaN where there is no place."""
    geod = _geodesy(grid.frame)[1]
    points = np.asarray(points, float)
    azimuth, _, distance = geod.inv(*_earth(grid, np.broadcast_to(origin, points.shape)), *_earth(grid, points))
    turn = np.deg2rad(azimuth)
    return np.stack((distance * np.sin(turn), distance * np.cos(turn)), axis=1)


def _steps(grid: Grid, points: Matrix) -> Matrix:
    half = [np.array(step) for step in ((0.5, 0.0), (0.0, 0.5))]
    return np.stack([_offsets(grid, points, points + h) - _offsets(grid, points, points - h) for h in half], axis=2)


def _areas(grid: Grid, points: Matrix) -> Matrix:
    (a, b), (c, d) = _steps(grid, points).transpose(1, 2, 0)
    out: Matrix = np.abs(a * d - b * c)  # as a determinant, but quiet where there is no place
    return out


def _placed(values: Matrix) -> Matrix:
    if not np.isfinite(values).all():
        raise GeometryError("pixels that have no place on the Earth", "a grid inside the domain of its CRS")
    return values


def _earth(grid: Grid, points: Matrix) -> tuple[Matrix, Matrix]:
    """Longitudes and latitudes of index points (n, 2), NaN where there is no place; what rounding put beyond a pole is
    put back."""
    longitude, latitude = _geodesy(grid.frame)[0](*grid.world(np.insert(points, 0, 0, axis=1))[:, :2].T)
    there = np.isfinite(longitude) & (np.abs(latitude) < 90 + 1e-9)
    return np.where(there, longitude, np.nan), np.where(there, np.clip(latitude, -90, 90), np.nan)


def _polynomial(
    function: Callable[[Matrix], Matrix], rows: Span, columns: Span
) -> tuple[Callable[[Matrix], Matrix], Matrix, Callable[[Matrix], Matrix]] | None:
    """A function of index points (n, 2) as a polynomial: basis along rows, values at the nodes, basis along columns.

    Interpolates between the Chebyshev points of 8, 16 or 32 rows and columns; None where that costs no less than the
    function itself, or where it is not good enough.
    """
    spans = (rows, columns)

    def basis(span: Span, n: int) -> Callable[[Matrix], Matrix]:
        middle, reach = (span[0] + span[1] - 1) / 2, max(span[1] - 1 - span[0], 1) / 2
        inverse = np.linalg.inv(chebvander(chebpts1(n), n - 1))
        return lambda at: chebvander((at - middle) / reach, n - 1) @ inverse

    def lattice(units: list[NDArray[Any]]) -> tuple[list[Matrix], Matrix]:
        at = [(s[0] + s[1] - 1) / 2 + max(s[1] - 1 - s[0], 0) / 2 * u for s, u in zip(spans, units, strict=True)]
        points = np.stack(np.meshgrid(*at, indexing="ij"), axis=-1).reshape(-1, 2)
        return at, function(points).reshape(len(at[0]), len(at[1]))

    size = (rows[1] - rows[0]) * (columns[1] - columns[0])
    test: tuple[list[Matrix], Matrix] | None = None
    for n in (8, 16, 32):
        if n * n >= size:
            return None
        test = test or lattice([np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)])
        values = lattice([chebpts1(n), chebpts1(n)])[1]
        along, across = basis(rows, n), basis(columns, n)
        (first, second), truth = test
        if np.abs(along(first) @ values @ across(second).T - truth).max() <= _CLOSE * np.abs(truth).max():
            return along, values, across
    return None


@lru_cache(maxsize=8)
def _geodesy(frame: str) -> tuple[Any, Any]:
    """The transformation of a CRS to longitude and latitude, and the geodesics of its ellipsoid."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(frame)
    except CRSError as error:
        raise GeometryError("a reference system that PROJ does not know", "an EPSG code or WKT") from error
    if crs.geodetic_crs is None:
        raise GeometryError("a reference system without a datum", "one that is tied to the Earth")
    return Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform, crs.get_geod()
