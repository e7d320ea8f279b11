"""Where a grid lies on the Earth, and how large its pixels are there."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fovea.errors import GeometryError
from fovea.image import Grid, Matrix

GEOGRAPHIC = "EPSG:4326"
_ON_EDGE = 32
"""Points on each edge of a grid that its bounds are taken from: edges are curves in degrees."""


def ground_size(grid: Grid) -> tuple[float, float] | None:
    """Metres on the ground of the pixel at the centre, along rows' and columns' axes, whatever the unit of the CRS.

    By the WGS 84 ellipsoid; None without a CRS, or where the CRS does not reach.
    """
    if not grid.georeferenced:
        return None
    row, column = (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2
    try:
        points = _degrees(grid, np.array([(0, row, column), (0, row + 1, column), (0, row, column + 1)]))
    except GeometryError:
        return None
    lon, lat = np.deg2rad(points).T
    squash = 1 - 0.0066943799901413165
    normal = 6378137 / np.sqrt(1 - (1 - squash) * np.sin(lat) ** 2)
    center, down, right = np.stack(
        [normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon), squash * normal * np.sin(lat)], axis=1
    )
    sizes = float(np.linalg.norm(down - center)), float(np.linalg.norm(right - center))
    return sizes if np.isfinite(sizes).all() and min(sizes) > 0 else None


def bounds(grid: Grid) -> tuple[float, float, float, float]:
    """West, south, east and north in degrees (WGS 84); west is above east where the grid crosses the antimeridian.

    A grid around a pole spans all longitudes and reaches the pole. Raises GeometryError without a CRS, or when a
    corner lies beyond its reach. The order of RFC 7946, section 5.
    """
    if not grid.georeferenced:
        raise GeometryError("a grid without a coordinate reference system", "a georeferenced grid", "Add the CRS.")
    rows, columns = grid.shape[1:]
    along = np.linspace(0, 1, _ON_EDGE, endpoint=False)
    ring = np.concatenate(
        [
            np.stack([np.zeros_like(along), columns * along], 1),
            np.stack([rows * along, np.full_like(along, columns)], 1),
            np.stack([np.full_like(along, rows), columns * (1 - along)], 1),
            np.stack([rows * (1 - along), np.zeros_like(along)], 1),
        ]
    )
    points = _degrees(grid, np.column_stack([np.zeros(len(ring)), ring - 0.5]))
    if not np.isfinite(points).all():
        raise GeometryError("a grid whose edge lies outside its coordinate reference system", "a CRS that covers it")
    lon, lat = points.T
    steps = np.diff(lon, append=lon[:1])
    turned = np.where(abs(steps) > 180, steps - 360 * np.sign(steps), steps)
    south, north = float(lat.min()), float(lat.max())
    if abs(turned.sum()) > 180:  # once around a pole
        return (-180.0, south, 180.0, 90.0) if lat.mean() > 0 else (-180.0, -90.0, 180.0, north)
    path = lon[0] + np.concatenate([[0], np.cumsum(turned[:-1])])
    west, east = float(path.min()), float(path.max())
    if east - west >= 360 - 1e-9:
        return -180.0, south, 180.0, north
    return _within(west), south, _within(east) if east - west else _within(west), north


def metric(points: Matrix) -> str:
    """The metric CRS that serves points (n, 2) in degrees: a zone of UTM, or UPS above 84 N and below 80 S."""
    lon, lat = np.deg2rad(points).T
    x, y, z = (part.mean() for part in (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
    north, east = float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))
    if not -80 <= north <= 84:
        return "EPSG:5041" if north > 0 else "EPSG:5042"
    return f"EPSG:{326 if north >= 0 else 327}{int((east + 180) // 6) % 60 + 1:02d}"


def _within(lon: float) -> float:
    return lon if -180 <= lon <= 180 else (lon + 180) % 360 - 180


@lru_cache(maxsize=32)
def transformer(source: str, target: str) -> Callable[[Matrix], Matrix]:
    """Points (n, 2) in x, y (east, north) of one CRS to those of another; infinite where it does not reach.

    Raises GeometryError for a text that names no CRS, or where no path leads from one to the other.
    """
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        found = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise GeometryError(
            f"coordinate reference systems that cannot be joined ({type(error).__name__})", "two known ones"
        ) from None

    def apply(points: Matrix) -> Matrix:
        x, y = found.transform(points[:, 0], points[:, 1])
        return np.stack([x, y], 1)

    return apply


def _degrees(grid: Grid, points: Matrix) -> Matrix:
    """Longitude and latitude (n, 2) of index points (n, 3)."""
    return transformer(grid.frame, GEOGRAPHIC)(grid.world(points)[:, :2])
