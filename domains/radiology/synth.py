"""Made studies with ground truth: radiographs and CT series as valid DICOM files of patients who do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from domains.radiology.anatomy import Patient, Truth
from domains.radiology.thorax import Radiograph, radiograph
from domains.radiology.torso import Series, series
from domains.radiology.vocabulary import TERMS
from fovea.types import Facts, Finding, Mask, Origin, Sample

RADIOGRAPH_LABELS = (
    "left_lung", "right_lung", "heart", "cardiomegaly", "pleural_effusion", "pneumothorax", "nodule", "support_device",
)  # fmt: skip
CT_LABELS = ("liver", "spleen", "left_kidney", "right_kidney", "liver_lesion")
_TRUTH = Origin("truth", "1")
_WHITE = 4095


def synth(directory: Path, n: int, seed: int) -> list[Sample]:
    """Write `n` studies under `directory`, two of three radiographs; the same seed writes the same bytes.

    A radiograph is a file, a CT series a folder. Study i depends on `seed` and i alone; one patient in nine has two.
    """
    return [study(directory, seed, index) for index in range(n)]


def study(directory: Path, seed: int, index: int) -> Sample:
    """Write study `index` of a seed, whatever others there are."""
    person = index - 1 if index % 10 == 4 else index
    body, rng = (default_rng(SeedSequence((seed, number, kind))) for number, kind in ((person, 0), (index, 1)))
    patient = Patient.draw(body)
    directory.mkdir(parents=True, exist_ok=True)
    header = _header(patient, f"{seed}-{person}", f"{seed}/{index}", rng)
    if index % 3 == 2:
        made = series(patient, body, rng)
        path, facts = directory / f"{index:05d}", _facts(made.truths, CT_LABELS, {})
        _write_series(path, made, header, rng)
    else:
        shot = radiograph(patient, body, rng)
        path, facts = directory / f"{index:05d}.dcm", _facts(shot.truths, RADIOGRAPH_LABELS, {"view": shot.view})
        _write_radiograph(path, shot, header, rng)
    return Sample(str(path), f"{seed}-{person}", facts)


def _facts(truths: Iterable[Truth], labels: tuple[str, ...], attributes: dict[str, str]) -> Facts:
    return Facts(tuple(_finding(truth) for truth in truths), frozenset(labels), attributes)


def _finding(truth: Truth) -> Finding:
    region, slices = None, None
    if truth.mask is not None:
        data = truth.mask if truth.mask.ndim == 3 else truth.mask[None]
        region, used = Mask(data), np.flatnonzero(data.any(axis=(1, 2)))
        slices = int(used[0]), int(used[-1]) + 1
    return Finding(
        truth.label, TERMS[truth.label].code, True, 1.0, _TRUTH, truth.location, truth.measures, region, slices=slices
    )


def _uid(*parts: object) -> str:
    """A UID below the root of UUIDs, from what it names."""
    digest = bytearray(sha256("/".join(map(str, parts)).encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80  # version 8, RFC 9562
    return f"2.25.{int.from_bytes(digest, 'big')}"


def _header(patient: Patient, person: str, key: str, rng: Generator) -> Dataset:
    """What all files of a study share: an invented patient, the study, and a device that says what it is."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.StudyDate = f"20{rng.integers(10, 25)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    ds.StudyTime = f"{rng.integers(0, 24):02d}{rng.integers(0, 60):02d}00"
    ds.ContentDate = ds.SeriesDate = ds.AcquisitionDate = ds.StudyDate
    ds.ContentTime = ds.SeriesTime = ds.AcquisitionTime = ds.StudyTime
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Fovea", "Phantom", "1"
    ds.DeviceSerialNumber = "0"
    ds.PatientName, ds.PatientID = f"Synthetic^Phantom {person}", f"SYNTHETIC-{person}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", patient.sex, f"{patient.age:03d}Y"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(key, "study"), _uid(key, "series")
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = "1", 1, 1
    ds.SamplesPerPixel, ds.BitsAllocated = 1, 16
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    return ds


def _write_radiograph(path: Path, shot: Radiograph, ds: Dataset, rng: Generator) -> None:
    """One file of the DX IOD (PS3.3 A.26); some are inverted, mirrored, or without PixelSpacing."""
    low, high = int(rng.integers(0, 600)), int(rng.integers(3200, _WHITE + 1))
    stored = np.rint(low + shot.pixels * (high - low)).astype(np.uint16)
    inverted, mirrored = rng.random() < 0.2, rng.random() < 0.12
    if inverted:
        stored, low, high = _WHITE - stored, _WHITE - high, _WHITE - low
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, _uid(ds.SeriesInstanceUID, 1)
    ds.Modality, ds.PresentationIntentType, ds.ImageType = "DX", "FOR PRESENTATION", ["DERIVED", "PRIMARY"]
    ds.InstanceNumber, ds.ViewPosition, ds.ImageLaterality = 1, shot.view, "U"
    ds.AnatomicRegionSequence = Sequence([_code("51185008", "Chest")])
    view = ("399348003", "antero-posterior") if shot.view == "AP" else ("272479007", "postero-anterior")
    ds.ViewCodeSequence = Sequence([_code(*view)])
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    ds.BodyPartExamined, ds.PatientOrientation = "CHEST", ["R" if mirrored else "L", "F"]
    ds.AcquisitionContextSequence = Sequence()
    ds.PositionerType, ds.DetectorType, ds.DetectorConfiguration = "", "DIRECT", "AREA"
    ds.ImagerPixelSpacing = [shot.spacing, shot.spacing]
    if rng.random() < 0.6:
        ds.PixelSpacing = [shot.spacing, shot.spacing]
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if inverted else -1
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = (low + high + 1) / 2, high - low + 1
    _save(path, ds, stored[:, ::-1] if mirrored else stored)


def _write_series(folder: Path, made: Series, ds: Dataset, rng: Generator) -> None:
    """The files of a series of the CT IOD (PS3.3 A.3), numbered from the feet or from the head."""
    folder.mkdir(exist_ok=True)
    signed, downwards = rng.random() < 0.5, rng.random() < 0.5
    intercept = 0 if signed else -1024
    stored = (made.pixels - intercept).astype(np.int16 if signed else np.uint16)
    (gap, row, column), (x, y, z) = made.spacing, made.origin
    ds.SOPClassUID, ds.Modality, ds.ImageType = CTImageStorage, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined, ds.PatientPosition = "ABDOMEN", "HFS"
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(ds.SeriesInstanceUID, "frame"), ""
    if made.phase != "plain":
        ds.ContrastBolusAgent = "iodine"
    ds.KVP, ds.SliceThickness, ds.PixelSpacing = 120, gap, [row, column]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (16, 15, 1) if signed else (12, 11, 0)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    count = len(stored)
    for k in range(count):
        number = count - k if downwards else k + 1
        ds.SOPInstanceUID, ds.InstanceNumber = _uid(ds.SeriesInstanceUID, number), number
        ds.ImagePositionPatient = [round(value, 4) for value in (x, y, z + k * gap)]
        _save(folder / f"{number:04d}.dcm", ds, stored[k])


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _save(path: Path, ds: Dataset, pixels: NDArray[np.int16] | NDArray[np.uint16]) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelData = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    dcmwrite(path, ds, enforce_file_format=True)
