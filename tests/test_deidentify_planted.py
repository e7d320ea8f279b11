"""Forty planted identifiers, from the name of the file to the pixels, and none of them after de-identification."""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import CT, PLANE, make, save
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from planted import element
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from apps import cli
from domains.radiology.deidentify.burned_in import find_text
from fovea import registry
from fovea.errors import UnsupportedError
from fovea.jsonable import to_json

WORDS = [f"Zq{n:02}korvax" for n in range(40)]
ROOT, DAY, PHONE = "1.2.826.0.7319731", "19310203", "0417319731"
SECRETS = [*WORDS, ROOT, DAY, PHONE]
SEG, SR, US, RT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("66.4", "88.33", "6.1", "481.3"))


def known(ds: Dataset) -> Dataset:
    """A header with the words that most files carry."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{WORDS[0]}^Erika", WORDS[1], DAY
    ds.OtherPatientIDs, ds.PatientTelephoneNumbers = [WORDS[2], WORDS[3]], PHONE
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = DAY, "101112", WORDS[4]
    ds.ReferringPhysicianName, ds.OperatorsName = WORDS[5], [WORDS[6], "Other"]
    ds.InstitutionName, ds.StationName = WORDS[7], WORDS[8]
    ds.StudyDescription, ds.SeriesDescription = f"CT Thorax {WORDS[9]}", f"AX {WORDS[0]} 5.0mm"
    ds.ImageComments, ds.ProtocolName = WORDS[10], f"chest for {WORDS[11]}"
    ds.BodyPartExamined, ds.ConvolutionKernel = WORDS[0].upper(), f"B30f {WORDS[0]}"
    ds[0x00180080] = RawDataElement(Tag(0x00180080), "DS", 10, WORDS[12].encode(), 0, False, True)
    ds.add(element("AcquisitionDateTime", "DT", f"{DAY}101112+0100"))
    ds.SOPInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.3.{sum(ds.Modality.encode())}", f"{ROOT}.2"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.1", f"{ROOT}.4"
    block = ds.private_block(0x0099, WORDS[13], create=True)
    block.add_new(0x10, "LO", WORDS[14])
    block.add_new(0x11, "SQ", [item(15)])
    ds.add_new(0x60000022, "LO", WORDS[16])
    ds.add_new(0x60003000, "OW", WORDS[17].encode() + b"\0")
    ds.add_new(0x50000022, "LO", WORDS[18])
    ds.add_new(0x00091001, "UN", WORDS[19].encode() + b"\0")
    ds.add(element(0x0008FFFE, "LO", WORDS[20]))
    ds.RequestAttributesSequence, ds.ReferencedStudySequence = [item(21)], [item(22)]
    ds.ProcedureCodeSequence = [code(WORDS[23], "99KORVAX", WORDS[24])]
    ds.AnatomicRegionSequence = [code("39607008", "SCT", f"Lung of {WORDS[25]}")]
    ds.add(element("DataSetTrailingPadding", "OB", WORDS[26].encode() + b"\0"))
    return ds


def item(number: int) -> Dataset:
    """An item that holds another one."""
    ds, inner = Dataset(), Dataset()
    ds.RequestedProcedureDescription = inner.PatientName = WORDS[number]
    inner.ReferencedSOPInstanceUID = f"{ROOT}.9"
    ds.ReferencedStudySequence = [inner]
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def slice_of(number: int) -> Dataset:
    values = np.random.default_rng(number).integers(0, 2000, (64, 64)).astype(np.int16)
    ds = known(make(values, **{**PLANE, "ImagePositionPatient": [1, 2, 3 + number]}))
    ds.SOPInstanceUID, ds.InstanceNumber = f"{ROOT}.3.{number}", number
    ds.PixelData += WORDS[27].encode() + b"\0"
    del ds[0x60003000]
    return ds


def segmentation() -> Dataset:
    ds = known(make(np.zeros((8, 8), np.uint8), "SEG", SEG))
    del ds[0x60003000]
    first, second = Dataset(), Dataset()
    first.SegmentNumber, first.SegmentLabel, first.SegmentDescription = 1, WORDS[28], WORDS[29]
    first.SegmentedPropertyTypeCodeSequence = [code("10200004", "SCT", WORDS[28])]
    second.SegmentNumber, second.SegmentLabel, second.SegmentAlgorithmName = 2, "Left lung", WORDS[30]
    ds.SegmentSequence = [first, second]
    return ds


def content(kind: str, concept: Dataset, **values: object) -> Dataset:
    ds = Dataset()
    ds.ValueType, ds.RelationshipType, ds.ConceptNameCodeSequence = kind, "CONTAINS", [concept]
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def document() -> Dataset:
    ds = known(make(np.zeros((1, 1), np.uint8), "SR", SR))
    for name in ("PixelData", "Rows", "Columns"):
        del ds[name]
    finding = code("121071", "DCM", "Finding")
    ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINER", [code("126000", "DCM", WORDS[31])]
    ds.ContentSequence = [
        content("TEXT", finding, TextValue=f"Mass seen by Dr. {WORDS[32]}"),
        content("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName=WORDS[33]),
        content("UIDREF", code("112039", "DCM", "Tracking"), UID=f"{ROOT}.77"),
        content("CODE", finding, ConceptCodeSequence=[code("4147007", "SCT", WORDS[34])]),
        content("CONTAINER", finding, ContentSequence=[content("TEXT", finding, TextValue=WORDS[35])]),
    ]
    return ds


def structures() -> Dataset:
    ds = known(make(np.zeros((1, 1), np.uint8), "RTSTRUCT", RT))
    for name in ("PixelData", "Rows", "Columns"):
        del ds[name]
    rois = [Dataset(), Dataset()]
    rois[0].ROIName, rois[1].ROIName = WORDS[36], "lung_left"
    ds.StructureSetLabel, ds.StructureSetROISequence = WORDS[0], rois
    return ds


def sonogram() -> Dataset:
    ds = known(make(burned(WORDS[37])[0], "US", US))
    del ds[0x60003000]
    return ds


def burned(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Speckle with a text on it, uint8 (row, column), and where its ink lies."""
    values = np.random.default_rng(1).gamma(2, 12, (240, 320)).clip(0, 255)
    sheet = Pillow.new("L", (320, 240))
    ImageDraw.Draw(sheet).text((10, 8), text, 255, font=ImageFont.load_default(18))
    ink = np.asarray(sheet) > 100
    return np.where(ink, 255, values).astype(np.uint8), ink


