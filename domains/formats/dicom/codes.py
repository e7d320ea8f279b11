"""Coded concepts of DICOM objects: the scheme and the value, and the standard's own words, never the file's."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from domains.formats.dicom import own
from fovea.types import Code

_VALUES = {
    "SCT": r"\d{6,18}", "SRT": r"[A-Z]-[0-9A-F]{4,6}", "DCM": r"\d{6}", "UMLS": r"C\d{7}", "FMA": r"\d{2,8}",
    "RADLEX": r"RID\d{1,8}", "NCIt": r"C\d{3,8}", "LN": r"\d{1,7}-\d",
}  # fmt: skip
"""Schemes of PS3.16 table 8-1 whose values have a shape that no name fits, and that shape."""
_RETIRED = {"SNM3": "SRT", "99SDM": "SRT", "SNOMED-CT": "SCT"}
_SIDES = {"7771000": "left", "24028007": "right", "51440002": "both"}


def concept(item: Any, ours: bool = False) -> Code | None:
    """The concept of a code item (PS3.3 table 8.8-1), older SNOMED codes ("SRT") as SNOMED CT ("SCT").

    The meaning is that of the standard's tables, empty where they do not hold the code. None where the scheme is
    private or the value has another shape than its scheme's: what stands there may be anything. Of an object that is
    `ours`, codes of our own table come as scheme "FOVEA", to be compared with closed lists and never to be passed on.
    """
    if item is None:
        return None
    scheme = str(item.get("CodingSchemeDesignator") or "")
    scheme = _RETIRED.get(scheme, scheme)
    value = str(item.get("CodeValue") or item.get("LongCodeValue") or "")
    if scheme == "SRT":
        newer = _tables()[1].get(value)
        scheme, value = ("SCT", newer) if newer else (scheme, value)
    meaning = _tables()[0].get((scheme, value))
    if ours and scheme == own.SCHEME:
        return Code("FOVEA", value, "")
    if meaning is None and not re.fullmatch(_VALUES.get(scheme, r"(?!)"), value):
        return None
    return Code(scheme, value, meaning or "")


def listed(scheme: str, value: str) -> bool:
    """Whether the standard's tables hold a code."""
    return (scheme, value) in _tables()[0]


def first(ds: Any, sequence: str) -> Any:
    """The first item of a sequence, or None."""
    return next(iter(ds.get(sequence) or ()), None) if ds is not None else None


def side(*items: Any) -> str:
    """The first side that one of these code items means: "left", "right", "both", or nothing."""
    codes = [concept(item) for item in items]
    return next((_SIDES[code.value] for code in codes if code and code.scheme == "SCT" and code.value in _SIDES), "")


@cache
def _tables() -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Meanings by scheme and value, less the kind of concept in brackets; and SNOMED CT by the older codes."""
    from pydicom.sr import _concepts_dict, _snomed_dict

    concepts: Any = _concepts_dict.concepts
    mapping: Any = _snomed_dict.mapping
    meanings = {
        (scheme, value): re.sub(r" \([a-z ]+\)$", "", text)
        for scheme, words in concepts.items()
        for values in words.values()
        for value, (text, _) in values.items()
    }
    return meanings, mapping["SRT"]
