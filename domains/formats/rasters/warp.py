"""A raster on another grid, read by window: reprojection, rotation and change of resolution.

Nothing is computed before pixels are asked for. Results do not depend on the window that asks: the transformation is
taken exactly at nodes of the target grid, and between them where a bilinear surface meets it to a fiftieth of a pixel
of the coarser of the two grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domains.formats.rasters.earth import transformer
from domains.formats.rasters.raster import in_order
from fovea.errors import GeometryError, InputError, LimitError
from fovea.image import Bools, Floats, Grid, Image, Matrix, Pixels, Window

Resampling = Literal["nearest", "bilinear"]
Places = Callable[[Matrix], Matrix]
"""x, y (n, 2) of a frame to fractional rows and columns (n, 2) of a source; NaN where there are none."""
Tile = tuple[slice, slice]

_LIMIT = 2**31
"""Bytes that one read may fill as float32."""
_TILE = 1024
"""Pixels a side of a target tile, whose part of the source is read at once."""
_STEP = 32
"""Pixels between nodes where the transformation is computed exactly."""
_TOLERANCE = 0.02
"""In pixels of the source, or of the target where these are larger."""
_SAME = 1e-6
"""In pixels: grids that differ by less are the same."""


def warp(image: Image, grid: Grid, resampling: Resampling = "bilinear") -> Image:
    """The image on another grid, lazily.

    "nearest" keeps the values as they are: take it for classes and masks. "bilinear" weights the four neighbours by
    distance and leaves out those that are not valid; where the target is coarser, the means over reduced pixels are
    interpolated, so that no source pixel goes unused. A pixel is valid where at least half of its weight is. Grids that
    differ by whole pixels are cropped and padded, and no value changes. Raises GeometryError when a grid has no CRS
    or no way leads from one to the other.
    """
    if resampling not in ("nearest", "bilinear"):
        raise InputError("an unknown resampling", '"nearest" or "bilinear"')
    for one in (image.grid, grid):
        if not one.georeferenced or one.shape[0] != 1:
            raise GeometryError(
                "a grid without a coordinate reference system, or of several slices",
                "georeferenced grids of one slice",
                "Add the CRS to the file.",
            )
    shift = _shift(image.grid, grid)
    if shift == (0, 0) and grid.shape == image.grid.shape:
        return image
    read = _Warped(image, grid, resampling, _Between(image.grid, grid.frame))
    return Image(image.channels, grid, read if shift is None else _Moved(image, grid, shift, read))


def lay(image: Image, grid: Grid, places: Places, resampling: Resampling = "bilinear") -> Image:
    """As `warp`, of an image whose own grid has no place: `places` finds its pixels from x, y of the grid's frame."""
    return Image(image.channels, grid, _Warped(image, grid, resampling, places))


@dataclass(frozen=True, eq=False)
class _Between:
    """Places in a source grid, from another frame."""

    source: Grid
    frame: str

    def __call__(self, world: Matrix) -> Matrix:
        source = self.source
        if source.frame != self.frame:
            world = transformer(self.frame, source.frame)(world)
        if _in_degrees(source.frame):
            middle = source.world(np.array([[0, source.shape[1] / 2 - 0.5, source.shape[2] / 2 - 0.5]]))[0, 0]
            world[:, 0] = middle + (world[:, 0] - middle + 180) % 360 - 180
        lost: Bools = np.asarray(~np.isfinite(world).all(axis=1))
        index = source.index(np.column_stack([np.where(lost[:, None], 0, world), np.zeros(len(world))]))[:, 1:]
        index[lost] = np.nan
        return index


