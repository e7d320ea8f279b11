"""Objects of a class map that comes in strips: pieces that touch across strips and bands are one object.

What is held are the pieces found so far, one strip, and the last column of the band before. Pieces join as
`scipy.ndimage.label` joins pixels: with all eight neighbours of their class. So objects do not depend on how the map
was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from experts.ground import areas, steps
from fovea.errors import InputError
from fovea.image import Matrix
from fovea.types import Grid, Strip

Numbers = NDArray[np.int64]
_PART = 2**20
"""Pixels that are measured at once."""
# columns of the table of pieces: label, first and last row, first and last column, number of pixels, Σ row, Σ column,
# Σ row², Σ row·column, Σ column², area, Σ confidence
_LEAST, _MOST, _PIXELS, _CONFIDENCE = (0, 1, 3), (2, 4), 5, 12


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of a class map, an array each with one entry an object, in order of class, first row and first column.

    `label` is the class, `pixels` their number, `rows` and `columns` (object, 2) half-open extents, `centroid`
    (object, 2) and `moments` (object, 2, 2) the mean and the covariance of (row, column) over the object's area in
    pixels, `area` in m2 (mm2 on a detector, pixels without a frame), and `confidence` the mean of its pixels.
    """

    label: Numbers
    pixels: Numbers
    rows: Numbers
    columns: Numbers
    centroid: Matrix
    moments: Matrix
    area: Matrix
    confidence: Matrix

    def __len__(self) -> int:
        return len(self.label)

    def axes(self, grid: Grid) -> tuple[Matrix, Matrix, Matrix]:
        """Length and width in metres, and the bearing of the long side in degrees clockwise from north, in [0, 180).

        Of the rectangle with the same second moments, laid out at the centroid by geodesics.
        """
        if not len(self):
            return np.zeros(0), np.zeros(0), np.zeros(0)
        plane = steps(grid, self.centroid)
        values, axes = np.linalg.eigh(plane @ self.moments @ plane.transpose(0, 2, 1))
        width, length = np.sqrt(12 * values.clip(0)).T
        bearing = np.degrees(np.arctan2(axes[:, 0, 1], axes[:, 1, 1])) % 180
        return length, width, np.where(bearing == 180, 0.0, bearing)


def find(strips: Iterable[Strip], grid: Grid, smallest: Sequence[float] = ()) -> Objects:
    """The objects of a class map whose strips come as `experts.scenes` gives them: band after band, rows from the top.

    `smallest` is for each class the number of pixels below which an object is left out; areas are those of the
    ellipsoid. Raises InputError for strips in another order.
    """
    pieces = _Pieces(grid, smallest)
    for strip in strips:
        for part in _parts(strip):
            pieces.add(part)
    return pieces.objects()


