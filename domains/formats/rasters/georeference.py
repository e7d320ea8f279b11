"""Where the header of an open raster says that it lies; runs in the child process that opened it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fovea.errors import GeometryError, LimitError

_GCP_TOLERANCE = 0.25
"""In pixels: how far ground control points may lie from the affine that stands for them."""
_MOST_GCPS = 2048
"""Ground control points that a surface is laid through: the time for it grows with their third power."""
_FARTHEST = 1e12
"""No coordinate of the Earth is larger, in whatever unit."""
_NAMED = re.compile(r'\b(?!PROJECTION|METHOD|PARAMETER|EXTENSION|AUTHORITY|ID\b)([A-Z_0-9]+)\["((?:[^"]|"")*)"')
_CODE = re.compile(r',(?:AUTHORITY|ID)\["(?!EPSG"|ESRI")(?:[^"]|"")*",[^\]]*\]')
_WORDS = frozenset({"metre", "degree", "Greenwich", "WGS_1984", "Easting", "Northing", "Latitude", "Longitude"})
"""Names in WKT that tell nothing."""


def georeference(file: Any) -> dict[str, Any]:
    """The transform, the frame, and for pixels without a size the reason.

    `points` are there where ground control points give the place: (row, column, x, y) of each with row and column from
    the corner of the raster, or none where the transform stands for them.
    """
    transform, crs = file.transform, file.crs
    points, system = file.gcps if transform.is_identity else ([], None)
    if points:
        crs = system
    elif transform.is_identity and file.rpcs:
        raise GeometryError(
            "rational polynomials without a transform", "an affine transform", "Warp it with gdalwarp -rpc"
        )
    elif transform.is_identity and crs:
        raise GeometryError(
            "a coordinate reference system without a transform", "both", "Set the transform with gdal_edit -a_ullr"
        )
    elif transform.is_identity:
        return {"reason": "no georeference"}
    if not crs:
        return {"reason": "no coordinate reference system"}
    if not (crs.is_geographic or crs.is_projected):
        return {"reason": "local coordinates"}
    code = crs.to_epsg()
    frame = {"frame": f"EPSG:{code}" if code else _unnamed(crs.to_wkt())}
    if points:
        return {**frame, **_controlled(points)}
    if not np.all(np.abs(np.array(transform[:6])) < _FARTHEST):  # false for what is no number, too
        raise GeometryError(
            "a transform that leads off the Earth",
            "coordinates of the reference system",
            "Set it with gdal_edit -a_ullr",
        )
    return {**frame, "transform": tuple(transform)[:6]}


def _controlled(points: Any) -> dict[str, Any]:
    """Ground control points as they are, or the affine transform that lies near all of them."""
    found = np.array([(point.row, point.col, point.x, point.y) for point in points], float)
    if not np.all(np.abs(found) < _FARTHEST):
        raise GeometryError("ground control points off the Earth", "coordinates of the reference system")
    index = np.column_stack([found[:, 1], found[:, 0], np.ones(len(found))])
    world = found[:, 2:]
    centre = world.mean(0)
    affine, _, rank, _ = np.linalg.lstsq(index, world - centre, rcond=None)
    pixel = abs(np.linalg.det(affine[:2])) ** 0.5
    if rank < 3 or not pixel > 0:
        raise GeometryError(
            f"{len(points)} ground control points on a line", "at least three that span the raster", "Add points"
        )
    residual = np.linalg.solve(affine[:2].T, (world - centre - index @ affine).T)
    if float(np.linalg.norm(residual, axis=0).max()) <= _GCP_TOLERANCE:
        (a, d), (b, e), (c, f) = affine
        return {"points": [], "transform": (a, b, float(c + centre[0]), d, e, float(f + centre[1]))}
    if len(found) > _MOST_GCPS:
        raise LimitError(f"{len(found)} ground control points", f"at most {_MOST_GCPS}", "Warp it with gdalwarp -tps")
    return {"points": found.tolist()}


def _unnamed(wkt: str) -> str:
    """WKT without its names, which are free text of the file; a datum that PROJ knows keeps its own."""

    def known(found: re.Match[str]) -> str:
        kind, name = found.groups()
        keep = name in _WORDS or (kind in ("DATUM", "ENSEMBLE", "MEMBER") and _is_datum(name))
        return f'{kind}["{name if keep else "unknown"}"'

    return _NAMED.sub(known, _CODE.sub("", wkt))


def _is_datum(name: str) -> bool:
    from pyproj.crs import Datum  # type: ignore[attr-defined]  # documented there, but not in its __all__
    from pyproj.exceptions import CRSError

    try:
        return bool(Datum.from_name(name.replace("_", " ")))
    except CRSError:
        return False
