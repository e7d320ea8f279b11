"""How far a measure may be off: standard uncertainties of type B (JCGM 100:2008, 4.3).

Causes are added in quadrature. The outline is taken to lie anywhere within one pixel of the network, alike all around.
Where the probabilities of the pixels are known, each pixel belongs to the object with its probability p, so that the
number of pixels has the variance Σ p(1 - p) of independent pixels, times the number that err together: errors of a
network are taken to be alike within blocks of three of its pixels a side, and independent beyond. What is then expected
is Σ p pixels: by how much the mask has more or fewer is left uncorrected, and counts too (F.2.4.5). A length is drawn
again at the quartiles of its outline, p = 1/4 and 3/4 where the cut is 1/2: half the difference is the probable error,
and 1.48 times that the standard deviation (4.3.5). Whether the network looks at the right thing is another matter, and
stands on the expert's card.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experts.ground import weigh
from experts.measure.shapes import Context, edge, largest, pieces, trim
from fovea.types import Bools, Grid

FLAT = 12**-0.5
"""Standard deviation of what is uniform within one pixel."""
BOTH_ENDS = 6**-0.5
"""That of a length whose two ends are so."""
_TOGETHER = 3
"""Pixels of the network, along each axis, that err alike."""
_FAINT = 0.05
"""Pixels less likely than this are left out: a great many of them would drown what was drawn."""


def of_area(mask: Bools, grid: Grid, context: Context) -> float:
    """Standard uncertainty of the summed area of a mask, in the unit of `experts.ground.weigh`."""
    part, near = trim(mask, grid)
    n = int(np.count_nonzero(part))
    if not n:
        return 0.0
    outline = weigh(edge(part), near) * context.coarseness * FLAT
    scatter = _of_pixels(n, grid, context)
    return float(np.hypot(outline, scatter * weigh(part, near) / n)) if scatter else outline


def of_volume(mask: Bools, grid: Grid, context: Context) -> float:
    """Standard uncertainty of the number of voxels of a mask."""
    part, _ = trim(mask, grid)
    n = int(np.count_nonzero(part))
    if not n:
        return 0.0
    outline = np.count_nonzero(edge(part)) * context.coarseness * FLAT
    return float(np.hypot(outline, _of_pixels(n, grid, context)))


def of_count(context: Context) -> float | None:
    """Standard deviation of a number of pieces, each there with the highest probability in it; None without those."""
    from scipy import ndimage

    if context.probabilities is None:
        return None
    numbers, n = pieces(context.probabilities >= context.cut / 2)
    peaks = np.asarray(ndimage.maximum(context.probabilities, numbers, np.arange(1, n + 1)), float)
    return float(np.sqrt((peaks * (1 - peaks)).sum()))


def of_quartiles(function: Callable[[Bools], float], mask: Bools, context: Context) -> float:
    """Standard deviation of what `function` measures of the largest piece, by the quartiles of its outline.

    0 where no mask can be drawn at another cut.
    """
    low, high = (_drawn(context, mask, cut) for cut in (context.cut / 2, (1 + context.cut) / 2))
    if low is None or high is None:
        return 0.0
    one = largest(mask)
    numbers = pieces(low | one)[0]
    around: Bools = numbers == numbers[one][0]
    inside = largest(high & one)
    return 1.48 * abs(function(around) - (function(inside) if inside.any() else 0.0)) / 2


def _drawn(context: Context, mask: Bools, cut: float) -> Bools | None:
    if context.at is not None:
        return context.at(cut)
    if context.probabilities is None or context.probabilities.shape != mask.shape:
        return None
    out: Bools = context.probabilities >= cut
    return out


def _of_pixels(n: int, grid: Grid, context: Context) -> float:
    """Standard uncertainty of `n` pixels of the grid, by their probabilities; 0 where these are not known."""
    if context.probabilities is None:
        return 0.0
    chances = context.probabilities[context.probabilities >= _FAINT].astype(float)
    alike = _TOGETHER ** (3 if grid.shape[0] > 1 else 2) * max(context.cell, context.coarseness**2)
    scatter = (chances * (1 - chances)).sum() * context.cell * alike
    return float(np.sqrt(scatter + (chances.sum() * context.cell - n) ** 2))
