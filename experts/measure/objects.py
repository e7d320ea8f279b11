"""Objects told apart: the connected pieces of a mask, each with what it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from experts.measure.lengths import bearing, length, longest_diameter, longest_diameter_3d, short_axis
from experts.measure.places import key_slice
from experts.measure.shapes import PLAIN, Context, Function, extent, pieces
from experts.measure.sizes import area_cm2, area_ha, area_m2, volume
from experts.measure.values import VALUES
from fovea.types import Bools, Floats, Grid, Instance, Measure, Patch, Window

OF_ONE: Mapping[str, Function] = {
    function.__name__: function
    for function in (
        area_cm2, area_m2, area_ha, volume, longest_diameter, short_axis, longest_diameter_3d, key_slice, length,
        bearing, *VALUES.values(),
    )
}  # fmt: skip
"""Measures of a single object; the others are of the whole picture."""


def instances(
    mask: Bools,
    grid: Grid,
    names: Sequence[str],
    context: Context = PLAIN,
    probabilities: Floats | None = None,
    smallest: float = 1,
    limit: int | None = None,
    locate: Callable[[Bools], str] | None = None,
) -> tuple[Instance, ...]:
    """The connected pieces of at least `smallest` pixels, the largest first, at most `limit` of them.

    Each has its mask as a patch, those measures of `names` that a single object can have, the place that `locate`
    tells of its mask, and as its score the mean of its pixels' probabilities (slice, row, column), given on the grid
    here or in the context; a mask without probabilities is taken to be certain.
    """
    from scipy import ndimage

    where = extent(mask)
    if where is None:
        return ()
    if probabilities is None and context.probabilities is not None and context.probabilities.shape == mask.shape:
        probabilities = context.probabilities
    numbers, n = pieces(mask[where])
    sizes = np.bincount(numbers.ravel(), minlength=n + 1)[1:]
    order = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i] >= smallest][:limit]
    boxes = ndimage.find_objects(numbers)
    out = []
    for i in order:
        start = [box.start + part.start for box, part in zip(boxes[i], where, strict=True)]
        patch = Patch((start[0], start[1], start[2]), numbers[boxes[i]] == i + 1)
        inside = tuple(slice(a, a + size) for a, size in zip(start, patch.data.shape, strict=True))
        score = 1.0 if probabilities is None else float(probabilities[inside][patch.data].mean())
        measures = tuple(_measures(patch, mask, grid, names, context, probabilities))
        out.append(Instance(patch, score, measures, locate(whole(patch, grid.shape)) if locate else ""))
    return tuple(out)


def whole(patch: Patch, shape: tuple[int, ...]) -> Bools:
    """The mask of a patch on the whole grid."""
    out = np.zeros(shape, bool)
    out[tuple(slice(a, a + size) for a, size in zip(patch.start, patch.data.shape, strict=True))] = patch.data
    return out


def _measures(
    patch: Patch, mask: Bools, grid: Grid, names: Sequence[str], context: Context, probabilities: Floats | None
) -> Iterator[Measure]:
    """The measures of one object, taken on the rows and columns around it; slices keep their numbers."""
    margin = 1 + int(np.ceil(2 * context.coarseness))
    spans = [
        (max(a - margin, 0), min(a + size + margin, most))
        for a, size, most in zip(patch.start[1:], patch.data.shape[1:], grid.shape[1:], strict=True)
    ]
    part = (slice(None), *(slice(*span) for span in spans))
    near = grid.crop(Window(spans[0], spans[1]))
    start = patch.start[0], patch.start[1] - spans[0][0], patch.start[2] - spans[1][0]
    one = whole(Patch(start, patch.data), near.shape)
    others = mask[part] & ~one
    around = Context(
        None if context.valid is None else context.valid[part],
        coarseness=context.coarseness,
        probabilities=None if probabilities is None else np.where(others, 0, probabilities[part]),
        cut=context.cut,
        pixels=None if context.pixels is None else context.pixels[part],
        unit=context.unit,
    )
    found = (OF_ONE[name](one, near, around) for name in names if name in OF_ONE)
    return (item for item in found if item)
