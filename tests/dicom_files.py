"""DICOM files that tests write: one image, a series, a radiograph."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from domains.formats import dicom

CT, ENHANCED_CT, DX, MR, SC = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "1.1", "4", "7"))
AXIAL = np.eye(3)
PLANE = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.5]}
rng = np.random.default_rng(0)


def make(pixels, modality="CT", sop=CT, **tags):
    """A data set of one image; `pixels` (row, column), (frame, row, column) or (..., 3) of uint8, int16 or uint16."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = sop, generate_uid(), "1.2.3"
    ds.Modality = modality
    color = pixels.shape[-1] == 3
    frames = pixels.ndim - color == 3
    ds.Rows, ds.Columns = pixels.shape[frames : frames + 2]
    if frames:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel = 3 if color else 1
    if color:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    if modality == "CT":
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def save(ds, path, syntax=ExplicitVRLittleEndian, preamble=True):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.get("SOPClassUID", SC), generate_uid()
    encoding = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    file = FileDataset(str(path), ds, file_meta=meta, preamble=b"\0" * 128 if preamble else None, **encoding)
    if preamble:
        file.save_as(path, enforce_file_format=True)
    else:
        del file.file_meta
        pydicom.dcmwrite(path, file, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return path


def series(
    folder, count=5, axes=AXIAL, origin=(-100.0, -80.0, 30.0), spacing=(2.5, 0.7, 0.9), shift=(0, 0, 0), edit=None
):
    """Slices along the third of `axes`; returns the files in order along it, and the stored values."""
    values = rng.integers(0, 3000, (count, 6, 8)).astype(np.int16)
    across, down, normal = axes
    for index in range(count):
        position = np.array(origin) + index * (spacing[0] * normal + np.array(shift))
        ds = make(
            values[index],
            ImagePositionPatient=[f"{v:.10g}" for v in position],
            ImageOrientationPatient=[f"{v:.10g}" for v in (*across, *down)],
            PixelSpacing=[spacing[1], spacing[2]],
            SliceThickness=spacing[0],
            InstanceNumber=count - index,
        )
        if edit:
            edit(ds, index)
        save(ds, folder / f"{index:02}.dcm")
    return sorted(folder.glob("*.dcm")), values


def one(folder, pixels, **tags):
    """The only image of a file."""
    syntax = tags.pop("syntax", ExplicitVRLittleEndian)
    (image,) = dicom.read([save(make(pixels, **tags), folder / f"{generate_uid()[-20:]}.dcm", syntax)]).images
    return image


def radiograph(folder, pixels, **tags):
    return one(folder, pixels, modality="DX", sop=DX, **tags)


def enhanced(values, order, repeat=1):
    """A multi-frame CT whose frames stand in any order, each with a slope of its own."""
    ds = make(np.ascontiguousarray(values[order]), sop=ENHANCED_CT)
    del ds.RescaleSlope, ds.RescaleIntercept
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.9]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in order:
        group, position, transform = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * (frame // repeat)]
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1 + int(frame), -10, "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transform]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    return ds


def seeds(folder):
    """The bytes of small files of many kinds, for tests that damage them."""
    gray, color = rng.integers(0, 200, (40, 36)).astype(np.uint16), rng.integers(0, 200, (40, 32, 3)).astype(np.uint8)
    slices = rng.integers(0, 100, (2, 5, 6)).astype(np.int16)
    window = {"WindowCenter": 3, "WindowWidth": 9, "PixelPaddingValue": 0}
    made = [
        (make(gray, modality="DX", sop=DX, **window), ExplicitVRLittleEndian),
        (make(gray, modality="MR", sop=MR, SliceThickness=2, **PLANE), ImplicitVRLittleEndian),
        (make(gray, modality="MR", sop=MR, SliceThickness=2, **PLANE), DeflatedExplicitVRLittleEndian),
        (make(color, modality="US", sop=SC), ExplicitVRLittleEndian),
        (enhanced(slices, np.arange(2)), ExplicitVRLittleEndian),
    ]
    found = [save(ds, folder / "seed", syntax).read_bytes() for ds, syntax in made]
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        for ds in (make(gray, modality="DX", sop=DX, **window), make(color, modality="US", sop=SC)):
            path = save(ds, folder / "seed")
            packed = pydicom.dcmread(path)
            packed.compress(syntax)
            packed.save_as(path)
            found.append(path.read_bytes())
    return found
