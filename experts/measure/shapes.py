"""Masks as shapes: their extent, their connected pieces and their edge; and what measures may need beside a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.types import Bools, Floats, Grid, Measure, Window

Extent = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Context:
    """What measures may need beside the mask.

    `valid` is where there is data, `structures` are the masks of other labels, and `coarseness` is how many pixels of
    the grid one in-plane pixel of the network covers. `probabilities` (slice, row, column) are those of the label, on
    the grid or, with `cell` pixels of the grid in each, in the network's own size; a pixel belongs to the mask from
    `cut` on, and `at` draws the mask at another cut: left out, by the probabilities, where they are on the grid.
    `pixels` (slice, row, column) are the values of one channel, in `unit`.
    """

    valid: Bools | None = None
    structures: Mapping[str, Bools] = field(default_factory=dict)
    coarseness: float = 1.0
    probabilities: Floats | None = None
    cell: float = 1.0
    cut: float = 0.5
    at: Callable[[float], Bools] | None = None
    pixels: Floats | None = None
    unit: str = ""


PLAIN = Context()
"""Nothing but the mask."""
Function = Callable[[Bools, Grid, Context], Measure | None]


def extent(mask: Bools, margin: int = 0) -> Extent | None:
    """The smallest block that holds the mask, and a margin; None for an empty mask."""
    spans = []
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        line = mask.any(axis=others)
        found = np.flatnonzero(line)
        if not len(found):
            return None
        spans.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, mask.shape[axis])))
    return spans[0], spans[1], spans[2]


def trim(mask: Bools, grid: Grid, margin: int = 1) -> tuple[Bools, Grid]:
    """The mask and its grid without rows and columns that do not matter; slices stay as they are."""
    found = extent(mask, margin)
    if found is None:
        return mask, grid
    _, rows, columns = found
    return mask[:, rows, columns], grid.crop(Window((rows.start, rows.stop), (columns.start, columns.stop)))


def pieces(mask: Bools) -> tuple[NDArray[Any], int]:
    """Connected pieces (8 neighbours in a plane, 26 in space): their numbers, and how many there are."""
    from scipy import ndimage

    numbers: NDArray[Any] = np.zeros(mask.shape, np.int32)
    where = extent(mask)
    if where is None:
        return numbers, 0
    numbers[where], n = ndimage.label(mask[where], np.ones((3, 3, 3), bool))
    return numbers, int(n)


def without_specks(mask: Bools, smallest: float) -> Bools:
    """The mask without pieces of fewer than `smallest` pixels."""
    where = extent(mask)
    if smallest <= 1 or where is None:
        return mask
    numbers, n = pieces(mask[where])
    keep = np.bincount(numbers.ravel(), minlength=n + 1) >= smallest
    keep[0] = False
    out = np.zeros_like(mask)
    out[where] = keep[numbers]
    return out


def largest(mask: Bools) -> Bools:
    """The largest connected piece; an empty mask stays empty."""
    where = extent(mask)
    if where is None:
        return mask
    numbers, n = pieces(mask[where])
    if n == 1:
        return mask
    out = np.zeros_like(mask)
    out[where] = numbers == np.argmax(np.bincount(numbers.ravel())[1:]) + 1
    return out


def edge(mask: Bools) -> Bools:
    """Pixels with a neighbour outside; the border of the grid counts as inside."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(3, 1)
    out: Bools = mask & ~ndimage.binary_erosion(mask, cross, border_value=1)
    return out


def outer(mask: Bools) -> NDArray[np.intp]:
    """Indices (n, 3) of the first and the last pixel of every row: all corners of the convex hull are among them."""
    slices, rows = np.nonzero(mask.any(axis=2))
    lines = mask[slices, rows]
    first, last = lines.argmax(axis=1), mask.shape[2] - 1 - lines[:, ::-1].argmax(axis=1)
    return np.concatenate([np.stack((slices, rows, ends), axis=1) for ends in (first, last)])
