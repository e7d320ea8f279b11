"""Rectangles on one slice: from regions and back, scaled, compared and thinned out.

Boxes are float64 (box, 5): the row and column of the centre (an index names the middle of its pixel), length and width
in pixels, and the angle of the length in radians from the column axis towards the row axis. Upright boxes have the
angle 0, their length along the columns and their width along the rows; of others the length is the longer side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experts.measure import pieces
from fovea.types import Bools, Box, Mask, OrientedBox, Patch, Polygon

Boxes = NDArray[np.float64]
NO_BOXES: Boxes = np.zeros((0, 5))


def of_region(region: Mask | Patch | Box | OrientedBox | Polygon, oriented: bool) -> Boxes:
    """The boxes around a region: of a mask, one for each connected piece."""
    if isinstance(region, Mask | Patch):
        numbers, n = pieces(region.data)
        start = np.array(region.start[1:] if isinstance(region, Patch) else (0, 0))
        points = [np.argwhere(numbers == number)[:, 1:] + start for number in range(1, n + 1)]
        return np.concatenate([NO_BOXES, *(_around(group.astype(float), oriented, 1.0)[None] for group in points)])
    if isinstance(region, Box):
        (_, top, left), (_, bottom, right) = region.start, region.stop
        middle = (top + bottom - 1) / 2, (left + right - 1) / 2
        return _settled(np.array([[*middle, right - left, bottom - top, 0.0]]), oriented)
    if isinstance(region, OrientedBox):
        box = np.array([[*region.center, region.length, region.width, np.deg2rad(region.angle)]])
        return box if oriented else _around(corners(box)[0], False, 0.0)[None]
    return _around(np.array(region.points, float), oriented, 0.0)[None]


def to_region(box: Boxes, oriented: bool, shape: tuple[int, int]) -> Box | OrientedBox:
    """One box (5,) as a region of a single slice of (rows, columns), an upright one cut at the border."""
    row, column, length, width, angle = (float(value) for value in box)
    if oriented:
        degrees = (np.rad2deg(angle) + 90) % 180 - 90
        center = float(np.clip(row, -0.5, shape[0] - 0.5)), float(np.clip(column, -0.5, shape[1] - 0.5))
        return OrientedBox(center, length, width, float(degrees))
    spans = []
    for middle, side, end in ((row, width, shape[0]), (column, length, shape[1])):
        start = float(np.clip(middle + 0.5 - side / 2, 0, end - 1e-3))
        spans.append((start, float(np.clip(middle + 0.5 + side / 2, start + 1e-3, end))))
    return Box((0.0, spans[0][0], spans[1][0]), (1.0, spans[0][1], spans[1][1]))


def scaled(boxes: Boxes, ratio: tuple[float, float], oriented: bool) -> Boxes:
    """The boxes in a picture with `ratio` (rows, columns) times as many pixels of the same extent.

    Where the ratios differ, a slanted rectangle becomes the one with its long axis and its area.
    """
    rows, columns = ratio
    out = boxes.copy()
    out[:, :2] = (boxes[:, :2] + 0.5) * ratio - 0.5
    along = np.stack((np.cos(boxes[:, 4]) * columns, np.sin(boxes[:, 4]) * rows))
    stretch = np.hypot(*along)
    out[:, 2] *= stretch
    out[:, 3] *= rows * columns / stretch
    out[:, 4] = np.arctan2(along[1], along[0])
    return _settled(out, oriented)


def cut(boxes: Boxes, shape: tuple[int, int]) -> Boxes:
    """Upright boxes cut at the border of (rows, columns); what lies outside has no sides."""
    half = boxes[:, 3:1:-1] / 2
    low, high = (np.clip(boxes[:, :2] + way * half, -0.5, np.array(shape) - 0.5) for way in (-1, 1))
    return np.concatenate(((low + high) / 2, (high - low)[:, ::-1], boxes[:, 4:]), 1)


def corners(boxes: Boxes) -> NDArray[np.float64]:
    """The four corners (box, 4, 2) as (row, column), one after the other around the box."""
    turn = boxes[:, 4]
    along = np.stack((np.sin(turn), np.cos(turn)), -1) * boxes[:, 2:3] / 2
    across = np.stack((np.cos(turn), -np.sin(turn)), -1) * boxes[:, 3:4] / 2
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    return np.stack([boxes[:, :2] + a * along + b * across for a, b in signs], 1)


def of_corners(points: NDArray[np.float64], oriented: bool) -> Boxes:
    """The boxes of corners in the order of `corners`, from either side; upright ones around them."""
    if not oriented:
        return np.concatenate([NO_BOXES, *(_around(four, False, 0.0)[None] for four in points)])
    along, across = points[:, 0] - points[:, 3], points[:, 0] - points[:, 1]
    angle = np.arctan2(along[:, 0], along[:, 1])
    out = np.stack((*points.mean(1).T, np.hypot(*along.T), np.hypot(*across.T), angle), 1)
    return _settled(out, True)


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box with each other one, (first, second), whatever their angles."""
    import shapely

    out = np.zeros((len(first), len(second)))
    if len(first) and len(second):
        one, two = (shapely.polygons(corners(boxes)) for boxes in (first, second))
        i, j = shapely.STRtree(two).query(one)
        # on a grid: sides that coincide but for the last bit may otherwise have nothing in common for GEOS
        both = shapely.area(shapely.intersection(one[i], two[j], grid_size=1e-7))
        out[i, j] = both / np.maximum(shapely.area(one)[i] + shapely.area(two)[j] - both, 1e-12)
    return out


