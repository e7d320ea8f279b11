"""DICOM measurement reports (SR of TID 1500) as annotations: what was measured, where, and the values with units."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import foreign
from domains.formats.dicom import own
from domains.formats.dicom.annotation import Annotation, Annotations, Outline
from domains.formats.dicom.codes import concept, first, listed, side
from domains.formats.isolation import isolated
from fovea.errors import InputError, UnsupportedError
from fovea.types import Code, Measure

CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{last}" for last in ("11", "22", "33", "34", "35"))
"""SOP classes of SR: Basic Text, Enhanced, Comprehensive, Comprehensive 3D, Extensible."""
_OBSERVERS = {"121006": "person", "121007": "device"}
_NAMES = {f"{scheme} {value}": name for name, (scheme, value, _) in own.PUBLIC.items()} | {
    "SCT 131184002": "area", "SCT 131187009": "longest_diameter", "SCT 131188004": "short_axis",
    "IBSI L0JK": "longest_diameter_3d", "DCM 126031": "peak",
}  # fmt: skip
"""Our names of measures and derivations; others take the standard's meaning, or its scheme and value."""
_OWN_NAMES = {own.value(name): name for name in own.PRIVATE}
_OWN_UNITS = {code: unit for unit, (code, _) in own.UNITS.items()}
_PRESENCE = {"52101004": True, "272519000": False}
"""SNOMED CT: present, absent."""
_STATED, _CERTAINTY, _EVALUATIONS = ("DCM", "121052"), ("DCM", "111012"), ("UMLS", "C0034375")
"""Presence of property, certainty of finding, qualitative evaluations."""
_SPREADS = ("371886008", "371885007")
"""SNOMED CT: the ranges of upper and lower measurement uncertainty."""
_UNITS = {
    "m": (1000, "mm"), "cm": (10, "mm"), "um": (0.001, "mm"), "mm2": (0.01, "cm2"), "ml": (1, "mL"), "cm3": (1, "mL"),
    "mm3": (0.001, "mL"), "dm3": (1000, "mL"), "l": (1000, "mL"), "L": (1000, "mL"), "rad": (180 / np.pi, "deg"),
    "{ratio}": (1, "1"), "{SUVbw}g/ml": (1, "g/ml{SUVbw}"),
}  # fmt: skip
"""Units of UCUM that become others of UCUM."""
_MORE_UNITS = ("g", "kg", "mg", "mL", "1", "g/ml{SUVbw}")
_CURVE = 64
"""The corners of the polygon that stands for an ellipse or a circle."""


def read(path: Path) -> Annotations:
    """One annotation a measurement group, and one for each evaluation of the whole that says present or absent.

    Values whose unit the standard does not list are left out. A certainty is taken for that of what is said. In reports
    of our making the range of uncertainty on both sides is the standard uncertainty, and units stay as they are.

    The file is parsed in a process of its own. Raises UnsupportedError for reports of other templates, and InputError.
    """
    facts, points = isolated(parse, path)
    items = []
    for group in facts["groups"]:
        outlines = tuple(Outline(points[a:b], instance, frame) for a, b, instance, frame in group["outlines"])
        refers = (group["refers"][0], int(group["refers"][1])) if group["refers"] else None
        items.append(
            Annotation(
                Code(*group["kind"]) if group["kind"] else None,
                facts["by"],
                Code(*group["site"]) if group["site"] else None,
                group["side"],
                outlines=outlines,
                measures=tuple(Measure(*measure) for measure in group["measures"]),
                found=group["found"],
                score=group["score"],
                tracking=group["tracking"],
                refers=refers,
            )
        )
    return Annotations("sr", tuple(items), facts["frame"], frozenset(facts["names"]))