class _Pieces:
    """What is known of the pieces of all strips so far, and which of them touch."""

    def __init__(self, grid: Grid, smallest: Sequence[float]) -> None:
        self.grid, self.smallest = grid, np.ones(Strip.NODATA + 1)
        self.smallest[1 : len(smallest) + 1] = smallest
        self.tables: list[Matrix] = []
        self.joins: list[Numbers] = []
        self.n, self.row, self.columns = 0, grid.shape[1], (0, 0)
        # classes and numbers of pieces: of the last row, and of the last columns of this band and of the one before,
        # with a pixel more at both ends
        self.above = np.zeros((2, 0), np.int64)
        self.left, self.right = np.zeros((2, 2, grid.shape[1] + 2), np.int64)

    def add(self, strip: Strip) -> None:
        """Number the pieces of a strip, and join them to those that they touch."""
        (top, bottom), (first, last) = strip.rows, strip.columns
        if strip.columns != self.columns:
            self._check(self.row == self.grid.shape[1] and first == self.columns[1])
            self.left, self.right = self.right, np.zeros_like(self.right)
            self.row, self.columns, self.above = 0, strip.columns, np.zeros((2, last - first), np.int64)
        self._check(top == self.row)
        edges = self._measured(strip)
        self._join(edges["top"], np.pad(self.above, ((0, 0), (1, 1))))
        self._join(edges["left"], self.left[:, top : bottom + 2])
        self.right[:, top + 1 : bottom + 1], self.above, self.row = edges["right"], edges["bottom"], bottom

    def _measured(self, strip: Strip) -> dict[str, Numbers]:
        """Put the pieces of a strip into the tables; returns classes and numbers of pieces along its four edges."""
        classes = strip.classes
        numbers, labels = np.zeros(classes.shape, np.int32), [0]
        for label in np.unique(classes):
            if 0 < label < Strip.NODATA:
                found, n = ndimage.label(classes == label, np.ones((3, 3), bool))
                np.add(found, len(labels) - 1, out=numbers, where=found > 0)
                labels += [int(label)] * n
        table = self._table(strip, numbers, np.array(labels))
        borders = {"top": (0,), "bottom": (-1,), "left": (slice(None), 0), "right": (slice(None), -1)}
        kept = table[:, _PIXELS] >= self.smallest[labels]
        for where in borders.values():
            kept[numbers[where]] = True  # it may go on elsewhere
        kept[0] = False
        renamed = np.where(kept, np.cumsum(kept) + self.n, 0)
        self.tables.append(table[kept])
        self.n += int(kept.sum())
        return {name: np.stack((classes[where], renamed[numbers[where]])) for name, where in borders.items()}

    def _table(self, strip: Strip, numbers: NDArray[np.int32], labels: Numbers) -> Matrix:
        """What the pieces of a strip add up to, (piece, column); the first row stands for none."""
        n = len(labels)
        at = np.flatnonzero(numbers)
        piece = numbers.ravel()[at]
        row, column = np.divmod(at, numbers.shape[1])
        row, column = row + float(strip.rows[0]), column + float(strip.columns[0])
        area = areas(self.grid, strip.rows, strip.columns).ravel()[at]
        sure = strip.confidence.ravel()[at]
        weights = (None, row, column, row * row, row * column, column * column, area, sure)
        sums = [np.bincount(piece, weight, n) for weight in weights]
        boxes = [(slice(0, 0),) * 2, *ndimage.find_objects(numbers, n - 1)]
        extents = np.array([[b.start, b.stop - 1, c.start, c.stop - 1] for b, c in boxes], float).reshape(-1, 4)
        extents += [strip.rows[0]] * 2 + [strip.columns[0]] * 2
        return np.column_stack((labels, extents, *sums))

    def _join(self, line: Numbers, other: Numbers) -> None:
        """Note which pieces of a line touch those of the next, which has a pixel more at both ends."""
        n = line.shape[1]
        for shift in range(3):
            beside = other[:, shift : shift + n]
            touch = (line[0] == beside[0]) & (line[1] > 0) & (beside[1] > 0)
            self.joins.append(np.unique(np.stack((line[1], beside[1]))[:, touch] - 1, axis=1))

    def objects(self) -> Objects:
        """The pieces that touch as one each, and the small ones left out."""
        self._check(self.row == self.grid.shape[1] and self.columns[1] in (0, self.grid.shape[2]))
        table = np.concatenate([np.zeros((0, _CONFIDENCE + 1)), *self.tables])
        joins = np.concatenate([np.zeros((2, 0), np.int64), *self.joins], axis=1)
        touching = coo_array((np.ones(joins.shape[1], bool), (joins[0], joins[1])), shape=(self.n, self.n))
        n, number = connected_components(touching, directed=False) if self.n else (0, np.zeros(0, int))
        order = np.argsort(number, kind="stable")
        begins = np.searchsorted(number[order], np.arange(n))
        table = table[order]
        whole = np.column_stack(
            [
                (np.minimum if place in _LEAST else np.maximum if place in _MOST else np.add).reduceat(column, begins)
                for place, column in enumerate(table.T)
            ]
        ) if n else table  # fmt: skip
        whole = whole[whole[:, _PIXELS] >= self.smallest[whole[:, 0].astype(int)]]
        whole = whole[np.lexsort((whole[:, 6], whole[:, 3], whole[:, 1], whole[:, 0]))]
        return _objects(whole)

    @staticmethod
    def _check(right: bool) -> None:
        if not right:
            raise InputError("strips in another order", "bands from the left, in each the rows from the top")


def _objects(table: Matrix) -> Objects:
    label, top, bottom, left, right, pixels, row, column, rr, rc, cc, area, sure = table.T
    centroid = np.column_stack((row, column)) / pixels[:, None]
    squares = np.stack((rr, rc, rc, cc), axis=1).reshape(-1, 2, 2) / pixels[:, None, None]
    moments = squares - centroid[:, :, None] * centroid[:, None] + np.eye(2) / 12
    whole = np.column_stack((label, pixels, top, bottom + 1, left, right + 1)).astype(np.int64)
    return Objects(whole[:, 0], whole[:, 1], whole[:, 2:4], whole[:, 4:], centroid, moments, area.copy(), sure / pixels)


def _parts(strip: Strip) -> Iterator[Strip]:
    """A strip in parts of fewer pixels."""
    (top, bottom), width = strip.rows, strip.columns[1] - strip.columns[0]
    step = max(_PART // width, 1)
    for start in range(top, bottom, step):
        rows = slice(start - top, min(start + step, bottom) - top)
        yield Strip((start, top + rows.stop), strip.columns, strip.classes[rows], strip.confidence[rows])
