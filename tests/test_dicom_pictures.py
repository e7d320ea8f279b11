"""Frames without a place in the patient: refused as volumes, read as pictures when that is asked for."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import MR, PLANE, enhanced, make, save

from domains.formats import dicom
from domains.radiology import reader
from fovea.errors import GeometryError
from fovea.types import LPS, PIXEL

LOST = "frames without a place in the patient"


def _enhanced(values):
    """A multi-frame MR whose frames have positions and no orientation."""
    ds = enhanced(values, np.arange(len(values)))
    ds.Modality, ds.SOPClassUID = "MR", "1.2.840.10008.5.1.4.1.1.4.1"
    del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence
    return ds


def _dose(values):
    ds = make(
        values, modality="RTDOSE", sop="1.2.840.10008.5.1.4.1.1.481.2", DoseGridScaling=0.5, DoseUnits="GY", **PLANE
    )
    ds.GridFrameOffsetVector = [0, 1, 2, 3, 4]
    return ds


@pytest.mark.parametrize(("file", "factor"), [(_enhanced, 1), (_dose, 0.5)])
def test_frames_without_geometry_are_pictures_when_asked_for(tmp_path, file, factor):
    values = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    path = save(file(values), tmp_path / "a.dcm")
    with pytest.raises(GeometryError) as caught:
        reader.load(path)
    assert "single_slices" in caught.value.remedy
    study = reader.load(path, single_slices=True)
    assert [(image.grid.frame, image.grid.shape) for image in study.images] == [(PIXEL, (1, 4, 5))] * 3
    assert study.meta["geometry"] == LOST
    for image, frame in zip(study.images, values, strict=True):
        assert np.allclose(image.pixels[0, 0], frame * factor)
    with pytest.raises(GeometryError):  # what was once read as pictures is no volume for that
        reader.load(path)


def test_a_single_slice_without_geometry_is_a_picture_when_asked_for(tmp_path):
    values = np.arange(20, dtype=np.uint16).reshape(4, 5)
    path = save(make(values, modality="MR", sop=MR), tmp_path / "a.dcm")
    with pytest.raises(GeometryError, match="single_slices"):
        dicom.read([path])
    content = dicom.read([path], single_slices=True)
    assert content.meta["geometry"] == LOST
    assert (content.images[0].pixels[0, 0] == values).all()


def test_a_readable_geometry_is_kept_when_single_slices_are_asked_for(tmp_path):
    ds = make(np.zeros((4, 5), np.uint16), modality="MR", sop=MR, SliceThickness=2, **PLANE)
    content = dicom.read([save(ds, tmp_path / "a.dcm")], single_slices=True)
    assert (content.images[0].grid.frame, "geometry" in content.meta) == (LPS, False)


def test_real_frames_without_geometry_are_what_pydicom_reads(data_dir):
    path = next(data_dir.rglob("emri_small.dcm"), None)
    if path is None:
        pytest.skip("needs a real enhanced MR without geometry")
    images = reader.load(path, single_slices=True).images
    assert (np.stack([image.pixels[0, 0] for image in images]) == pydicom.dcmread(path).pixel_array).all()
