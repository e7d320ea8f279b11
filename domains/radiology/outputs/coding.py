"""Findings and measures in the codes that DICOM objects use, such that `domains.radiology.findings` reads them back."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from domains.formats.dicom import own
from domains.radiology.vocabulary import ORGANS
from fovea.types import Code, Finding, Measure
from fovea.verbal import words


class Coded(NamedTuple):
    """What was found: its category and type, where, and on which side; the last two where they are known."""

    category: CodedConcept
    kind: CodedConcept
    site: CodedConcept | None
    side: CodedConcept | None


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


_ORGAN, _CHANGE = _sct("91723000", "Anatomical Structure"), _sct("49755003", "Morphologically Abnormal Structure")
_OBJECT = _sct("260787004", "Physical object")
_LUNG, _PLEURA, _LIVER = _sct("39607008", "Lung"), _sct("3120008", "Pleura"), _sct("10200004", "Liver")
_KIDNEY, _HEART, _CHEST = _sct("64033007", "Kidney"), _sct("80891009", "Heart"), _sct("51185008", "Chest")
_LESION, _NODULE = _sct("52988006", "Lesion"), _sct("27925004", "Nodule")
_KINDS = {"liver_lesion": _LESION, "kidney_lesion": _LESION, "nodule": _NODULE}
"""Where DICOM says a kind and a place, and our table has one code for both."""
_SITES = {
    "liver_lesion": _LIVER, "kidney_lesion": _KIDNEY, "cardiomegaly": _HEART, "pleural_effusion": _PLEURA,
    "pneumothorax": _PLEURA, "support_device": _CHEST,
}  # fmt: skip
_IN_LUNGS = ("nodule", "consolidation", "ground_glass_opacity", "covid_19", "acute_respiratory_distress_syndrome")
_SIDES = {
    "left": _sct("7771000", "Left"), "right": _sct("24028007", "Right"), "both": _sct("51440002", "Right and left"),
}  # fmt: skip


def coded(finding: Finding, location: str = "") -> Coded:
    """The concepts of a finding, or of an object of its kind at another location."""
    label = finding.label
    site = _SITES.get(label) or (_LUNG if label in _IN_LUNGS or label.endswith("pneumonia") else None)
    kind = _KINDS.get(label) or concept(finding.code, words(label))
    category = _ORGAN if label in ORGANS else _OBJECT if label == "support_device" else _CHANGE
    side = _SIDES.get(location or finding.location)
    return Coded(*deepcopy((category, kind, site, side)))  # objects nest one in the other


def concept(code: Code, otherwise: str) -> CodedConcept:
    """A code of ours as DICOM has it; the meaning is `otherwise` where the code has none."""
    meaning = (code.meaning or otherwise)[:64]
    return _own(code.value, meaning) if code.scheme == "FOVEA" else CodedConcept(code.value, code.scheme, meaning)


def _own(name: str, meaning: str) -> CodedConcept:
    return CodedConcept(own.value(name), own.SCHEME, meaning[:64])


def measure_name(measure: Measure) -> CodedConcept:
    if measure.name not in own.PUBLIC:
        return _own(measure.name, words(measure.name))
    scheme, value, meaning = own.PUBLIC[measure.name]
    return CodedConcept(value, scheme, meaning)


def unit(name: str) -> CodedConcept:
    """A unit in UCUM."""
    value, meaning = own.UNITS.get("[hnsf'U]" if name == "HU" else name, (name, name))
    return CodedConcept(value, "UCUM", meaning)


def schemes() -> list[CodingSchemeIdentificationItem]:
    """What a reader needs to know of our own table (PS3.3 C.12.1)."""
    return [CodingSchemeIdentificationItem(own.SCHEME, name=own.MAKER, responsible_organization=own.MAKER)]