def photograph() -> Dataset:
    ds = known(make(np.zeros((64, 64), np.uint8), "CR", "1.2.840.10008.5.1.4.1.1.1"))
    del ds[0x60003000]
    stream = io.BytesIO()
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Pillow.fromarray(ramp).save(stream, "JPEG", comment=WORDS[38].encode())
    ds.PixelData = encapsulate([stream.getvalue() + WORDS[38].encode() + b"\0"])
    ds["PixelData"].VR = "OB"
    return ds


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything tells who it is."""
    folder = tmp_path_factory.mktemp("in") / f"{WORDS[39]}^folder"
    folder.mkdir()
    files = {f"ct{n}": slice_of(n) for n in range(3)} | {
        "seg": segmentation(), "sr": document(), "rt": structures(), "us": sonogram()
    }  # fmt: skip
    for name, ds in files.items():
        path = save(ds, folder / f"{WORDS[39]}_{name}.dcm")
        data = path.read_bytes()
        path.write_bytes((WORDS[26].encode() * 16)[:128] + data[128:])
    save(photograph(), folder / f"{WORDS[39]}_cr.dcm", JPEGBaseline8Bit)
    (folder / f"{WORDS[39]}.txt").write_text(WORDS[0])
    return folder


@pytest.fixture(scope="module")
def cleaned(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("out")
    arguments = ["data", "deidentify", planted, place / "out", "--key", place / "key", "--burned-in", "mask"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert not ended.value.code
    return place / "out"


def found(data: bytes) -> set[str]:
    """Which secrets stand in bytes: in any case, as UTF-8, UTF-16 of both orders, UTF-32, or base64."""
    data = data.lower()
    hits = set()
    for secret in SECRETS:
        low = secret.lower()
        forms = [low.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")]
        forms += [b64encode(b"\0" * n + secret.encode())[4 if n else 0 : -4].lower() for n in range(3)]
        hits |= {secret for form in forms if form in data}
    return hits


def test_the_plants_are_there(planted: Path) -> None:
    everything = b"".join(path.read_bytes() + path.name.encode() for path in planted.iterdir())
    assert set(SECRETS) - found(everything) == {WORDS[37]}, "only what is burned in has no bytes"
    assert found(WORDS[3].encode("utf-16-be") + b"." + b64encode(WORDS[4].encode())) == {WORDS[3], WORDS[4]}


def test_nothing_planted_is_left_in_any_byte(cleaned: Path) -> None:
    files = [path for path in cleaned.rglob("*") if path.is_file()]
    assert len(files) == 9
    for path in files:
        relative = path.relative_to(cleaned)
        assert not found(path.read_bytes()), relative
        assert not found(str(relative).encode()), relative
        if path.suffix == ".dcm":
            assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
            assert not found(str(pydicom.dcmread(path)).encode()), "compressed or encoded text"


def test_nothing_planted_gets_through_a_reader(cleaned: Path) -> None:
    domain, read = registry.domain("radiology"), 0
    for path in cleaned.rglob("*.dcm"):
        try:
            study = domain.load(path)
        except UnsupportedError:
            continue
        read += 1
        text = repr(study) + json.dumps(to_json(study), default=repr) + domain.describe(study)
        assert not found(text.encode())
        for image in study.images:
            assert not found(np.asarray(image.pixels).tobytes())
    assert read >= 5


def test_burned_in_text_is_gone_and_the_rest_is_as_before(cleaned: Path) -> None:
    before, ink = burned(WORDS[37])
    assert find_text(before.astype(np.float32) / 255, likely=True)
    (after,) = (pydicom.dcmread(p) for p in cleaned.rglob("*.dcm") if pydicom.dcmread(p).Modality == "US")
    values = after.pixel_array
    assert after.BurnedInAnnotation == "NO"
    assert not find_text(values.astype(np.float32) / 255, likely=True)
    assert len(np.unique(values[ink])) == 1, "no trace of the letters"
    lower = slice(120, None)
    np.testing.assert_array_equal(values[lower], before[lower])


def test_measurements_are_as_before(planted: Path, cleaned: Path) -> None:
    before = {ds.InstanceNumber: ds for path in planted.glob("*_ct*") for ds in [pydicom.dcmread(path)]}
    after = [ds for path in cleaned.rglob("*.dcm") for ds in [pydicom.dcmread(path)] if ds.SOPClassUID == CT]
    assert len(after) == len(before) == 3
    for ds in after:
        source = before[ds.InstanceNumber]
        assert ds.PixelData == source.PixelData[: 64 * 64 * 2]
        for name in (*PLANE, "RescaleSlope", "RescaleIntercept", "Modality", "PhotometricInterpretation"):
            assert ds[name].value == source[name].value
        assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_what_belongs_together_still_does(cleaned: Path) -> None:
    files = [pydicom.dcmread(path) for path in cleaned.rglob("*.dcm")]
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
        (one,) = {str(ds[name].value) for ds in files}
        assert one
    for ds in files:
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
        assert ds.StudyInstanceUID.startswith("2.25.")
        assert ds.AcquisitionDateTime[:8] == ds.StudyDate < DAY
    assert len({ds.SOPInstanceUID for ds in files}) == len(files)


def test_a_file_says_what_was_done_to_it(cleaned: Path) -> None:
    for path in cleaned.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        assert ds.PatientIdentityRemoved == "YES"
        assert ds.LongitudinalTemporalInformationModified == "MODIFIED"
        codes = {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}
        assert codes >= {"113100", "113103", "113104", "113105", "113107"}
        assert ("113101" in codes) == ("PixelData" in ds)


def test_coded_content_stays_and_typed_content_does_not(cleaned: Path) -> None:
    files = {ds.Modality: ds for path in cleaned.rglob("*.dcm") for ds in [pydicom.dcmread(path)]}
    segments = files["SEG"].SegmentSequence
    meaning = segments[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning
    assert meaning.startswith("Liver")
    assert [segment.SegmentLabel for segment in segments] == [meaning, "Left lung"]
    text, person, uid, mass, inner = files["SR"].ContentSequence
    assert text.TextValue == inner.ContentSequence[0].TextValue == person.PersonName == "REMOVED"
    assert text.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    assert uid.UID.startswith("2.25.")
    assert mass.ConceptCodeSequence[0].CodeMeaning == "Mass"
    assert [roi.ROIName or "" for roi in files["RTSTRUCT"].StructureSetROISequence] == ["", "lung_left"]
    ct = files["CT"]
    assert ct.SeriesDescription == "AX 5.0MM"
    assert ct.StudyDescription == "CT THORAX"
    assert ct.AnatomicRegionSequence[0].CodeMeaning in ("Lung", "Lung structure")
    assert ct.ProcedureCodeSequence[0].CodeMeaning == "Unknown"


def test_the_ledger_tells_what_was_done_and_to_nobody_whom(cleaned: Path) -> None:
    head, *rows = [json.loads(line) for line in (cleaned / "deidentification.jsonl").read_text().splitlines()]
    assert head["left out"] == {"document": 1}
    assert [row["file"] for row in rows] == sorted(str(p.relative_to(cleaned)) for p in cleaned.rglob("*.dcm"))
    assert all(re.fullmatch(r"P[A-Z2-7]{15}(/2\.25\.\d+){3}\.dcm", row["file"]) for row in rows)
    assert all(row["actions"]["X"] > 5 for row in rows)
