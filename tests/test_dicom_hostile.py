"""DICOM that is too large, broken, no image, or full of identifiers: refused with a reason, and nothing gets past."""

from __future__ import annotations

import logging
import zlib
from random import Random

import numpy as np
import pydicom
import pytest
from dicom_files import CT, DX, MR, PLANE, SC, enhanced, make, rng, save
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.pixels.decoders import JPEGLosslessSV1Decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from domains.formats import content, dicom
from domains.formats.dicom import pixels as dicom_pixels
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Source, Study


def test_declared_size_is_checked_before_anything_is_decoded(tmp_path):
    ds = make(np.zeros((4, 4), np.uint16), modality="DX", sop=DX)
    ds.Rows = ds.Columns = 60000
    with pytest.raises(LimitError, match="60000"):
        dicom.read([save(ds, tmp_path / "a.dcm")])
    ds = make(np.zeros((2, 4, 4), np.uint8), modality="US", sop=SC)
    ds.NumberOfFrames = 10**9
    with pytest.raises(LimitError):
        dicom.read([save(ds, tmp_path / "b.dcm")])


def test_a_deflated_bomb_is_refused(tmp_path, monkeypatch):
    path = save(
        make(np.zeros((500, 500), np.uint16), modality="DX", sop=DX), tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian
    )
    assert dicom.read([path]).images
    assert path.stat().st_size < 3000
    monkeypatch.setattr(content, "LIMIT", 400_000)
    with pytest.raises(LimitError):
        dicom.read([path.rename(tmp_path / "b.dcm")])


def test_what_is_no_image_is_refused_with_its_reason(tmp_path):
    values = np.zeros((4, 4), np.uint8)
    report = Dataset()
    report.SOPClassUID, report.Modality, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", "SR", "1.2"
    cases = {
        "Comprehensive SR": report,
        "segmentation": make(values, modality="SEG", sop="1.2.840.10008.5.1.4.1.1.66.4"),
        "mosaic": make(values, modality="MR", sop=MR, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        "burned in": make(values, modality="US", sop=SC, BurnedInAnnotation="YES"),
    }
    for said, ds in cases.items():
        with pytest.raises(UnsupportedError, match=said):
            dicom.read([save(ds, tmp_path / "a.dcm")])


def test_a_compression_without_decoder_says_what_to_install(tmp_path, monkeypatch):
    path = save(make(np.zeros((4, 4), np.uint16), modality="DX", sop=DX), tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    ds.save_as(path)
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-libjpeg>=2.1",)})
    monkeypatch.setattr(dicom_pixels, "isolated", lambda function, *given, seconds: function(*given))
    with pytest.raises(UnsupportedError, match=r"JPEG Lossless.*pylibjpeg-libjpeg"):
        _ = dicom.read([path]).images[0].pixels


def planted(ds, name):
    """Text in every element of the dictionary that takes any, at the top and in a sequence, and in private ones."""
    keep = {element.tag for element in ds}
    block = ds.private_block(0x0099, name, create=True)
    for offset, vr in enumerate(("LO", "PN", "LT", "UT"), 1):
        block.add_new(offset, vr, name)
    item = Dataset()
    for target in (ds, item):
        for tag, (vr, *_) in DicomDictionary.items():
            if vr in ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "UR") and 0x0008 <= tag >> 16 < 0x6000:
                if tag not in keep:
                    target.add_new(tag, vr, name)
            elif vr == "DA" and tag not in keep:
                target.add_new(tag, vr, "19700131")
    ds.RequestAttributesSequence = [item]
    return ds


@pytest.mark.filterwarnings("ignore")  # pydicom warns of the values that are planted here
def test_no_identifier_gets_past_the_reader(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    name = "DOE^JANE"
    folder = tmp_path / name
    folder.mkdir()
    files = []
    for number, modality in enumerate(("CT", "DX", name)):
        ds = make(
            np.arange(16, dtype=np.int16).reshape(4, 4), sop=CT if modality == "CT" else DX, modality=modality, **PLANE
        )
        ds.SeriesInstanceUID = "1.2.333.19700131"
        files.append(save(planted(ds, name), folder / f"{name}_{number}.dcm"))
    said = []
    for file in files:
        found = dicom.read([file])
        study = Study("radiology", found.images, Source(found.hashes, "r"), found.meta)
        said += [repr(study), repr(found), study.id, *map(repr, study.images)]
        said += [repr(image.pixels) + repr(image.grid) + repr(image.channels) for image in study.images]
        bad = pydicom.dcmread(file)
        bad.Rows = 0
        bad.save_as(file)
        with pytest.raises(InputError) as error:
            dicom.read([file])
        said.append(str(error.value))
        file.write_bytes(file.read_bytes()[:600])
        with pytest.raises(InputError) as error:
            dicom.read([file])
        said += [str(error.value), repr(error.value.__cause__)]
    said += [record.getMessage() for record in caplog.records]
    for text in said:
        assert "DOE" not in text
        assert "JANE" not in text
        assert "19700131" not in text


def test_broken_bytes_raise_nothing_but_input_errors(tmp_path):
    path = tmp_path / "a.dcm"
    originals = [
        save(enhanced(rng.integers(0, 100, (2, 5, 6)).astype(np.int16), np.arange(2)), path).read_bytes(),
        save(
            make(np.zeros((5, 6), np.uint16), modality="DX", sop=DX, WindowCenter=3, WindowWidth=9), path
        ).read_bytes(),
    ]
    random = Random(1)
    failed = 0
    for turn in range(240):
        data = bytearray(originals[turn % 2])
        for _ in range(random.randint(1, 6)):
            data[random.randrange(132, len(data))] = random.randrange(256)
        path.write_bytes(data[: random.randrange(200, len(data))] if turn % 5 == 0 else data)
        try:
            for image in dicom.read([path]).images:
                assert np.isfinite(image.pixels).all()
        except InputError:
            failed += 1
    assert failed > 50


def test_missing_and_empty_files_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="cannot be read") as error:
        dicom.read([tmp_path / "secret_name"])
    assert "secret_name" not in str(error.value)
    with pytest.raises(InputError):
        dicom.read([])


def test_compressed_streams_end_where_they_should():
    """The border knows zlib's own error, which derives from Exception alone."""
    with pytest.raises(InputError, match="error"), content.foreign("a stream"):
        zlib.decompress(b"no stream")