@dataclass(frozen=True, eq=False)
class _Warped:
    """Reads windows of the target, tile by tile."""

    image: Image
    grid: Grid
    resampling: Resampling
    places: Places

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        target = self.grid.crop(window) if window else self.grid
        rows, columns = target.shape[1:]
        origin = (window.rows[0], window.columns[0]) if window else (0, 0)
        if shape is not None and shape != (rows, columns):
            reduced = _Warped(self.image, target.resample((1, *shape)), self.resampling, self.places)
            return reduced(None, None)
        if len(self.image.channels) * rows * columns * 4 > _LIMIT:
            raise LimitError(
                f"{len(self.image.channels)} x {rows} x {columns} pixels to be warped at once",
                f"at most {_LIMIT / 2**20:.0f} MiB as float32",
                "Read windows or a reduced shape",
            )
        values = np.zeros((len(self.image.channels), 1, rows, columns), np.float32)
        valid = np.zeros((1, rows, columns), bool)
        side = max(_TILE // max(self._step), 16) if self.resampling == "nearest" else _TILE
        tiles = list(_tiles(origin, (rows, columns), side))
        with in_order(self._tile, tiles) as read:
            for (down, across), (part, seen) in zip(tiles, read, strict=True):
                where = (
                    slice(down.start - origin[0], down.stop - origin[0]),
                    slice(across.start - origin[1], across.stop - origin[1]),
                )
                values[:, 0, *where], valid[0, *where] = part, seen
        return values, valid

    def _tile(self, tile: Tile) -> tuple[Floats, Bools]:
        """Values (channel, row, column) and validity (row, column) of one tile of the target."""
        places = self._places(tile)
        size = self.image.grid.shape[1:]
        inside: Bools = np.asarray(np.isfinite(places).all(0))
        for place, number in zip(places, size, strict=True):
            inside = inside & (place >= -0.5) & (place < number - 0.5)
        if inside.all() and not _parted(places[1], inside, size[1]):  # the usual tile, without a copy
            part, seen = self._sample(places.reshape(2, -1))
            return part.reshape(-1, *inside.shape), seen.reshape(inside.shape)
        values = np.zeros((len(self.image.channels), *inside.shape), np.float32)
        valid = np.zeros(inside.shape, bool)
        for group in _sides(places[1], inside, size[1]):
            values[:, group], valid[group] = self._sample(places[:, group])
        return values, valid

    def _sample(self, places: Matrix) -> tuple[Floats, Bools]:
        """Values (channel, n) and validity (n) at fractional rows and columns (2, n) of the source."""
        window, shape, spans = [], [], []
        for place, factor, number in zip(places, self._reduction, self.image.grid.shape[1:], strict=True):
            start = max(int(place.min() - factor), 0) // factor * factor
            stop = min((int(place.max() + 2 * factor) // factor + 1) * factor, number)
            window.append((start, stop))
            shape.append(-(-(stop - start) // factor))
            spans.append((start, (stop - start) / shape[-1]))
        reduced = None if self._reduction == (1, 1) else (shape[0], shape[1])
        pixels, seen = self.image.read(Window(window[0], window[1]), reduced)
        if reduced:
            places = np.stack([(p + 0.5 - start) / f - 0.5 for p, (start, f) in zip(places, spans, strict=True)])
        else:
            places = places - np.array([[window[0][0]], [window[1][0]]])
        take = _nearest if self.resampling == "nearest" else _bilinear
        return take(pixels[:, 0], seen[0], places)

    @property
    def _reduction(self) -> tuple[int, int]:
        """Source pixels, down and across, that are averaged into one before interpolation."""
        return (1, 1) if self.resampling == "nearest" else self._step

    @cached_property
    def _step(self) -> tuple[int, int]:
        """Whole source pixels, down and across, from one target pixel to the next."""
        rows, columns = (np.linspace(0, n - 1, 7) for n in self.grid.shape[1:])
        at, below, beside = (self._lattice(rows + down, columns + across) for down, across in ((0, 0), (1, 0), (0, 1)))
        steps: Matrix = np.hypot(below - at, beside - at).reshape(2, -1)
        steps = steps[:, np.flatnonzero(np.isfinite(steps.sum(0)))]
        if not steps.size:
            return 1, 1
        down, across = (int(step + 1e-6) for step in np.median(steps, axis=1))  # a seam is no step
        return max(down, 1), max(across, 1)

    def _places(self, tile: Tile) -> Matrix:
        """Fractional rows and columns (2, row, column) of the source for a tile, by its nodes where that is exact."""
        nodes = [np.arange(s.start // _STEP, -(-s.stop // _STEP) + 1) * float(_STEP) for s in tile]
        surface = self._lattice(nodes[0], nodes[1])
        middle = self._lattice(nodes[0][:-1] + _STEP / 2, nodes[1][:-1] + _STEP / 2)
        mean = (surface[:, 1:, 1:] + surface[:, :-1, 1:] + surface[:, 1:, :-1] + surface[:, :-1, :-1]) / 4
        with np.errstate(invalid="ignore"):
            away = np.abs(middle - mean) / np.reshape(self._step, (2, 1, 1))
            bent = ~(away.max(0) <= _TOLERANCE)  # also where a node has no place
        pixels = [np.arange(s.start, s.stop) for s in tile]
        cells = [np.divmod(at - int(node[0]), _STEP) for at, node in zip(pixels, nodes, strict=True)]
        for axis, (low, rest) in enumerate(cells, 1):
            weight = (rest / _STEP).reshape((-1, 1) if axis == 1 else (1, -1))
            surface = surface.take(low, axis) * (1 - weight) + surface.take(low + 1, axis) * weight
        exact = bent[cells[0][0][:, None], cells[1][0]]
        if exact.any():
            down, across = (at[place] for at, place in zip(pixels, np.nonzero(exact), strict=True))
            surface[:, exact] = self._index(down, across)
        return surface

    def _lattice(self, rows: Matrix, columns: Matrix) -> Matrix:
        down, across = np.meshgrid(rows, columns, indexing="ij")
        return self._index(down.ravel(), across.ravel()).reshape(2, *down.shape)

    def _index(self, rows: NDArray[Any], columns: NDArray[Any]) -> Matrix:
        """Fractional rows and columns (2, n) of the source at rows and columns (n) of the target."""
        points = np.column_stack([np.zeros(rows.size), rows, columns])
        return np.asarray(self.places(self.grid.world(points)[:, :2]).T, float)


@dataclass(frozen=True, eq=False)
class _Moved:
    """Reads a target that lies whole pixels beside the source: its pixel (0, 0) is the source's `shift`."""

    image: Image
    grid: Grid
    shift: tuple[int, int]
    warped: _Warped

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        if shape is not None:
            return self.warped(window, shape)
        target = self.grid.crop(window) if window else self.grid
        origin = (window.rows[0], window.columns[0]) if window else (0, 0)
        values = np.zeros((len(self.image.channels), *target.shape), np.float32)
        valid = np.zeros(target.shape, bool)
        source, where = [], []
        for start, number, move, size in zip(
            origin, target.shape[1:], self.shift, self.image.grid.shape[1:], strict=True
        ):
            first, last = max(start + move, 0), min(start + move + number, size)
            if first >= last:
                return values, valid
            source.append((first, last))
            where.append(slice(first - start - move, last - start - move))
        values[:, :, *where], valid[:, *where] = self.image.read(Window(source[0], source[1]), None)
        return values, valid


def _shift(source: Grid, target: Grid) -> tuple[int, int] | None:
    """Rows and columns from the source's first pixel to the target's, when all pixels coincide."""
    if not _same_frame(source.frame, target.frame):
        return None
    _, rows, columns = target.shape
    corners = np.array([(0, 0, 0), (0, rows, 0), (0, 0, columns)], float)
    moved = source.index(target.world(corners))
    whole = np.rint(moved[0])
    if np.abs(moved - corners - whole).max() > _SAME:
        return None
    return int(whole[1]), int(whole[2])


def _tiles(origin: tuple[int, int], shape: tuple[int, int], side: int) -> Iterator[Tile]:
    """The tiles of the target that a window touches, cut to it."""
    spans = [
        [
            slice(max(start, first), min(start + side, first + number))
            for start in range(first // side * side, first + number, side)
        ]
        for first, number in zip(origin, shape, strict=True)
    ]
    return ((down, across) for down in spans[0] for across in spans[1])


def _sides(columns: Matrix, inside: Bools, width: int) -> Iterator[Bools]:
    """The pixels to be sampled at once: a tile on the seam of a map of the whole Earth needs both ends of its rows."""
    left = inside & (columns < width / 2)
    groups = (left, inside & ~left) if _parted(columns, inside, width) else (inside,)
    return (group for group in groups if group.any())


def _parted(columns: Matrix, inside: Bools, width: int) -> bool:
    """Whether the pixels lie at both ends of the rows, and none between."""
    found = columns[inside]
    left = found < width / 2
    if not found.size or left.all() or not left.any():
        return False
    return bool(found[~left].min() - found[left].max() > width / 4)


def _nearest(pixels: Floats, seen: Bools, places: Matrix) -> tuple[Floats, Bools]:
    at = _flat(np.floor(places + 0.5).astype(np.int32), seen.shape)
    return pixels.reshape(len(pixels), -1).take(at, 1), seen.ravel().take(at)


def _bilinear(pixels: Floats, seen: Bools, places: Matrix) -> tuple[Floats, Bools]:
    low = np.floor(places)
    below, right = (places - low).astype(np.float32)
    low = low.astype(np.int32)
    table, known, complete = pixels.reshape(len(pixels), -1), seen.ravel(), bool(seen.all())
    total = np.zeros((len(pixels), places.shape[1]), np.float32)
    weight = np.zeros(places.shape[1], np.float32)
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = _flat(low + np.array([[down], [across]], np.int32), seen.shape)
        share = (below if down else 1 - below) * (right if across else 1 - right)
        if not complete:
            share *= known.take(at)
            weight += share
        for band, values in zip(total, table, strict=True):
            band += values.take(at) * share
    if complete:
        return total, np.ones(places.shape[1], bool)
    valid = weight >= 0.5 - 1e-6
    np.divide(total, weight, out=total, where=valid)
    total[:, ~valid] = 0
    return total, valid


def _flat(places: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Places (2, n) as one index; those beyond an edge take the pixel at the edge."""
    row, column = (np.clip(place, 0, size - 1) for place, size in zip(places, shape, strict=True))
    return np.asarray(row.astype(np.intp) * shape[1] + column)


@lru_cache(maxsize=32)
def _in_degrees(frame: str) -> bool:
    from pyproj import CRS

    return bool(CRS.from_user_input(frame).is_geographic)


@lru_cache(maxsize=32)
def _same_frame(one: str, other: str) -> bool:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    if one == other:
        return True
    try:
        return bool(CRS.from_user_input(one).equals(CRS.from_user_input(other), ignore_axis_order=True))
    except CRSError:
        return False
