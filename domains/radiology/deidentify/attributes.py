"""A header without what identifies: every attribute by Table E.1-1 of PS3.15, and what is not in it by its kind.

Stricter than the table where it is silent: private attributes, repeating groups and those that the dictionary does
not know go; free text stays only where it is of a closed list; dates move; names and binary values go; a word by which
a person in the header is known goes from wherever else it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any, Literal

from pydicom import DataElement, Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.tag import BaseTag

from domains.radiology.deidentify import profile
from domains.radiology.deidentify.dates import plain_time, shift_date, shift_datetime
from domains.radiology.deidentify.icc import without_texts
from domains.radiology.deidentify.identifiers import Identifiers, readable, values
from domains.radiology.deidentify.lists import terms, words
from domains.radiology.deidentify.pseudonyms import Key, is_public
from domains.radiology.deidentify.words import REMOVED, kept_label, kept_words, standard_code

_TEXT = ("LO", "LT", "SH", "ST", "UC", "UT")
_NUMBERS = ("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV")
_BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_DATES = ("DA", "DT", "TM")
_DUMMIES = {
    "AE": REMOVED, "AS": "000Y", "CS": REMOVED, "DA": "19000101", "DS": "0", "DT": "19000101", "IS": "0", "PN": REMOVED,
    "TM": "000000", **dict.fromkeys(_TEXT, REMOVED),
}  # fmt: skip
_DEFINED_TERM = re.compile(r"[A-Z0-9_ ]{0,16}")
_DECIMAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_PRINTABLE = re.compile(r"[ -~]{0,64}")


class Cleaner:
    """Cleans the data sets of one patient's file. `counts` tells how often each action was taken.

    How deep sequences lie inside each other was checked when the identifiers were collected.
    """

    def __init__(self, key: Key, options: Collection[str], patient: str, identifiers: Identifiers) -> None:
        self.key, self.options, self.patient, self.identifiers = key, options, patient, identifiers
        self.counts: Counter[str] = Counter()

    def clean(self, ds: Dataset) -> Dataset:
        """A new data set with what may stay; pixel data is left out."""
        cleaned, code = Dataset(), _is_code(ds)
        for tag in sorted(ds.keys()):
            if tag.group == 0x7FE0 or (code and tag in DicomDictionary and DicomDictionary[tag][4] in words("code")):
                continue
            element = readable(ds, tag) if _public(tag) else None
            found = self._element(element) if element is not None else None
            if found is not None:
                cleaned.add(found)
            else:
                self.counts["X"] += 1
        if code:
            value, cleaned.CodingSchemeDesignator, cleaned.CodeMeaning = standard_code(ds)
            setattr(cleaned, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
        return _named_segment(cleaned)

    def _element(self, element: DataElement) -> DataElement | None:
        """What an element becomes; None when it goes."""
        kinds = DicomDictionary[element.tag][0].split(" or ")
        if element.keyword in words("dropped") or not _fits(element.VR, kinds):
            return None
        action = profile.action(element.tag, self.options)
        if action == "X":
            return None
        if element.VR == "SQ":
            return self._sequence(element, action)
        given = values(element)
        if action is None or action in "KC":
            kept = [self._kept(element, value, action) for value in given]
            if not all(value is None for value in kept) or not given:
                self.counts[action or "-"] += 1
                return _with(element, [_dummy(element.VR) if value is None else value for value in kept])
            action = profile.basic(element.tag) or _unlisted(element.VR)
        return self._without(element, action, given)

    def _without(self, element: DataElement, action: str, given: list[Any]) -> DataElement | None:
        """An element whose value does not stay."""
        self.counts[action] += 1
        if action == "X" or (action == "D" and element.VR not in (*_DUMMIES, "UI")):
            return None
        if action == "U" or element.VR == "UI":
            return _with(element, [self._uid(str(value)) for value in given])
        if element.keyword in ("PatientName", "PatientID"):
            other = element.keyword == "PatientID" and given and f"number {str(given[0]).strip()}"
            return _with(element, [self.key.patient(other or self.patient)])
        return _with(element, [_dummy(element.VR)] if action == "D" else [])

    def _sequence(self, element: DataElement, action: str | None) -> DataElement | None:
        self.counts[action or "-"] += 1
        graphics = element.keyword == "GraphicAnnotationSequence"
        if action == "Z" or (action == "D" and (graphics or element.keyword == "ContentSequence")):
            return None if graphics else _with(element, [])
        items = [self.clean(item) for item in element.value or ()]
        if graphics:  # one that was only text is gone
            items = [item for item in items if "GraphicObjectSequence" in item or "CompoundGraphicSequence" in item]
        return DataElement(element.tag, "SQ", items) if items or not graphics else None

    def _kept(self, element: DataElement, value: Any, action: str | None) -> Any:
        """A value as it may stay; None when it may not."""
        kind, keyword = element.VR, element.keyword
        if kind == "UI":
            return str(value) if action == "K" else self._uid(str(value))
        if kind in _DATES:
            return self._date(kind, str(value)) if "modified-dates" in self.options else None
        if kind in _NUMBERS:
            return value
        if keyword == "ICCProfile":
            return without_texts(bytes(value)) if kind == "OB" else None
        if kind in _BINARY:
            return value if keyword in words("measured") and not self.identifiers.inside_bytes(bytes(value)) else None
        text = str(getattr(value, "original_string", value))
        if kind in ("DS", "IS"):
            plain = _DECIMAL.fullmatch(text) and len(text.strip()) <= 16 and not self.identifiers.inside(text)
            return value if plain else None
        if kind == "CS":
            return self._term(keyword, text)
        if kind == "AS":
            return _age(text) if action == "K" else None
        return self._text(keyword, text, action) if kind in _TEXT or action == "K" else None

    def _term(self, keyword: str, text: str) -> str | None:
        if text in terms(keyword):
            return text
        if keyword == "ContentLabel":  # the only one that people choose
            return text if kept_label(text) else REMOVED
        return text if _DEFINED_TERM.fullmatch(text) and not self.identifiers.inside(text) else None

    def _text(self, keyword: str, text: str, action: str | None) -> str | None:
        if action == "C" and keyword not in words("labels"):
            kept = kept_words(text)
        elif action == "K" or keyword in words("technical"):
            kept = text if _PRINTABLE.fullmatch(text) else None
        else:
            kept = kept_label(text)
        return None if kept and self.identifiers.inside(kept) else kept

    def _date(self, kind: str, text: str) -> str | None:
        if kind == "TM":
            return plain_time(text)
        return (shift_date if kind == "DA" else shift_datetime)(text, self.key.days(self.patient))

    def _uid(self, uid: str) -> str:
        """UIDs of the standard stay."""
        return uid if is_public(uid) or "uids" in self.options else self.key.uid(uid)


def _public(tag: BaseTag) -> bool:
    return tag in DicomDictionary and tag.group > 7 and tag.element != 0


def _fits(kind: str, kinds: list[str]) -> bool:
    """Whether an element is of the kind that the dictionary gives, or of one that is as harmless."""
    return kind in kinds or any({kind, *kinds} <= set(alike) for alike in (_NUMBERS, _TEXT, ("DS", "IS"), ("OB", "OW")))


def _is_code(ds: Dataset) -> bool:
    """Whether an item is of the code sequence macro."""
    return "CodeMeaning" in ds or "CodingSchemeDesignator" in ds


def _named_segment(ds: Dataset) -> Dataset:
    """A segment whose label went is called by the standard meaning of its code, or by its number."""
    if ds.get("SegmentLabel") == REMOVED:
        types = ds.get("SegmentedPropertyTypeCodeSequence")
        meaning = types[0].get("CodeMeaning") if types else None
        ds.SegmentLabel = meaning if meaning and meaning != "Unknown" else f"Segment {ds.get('SegmentNumber', 0)}"
    return ds


def _age(text: str) -> str | None:
    """An age (AS); those above 89 years are one group, as they are rare enough to tell who it is."""
    if not re.fullmatch(r"\d{3}[DWMY]", text):
        return None
    return "090Y" if text[3] == "Y" and int(text[:3]) > 89 else text


def _unlisted(kind: str) -> Literal["D", "Z", "X"]:
    """The action for a value that may not stay, of an attribute that is not in the table."""
    return "D" if kind in _TEXT else "Z" if kind in (*_DATES, "PN", "DS", "IS") else "X"


def _dummy(kind: str) -> str:
    return _DUMMIES.get(kind, "")


def _with(element: DataElement, given: list[Any]) -> DataElement:
    value = given[0] if len(given) == 1 else given or None
    return DataElement(element.tag, element.VR, [] if element.VR == "SQ" else value)
