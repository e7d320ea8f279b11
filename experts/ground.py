"""How far apart the pixels of a grid lie: in mm in a patient, in metres on the Earth's ellipsoid."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fovea.errors import GeometryError
from fovea.image import Matrix
from fovea.types import Grid


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
    longitude_latitude, geod = _geodesy(grid.frame)
    columns: list[Matrix] = []
    for step in ((0.5, 0.0), (0.0, 0.5)):
        ends = [
            longitude_latitude(*grid.world(np.insert(points + sign * np.array(step), 0, 0, axis=1))[:, :2].T)
            for sign in (-1, 1)
        ]
        azimuth, _, distance = geod.inv(*ends[0], *ends[1])
        turn = np.deg2rad(azimuth)
        columns.append(np.stack((distance * np.sin(turn), distance * np.cos(turn)), axis=1))
    out = np.stack(columns, axis=2)
    if not np.isfinite(out).all():
        raise GeometryError("pixels that have no place on the Earth", "a grid inside the domain of its CRS")
    return out


@lru_cache(maxsize=8)
def pixel_areas(grid: Grid) -> Matrix:
    """The area of a pixel in each row, (rows,): m2 for a CRS, mm2 for a patient, 1 without a frame.

    Within a row it is taken as constant, which holds for every north-up raster.
    """
    rows = np.arange(grid.shape[1], dtype=float)
    middle = np.full_like(rows, (grid.shape[2] - 1) / 2)
    areas: Matrix = np.abs(np.linalg.det(steps(grid, np.stack((rows, middle), axis=1))))
    return areas


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
