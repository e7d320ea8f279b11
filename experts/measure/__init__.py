"""What a mask measures in real units.

Masks are bool (slice, row, column) on the grid. Lengths and areas on the Earth are those of the ellipsoid, those in
a patient are mm, cm2 and mL. A measure that the grid cannot support (a length on pixels without a size, an area
in a volume) is left out: None. Standard uncertainties are of type B (JCGM 100:2008, 4.3): see `experts.measure.spread`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from experts.measure.classes import Changes, change_matrix, class_areas
from experts.measure.lengths import (
    bearing,
    cardiothoracic_ratio,
    length,
    longest_diameter,
    longest_diameter_3d,
    short_axis,
)
from experts.measure.objects import instances
from experts.measure.places import key_slice, midline, quadrant, side, within, zone
from experts.measure.shapes import PLAIN, Context, Function, largest, pieces, without_specks
from experts.measure.sizes import area_cm2, area_ha, area_m2, count, fraction, volume
from experts.measure.values import VALUES, mean, median, p10, p90, standard_deviation

MEASURES: Mapping[str, Function] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            count,
            area_cm2,
            area_m2,
            area_ha,
            fraction,
            volume,
            longest_diameter,
            short_axis,
            longest_diameter_3d,
            key_slice,
            length,
            bearing,
            cardiothoracic_ratio,
            *VALUES.values(),
        )
    }
)
"""What a recipe may name under a label's `measures`."""

__all__ = [
    "MEASURES", "PLAIN", "VALUES", "Changes", "Context", "Function", "area_cm2", "area_ha", "area_m2", "bearing",
    "cardiothoracic_ratio", "change_matrix", "class_areas", "count", "fraction", "instances", "key_slice", "largest",
    "length", "longest_diameter", "longest_diameter_3d", "mean", "median", "midline", "p10", "p90", "pieces",
    "quadrant", "short_axis", "side", "standard_deviation", "volume", "within", "without_specks", "zone",
]  # fmt: skip
