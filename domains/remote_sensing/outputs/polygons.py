"""Regions as polygons in pixels, in the coordinate reference system of their grid and in degrees, and as pixels again.

Polygons in pixels have (column, row) with whole numbers at the corners of pixels. Arrays of polygons are those of
shapely, so that many go through each step at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.rasters.earth import GEOGRAPHIC, transformer
from fovea.errors import GeometryError, InputError
from fovea.image import Bools, Grid
from fovea.types import Box, Mask, OrientedBox, Patch, Region

Shapes = NDArray[Any]
"""shapely geometries."""
Area = Region | Patch
_DIGITS = 7
"""Decimals of a degree: about 1 cm on the ground."""
_STEP = 32
"""Pixels between two vertices of a long edge, so that it follows the curve that it has in longitude and latitude."""


def outlines(region: Area, grid: Grid) -> Shapes:
    """The polygons of a region in pixels; those of a mask are joined by edges, so that each is valid.

    Raises InputError for a mask of another shape and a polygon of less than three corners.
    """
    import shapely

    if isinstance(region, (Mask, Patch)):
        from rasterio.features import shapes
        from shapely.geometry import shape

        top, left, mask = _placed(region, grid)
        found = [shape(outline) for outline, _ in shapes(mask.astype(np.uint8), mask=mask)]
        return np.array(shapely.transform(found, lambda points: points + np.array([left, top])), object)
    if isinstance(region, Box):
        (_, upper, first), (_, lower, last) = region.start, region.stop
        corners = np.array([(first, upper), (last, upper), (last, lower), (first, lower)], float)
    elif isinstance(region, OrientedBox):
        corners = _corners(region)
    else:
        corners = np.array(region.points, float).reshape(-1, 2)[:, ::-1]
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise InputError(f"a polygon of {len(corners)} corners", "three or more, at finite places")
    return _areal(np.array([shapely.Polygon(corners)], object))


def burned(regions: Sequence[Area], grid: Grid) -> Bools:
    """bool (row, column): the pixels of all regions; of a polygon those whose centre it holds."""
    from rasterio.features import rasterize

    whole = np.zeros(grid.shape[1:], bool)
    drawn: list[Any] = []
    for region in regions:
        if isinstance(region, (Mask, Patch)):
            top, left, mask = _placed(region, grid)
            whole[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask
        else:
            drawn += list(outlines(region, grid))
    if drawn:
        whole |= rasterize(drawn, whole.shape, dtype="uint8").astype(bool)
    return whole


def native(polygons: Shapes, grid: Grid) -> Shapes:
    """Polygons in pixels in the grid's coordinate reference system; outer rings run counter-clockwise."""
    import shapely

    a, b, c, d, e, f = grid.to_gdal()
    placed = shapely.transform(polygons, lambda points: points @ np.array([[a, d], [b, e]]) + (c, f))
    return np.array(shapely.orient_polygons(placed), object)


def degrees(polygons: Shapes, grid: Grid) -> tuple[Shapes, NDArray[np.intp]]:
    """Polygons in pixels as those in longitude and latitude on WGS 84, and of which polygon each is one.

    They are cut at the antimeridian, and their outer rings run counter-clockwise (RFC 7946). Raises GeometryError where
    the coordinate reference system does not reach.
    """
    import shapely
    from pyproj import CRS

    if not len(polygons):
        return polygons, np.zeros(0, np.intp)
    placed = native(shapely.segmentize(polygons, _STEP), grid)
    turned = np.array(shapely.transform(placed, transformer(grid.frame, GEOGRAPHIC)), object)
    west, south, east, north = shapely.bounds(turned).T
    if not np.isfinite([west, south, east, north]).all() or max(-south.min(), north.max()) > 90 + 1e-9:
        raise GeometryError("a region outside its coordinate reference system", "one inside")
    owners = np.arange(len(turned))
    beyond = (west < -180) | (east > 180)
    if not CRS.from_user_input(grid.frame).is_geographic:
        beyond |= east - west > 180
    if beyond.any():
        parts = [list(_cut(turned[i], placed[i], grid.frame)) if beyond[i] else [turned[i]] for i in owners]
        owners = np.repeat(owners, [len(part) for part in parts])
        turned = np.array([polygon for part in parts for polygon in part], object)
    rounded = np.array(shapely.transform(turned, lambda points: np.round(points, _DIGITS)), object)
    whole = shapely.is_valid(rounded) & ~shapely.is_empty(rounded)
    return np.array(shapely.orient_polygons(np.where(whole, rounded, turned)), object), owners


