"""What DICOM objects say of images, in the standard's terms, and how it comes to lie on an image's grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domains.formats.dicom.planes import Plane
from fovea.errors import GeometryError
from fovea.image import Bools, Grid, Matrix
from fovea.types import Code, Measure

_FLAT = 0.1
"""How far from the middle of a slice a plane may lie, in slices, and still be that slice."""
_SLACK = 0.51
"""How far outside the outermost pixel centres a point may lie, in pixels, and still be inside the image."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Marked pixels of one plane: `mask` bool (row, column), and `affine` float64 (4, 4) from its (column, row, 0, 1)
    to LPS mm, or None where the object has the pixels of an image and gives no position: to be found by `located`.
    `frame` (from 0) is that of the image where it is told."""

    mask: Bools
    affine: Matrix | None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed polygon on one plane, float64 (n, 3): LPS mm, or (column, row, 0) with the first pixel's centre at 0
    on the image whose SOP instance UID is `instance`, frame `frame` (from 0)."""

    points: Matrix
    instance: str = field(default="", repr=False)
    frame: int = 0


@dataclass(frozen=True, eq=False)
class Annotation:
    """One segment, region of interest or group of measurements.

    `kind` says what it is, `site` where, both as codes; `name` is free text of the file, to be compared with closed
    lists and never to be passed on. `by` is "automatic", "semiautomatic", "manual", "device", "person" or "unknown".
    `found` is False for a segment that is declared and empty, and for what is said to be absent; `score` is the
    probability that it is there, where the object tells one. `number` is that of a segment, and `refers` the SOP
    instance UID and number of a segment that was measured. `tracking` is the tracking UID in objects of our making.
    """

    kind: Code | None
    by: str
    site: Code | None = None
    side: str = ""
    name: str = field(default="", repr=False)
    patches: tuple[Patch, ...] = ()
    outlines: tuple[Outline, ...] = ()
    measures: tuple[Measure, ...] = ()
    found: bool = True
    score: float | None = None
    number: int = 0
    refers: tuple[str, int] | None = field(default=None, repr=False)
    tracking: str = field(default="", repr=False)


@dataclass(frozen=True, eq=False)
class Annotations:
    """All of one object, and the UIDs that it names: of its frame of reference, and of series and instances."""

    format: str
    items: tuple[Annotation, ...]
    frame: str = field(default="", repr=False)
    names: frozenset[str] = field(default=frozenset(), repr=False)
    spacing: float | None = None
    """The distance between slices in mm that the object declares."""
    instance: str = field(default="", repr=False)
    """Its own SOP instance UID."""


def affine(plane: Plane) -> Matrix:
    """From (column, row, 0, 1) to LPS mm, float64 (4, 4), PS3.3 C.7.6.2.1.1; raises GeometryError for no plane."""
    turn = np.array([plane.along_row, plane.along_column])
    if abs(turn @ turn.T - np.eye(2)).max() > 0.01:
        raise GeometryError("a plane without two unit vectors at a right angle", "them", "Export the object again.")
    found = np.eye(4)
    found[:3, 0], found[:3, 1] = turn[0] * plane.spacing[1], turn[1] * plane.spacing[0]
    found[:3, 2], found[:3, 3] = np.cross(*turn), plane.position
    return found


def paint(annotation: Annotation, grid: Grid) -> Bools:
    """The mask bool (slice, row, column) of all patches and outlines on a grid.

    Patches whose planes are slices of the grid are laid on them by position; where pixels differ in size or place,
    the nearest is taken. Outlines fill the pixels whose centres they enclose; where they overlap, they cut holes.
    Raises GeometryError where a plane is no slice of the grid, two lie on the same, or something marked is outside.
    """
    mask = np.zeros(grid.shape, bool)
    taken: set[int] = set()
    for patch in annotation.patches:
        place = _slice_of(patch, grid)
        if place in taken:
            raise GeometryError("two frames of one segment on the same slice", "one a slice", "Split the object.")
        taken.add(place)
        if patch.mask.any():
            mask[place] = _laid(patch, grid, place)
    for outline in annotation.outlines:
        place, corners = _flat(outline, grid)
        mask[place] ^= fill(corners, (grid.shape[1], grid.shape[2]))
    return mask


def fill(corners: Matrix, shape: tuple[int, int]) -> Bools:
    """The pixels, bool (row, column), whose centres a closed polygon (n, 2) of (row, column) encloses (even-odd)."""
    rows, columns = shape
    y, x = corners.T
    ends_y, ends_x = np.roll(corners, -1, axis=0).T
    above = y[:, None] <= np.arange(rows)
    edge, row = np.nonzero(above != np.roll(above, -1, axis=0))
    across = x[edge] + (row - y[edge]) * (ends_x - x)[edge] / (ends_y - y)[edge]
    turns = np.zeros((rows, columns + 1), np.int32)
    np.add.at(turns, (row, np.clip(np.ceil(across), 0, columns).astype(int)), 1)
    inside: Bools = turns.cumsum(1)[:, :columns] % 2 == 1
    return inside


def _slice_of(patch: Patch, grid: Grid) -> int:
    rows, columns = patch.mask.shape
    corners = np.array([(0, 0, 0, 1), (columns - 1, 0, 0, 1), (0, rows - 1, 0, 1)], float)
    return _one_slice(grid.index((corners @ _known(patch).T)[:, :3])[:, 0], grid)


def _known(patch: Patch) -> Matrix:
    if patch.affine is None:
        raise GeometryError("a segmentation without positions", "the file of its image", "Name that file.")
    return patch.affine


def _one_slice(along: Matrix, grid: Grid) -> int:
    place = int(np.rint(along[0]))
    if abs(along - place).max() > _FLAT or not 0 <= place < grid.shape[0]:
        raise GeometryError(
            "an object whose planes are no slices of this image", "the image that it was drawn on", "Load that image."
        )
    return place


def _laid(patch: Patch, grid: Grid, place: int) -> Bools:
    """One patch on its slice, nearest pixel."""
    shape = grid.shape[1:]
    marked = np.argwhere(patch.mask)
    points = np.column_stack([marked[:, ::-1], np.zeros(len(marked)), np.ones(len(marked))]) @ _known(patch).T
    there = grid.index(points[:, :3])[:, 1:]
    _check_inside(there, grid)
    if patch.mask.shape == shape and abs(there - marked).max() < 0.01:
        return patch.mask
    row, column = np.indices(shape).reshape(2, -1)
    world = grid.world(np.column_stack([np.full(row.size, place), row, column]))
    back = (np.column_stack([world, np.ones(row.size)]) @ np.linalg.inv(_known(patch)).T)[:, 1::-1]
    source = np.rint(back).astype(int)
    known = ((source >= 0) & (source < patch.mask.shape)).all(1)
    laid = np.zeros(row.size, bool)
    laid[known] = patch.mask[tuple(source[known].T)]
    return laid.reshape(shape)


def _flat(outline: Outline, grid: Grid) -> tuple[int, NDArray[np.float64]]:
    found = grid.index(outline.points)
    _check_inside(found[:, 1:], grid)
    return _one_slice(found[:, 0], grid), found[:, 1:]


def _check_inside(points: Matrix, grid: Grid) -> None:
    """Raise GeometryError where points (n, 2) of (row, column) leave the image."""
    last = np.array(grid.shape[1:]) - 1
    if (points < -_SLACK).any() or (points > last + _SLACK).any():
        raise GeometryError("an object that marks what is outside of this image", "the image that it was drawn on")