def suppress(boxes: Boxes, scores: NDArray[Any], limit: float, oriented: bool) -> NDArray[np.intp]:
    """Indices of the boxes that overlap none of a greater score by more than `limit`, the greatest score first."""
    order = np.argsort(-scores, kind="stable")
    if not oriented:
        from torchvision.ops import nms  # type: ignore[import-untyped]

        edges = np.concatenate((boxes[:, :2] - boxes[:, 3:1:-1] / 2, boxes[:, :2] + boxes[:, 3:1:-1] / 2), 1)[order]
        found = nms(torch.from_numpy(edges), torch.from_numpy(np.ascontiguousarray(scores[order])), limit)
        return np.asarray(order[found.numpy()], np.intp)
    close, kept = overlaps(boxes[order], boxes[order]) > limit, []
    free = np.ones(len(order), bool)
    for place in range(len(order)):
        if free[place]:
            kept.append(order[place])
            free &= ~close[place]
    return np.array(kept, np.intp)


def covered(boxes: Boxes, shape: tuple[int, int]) -> Bools:
    """Pixels (row, column) whose middle lies in one of the boxes; at least the one at each centre."""
    out = np.zeros(shape, bool)
    for box, points in zip(boxes, corners(boxes), strict=True):
        low = np.clip(np.floor(points.min(0)).astype(int), 0, np.array(shape) - 1)
        high = np.clip(np.ceil(points.max(0)).astype(int) + 1, low + 1, shape)
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]] - box[:2, None, None]
        along, across = x * np.cos(box[4]) + y * np.sin(box[4]), y * np.cos(box[4]) - x * np.sin(box[4])
        inside = (abs(along) <= box[2] / 2) & (abs(across) <= box[3] / 2)
        out[low[0] : high[0], low[1] : high[1]] |= inside
        row, column = np.clip(np.round(box[:2]).astype(int), 0, np.array(shape) - 1)
        out[row, column] = True
    return out


def _around(points: NDArray[np.float64], oriented: bool, pixel: float) -> Boxes:
    """The box (5,) around points (n, 2), each of them a square of side `pixel`; along the axis of second moments."""
    axes = np.eye(2)[::-1]
    if oriented:
        spread = points - points.mean(0)
        axes = np.linalg.eigh(spread.T @ spread)[1].T[::-1]
    along = points @ axes.T
    low, high = along.min(0), along.max(0)
    center = (low + high) / 2 @ axes
    sides = high - low + pixel * np.abs(axes).max(1)
    box = np.array([[*center, *np.maximum(sides, 1e-3), np.arctan2(axes[0, 0], axes[0, 1])]])
    out: Boxes = _settled(box, oriented)[0]
    return out


def _settled(boxes: Boxes, oriented: bool) -> Boxes:
    """Slanted boxes with the longer side as length, and the angle in [-pi/2, pi/2)."""
    if not oriented:
        return boxes
    out = boxes.copy()
    short = out[:, 2] < out[:, 3]
    out[short, 2:4] = out[short, 3:1:-1]
    out[short, 4] += np.pi / 2
    out[:, 4] = (out[:, 4] + np.pi / 2) % np.pi - np.pi / 2
    return out