def bounds(shapes: Shapes) -> list[float]:
    """West, south, east and north of polygons in degrees: west is above east where they cross the antimeridian."""
    import shapely

    parts = shapely.get_parts(shapes)
    west, south, east, north = shapely.bounds(parts).T
    box = [west.min(), south.min(), east.max(), north.max()]
    if box[0] == -180 and box[2] == 180:
        order = np.argsort(west)
        reached = np.maximum.accumulate(east[order])
        gaps = west[order][1:] - reached[:-1]
        if len(gaps) and gaps.max() > 0:
            widest = int(np.argmax(gaps))
            box[0], box[2] = west[order][widest + 1], reached[widest]
    return [float(value) for value in box]


def side_lines(box: OrientedBox, grid: Grid) -> tuple[float, float, float]:
    """Length and width of an oriented box in metres on the Earth, and the bearing of its length in [0, 180) degrees
    from north, by the geodesics between the middles of its sides."""
    from pyproj import Geod

    corners = _corners(box)
    middles = (corners + np.roll(corners, -1, 0)) / 2  # of the sides above, right, below, left of a box without turn
    points = grid.world(np.column_stack([np.zeros(4), middles[:, ::-1] - 0.5]))[:, :2]
    lon, lat = transformer(grid.frame, GEOGRAPHIC)(points).T
    bearings, _, lengths = Geod(ellps="WGS84").inv(lon[[3, 0]], lat[[3, 0]], lon[[1, 2]], lat[[1, 2]])
    return float(lengths[0]), float(lengths[1]), float(bearings[0] % 180)


def _corners(box: OrientedBox) -> NDArray[np.float64]:
    turn = np.deg2rad(box.angle)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = [along * s * box.length / 2 + across * t * box.width / 2 for s, t in signs]
    return np.array(offsets) + box.center[::-1]


def _placed(region: Mask | Patch, grid: Grid) -> tuple[int, int, Bools]:
    """First row and column of a mask, and its pixels."""
    start = region.start if isinstance(region, Patch) else (0, 0, 0)
    stop = np.add(start, region.data.shape)
    if min(start) < 0 or (stop > grid.shape).any() or (isinstance(region, Mask) and region.data.shape != grid.shape):
        raise InputError(
            f"a mask {region.data.shape} at {start}", f"one of the image's shape {grid.shape}, or inside it"
        )
    return start[1], start[2], region.data[0]


def _areal(shapes: Shapes) -> Shapes:
    """The valid polygons that cover the same area, such as the two of one that crosses itself."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapes)))
    return np.array(parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)])


def _cut(turned: Any, placed: Any, frame: str) -> Iterator[Any]:
    """A polygon that leaves [-180, 180] or jumps from one end to the other, as polygons inside."""
    import shapely

    if turned.bounds[0] < -180 or turned.bounds[2] > 180:
        for shift in (-360, 0, 360):
            part = shapely.intersection(turned, shapely.box(-180 + shift, -90, 180 + shift, 90))
            yield from _areal(shapely.get_parts([shapely.transform(part, lambda points, s=shift: points - (s, 0))]))
        return
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform_geom
    from shapely.geometry import shape

    try:
        found = shape(transform_geom(frame, GEOGRAPHIC, placed))
    except (RasterioError, CRSError):
        raise GeometryError("a region outside its coordinate reference system", "one inside") from None
    yield from _areal(shapely.get_parts([found]))