def parse(path: Path) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """What the report says, as JSON has it, and the points of all outlines (n, 3); for a child process."""
    with foreign("a measurement report in DICOM", BytesLengthException, InvalidDicomError):
        ds = dcmread(path, force=True)
        template = first(ds, "ContentTemplateSequence")
        if ds.get("SOPClassUID") not in CLASSES or template is None or template.get("TemplateIdentifier") != "1500":
            raise UnsupportedError("DICOM that is no measurement report of TID 1500", "one", "Read its text elsewhere.")
        from highdicom.sr import srread

        report: Any = srread(path)
        content = report.content
        points: list[NDArray[np.float64]] = []
        groups = [
            *content.get_planar_roi_measurement_groups(),
            *content.get_volumetric_roi_measurement_groups(),
            *content.get_image_measurement_groups(),
        ]
        ours = own.made(ds)
        found = [_group(group, points, ours) for group in groups]
        observers = {_OBSERVERS.get(str(o.observer_type.value), "") for o in content.get_observer_contexts()} - {""}
        frames = {str(uid) for group in found for uid in group.pop("frames")}
        if len(frames) > 1:
            raise InputError(f"a measurement report in {len(frames)} frames of reference", "one", "Split it.")
        facts = {
            "groups": found + _evaluations(ds, ours),
            "by": max(observers, default="unknown"),  # a person who used a device is the observer
            "frame": next(iter(frames), ""),
            "names": _referenced(ds),
        }
        return facts, np.concatenate(points) if points else np.zeros((0, 3))


def _group(group: Any, points: list[NDArray[np.float64]], ours: bool) -> dict[str, Any]:
    """One measurement group; the points of its outlines are appended, and `outlines` says which they are."""
    site = next(iter(group.finding_sites), None)
    place = site.value if site is not None else None
    outlines, frames = [], []
    for region in _regions(getattr(group, "roi", None)):
        corners = _corners(region)
        if corners is not None:
            start = sum(map(len, points))
            points.append(corners)
            outlines.append([start, start + len(corners), *_image(region)])
            frames += [region.frame_of_reference_uid] if hasattr(region, "frame_of_reference_uid") else []
    said = [_presence(item) for item in group[0].get("ContentSequence") or () if _is(item, _STATED)]
    found, score = next((one for one in said if one), (True, None))
    return {
        "kind": _plain(concept(group.finding_type, ours)),
        "site": _plain(concept(place)),
        "side": side(site.laterality) if site is not None else "",
        "measures": [measure for item in group.get_measurements() if (measure := _measure(item, ours))],
        "outlines": outlines,
        "frames": frames,
        "refers": _segment(group),
        "found": found,
        "score": score,
        "tracking": str(group.tracking_uid or "") if ours else "",
    }


def _evaluations(ds: Any, ours: bool) -> list[dict[str, Any]]:
    """What is said of the whole to be present or absent, as groups that measure nothing."""
    nothing: dict[str, Any] = {"site": [], "side": "", "measures": [], "outlines": [], "refers": None, "tracking": ""}
    found = []
    for container in ds.get("ContentSequence") or ():
        for item in (container.get("ContentSequence") or ()) if _is(container, _EVALUATIONS) else ():
            said = None if _is(item, _STATED) else _presence(item)
            if said:
                kind = _plain(concept(first(item, "ConceptNameCodeSequence"), ours))
                found.append({**nothing, "kind": kind, "found": said[0], "score": said[1]})
    return found


def _presence(item: Any) -> tuple[bool, float | None] | None:
    """Whether a coded item says that something is there, and the probability that it is; None for other values."""
    value = concept(first(item, "ConceptCodeSequence"))
    if value is None or value.scheme != "SCT" or value.value not in _PRESENCE:
        return None
    present = _PRESENCE[value.value]
    for part in item.get("ContentSequence") or ():
        told = first(part, "MeasuredValueSequence") if _is(part, _CERTAINTY) else None
        share = -1.0 if told is None else float(told.get("FloatingPointValue", told.NumericValue)) / 100
        if 0 <= share <= 1:
            return present, round(share if present else 1 - share, 9)
    return present, None


def _is(item: Any, meant: tuple[str, str]) -> bool:
    code = concept(first(item, "ConceptNameCodeSequence"))
    return code is not None and (code.scheme, code.value) == meant


def _plain(code: Code | None) -> list[str]:
    return [code.scheme, code.value, code.meaning] if code else []


def _measure(item: Any, ours: bool) -> list[Any] | None:
    """Name, value, unit and uncertainty, with the derivation ("mean") behind the name."""
    unit = _unit(str(item.unit.value), str(item.unit.scheme_designator), ours)
    name = _name(item.name, ours)
    if unit is None or name is None or item.value is None or not isfinite(float(item.value)):
        return None
    words = [name]
    if item.derivation is not None:
        derivation = _name(item.derivation, ours)
        if derivation is None:
            return None
        words.append(derivation)
    factor, short = unit
    return ["_".join(words), float(item.value) * factor, short, _spread(item[0]) if ours else None]


