"""Regions as lines to draw: where they run on each slice."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, floor, radians, sin

import numpy as np

from domains.radiology.outputs.common import Item, items, mask_of
from fovea.image import Bools, Matrix
from fovea.types import Box, OrientedBox, Polygon, Report

Rings = dict[int, list[Matrix]]
"""By slice, closed lines float64 (n, 2) of (row, column), an index being the centre of its pixel; the last point is not
the first again."""


def drawn(report: Report, image: int) -> list[tuple[Item, Rings]]:
    """What there is to draw on an image: findings with a region, and where objects are told apart, those instead."""
    found = [item for item in items(report) if item.finding.image == image]
    apart = {id(item.finding) for item in found if item.number and item.region is not None}
    shape = report.study.images[image].grid.shape
    lines = [(item, rings(item, shape)) for item in found if item.number or id(item.finding) not in apart]
    return [(item, ring) for item, ring in lines if ring]


def rings(item: Item, shape: tuple[int, int, int]) -> Rings:
    """The outlines of an item along the edges of its pixels, or of its box or polygon."""
    mask = mask_of(item.region, shape)
    if mask is None:
        return {place: [corners] for place, corners in outlines(item.region) if 0 <= place < shape[0]}
    return {int(place): _edges(mask[place]) for place in np.flatnonzero(mask.any(axis=(1, 2)))}


def key_slices(lines: Sequence[tuple[Item, Rings]], most: int) -> list[int]:
    """Up to `most` slices that show what was found: of each item the one on which its box is largest."""
    best = [
        max(ring, key=lambda place: sum(float(np.prod(np.ptp(r, axis=0))) for r in ring[place])) for _, ring in lines
    ]
    return sorted(dict.fromkeys(best[:most]))


def _edges(mask: Bools) -> list[Matrix]:
    from rasterio.features import shapes

    plain = mask.astype(np.uint8)
    return [
        np.array(ring[:-1], float)[:, ::-1] - 0.5
        for geometry, _ in shapes(plain, mask=mask)
        for ring in geometry["coordinates"]
    ]


def outlines(region: object) -> list[tuple[int, Matrix]]:
    """The slice and the corners float64 (n, 2) in order (row, column), an index being the centre of its pixel, of a
    box, oriented box or polygon on each of its slices; nothing for masks."""
    if isinstance(region, Box):
        (first, top, left), (last, bottom, right) = region.start, region.stop
        corners = np.array([(top, left), (top, right), (bottom, right), (bottom, left)]) - 0.5
        return [(place, corners) for place in range(floor(first), max(floor(first) + 1, -floor(-last)))]
    if isinstance(region, OrientedBox):
        angle = radians(region.angle)
        along, across = np.array((sin(angle), cos(angle))), np.array((cos(angle), -sin(angle)))
        ends = [(1, 1), (1, -1), (-1, -1), (-1, 1)]
        half = [along * a * region.length / 2 + across * b * region.width / 2 for a, b in ends]
        return [(region.slice, np.array(half) + region.center)]
    return [(region.slice, np.array(region.points, float))] if isinstance(region, Polygon) else []
