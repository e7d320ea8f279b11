"""Outputs are whole or not there, hold no more of the source than they must, and keep the tables of the standard."""

from __future__ import annotations

import gzip
import logging
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pydicom
import pytest
from output_reports import DICOM, PATIENT, RADIOLOGY, blob, boxes, checked, finding, radiograph, report, series
from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from fovea.errors import InputError
from fovea.types import Box, Measure, Origin

AXES = np.eye(3)
NAMES = (
    "OperatorsName", "PerformingPhysicianName", "PhysiciansOfRecord", "RequestingPhysician", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber", "PatientComments",
    "PatientAddress", "PatientTelephoneNumbers", "PatientMotherBirthName", "OtherPatientNames", "MilitaryRank",
    "Occupation", "AdditionalPatientHistory", "ImageComments", "SeriesDescription", "ProtocolName",
    "RequestedProcedureDescription", "PerformedProcedureStepID", "FrameComments", "AdmissionID",
    "DerivationDescription", "PatientBirthName", "ReasonForStudy", "StudyComments", "ContentCreatorName",
    "DetectorID", "PlateID",
)  # fmt: skip
UIDS = (
    "IrradiationEventUID",
    "DeviceUID",
    "SynchronizationFrameOfReferenceUID",
    "InstanceCreatorUID",
    "ConcatenationUID",
)
COPIED = {
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "ReferringPhysicianName", "IssuerOfPatientID", "PatientAge", "PatientSize",
    "PatientWeight", "StudyDescription",
}  # fmt: skip
"""What the modules of patient and study say, and nothing else does."""


def secret(number: int) -> str:
    return f"SECRET{number:03}"


def planted(path, number: int) -> None:
    """Put words and UIDs that nothing needs wherever a header has room for them."""
    ds = pydicom.dcmread(path)
    for n, name in enumerate(NAMES):
        ds.add_new(name, dictionary_VR(name), secret(n))
    for n, name in enumerate(UIDS):
        setattr(ds, name, f"1.2.999.{n}.{number}")
    ds.ReferringPhysicianName, ds.StudyDescription, ds.IssuerOfPatientID = "Ref^Erring", "STUDY WORDS", "ISSUER"
    item, other = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "1.2.999.77"
    other.PatientID, other.RequestedProcedureID = secret(98), secret(97)
    ds.ReferencedStudySequence, ds.RequestAttributesSequence, ds.OtherPatientIDsSequence = [item], [other], [other]
    for group in (0x0009, 0x0011, 0x0029, 0x7053):
        block = ds.private_block(group, secret(90), create=True)
        block.add_new(0x01, "LO", secret(91))
        block.add_new(0x02, "OB", secret(92).encode() + b"\0")
    ds.add_new(0x60000010, "US", 4)  # an overlay plane with words
    ds.add_new(0x60004000, "LT", secret(93))
    ds.file_meta.SourceApplicationEntityTitle = secret(94)
    ds.save_as(path)


