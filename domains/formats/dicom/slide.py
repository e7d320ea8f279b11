"""Whole-slide images: the tiles of one level, and the levels of a slide as one image. Source: DICOM PS3.3 C.8.12."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import check_size
from domains.formats.dicom.planes import first_item, numbers
from fovea.errors import GeometryError, UnsupportedError
from fovea.types import SLIDE, Channel, Grid, Image, Pixels, Window


@dataclass(frozen=True, eq=False)
class Tiles:
    """One level: its grid (1, rows, columns), and the first row and column of the tile in each frame, int (frame, 2).

    `size` is (rows, columns) of a tile; tiles at the right and lower edge reach beyond the grid.
    """

    grid: Grid
    corners: NDArray[np.intp]
    size: tuple[int, int]

    def inside(self, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.intp]:
        """The frames whose tile touches a window."""
        top, left = self.corners.T
        height, width = self.size
        touched = (top < rows[1]) & (top + height > rows[0]) & (left < columns[1]) & (left + width > columns[0])
        return np.flatnonzero(touched)


def tiles(ds: Any, frames: int, rows: int, columns: int) -> Tiles | None:
    """The tiles of a file, or None of one that is not cut into tiles.

    Raises UnsupportedError for several focal planes or optical paths, GeometryError for tiles outside the matrix.
    """
    height, width = ds.get("TotalPixelMatrixRows"), ds.get("TotalPixelMatrixColumns")
    if not height or not width:
        return None
    if int(ds.get("TotalPixelMatrixFocalPlanes") or 1) > 1 or int(ds.get("NumberOfOpticalPaths") or 1) > 1:
        raise UnsupportedError("a slide of several focal planes or optical paths", "one of each", "Export one.")
    corners = _placed(ds) if ds.get("PerFrameFunctionalGroupsSequence") else None
    across, down = -(-int(width) // columns), -(-int(height) // rows)
    count = across * down if corners is None else len(corners)
    if count != frames:
        raise GeometryError(f"{frames} tiles with {count} positions", "one a tile", "Export it again.")
    if corners is None:
        corners = [(row * rows, column * columns) for row in range(down) for column in range(across)]
    found = np.array(corners, np.intp)
    if found.min() < 0 or (found >= (int(height), int(width))).any():
        raise GeometryError("tiles outside the matrix of the slide", "tiles inside it", "Export it again.")
    return Tiles(_grid(ds, int(height), int(width)), found, (rows, columns))


def _placed(ds: Any) -> list[tuple[int, int]] | None:
    places = [
        first_item(ds, "PlanePositionSlideSequence", frame=frame)
        for frame in range(len(ds.PerFrameFunctionalGroupsSequence))
    ]
    if not all(places):
        return None
    return [
        (int(p.RowPositionInTotalImagePixelMatrix) - 1, int(p.ColumnPositionInTotalImagePixelMatrix) - 1)
        for p in places
        if p
    ]


def _grid(ds: Any, height: int, width: int) -> Grid:
    """Millimetres on the slide from the position of its first pixel; plain pixels where one of the three is missing."""
    measures = first_item(ds, "PixelMeasuresSequence", frame=0)
    spacing = numbers(measures, "PixelSpacing", 2) if measures else None
    turn, origin = numbers(ds, "ImageOrientationSlide", 6), ds.get("TotalPixelMatrixOriginSequence")
    if not spacing or min(spacing) <= 0 or not turn or not origin:
        return Grid.plain(height, width)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.array(turn[:3]) * spacing[1], np.array(turn[3:]) * spacing[0]
    affine[:3, 2] = np.cross(turn[:3], turn[3:])
    affine[:2, 3] = [float(origin[0].get(f"{axis}OffsetInSlideCoordinateSystem", 0)) for axis in "XY"]
    return Grid(affine, SLIDE, (1, height, width))


Decode = Callable[[int, Sequence[int]], Pixels]
"""Some frames of a level: values (channel, frame, row, column), validity (frame, row, column)."""
_TOGETHER = 16


def pyramid(channels: tuple[Channel, ...], levels: Sequence[Tiles], decode: Decode) -> Image:
    """The levels of a slide, finest first, as one image on the grid of the finest.

    A read decodes the tiles that it touches, of the coarsest level that has the pixels asked for; a reduced read takes
    the nearest pixels of it. What no tile covers is invalid.
    """
    finest = levels[0].grid

    def read(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        part = finest.crop(window) if window else finest
        out = shape or part.shape[1:]
        check_size(len(channels), *out)
        top, left = (window.rows[0], window.columns[0]) if window else (0, 0)
        level = _serving(levels, part.shape[1:], out)
        tile = levels[level]
        at = [
            _sampled(start, size, count, whole, own)
            for start, size, count, whole, own in zip(
                (top, left), part.shape[1:], out, finest.shape[1:], tile.grid.shape[1:], strict=True
            )
        ]
        values = np.zeros((len(channels), 1, *out), np.float32)
        valid = np.zeros((1, *out), bool)
        touched = tile.inside(*((int(index[0]), int(index[-1]) + 1) for index in at))
        for first in range(0, len(touched), _TOGETHER):
            frames = touched[first : first + _TOGETHER].tolist()
            pixels, good = decode(level, frames)
            for number, frame in enumerate(frames):
                here, there = zip(
                    *(_overlap(*pair) for pair in zip(at, tile.corners[frame], tile.size, strict=True)), strict=True
                )
                values[:, 0, here[0], here[1]] = pixels[:, number][:, there[0][:, None], there[1]]
                valid[0, here[0], here[1]] = good[number][there[0][:, None], there[1]]
        return values, valid

    return Image(channels, finest, read)


def _serving(levels: Sequence[Tiles], size: Sequence[int], out: Sequence[int]) -> int:
    """The coarsest level that still has a pixel for each that is asked for."""
    rows, columns = levels[0].grid.shape[1:]
    enough = [
        number
        for number, level in enumerate(levels)
        if level.grid.shape[1] * size[0] >= out[0] * rows and level.grid.shape[2] * size[1] >= out[1] * columns
    ]
    return max(enough, default=0)


def _sampled(start: int, size: int, count: int, whole: int, own: int) -> NDArray[np.intp]:
    """The indices in a level of `count` pixels that are spread over a span of the finest level."""
    at = (start + (np.arange(count) + 0.5) * size / count) * own / whole
    return np.clip(at.astype(np.intp), 0, own - 1)


def _overlap(at: NDArray[np.intp], corner: int, size: int) -> tuple[slice, NDArray[np.intp]]:
    """Which of the ascending indices lie in a tile, and where in it."""
    first, last = np.searchsorted(at, (corner, corner + size))
    return slice(int(first), int(last)), at[first:last] - corner
