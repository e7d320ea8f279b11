"""DICOM measurement reports (SR of TID 1500): what was measured, how sure, by whom, and on which pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from domains.formats.dicom.own import MAKER, uid
from domains.radiology.outputs.coding import Coded, coded, concept, measure_name, schemes, unit
from domains.radiology.outputs.common import Item, findings, identity, items, settle, tracking, verified
from domains.radiology.outputs.originals import Frame, Originals
from domains.radiology.outputs.seg import Segments
from domains.radiology.outputs.shapes import outlines
from fovea import __version__
from fovea.image import LPS
from fovea.types import Finding, Measure, Report
from fovea.verbal import words

NAME = "dicom-sr"
_PRESENCE = sr.CodedConcept("121052", "DCM", "Presence of property")
_PRESENT, _ABSENT = sr.CodedConcept("52101004", "SCT", "Present"), sr.CodedConcept("272519000", "SCT", "Absent")
_CERTAINTY = sr.CodedConcept("111012", "DCM", "Certainty of Finding")
_EVALUATIONS = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_UPPER = sr.CodedConcept("371886008", "SCT", "+, range of upper measurement uncertainty")
_LOWER = sr.CodedConcept("371885007", "SCT", "-, range of lower measurement uncertainty")
_PROPERTY, _CONTAINS = sr.RelationshipTypeValues.HAS_PROPERTIES, sr.RelationshipTypeValues.CONTAINS
_PROCEDURES = {
    "CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion,
    "PT": codes.LN.PETUnspecifiedBodyRegion, "NM": codes.LN.NMUnspecifiedBodyRegion,
    "DX": codes.LN.XRUnspecifiedBodyRegion, "CR": codes.LN.XRUnspecifiedBodyRegion,
}  # fmt: skip
_FAMILY = codes.DCM.ArtificialIntelligence


def make(report: Report, images: Originals, segments: Sequence[Segments]) -> list[Dataset]:
    """One document: a measurement group for each present finding and instance, and what was looked for and is absent.

    A group refers to its segment, or to the outlines of its boxes and polygons on the images. It is UNVERIFIED and
    PARTIAL unless a named person moved the report on. Uncertainties are standard ones, given as range on both sides.
    """
    groups = [_group(report, images, segments, item) for item in items(report)]
    observer = sr.ObserverContext(
        codes.DCM.Device,
        sr.DeviceObserverIdentifyingAttributes(
            uid("device", MAKER, __version__, report.provenance.get("model", "")),
            name=MAKER,
            manufacturer_name=MAKER,
            model_name=report.provenance.get("model", MAKER),
            serial_number=__version__,
        ),
    )
    (content,) = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer),
        _PROCEDURES.get(report.study.modality, codes.cid100.ImagingProcedure),
        groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    _add_absent(content, [finding for finding in findings(report) if not finding.present])
    flat = all(image.grid.frame != LPS for image in report.study.images)
    evidence = _evidence(images, segments)
    made = (sr.ComprehensiveSR if flat else sr.Comprehensive3DSR)(
        evidence,
        content,
        **identity(report, images, NAME, 1),
        is_complete=verified(report),
        is_final=report.state in ("final", "amended"),
        is_verified=verified(report),
        verifying_observer_name=report.reviewer if verified(report) else None,
        verifying_organization=report.provenance.get("organization", "Not stated") if verified(report) else None,
        coding_schemes=schemes(),
    )
    return [settle(made, report, images)]


def _evidence(images: Originals, segments: Sequence[Segments]) -> list[Dataset]:
    """Each file of the study once, and the segmentations."""
    headers = {str(frame.header.SOPInstanceUID): frame.header for frames in images.images for frame in frames}
    return [*headers.values(), *(one.ds for one in segments)]


def _group(report: Report, images: Originals, segments: Sequence[Segments], item: Item) -> Any:
    """A measurement group: of an image, of a flat region, or of a region over several slices."""
    said, by = coded(item.finding, item.location), item.finding.by
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(tracking(images, item), item.name),
        "finding_type": said.kind,
        "finding_category": said.category,
        "algorithm_id": sr.AlgorithmIdentification(by.name, by.version or "unknown", family=_FAMILY),
        "finding_sites": _sites(said),
        "measurements": [_measurement(measure) for measure in item.measures],
        "qualitative_evaluations": [_presence(_PRESENCE, _PRESENT, item.score)],
    }
    flat = report.study.images[item.finding.image].grid.shape[0] == 1
    one = next((one for one in segments if one.number(item)), None)
    if one is not None and flat:
        source = images.images[item.finding.image][0]
        segment = _flat_segment(one, one.number(item), source)
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    if one is not None:
        series = sr.SourceSeriesForSegmentation(images.images[item.finding.image][0].header.SeriesInstanceUID)
        volume = sr.ReferencedSegment(one.ds.SOPClassUID, one.ds.SOPInstanceUID, one.number(item), source_series=series)
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=volume, **common)
    regions = _regions(item, images.images[item.finding.image])
    if flat and regions:
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=regions[0], **common)
    if regions:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **common)
    return sr.MeasurementsAndQualitativeEvaluations(**common)


def _flat_segment(one: Segments, number: int, source: Frame) -> sr.ReferencedSegmentationFrame:
    """A segment of a lone image by its number alone: an item names frames or segments (PS3.3 table 10-11)."""
    made = sr.ReferencedSegmentationFrame(
        one.ds.SOPClassUID,
        one.ds.SOPInstanceUID,
        1,
        number,
        sr.SourceImageForSegmentation(source.header.SOPClassUID, source.header.SOPInstanceUID, source.numbers),
    )
    del made[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return made


def _sites(said: Coded) -> list[sr.FindingSite] | None:
    return None if said.site is None else [sr.FindingSite(said.site, said.side)]


def _presence(name: sr.CodedConcept, value: sr.CodedConcept, probability: float) -> sr.QualitativeEvaluation:
    """A statement with the probability that it is true, in percent."""
    made = sr.QualitativeEvaluation(name, value)
    made[0].ContentSequence = sr.ContentSequence(
        [sr.NumContentItem(_CERTAINTY, _decimal(100 * probability), codes.UCUM.Percent, relationship_type=_PROPERTY)]
    )
    return made


def _measurement(measure: Measure) -> sr.Measurement:
    made = sr.Measurement(measure_name(measure), _decimal(measure.value), unit(measure.unit))
    if measure.uncertainty is not None:
        spread = _decimal(measure.uncertainty)
        made[0].ContentSequence = sr.ContentSequence(
            [
                sr.NumContentItem(name, spread, unit(measure.unit), relationship_type=_PROPERTY)
                for name in (_UPPER, _LOWER)
            ]
        )
    return made


def _decimal(value: float) -> float:
    """What a decimal string of 16 characters holds."""
    return float(f"{value:.9g}")


def _add_absent(content: Dataset, absent: Sequence[Finding]) -> None:
    """What was looked for and is not there, as evaluations of the whole report (TID 1500, rows 12 and 13): a group of
    measurements would be read as something that was found. Without a site the code has to say which lesion it is."""
    if not absent:
        return
    container = sr.ContainerContentItem(_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = sr.ContentSequence(
        [
            item
            for finding in absent
            for item in _presence(concept(finding.code, words(finding.label)), _ABSENT, 1 - finding.score)
        ]
    )
    content.ContentSequence.append(container)


def _regions(item: Item, frames: Sequence[Frame]) -> list[sr.ImageRegion]:
    """The outlines of a box or polygon, one on each of its slices."""
    found = []
    for place, corners in outlines(item.region):
        if not 0 <= place < len(frames):
            continue
        frame = frames[place]
        points = frame.points(corners)
        source = sr.SourceImageForRegion(frame.header.SOPClassUID, frame.header.SOPInstanceUID, frame.numbers)
        found.append(sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, np.vstack([points, points[:1]]), source))
    return found
