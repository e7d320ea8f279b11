"""Where a mask lies, in closed words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experts.ground import blocks
from experts.measure.shapes import PLAIN, Context, pieces, trim
from fovea.types import DETECTOR, LPS, Bools, Grid, Measure


def side(mask: Bools, grid: Grid, midline: float | None = None) -> str:
    """The side of the patient, "left", "right" or "both"; "" for an empty mask.

    `midline` is the world x that parts the sides; left out, the middle of the grid. In a patient x runs to the left;
    without a frame, the patient's left is taken to be at the picture's right, as is usual. A piece counts when its
    linear size is at least a fifth of the largest one's, so that a speck does not make "both".
    """
    part, near = trim(mask, grid)
    numbers, n = pieces(part)
    if not n:
        return ""
    of = numbers[part] - 1
    sizes = np.bincount(of)
    centers = np.stack([np.bincount(of, at) for at in np.nonzero(part)], axis=1) / sizes[:, None]
    big = (sizes / sizes.max()) ** (1 / (3 if grid.shape[0] > 1 else 2)) >= 0.2
    x = near.world(centers[big])[:, 0]
    middle = float(grid.world((np.array([grid.shape], float) - 1) / 2)[0, 0]) if midline is None else midline
    lefts = x > middle
    return "both" if lefts.any() and not lefts.all() else "left" if lefts.all() else "right"


def midline(first: Bools, second: Bools, grid: Grid) -> float | None:
    """World x halfway between two paired organs; None where one is missing."""
    if not first.any() or not second.any():
        return None
    centers = np.array([np.argwhere(organ).mean(0) for organ in (first, second)])
    return float(grid.world(centers)[:, 0].mean())


def quadrant(mask: Bools, grid: Grid) -> str:
    """The quarter of the scene that holds most of the mask: "north-west", "north-east", "south-west" or "south-east".

    North is +y of the CRS; without a frame, the top of the picture. "" for an empty mask.
    """
    shares = np.zeros(4)
    middle = (np.array(grid.shape[1:]) - 1) / 2
    for start, part, areas in blocks(mask, grid):
        _, row, column = np.nonzero(part)
        offsets = np.stack((row + start, column), axis=1) - middle
        east, north = (offsets @ grid.affine[:2, [1, 0]].T).T
        quarter = 2 * ((north if grid.georeferenced else -north) < 0) + (east >= 0)
        shares += np.bincount(quarter, areas[row, column], 4)
    return ("north-west", "north-east", "south-west", "south-east")[int(np.argmax(shares))] if shares.any() else ""


def within(mask: Bools, structures: Mapping[str, Bools]) -> str:
    """The name of the structure, such as a lobe, that holds most of the mask; "" where none holds half of it.

    Of two that hold about as much (to 1 %), such as a lung and its lobe, the smaller one is named.
    """
    whole = np.count_nonzero(mask)
    shares = {name: np.count_nonzero(mask & one) / whole for name, one in structures.items()} if whole else {}
    most = max(shares.values(), default=0.0)
    held = [name for name, share in shares.items() if share >= max(most - 0.01, 0.5)]
    return min(held, key=lambda name: np.count_nonzero(structures[name]), default="")


def zone(mask: Bools, lungs: Bools, grid: Grid) -> str:
    """The third of the lungs, from apex to base, in which the middle of a mask lies: "upper", "middle" or "lower".

    The thirds are of equal height; above or below the lungs the nearest one counts. "" for an empty mask, without
    lungs, and on the Earth or a slide.
    """
    toward = {LPS: (2, 1.0), DETECTOR: (1, -1.0)}.get(grid.frame, (1, -1.0))
    if grid.georeferenced or not mask.any() or not lungs.any():
        return ""
    axis, sign = toward
    head = sign * grid.world(np.argwhere(lungs))[:, axis]
    middle = sign * grid.world(np.argwhere(mask).mean(0)[None])[0, axis]
    depth = (head.max() - middle) / max(float(np.ptp(head)), 1e-9)
    return ("upper", "middle", "lower")[int(np.clip(depth * 3, 0, 2))]


def key_slice(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The slice of a volume, counted from 0, that holds most of the mask."""
    if grid.shape[0] == 1 or not mask.any():
        return None
    return Measure("key_slice", float(np.argmax(mask.sum(axis=(1, 2)))), "1")
