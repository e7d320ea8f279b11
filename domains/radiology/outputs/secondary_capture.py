"""Secondary captures (PS3.3 A.8): key pictures with outlines, legend and the state of the report in the pixels."""

from __future__ import annotations

from typing import Any

from highdicom.sc import SCImage
from pydicom import Dataset

from domains.formats.dicom.own import DRAWN
from domains.radiology.outputs.common import identity, moment, notice, settle
from domains.radiology.outputs.originals import Originals
from domains.radiology.outputs.pictures import KeyPicture, key_pictures
from fovea.types import Report

NAME = "dicom-sc"


def make(report: Report, images: Originals, _segments: object) -> list[Dataset]:
    """One RGB image for each key picture.

    Their type says that findings are drawn over the pixels, so that nobody measures on them again. What is added holds
    no identity: one is burned in where it is in the source.
    """
    return [_capture(report, images, picture, n) for n, picture in enumerate(key_pictures(report), 1)]


def _capture(report: Report, images: Originals, picture: KeyPicture, number: int) -> Dataset:
    made: Any = SCImage.from_ref_dataset(
        images.header,
        picture.pixels,
        "RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        **identity(report, images, NAME, number),
    )
    made.copy_patient_and_study_information(images.header)
    made.PatientOrientation = made.Laterality = ""  # a picture with a legend has none of its own
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER", DRAWN]
    made.ConversionType = "WSD"
    if images.clean:
        made.BurnedInAnnotation = "NO"
    made.ImageComments = notice(report)
    where = "overview" if picture.slice is None else f"image {picture.image + 1}, slice {picture.slice + 1}"
    made.DerivationDescription = f"Rendered with findings drawn over the pixels: {where}"
    date, time = moment(report, images)
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = date, time
    frames = images.images[picture.image]
    if frames and picture.slice is not None:
        frame, source = frames[picture.slice], Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
            frame.header.SOPClassUID, frame.header.SOPInstanceUID,
        )  # fmt: skip
        if frame.number is not None:
            source.ReferencedFrameNumber = frame.number
        made.SourceImageSequence = [source]
    return settle(made, report, images)
