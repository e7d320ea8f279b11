"""The slices of a volume that show its findings: chosen from what was found, not by who looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fovea.types import Finding, Mask, OrientedBox, Patch, Polygon, Region, Study

Areas = NDArray[np.float64]
STANDS_FOR = 0.75
"""A slice that shows this share of the largest area of something stands for that slice."""
TOP = 3
"""How many instances of a finding have a slice of their own."""


@dataclass(frozen=True)
class KeySlice:
    """A slice of one image, and the labels of the findings that it shows, the smallest first."""

    image: int
    slice: int
    labels: tuple[str, ...]


def key_slices(study: Study, findings: Sequence[Finding], limit: int = 4) -> tuple[KeySlice, ...]:
    """At most `limit` slices, those of each image from the last to the first: head before feet in axial slices.

    The slice with the largest area of each present finding in a volume, the smallest findings first, then those of its
    top instances. A slice that is chosen already and shows at least `STANDS_FOR` of that area is shown in its place.
    """
    known = [
        (finding, areas)
        for finding in findings
        if finding.present and (depth := study.images[finding.image].grid.shape[0]) > 1
        if (areas := _areas(finding, depth)).any()
    ]
    known.sort(key=lambda item: float(item[1].sum()))
    wanted = [(finding.image, areas) for finding, areas in known]
    wanted += [
        (finding.image, areas)
        for finding, whole in known
        for instance in finding.instances[:TOP]
        if (areas := _area(instance.region, len(whole))).any()
    ]
    chosen: dict[tuple[int, int], None] = {}
    for image, areas in wanted:
        near = [s for i, s in chosen if i == image and areas[s] >= STANDS_FOR * areas.max()]
        if not near and len(chosen) < limit:
            chosen[image, int(areas.argmax())] = None
    return tuple(
        KeySlice(image, slice_, tuple(_shown(known, image, slice_)))
        for image, slice_ in sorted(chosen, key=lambda key: (key[0], -key[1]))
    )


def _shown(known: Sequence[tuple[Finding, Areas]], image: int, slice_: int) -> Iterator[str]:
    yield from (finding.label for finding, areas in known if finding.image == image and areas[slice_])


def _areas(finding: Finding, depth: int) -> Areas:
    """Pixels of a finding by slice; of its instances where it has no region of its own."""
    if finding.region is not None:
        return _area(finding.region, depth)
    areas = np.zeros(depth)
    for instance in finding.instances:
        areas += _area(instance.region, depth)
    return areas


def _area(region: Region | Patch, depth: int) -> Areas:
    """Pixels of a region in each of `depth` slices."""
    areas = np.zeros(depth)
    if isinstance(region, Mask):
        counted = region.data.sum((1, 2))[:depth]
        areas[: len(counted)] = counted
    elif isinstance(region, Patch):
        counted = region.data.sum((1, 2))[: max(0, depth - region.start[0])]
        areas[region.start[0] : region.start[0] + len(counted)] = counted
    elif isinstance(region, OrientedBox):
        areas[region.slice] = region.length * region.width
    elif isinstance(region, Polygon):
        y, x = np.array(region.points).T
        areas[region.slice] = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    else:
        first, last = int(region.start[0]), max(int(np.ceil(region.stop[0])), int(region.start[0]) + 1)
        areas[first:last] = (region.stop[1] - region.start[1]) * (region.stop[2] - region.start[2])
    return areas
