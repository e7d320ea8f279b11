"""Whose file it is, and the words in its header by which people are known, to look for them everywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydicom import DataElement, Dataset

from fovea.errors import LimitError

DEPTH = 24
"""How many sequences may lie inside each other."""
_NUMBERS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "ServiceEpisodeID", "MedicalRecordLocator",
    "RequestedProcedureID", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
    "PatientTelephoneNumbers", "PatientAddress", "InstitutionName", "InstitutionAddress", "ClinicalTrialSubjectID",
)  # fmt: skip
_PARTS = re.compile(r"[\^=\s,.;]+")


def identity(ds: Dataset) -> str:
    """What stands for one person over all files: the number of the patient, else name and birth date, else the study.

    Who issued the number is not looked at: one scanner writes it and the next does not.
    """
    number = str(ds.get("PatientID") or "").strip()
    if number:
        return f"number {number}"
    name, birth = str(ds.get("PatientName") or "").strip(), str(ds.get("PatientBirthDate") or "").strip()
    if name:
        return f"name {name} {birth}"
    return f"study {ds.get('StudyInstanceUID') or ds.get('SOPInstanceUID')}"


class Identifiers:
    """The names and numbers of people in one file, in capitals; raises LimitError below DEPTH sequences."""

    def __init__(self, ds: Dataset) -> None:
        self._words: set[str] = set()
        for element in elements(ds):
            if element.VR == "PN":
                for value in values(element):
                    self._words.update(part for part in _PARTS.split(str(value).upper()) if len(part) > 2)
            elif element.keyword in _NUMBERS:
                self._words.update(text for value in values(element) if len(text := str(value).strip().upper()) > 3)

    def inside(self, text: str) -> bool:
        """Whether a text holds one of them: the short ones as a word of their own, the long ones anywhere."""
        folded = text.upper()
        alone = set(re.split(r"[^\w]+|_", folded))
        return any(word in alone or (len(word) > 4 and word in folded) for word in self._words)

    def inside_bytes(self, data: bytes) -> bool:
        """Whether bytes hold one of the long ones as ASCII."""
        folded = data.upper()
        return any(len(word) > 4 and word.isascii() and word.encode() in folded for word in self._words)


def elements(ds: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Every element of a data set and of its sequences that can be read; raises LimitError below DEPTH sequences."""
    if depth > DEPTH:
        raise LimitError(f"DICOM with more than {DEPTH} sequences inside each other", "fewer")
    for tag in list(ds.keys()):
        element = readable(ds, tag)
        if element is None:
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value or ():
                yield from elements(item, depth + 1)


def readable(ds: Dataset, tag: Any) -> DataElement | None:
    """An element, or None when its bytes do not fit its kind."""
    from pydicom.errors import BytesLengthException

    try:
        element: DataElement = ds[tag]
        return element
    except (ValueError, TypeError, KeyError, NotImplementedError, AttributeError, OverflowError, BytesLengthException):
        return None


def values(element: DataElement) -> list[Any]:
    """The values of an element as a list: none of an empty one."""
    value = element.value
    if value is None or value == "" or value == b"":
        return []
    return list(value) if element.VM > 1 else [value[0] if isinstance(value, (list, tuple)) else value]
