"""From the planes of single slices to one grid. Source: DICOM PS3.3 C.7.6.2.1.1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from domains.formats.dicom.planes import Plane, listed
from fovea.errors import GeometryError
from fovea.image import Matrix
from fovea.types import LPS, Grid

_SAME = 1e-3
"""Directions (cosines) and spacings (mm) that differ by less are the same; so are positions, in mm."""


def stack(planes: Sequence[Plane], rows: int, columns: int) -> tuple[list[int], Grid]:
    """The order of the planes along the normal of the slices, ascending, and the grid of the stack.

    A lone slice of unknown thickness gets a grid without physical size, since half a geometry cannot be kept.
    Slices that shift sideways evenly, as those of a tilted gantry do, give a grid whose axes are not at right angles.
    Raises GeometryError, naming slices by their number in that order (from 1), when planes are not parallel, differ in
    spacing, are doubled, missing or unevenly spaced, or leave the straight line by more than a quarter of a pixel.
    """
    turn = np.array([(*plane.along_row, *plane.along_column) for plane in planes])
    size = np.array([plane.spacing for plane in planes])
    positions = np.array([plane.position for plane in planes])
    usual = turn[_most_common(turn)]
    across, down = usual[:3], usual[3:]
    if abs(np.array([across @ across - 1, down @ down - 1, across @ down])).max() > 10 * _SAME:
        raise GeometryError(f"orientation {usual.round(4).tolist()}", "two unit vectors at a right angle")
    normal = np.cross(across, down)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    _all_alike(turn[order], "orientation", 10 * _SAME)
    _all_alike(size[order], "pixel spacing", _SAME)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = across * size[0, 1], down * size[0, 0], positions[order[0]]
    if len(planes) == 1:
        thickness = planes[0].thickness
        if thickness is None:
            return [0], Grid.plain(rows, columns)
        affine[:3, 2] = normal * thickness
    else:
        _evenly_spaced(along[order])
        _on_a_line(positions[order], float(size.min()))
        affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(planes) - 1)
    return order.tolist(), Grid(affine, LPS, (len(planes), rows, columns))


def volumes(planes: Sequence[Plane]) -> list[list[int]]:
    """The planes of a multi-frame file as volumes: one an orientation, and where every position of it comes n times, n
    stacks in stored order."""
    parts: dict[tuple[int, ...], list[int]] = {}
    for index, plane in enumerate(planes):
        parts.setdefault(_rounded(*plane.along_row, *plane.along_column), []).append(index)
    return [stack for part in parts.values() for stack in _turns(part, planes)]


def _turns(part: Sequence[int], planes: Sequence[Plane]) -> list[list[int]]:
    seen: Counter[tuple[int, ...]] = Counter()
    turns: dict[int, list[int]] = {}
    for index in part:
        place = _rounded(*planes[index].position)
        turns.setdefault(seen[place], []).append(index)
        seen[place] += 1
    return list(turns.values()) if len(set(seen.values())) == 1 else [list(part)]


def _rounded(*values: float) -> tuple[int, ...]:
    return tuple(round(value / _SAME / 10) for value in values)


def _most_common(rows: Matrix) -> int:
    _, first, count = np.unique(rows.round(2), axis=0, return_index=True, return_counts=True)
    return int(first[count.argmax()])


def _all_alike(rows: Matrix, what: str, tolerance: float) -> None:
    odd = np.flatnonzero(abs(rows - rows[_most_common(rows)]).max(1) > tolerance) + 1
    if len(odd):
        raise GeometryError(f"slice {listed(odd.tolist())} of another {what}", "one for all slices", "Load them apart.")


def _evenly_spaced(along: Matrix) -> None:
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    doubled = np.flatnonzero(gaps <= _SAME)
    if len(doubled):
        pairs = ", ".join(f"{n + 1} and {n + 2}" for n in doubled[:8])
        raise GeometryError(f"slices {pairs} at the same position", "one slice a position", "Load them apart.")
    even = along[0] + (along[-1] - along[0]) * np.arange(len(along)) / (len(along) - 1)
    if abs(along - even).max() <= 0.1 * usual:
        return
    worst = int(abs(gaps - usual).argmax())
    missing = round(gaps[worst] / usual) - 1
    whole = missing > 0 and abs(gaps[worst] / usual - missing - 1) < 0.1
    what = (
        f"{missing} missing between" if whole else f"a gap of {gaps[worst]:.3g} mm where {usual:.3g} is usual between"
    )
    raise GeometryError(
        f"slices unevenly spaced: {what} slices {worst + 1} and {worst + 2}",
        "evenly spaced slices",
        "Fetch the missing files, or resample the series.",
    )


def _on_a_line(positions: Matrix, pixel: float) -> None:
    line = positions[0] + np.linspace(0, 1, len(positions))[:, None] * (positions[-1] - positions[0])
    aside = np.linalg.norm(positions - line, axis=1)
    if aside.max() > pixel / 4:
        first = int((aside > pixel / 4).argmax()) + 1
        raise GeometryError(
            f"slices that shift sideways unevenly, by {aside.max():.3g} mm, from slice {first} on",
            "slices along a straight line",
            "Resample the series first.",
        )