def told(path) -> bytes:
    """The content, unpacked; of a page its text as well."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if "pdf" in path.name and shutil.which("pdftotext"):
        page = pydicom.dcmread(path).EncapsulatedDocument
        done = subprocess.run([shutil.which("pdftotext"), "-", "-"], input=page, capture_output=True, check=True)
        content += done.stdout
    return content


def test_no_output_holds_more_of_the_source_than_patient_and_study(tmp_path):
    files = series(tmp_path / "in", AXES)
    for number, file in enumerate(files):
        planted(file, number)
    study = RADIOLOGY.load(files)
    shape = study.images[0].grid.shape
    found = [finding("liver", region=blob(shape, 1)), finding("kidney_lesion", instances=boxes(shape), location="left")]
    paths = RADIOLOGY.write(report(study, *found), files, tmp_path / "out")
    assert len(paths) >= 9
    source = [pydicom.dcmread(file) for file in files]
    known = {str(ds[name].value) for ds in source for name in (
        "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
    )}  # fmt: skip
    identity = {str(source[0][name].value) for name in COPIED if name in source[0]} - {"1", "F"}
    for path in paths:
        content = told(path)
        assert b"SECRET" not in content, path.suffix
        assert b"1.2.999." not in content
        if path.suffix != ".dcm":
            assert b"ller^" not in content
            assert b"Erring" not in content
            continue
        for element in pydicom.dcmread(path).iterall():
            assert not element.tag.is_private
            if element.VR == "UI":
                for uid in [element.value] if isinstance(element.value, str) else element.value:
                    assert uid in known or uid.startswith(("2.25.", "1.2.840.10008.")), element.keyword
            elif element.VR != "SQ" and str(element.value) in identity:
                assert element.keyword in COPIED | {"ContentDate", "ContentTime", "PresentationCreationDate",
                    "PresentationCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"}  # fmt: skip


def test_what_fails_late_leaves_nothing_behind(tmp_path):
    files = series(tmp_path / "in", AXES)
    study = RADIOLOGY.load(files)
    mask = blob(study.images[0].grid.shape, 1)
    good, bad = (report(study, finding("liver", region=mask, by=Origin("toy", v))) for v in ("1", ""))
    with pytest.raises(InputError, match="FHIR"):  # after five outputs that can be made
        RADIOLOGY.write(bad, files, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    paths = RADIOLOGY.write(good, files, tmp_path / "out")
    before = {path: path.read_bytes() for path in paths}
    with pytest.raises(InputError, match="FHIR"):
        RADIOLOGY.write(bad, files, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in paths} == {files[0].stat().st_mode & 0o777}
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        RADIOLOGY.write(good, files, tmp_path / "file")


def broken(path, out, edit):
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(out)
    return out


def without_kind_of_author(ds):
    del ds.SegmentSequence[0].SegmentAlgorithmType


def without_segment(ds):
    del ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber


def without_unit(ds):
    del (
        ds.ContentSequence[-1]
        .ContentSequence[0]
        .ContentSequence[0]
        .MeasuredValueSequence[0]
        .MeasurementUnitsCodeSequence
    )


def with_text_in_a_code(ds):
    ds.ContentSequence[-1].ContentSequence[0].TextValue = "text"


def with_an_echo_time(ds):
    ds.EchoTime = 3


@pytest.mark.skipif(not find_spec("dicom_validator"), reason="dicom-validator is not installed")
def test_outputs_have_the_attributes_of_their_modules(tmp_path, repository):
    tables = tmp_path / "tables"
    subprocess.run([sys.executable, repository / "scripts" / "dicom_tables.py", tables], check=True)
    files, film = series(tmp_path / "in", AXES), radiograph(tmp_path / "in.dcm", ("L", "F"))
    paths = []
    for source, more in ((files, {"state": "final", "reviewer": "Doe^Jane"}), (film, {})):
        study = RADIOLOGY.load(source)
        shape = study.images[0].grid.shape
        found = [
            finding("liver", region=blob(shape, 1), measures=(Measure("volume", 12.5, "mL", 0.75),)),
            finding("kidney_lesion", location="left", instances=boxes(shape)),
            finding("nodule", region=Box((0, 4, 5), (1, 9, 17))),
            finding("spleen", present=False, score=0.04),
        ]
        paths += RADIOLOGY.write(report(study, *found, **more), source, tmp_path / "out", DICOM)
    kinds = {path.name.split("-")[2]: path for path in paths}
    assert len(kinds) == 5
    wrong = [
        broken(kinds[kind], tmp_path / f"{edit.__name__}.dcm", edit)
        for kind, edit in (
            ("seg", without_kind_of_author), ("seg", without_segment), ("sr", without_unit),
            ("sr", with_text_in_a_code), ("sc", with_an_echo_time),
        )
    ]  # fmt: skip
    lines = checked(tables, *paths, *wrong)
    assert lines[: len(paths)] == [[]] * len(paths)
    tags = ("(0062,0008)", "(0062,000B)", "(0040,08EA)", "(0040,A160)", "(0018,0081)")
    for (line,), tag in zip(lines[len(paths) :], tags, strict=True):
        assert tag in line


def test_writing_says_no_identifier(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    files = series(tmp_path / "in", AXES)
    study = RADIOLOGY.load(files)
    RADIOLOGY.write(report(study, finding("liver", region=blob(study.images[0].grid.shape, 1))), files, tmp_path, DICOM)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert not [word for word in (*PATIENT.values(), "1.2.3.4") if word in said]
