"""DICOM objects that say something of a synthetic study, written with highdicom and pydicom."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from dicom_files import save
from highdicom import sr
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

SECRET = "DOE^JANE"
ORGAN, LESION = ("123037004", "Body structure"), ("49755003", "Morphologically abnormal structure")
KINDS = {
    "liver": (ORGAN, ("10200004", SECRET), None, None),
    "spleen": (ORGAN, ("78961009", SECRET), None, None),
    "left_kidney": (ORGAN, ("64033007", SECRET), None, ("7771000", "Left")),
    "right_kidney": (ORGAN, ("64033007", SECRET), None, ("24028007", "Right")),
    "liver_lesion": (LESION, ("52988006", SECRET), ("10200004", SECRET), None),
    "left_lung": (ORGAN, ("39607008", SECRET), None, ("7771000", "Left")),
    "right_lung": (ORGAN, ("39607008", SECRET), None, ("24028007", "Right")),
    "heart": (ORGAN, ("80891009", SECRET), None, None),
}
ALGORITHM = hd.AlgorithmIdentificationSequence(SECRET, codes.DCM.ArtificialIntelligence, "1")


def code(pair: tuple[str, str], scheme: str = "SCT") -> hd.sr.CodedConcept:
    return sr.CodedConcept(pair[0], scheme, pair[1])


def description(number: int, label: str, by: str = "AUTOMATIC") -> SegmentDescription:
    category, kind, region, side = KINDS[label]
    made = SegmentDescription(
        number, SECRET, code(category), code(kind), SegmentAlgorithmTypeValues[by],
        algorithm_identification=None if by == "MANUAL" else ALGORITHM, tracking_id=SECRET, tracking_uid=generate_uid(),
        anatomic_regions=[code(region)] if region else None,
    )  # fmt: skip
    made.SegmentDescription = SECRET
    if side:
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [code(side)]
    return made


def segmentation(
    files: Sequence[Path], masks: dict[str, np.ndarray], path: Path, kind: str = "BINARY", **options: object
) -> Segmentation:
    """A segmentation of image files, its masks (slice, row, column) in the order of the files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = [pydicom.dcmread(file) for file in files]
        by = str(options.pop("by", "AUTOMATIC"))
        made = Segmentation(
            images,
            np.stack(list(masks.values()), -1),
            SegmentationTypeValues[kind],
            [description(n, label, by) for n, label in enumerate(masks, 1)],
            generate_uid(), 99, generate_uid(), 1, SECRET, SECRET, "1", "0", **options,
        )  # fmt: skip
        made.save_as(path)
    return made


def report(files: Sequence[Path], groups: Sequence[object], path: Path, evidence: Sequence[Dataset] = ()) -> None:
    """A measurement report of a person about image files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observer = sr.ObserverContext(codes.DCM.Person, sr.PersonObserverIdentifyingAttributes(SECRET))
        content = sr.MeasurementReport(
            sr.ObservationContext(observer_person_context=observer), codes.LN.CTUnspecifiedBodyRegion, groups,
            title=codes.DCM.ImagingMeasurementReport,
        )  # fmt: skip
        images = [pydicom.dcmread(file) for file in files]
        made = sr.Comprehensive3DSR(
            [*images, *evidence], content[0], generate_uid(), 98, generate_uid(), 1, SECRET, SECRET,
            institutional_department_name=SECRET,
        )  # fmt: skip
        made.save_as(path)


def structure_set(
    files: Sequence[Path], regions: Sequence[tuple[str, list[np.ndarray]]], path: Path, edit: object = None
) -> Dataset:
    """An RT structure set of named regions, each with contours (n, 3) in LPS mm."""
    image = pydicom.dcmread(files[0])
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, generate_uid(), "RTSTRUCT"
    ds.PatientName, ds.StudyInstanceUID, ds.StructureSetLabel = SECRET, image.StudyInstanceUID, SECRET
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = image.SeriesInstanceUID, []
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions, 1):
        roi, drawn, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, image.FrameOfReferenceUID
        roi.ROIName, roi.ROIDescription, roi.ROIGenerationAlgorithm = name, SECRET, "MANUAL"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.8g}" for value in points.ravel()]
            drawn.ContourSequence.append(contour)
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "ORGAN", SECRET
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(observed)
    if callable(edit):
        edit(ds)
    save(ds, path, ExplicitVRLittleEndian)
    return ds