def _spread(item: Any) -> float | None:
    """The range of uncertainty, where it is the same on both sides."""
    told = [
        float(part.MeasuredValueSequence[0].NumericValue)
        for part in item.get("ContentSequence") or ()
        if any(_is(part, ("SCT", value)) for value in _SPREADS)
    ]
    return told[0] if len(told) == 2 and told[0] == told[1] and 0 <= told[0] < inf else None


def _name(item: Any, ours: bool) -> str | None:
    """The name of a measure or derivation in closed words, or None where the code is private."""
    code = concept(item, ours)
    if code is None or code.scheme == "FOVEA":
        return _OWN_NAMES.get(code.value) if code else None
    name = _NAMES.get(f"{code.scheme} {code.value}")
    return name or re.sub(r"\W+", "_", code.meaning).strip("_").lower() or f"{code.scheme}:{code.value}"


def _unit(value: str, scheme: str, ours: bool) -> tuple[float, str] | None:
    if ours and value in _OWN_UNITS:
        return 1, _OWN_UNITS[value]
    if value in _UNITS:
        return _UNITS[value]
    known = value in _MORE_UNITS or listed("UCUM", value)
    return (1, value) if scheme == "UCUM" and known else None


def _regions(roi: Any) -> Iterable[Any]:
    """The regions of a group: one, several on their slices, or none; surfaces have no outline."""
    if roi is None or hasattr(roi, "graphic_data"):
        return ()
    return roi if isinstance(roi, (list, tuple)) else (roi,)


def _corners(region: Any) -> NDArray[np.float64] | None:
    """The corners of a closed figure (n, 3); of SCOORD, whose (0, 0) is the corner of the first pixel, moved to its
    centre. None for points and open lines (PS3.3 C.18.6, C.18.9)."""
    points = np.array(region.value, float).reshape(len(region.value), -1)
    if points.shape[1] == 2:
        points = np.column_stack([points - 0.5, np.zeros(len(points))])
    kind = region.graphic_type.value
    turn = np.linspace(0, 2 * np.pi, _CURVE, endpoint=False)[:, None]
    if kind == "CIRCLE":
        centre, edge = points
        across = edge - centre
        return np.asarray(centre + np.cos(turn) * across + np.sin(turn) * np.cross((0, 0, 1), across))
    if kind == "ELLIPSE":
        first_, second, third, fourth = points
        centre = (first_ + second) / 2
        return np.asarray(centre + np.cos(turn) * (second - first_) / 2 + np.sin(turn) * (fourth - third) / 2)
    closed = kind == "POLYGON" or (kind == "POLYLINE" and np.array_equal(points[0], points[-1]))
    return points[:-1] if closed and len(points) > 3 else None


def _image(region: Any) -> tuple[str, int]:
    """The SOP instance UID and frame (from 0) on which a region in image coordinates was drawn."""
    for item in region.get("ContentSequence") or ():
        reference = first(item, "ReferencedSOPSequence")
        if reference is not None:
            frames = reference.get("ReferencedFrameNumber") or 1
            return str(reference.ReferencedSOPInstanceUID), int(frames if isinstance(frames, int) else frames[0]) - 1
    return "", 0


def _segment(group: Any) -> list[Any] | None:
    """The SOP instance UID and segment number of the segmentation that a group measures."""
    for name in ("referenced_segment", "referenced_segmentation_frame"):
        found = getattr(group, name, None)
        if found is not None and found.referenced_segment_numbers:
            return [str(found.referenced_sop_instance_uid), int(found.referenced_segment_numbers[0])]
    return None


def _referenced(ds: Any) -> list[str]:
    """The UIDs of the series and images that the report draws on."""
    found = set()
    for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in ds.get(name) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                found.add(str(series.get("SeriesInstanceUID", "")))
                found |= {str(i.get("ReferencedSOPInstanceUID", "")) for i in series.get("ReferencedSOPSequence") or ()}
    return sorted(found - {""})
