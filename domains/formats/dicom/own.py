"""The words that our own DICOM objects use, and their codes: what writes and what reads them share it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_OID, uuid5

SCHEME = "99FOVEA"
"""The designator of our own table in DICOM: private ones start with 99 (PS3.3 table 8.8-1)."""
MAKER = "Fovea"
DRAWN = "FOVEA FINDINGS"
"""What the fourth value of ImageType says of pictures with findings drawn over the pixels."""
PUBLIC: Mapping[str, tuple[str, str, str]] = {
    "volume": ("SCT", "118565006", "Volume"), "area": ("SCT", "42798000", "Area"),
    "diameter": ("SCT", "81827009", "Diameter"), "longest_diameter": ("SCT", "103339001", "Long Axis"),
    "short_axis": ("SCT", "103340004", "Short Axis"), "length": ("SCT", "410668003", "Length"),
    "perimeter": ("SCT", "131191004", "Perimeter"), "distance": ("DCM", "121206", "Distance"),
    "mean": ("SCT", "373098007", "Mean"), "median": ("SCT", "373099004", "Median"),
    "standard_deviation": ("SCT", "386136009", "Standard Deviation"),
    "count": ("DCM", "111406", "Number of similar findings"),
}  # fmt: skip
"""Measures that a public scheme has a code for: scheme, value, meaning."""
PRIVATE = (
    "fraction", "longest_diameter_3d", "key_slice", "bearing", "cardiothoracic_ratio", "p10", "p90",
    "neighbours", "neighbours_showing", "nearest_cosine", "targets",
    "blur_sigma", "noise_share", "clipped_share", "missing_share",
    *(f"{name}_{end}" for name in ("volume", "longest_diameter", "sum_of_diameters")
      for end in ("before", "after", "change", "relative_change")),
)  # fmt: skip
"""Measures that only our own table has."""
UNITS: Mapping[str, tuple[str, str]] = {
    "mm": ("mm", "millimeter"), "cm": ("cm", "centimeter"), "m": ("m", "meter"), "mm2": ("mm2", "square millimeter"),
    "cm2": ("cm2", "square centimeter"), "m2": ("m2", "square meter"), "ha": ("har", "hectare"),
    "mL": ("mL", "milliliter"), "deg": ("deg", "degree"), "1": ("1", "no units"), "%": ("%", "percent"),
    "[hnsf'U]": ("[hnsf'U]", "Hounsfield unit"), "g/mL": ("g/mL", "gram per milliliter"),
    "Bq/mL": ("Bq/mL", "becquerel per milliliter"), "Gy": ("Gy", "gray"), "K": ("K", "kelvin"),
    "mm2/s": ("mm2/s", "square millimeter per second"), "um2/s": ("um2/s", "square micrometer per second"),
    "ms": ("ms", "millisecond"), "s": ("s", "second"),
}  # fmt: skip
"""Units of measures: their codes in UCUM and the meanings."""


def made(ds: Any) -> bool:
    """Whether an object is of our making: its equipment says so, or it identifies our table."""
    schemes = ds.get("CodingSchemeIdentificationSequence") or ()
    named = [(item.get("CodingSchemeDesignator"), item.get("CodingSchemeName")) for item in schemes]
    return ds.get("Manufacturer") == MAKER or (SCHEME, MAKER) in named


def value(word: str) -> str:
    """The code of a word in our table, of at most 16 characters: readers stumble over LongCodeValue."""
    return word if len(word) <= 16 else f"{word[:7]}-{sha256(word.encode()).hexdigest()[:8]}"


def uid(*parts: object) -> str:
    """A UID below the root of UUIDs (PS3.5 B.2), of what it names."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(map(str, parts))).int}"


def part(whole: str, number: int) -> str:
    """The tracking UID of the `number`-th object (from 1) of a finding with the tracking UID `whole`."""
    return uid(whole, number)
