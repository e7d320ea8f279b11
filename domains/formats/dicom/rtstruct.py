"""DICOM RT structure sets (PS3.3 A.19): regions of interest as outlines in LPS mm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import check_size, foreign
from domains.formats.dicom.annotation import Annotation, Annotations, Outline
from domains.formats.dicom.codes import concept, first, side
from domains.formats.isolation import isolated
from fovea.errors import InputError, UnsupportedError
from fovea.types import Code

CLASSES = ("1.2.840.10008.5.1.4.1.1.481.3",)
"""SOP class: RT Structure Set."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_ALGORITHMS = {"AUTOMATIC": "automatic", "SEMIAUTOMATIC": "semiautomatic", "MANUAL": "manual"}


def read(path: Path) -> Annotations:
    """One annotation a region of interest; its closed contours only, since points and lines enclose nothing.

    The file is parsed in a process of its own. Raises leaves of InputError.
    """
    facts, points = isolated(parse, path)
    items = []
    for region in facts["regions"]:
        outlines = tuple(Outline(points[start:stop]) for start, stop in region["spans"])
        items.append(
            Annotation(
                Code(*region["kind"]) if region["kind"] else None,
                region["by"],
                side=region["side"],
                name=region["name"],
                outlines=outlines,
                found=region["found"],
            )
        )
    return Annotations("rtstruct", tuple(items), facts["frame"], frozenset(facts["names"]))


def parse(path: Path) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """What the object says, as JSON has it, and the points of all contours (n, 3); for a child process."""
    with foreign("an RT structure set", BytesLengthException, InvalidDicomError):
        ds = dcmread(path, force=True)
        if ds.get("SOPClassUID") not in CLASSES:
            raise UnsupportedError("DICOM that is no RT structure set", "RT Structure Set Storage")
        contours = {int(item.ReferencedROINumber): item for item in ds.get("ROIContourSequence") or ()}
        observed = {int(i.ReferencedROINumber): i for i in ds.get("RTROIObservationsSequence") or ()}
        frames = {str(roi.ReferencedFrameOfReferenceUID) for roi in ds.StructureSetROISequence}
        if len(frames) != 1:
            raise InputError(f"an RT structure set of {len(frames)} frames of reference", "one", "Split it.")
        points: list[NDArray[np.float64]] = []
        regions, total = [], 0
        for roi in ds.StructureSetROISequence:
            number = int(roi.ROINumber)
            spans = []
            drawn = _contours(contours.get(number))
            for contour in (item for item in drawn if item.get("ContourGeometricType") in _CLOSED):
                points.append(_points(contour))
                spans.append((total, total + len(points[-1])))
                total = spans[-1][1]
                check_size(total, 3)
            regions.append({**_named(roi, observed.get(number)), "spans": spans, "found": bool(drawn)})
        facts = {"regions": regions, "frame": frames.pop(), "names": _names(ds)}
        return facts, np.concatenate(points) if points else np.zeros((0, 3))


def _contours(item: Dataset | None) -> list[Dataset]:
    return list(item.get("ContourSequence") or ()) if item is not None else []


def _points(contour: Dataset) -> NDArray[np.float64]:
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    if len(points) < 3 or len(points) != int(contour.get("NumberOfContourPoints") or len(points)):
        raise InputError("a closed contour with fewer than three points, or not as many as it says", "all its points")
    if not np.isfinite(points).all():
        raise InputError("a contour whose points are not finite", "finite numbers")
    return points


def _named(roi: Dataset, observation: Dataset | None) -> dict[str, Any]:
    """What a region is: its code where it has one, its name otherwise."""
    item = first(observation, "RTROIIdentificationCodeSequence") or first(roi, "ROIIdentificationCodeSequence")
    code = concept(item)
    return {
        "kind": [code.scheme, code.value, code.meaning] if code else [],
        "side": side(*((item.get("SegmentedPropertyTypeModifierCodeSequence") or ()) if item else ())),
        "name": str(roi.get("ROIName") or ""),
        "by": _ALGORITHMS.get(roi.get("ROIGenerationAlgorithm"), "unknown"),
    }


def _names(ds: Dataset) -> list[str]:
    """The UIDs of the series and images on which contours were drawn."""
    found = set()
    for frame in ds.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                found.add(str(series.get("SeriesInstanceUID", "")))
                images = series.get("ContourImageSequence") or ()
                found |= {str(image.get("ReferencedSOPInstanceUID", "")) for image in images}
    return sorted(found - {""})
