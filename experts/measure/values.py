"""What the pixels of a mask hold: statistics of one channel in its own unit (IBSI 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from experts.measure.shapes import PLAIN, Context
from experts.measure.spread import of_quartiles
from fovea.types import Bools, Floats, Grid, Measure

_UCUM = {
    "HU": "[hnsf'U]", "reflectance": "1", "sigma0": "1", "1": "1", "K": "K", "Gy": "Gy", "g/mL": "g/mL",
    "Bq/mL": "Bq/mL", "mm2/s": "mm2/s", "um2/s": "um2/s", "ms": "ms", "s": "s", "m": "m",
}  # fmt: skip
"""Units of channels, and their codes in UCUM; what has another unit, or none, compares with nothing."""


def mean(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The mean of the channel's valid pixels within the mask."""
    return _statistic("mean", np.mean, mask, context)


def standard_deviation(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The standard deviation of the channel's valid pixels within the mask."""
    return _statistic("standard_deviation", np.std, mask, context)


def median(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The median of the channel's valid pixels within the mask."""
    return _statistic("median", np.median, mask, context)


def p10(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The 10th percentile of the channel's valid pixels within the mask."""
    return _statistic("p10", lambda values: np.percentile(values, 10), mask, context)


def p90(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:  # noqa: ARG001
    """The 90th percentile of the channel's valid pixels within the mask."""
    return _statistic("p90", lambda values: np.percentile(values, 90), mask, context)


VALUES: Mapping[str, Callable[[Bools, Grid, Context], Measure | None]] = MappingProxyType(
    {function.__name__: function for function in (mean, standard_deviation, median, p10, p90)}
)
"""The measures that need `Context.pixels`."""


def _statistic(name: str, function: Callable[[Floats], np.floating], mask: Bools, context: Context) -> Measure | None:
    """None without pixels in a unit of UCUM; uncertain, where masks can be drawn at other cuts, by how they differ."""
    unit = _UCUM.get(context.unit)
    if context.pixels is None or unit is None:
        return None
    pixels = context.pixels

    def told(where: Bools) -> float | None:
        values = pixels[where if context.valid is None else where & context.valid].astype(float)
        values = values[np.isfinite(values)]
        return float(function(values)) if len(values) else None

    value = told(mask)
    if value is None:
        return None
    return Measure(name, value, unit, of_quartiles(lambda where: told(where) or 0.0, mask, context) or None)
