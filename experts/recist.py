"""The response of target lesions by RECIST 1.1 (Eisenhauer et al. 2009), with how sure it is.

Two examinations are compared, so that the first is both baseline and nadir; non-target and new lesions, which can make
a progression by themselves, are not judged. Target lesions are the longest of the first examination, at least 10 mm,
two of a label and five in all. Their sum is compared with that of as many longest ones of the second: lesions are not
followed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.stats import norm, qmc

from experts.measure import longest_diameter, pieces
from fovea.types import Code, Finding, Grid, Mask, Measure

CODES: Mapping[str, Code] = MappingProxyType(
    {
        "complete_response": Code("DCM", "112041", "Target Lesion Complete Response"),
        "partial_response": Code("DCM", "112042", "Target Lesion Partial Response"),
        "progressive_disease": Code("DCM", "112043", "Target Lesion Progressive Disease"),
        "stable_disease": Code("DCM", "112044", "Target Lesion Stable Disease"),
        "not_evaluable": Code("99FOVEA", "not_evaluable", "No measurable target lesion"),
    }
)
"""The classes of target lesions: DICOM CID 6144, and where there is none to judge."""
MEASURABLE, ORGAN, ALL = 10.0, 2, 5
"""The least longest diameter of a target lesion in mm; the most targets of an organ, and in all."""


def diameters(finding: Finding, grid: Grid) -> list[Measure]:
    """The longest diameter in mm of each lesion of a finding, the longest first; none where it is absent."""
    found = [m for i in finding.instances for m in i.measures if m.name == "longest_diameter" and m.unit == "mm"]
    if not found and finding.present and isinstance(finding.region, Mask):
        numbers, n = pieces(finding.region.data)
        found = [m for k in range(1, n + 1) if (m := longest_diameter(numbers == k, grid))]
    return sorted(found, key=lambda measure: -measure.value)


def sums(before: Sequence[Sequence[Measure]], after: Sequence[Sequence[Measure]]) -> tuple[Measure, Measure, int]:
    """The sums of diameters of the targets before and after, in mm, and how many targets there are.

    Diameters of one label each, the longest first. The uncertainties of lesions add up in quadrature.
    """
    chosen = [(m.value, label) for label, one in enumerate(before) for m in one[:ORGAN] if m.value >= MEASURABLE]
    chosen = sorted(chosen, reverse=True)[:ALL]
    counts = [sum(label == other for _, other in chosen) for label in range(len(before))]
    totals = []
    for name, date in (("before", before), ("after", after)):
        kept = [m for one, n in zip(date, counts, strict=True) for m in one[:n]]
        spread = float(np.sqrt(sum((m.uncertainty or 0.0) ** 2 for m in kept)))
        totals.append(Measure(f"sum_of_diameters_{name}", float(sum(m.value for m in kept)), "mm", spread))
    return totals[0], totals[1], len(chosen)


def response(before: Measure, after: Measure, gone: float) -> dict[str, float]:
    """The probability of each class from the sums of diameters in mm, which err normally.

    `gone` is the probability that no lesion is left, which is the complete response. Otherwise: progression from a
    growth of at least 20 % and 5 mm on, partial response from a fall of at least 30 % on, else stable.
    """
    if after.value == 0:
        return {"complete_response": gone, "partial_response": 1 - gone, "progressive_disease": 0, "stable_disease": 0}
    points = norm.ppf(qmc.Halton(2, scramble=False).random(4097)[1:])
    first, second = (m.value + (m.uncertainty or 0.0) * points[:, k] for k, m in enumerate((before, after)))
    change, first = second - first, np.maximum(first, 1e-6)
    progressive = float(np.mean((change >= 0.2 * first) & (change >= 5)))
    partial = float(np.mean(change <= -0.3 * first))
    return {
        "complete_response": gone,
        "partial_response": (1 - gone) * partial,
        "progressive_disease": (1 - gone) * progressive,
        "stable_disease": (1 - gone) * (1 - partial - progressive),
    }
