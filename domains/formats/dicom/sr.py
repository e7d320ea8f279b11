"""DICOM measurement reports (SR of TID 1500) as annotations: what was measured, where, and the values with units."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import foreign
from domains.formats.dicom.annotation import Annotation, Annotations, Outline
from domains.formats.dicom.codes import concept, first, listed, side
from domains.formats.isolation import isolated
from fovea.errors import InputError, UnsupportedError
from fovea.types import Code, Measure

CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{last}" for last in ("11", "22", "33", "34", "35"))
"""SOP classes of SR: Basic Text, Enhanced, Comprehensive, Comprehensive 3D, Extensible."""
_OBSERVERS = {"121006": "person", "121007": "device"}
_NAMES = {
    "SCT 118565006": "volume", "SCT 42798000": "area", "SCT 131184002": "area", "SCT 81827009": "diameter",
    "SCT 103339001": "longest_diameter", "SCT 131187009": "longest_diameter", "IBSI L0JK": "longest_diameter",
    "SCT 103340004": "shortest_diameter", "SCT 131188004": "shortest_diameter", "SCT 410668003": "length",
    "DCM 121206": "distance", "SCT 131191004": "perimeter",
    "SCT 373098007": "mean", "SCT 373099004": "median", "DCM 126031": "peak",
}  # fmt: skip
"""Our names of measures and derivations; others take the standard's meaning, or its scheme and value."""
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
    """One annotation a measurement group; values whose unit the standard does not list are left out.

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
        found = [_group(group, points) for group in groups]
        observers = {_OBSERVERS.get(str(o.observer_type.value), "") for o in content.get_observer_contexts()} - {""}
        frames = {str(uid) for group in found for uid in group.pop("frames")}
        if len(frames) > 1:
            raise InputError(f"a measurement report in {len(frames)} frames of reference", "one", "Split it.")
        facts = {
            "groups": found,
            "by": max(observers, default="unknown"),  # a person who used a device is the observer
            "frame": next(iter(frames), ""),
            "names": _referenced(ds),
        }
        return facts, np.concatenate(points) if points else np.zeros((0, 3))


def _group(group: Any, points: list[NDArray[np.float64]]) -> dict[str, Any]:
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
    return {
        "kind": _plain(concept(group.finding_type)),
        "site": _plain(concept(place)),
        "side": side(site.laterality) if site is not None else "",
        "measures": [measure for item in group.get_measurements() if (measure := _measure(item))],
        "outlines": outlines,
        "frames": frames,
        "refers": _segment(group),
    }


def _plain(code: Code | None) -> list[str]:
    return [code.scheme, code.value, code.meaning] if code else []


def _measure(item: Any) -> list[Any] | None:
    """Name, value and unit, with the derivation ("mean") behind the name."""
    unit = _unit(str(item.unit.value), str(item.unit.scheme_designator))
    name = concept(item.name)
    if unit is None or name is None or item.value is None or not isfinite(float(item.value)):
        return None
    words = [_word(name)]
    if item.derivation is not None:
        derivation = concept(item.derivation)
        if derivation is None:
            return None
        words.append(_word(derivation))
    factor, short = unit
    return ["_".join(words), float(item.value) * factor, short]


def _unit(value: str, scheme: str) -> tuple[float, str] | None:
    if value in _UNITS:
        return _UNITS[value]
    known = value in _MORE_UNITS or listed("UCUM", value)
    return (1, value) if scheme == "UCUM" and known else None


def _word(code: Code) -> str:
    ours = _NAMES.get(f"{code.scheme} {code.value}")
    return ours or re.sub(r"\W+", "_", code.meaning).strip("_").lower() or f"{code.scheme}:{code.value}"


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
