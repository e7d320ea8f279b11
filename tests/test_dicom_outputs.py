"""What is written for a PACS reads back as what was found, is valid, names its source, and is the same every time."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from output_reports import (
    BY,
    DICOM,
    RADIOLOGY,
    blob,
    boxes,
    complaints,
    finding,
    radiograph,
    report,
    series,
)  # fmt: skip

from fovea.contracts import Writer
from fovea.errors import InputError, UnsupportedError
from fovea.types import Box, Mask, Measure, OrientedBox, Polygon

AXIAL = np.eye(3)
OBLIQUE = np.linalg.qr(np.array([[1, 0.3, 0.2], [-0.2, 1, 0.4], [0.1, -0.3, 1.0]]).T)[0].T
OBLIQUE[2] *= np.sign(np.linalg.det(OBLIQUE))
SAGITTAL = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)
STACKS = {
    "axial": (AXIAL, 0.0, False), "reversed": (AXIAL, 0.0, True), "oblique": (OBLIQUE, 0.0, True),
    "tilted": (AXIAL, 0.6, False),
}  # fmt: skip


def by_label(found):
    return {one.label: one for one in found}


@pytest.mark.parametrize("name", STACKS)
def test_masks_and_measures_of_a_series_come_back(name, tmp_path):
    axes, shift, reverse = STACKS[name]
    files = series(tmp_path / "in", axes, shift, reverse=reverse)
    study = RADIOLOGY.load(files)
    shape = study.images[0].grid.shape
    lone = np.zeros(shape, bool)
    lone[3, 5:9, 7:15] = True
    found = [
        finding("liver", region=blob(shape, 1), measures=(Measure("volume", 12.5, "mL", 0.75),)),
        finding(
            "kidney_lesion", region=Mask(lone), location="right", measures=(Measure("longest_diameter", 9.5, "mm"),)
        ),
        finding("left_kidney", region=blob(shape, 2)),
        finding("spleen", present=False, score=0.04),
    ]
    paths = RADIOLOGY.write(report(study, *found), files, tmp_path / "out", ["dicom-sr"])
    assert [path.name[13:] for path in paths] == ["dicom-seg-1.dcm", "dicom-sr-1.dcm"]
    back = RADIOLOGY.findings(paths, study, files)
    assert len(back) == 7
    assert (back[6].label, back[6].present, back[6].score) == ("spleen", False, 0.04)
    for part, kind in ((back[:3], "dicom-seg/automatic"), (back[3:6], "dicom-sr/device")):
        read = by_label(part)
        for one in found[:3]:
            np.testing.assert_array_equal(read[one.label].region.data, one.region.data)
            assert read[one.label].by.name == kind
        assert read["kidney_lesion"].location == "right"
        assert len(read) == 3
    read = by_label(back[3:])
    assert read["liver"].measures == found[0].measures
    assert read["kidney_lesion"].measures == found[1].measures
    assert {one.score for one in back[3:6]} == {0.875}
    assert complaints(paths) == []


@pytest.mark.parametrize("orientation", [("L", "F"), ("R", "H"), ("F", "L"), ("H", "R")])
def test_masks_and_boxes_of_a_radiograph_come_back(orientation, tmp_path):
    file = radiograph(tmp_path / "in.dcm", orientation)
    study = RADIOLOGY.load(file)
    shape = study.images[0].grid.shape
    found = [
        finding("left_lung", region=blob(shape, 3)),
        finding("pneumothorax", region=blob(shape, 4), location="right"),
        finding("nodule", region=Box((0, 4, 5), (1, 9, 17)), location="left"),
        finding("pleural_effusion", region=blob(shape, 5), location="left"),
    ]
    paths = RADIOLOGY.write(report(study, *found), file, tmp_path / "out", ["dicom-sr", "dicom-gsps"])
    back = RADIOLOGY.findings(paths[:2], study, [file])
    box = np.zeros(shape, bool)
    box[0, 4:9, 5:17] = True
    for one in found:
        want = box if one.label == "nodule" else one.region.data
        read = [other for other in back if other.label == one.label]
        assert len(read) == (1 if one.label == "nodule" else 2)
        for other in read:
            np.testing.assert_array_equal(other.region.data, want)
            assert other.location == ("" if one.label == "left_lung" else one.location)
    assert complaints(paths) == []


def test_frames_of_one_file_are_named_by_their_number(data_dir, tmp_path):
    file = data_dir / "med/dicom_zoo/mr_dicom_enhanced/In/Siemens/XA10/6_1.dcm"
    if not file.exists():
        pytest.skip("no such file here")
    study = RADIOLOGY.load(file)
    masks = np.zeros((2, *study.images[0].grid.shape), bool)
    masks[0, 1:4, 10:20, 30:50] = masks[1, 2:5, 30:40, 30:50] = True  # in frames that both have, and that one has
    found = [finding(name, region=Mask(mask)) for name, mask in zip(("spleen", "liver"), masks, strict=True)]
    paths = RADIOLOGY.write(report(study, *found), file, tmp_path, DICOM)
    back = RADIOLOGY.findings(paths[:2], study, [file])
    for one, mask in zip(found, masks, strict=True):
        read = [other.region.data for other in back if other.label == one.label]
        assert len(read) == 2
        np.testing.assert_array_equal(read, [mask, mask])
    source, made = pydicom.dcmread(file), pydicom.dcmread(paths[0])
    for group in made.PerFrameFunctionalGroupsSequence:
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        place = source.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, place, atol=1e-6)
    assert complaints(paths) == []


def test_objects_that_are_told_apart_have_segments_and_groups_of_their_own(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    shape = study.images[0].grid.shape
    whole = np.zeros(shape, bool)
    whole[2, 2:5, 5:9] = whole[2, 9:12, 5:9] = True
    one = finding("liver_lesion", region=Mask(whole), instances=boxes(shape), measures=(Measure("count", 2, "1"),))
    paths = RADIOLOGY.write(report(study, one), files, tmp_path / "out", ["dicom-sr", "dicom-gsps"])
    seg, sr = hd.seg.segread(paths[0]), hd.sr.srread(paths[1])
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["liver lesion", "liver lesion 1", "liver lesion 2"]
    groups = sr.content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_uid for g in groups] == [s.TrackingUID for s in seg.SegmentSequence]
    areas = [g.get_measurements()[0].value for g in groups]
    assert areas == [2, 0.2, 0.9]
    back = RADIOLOGY.findings(paths[:2], study, files)
    assert [(f.label, int(f.region.data.sum()), len(f.instances)) for f in back] == [("liver_lesion", 24, 2)] * 2
    state = pydicom.dcmread(paths[2])
    assert len(state.GraphicLayerSequence) == 3  # two objects and the state, not the whole beside its parts
    assert complaints(paths) == []


def test_a_measure_says_its_uncertainty_in_its_unit_and_absence_is_no_group(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    found = [
        finding("liver", measures=(Measure("volume", 12.5, "mL", 0.75),)),
        finding("spleen", present=False, score=0.04),
    ]
    (path,) = RADIOLOGY.write(report(study, *found), files, tmp_path / "out", ["dicom-sr"])
    back = by_label(RADIOLOGY.findings(path, study, files))
    assert back["liver"].measures == found[0].measures
    assert (back["spleen"].present, back["spleen"].score, back["spleen"].region) == (False, 0.04, None)
    text = str(pydicom.dcmread(path))
    assert text.count("measurement uncertainty") == 2
    assert text.count("'0.75'") == 2
    assert "'Absent'" in text
    ds = pydicom.dcmread(path)
    (absent,) = ds.ContentSequence[-1].ContentSequence
    assert absent.ConceptNameCodeSequence[0].CodeValue == "78961009"
    assert absent.ContentSequence[0].MeasuredValueSequence[0].NumericValue == 96  # sure that it is absent
    assert complaints([path]) == []


def test_polygons_and_oriented_boxes_are_regions_of_the_report_and_lines_of_the_state(tmp_path):
    files = series(tmp_path / "in", SAGITTAL)
    study = RADIOLOGY.load(files)
    found = [
        finding("liver", region=Polygon(((3, 4), (3, 15), (12, 15)), 1)),
        finding("spleen", region=OrientedBox((10.5, 12.5), 8, 4, 0.0, 2)),
    ]
    paths = RADIOLOGY.write(report(study, *found), files, tmp_path / "out", ["dicom-sr", "dicom-gsps"])
    back = by_label(RADIOLOGY.findings(paths[0], study, files))
    assert np.flatnonzero(back["liver"].region.data.any((1, 2))).tolist() == [1]
    row, column = np.nonzero(back["spleen"].region.data[2])
    assert (np.ptp(row), np.ptp(column)) == (3, 7)
    lines = [a.GraphicObjectSequence[0] for a in pydicom.dcmread(paths[1]).GraphicAnnotationSequence[:2]]
    assert lines[0].GraphicData[:4] == [4.5, 3.5, 15.5, 3.5]
    assert complaints(paths) == []


def test_the_same_report_gives_the_same_bytes_and_another_one_other_uids(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    one = finding("liver", region=blob(study.images[0].grid.shape, 1))
    first = RADIOLOGY.write(report(study, one), files, tmp_path / "a", DICOM)
    again = RADIOLOGY.write(report(RADIOLOGY.load(files), one), files[::-1], tmp_path / "b", DICOM)
    other = RADIOLOGY.write(report(study, replace(one, score=0.5)), files, tmp_path / "c", DICOM)
    hashes = [[sha256(path.read_bytes()).hexdigest() for path in paths] for paths in (first, again)]
    assert hashes[0] == hashes[1]
    assert [path.name for path in first] == [path.name for path in again]
    read = [[pydicom.dcmread(path) for path in paths] for paths in (first, other)]
    assert not {str(ds.SOPInstanceUID) for ds in read[0]} & {str(ds.SOPInstanceUID) for ds in read[1]}
    assert len({str(ds.SeriesInstanceUID) for ds in read[0]}) == 5
    assert {str(ds.StudyInstanceUID) for ds in read[0]} == {"1.2.3.4"}
    assert read[0][0].FrameOfReferenceUID == "1.2.3.9"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(path.name for path in first)


def test_patient_and_study_are_taken_over_in_valid_form(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    one = finding("liver", region=blob(study.images[0].grid.shape, 1))
    paths = RADIOLOGY.write(report(study, one), files, tmp_path / "out", DICOM)
    for path in paths:
        ds = pydicom.dcmread(path)
        assert (str(ds.PatientName), ds.PatientID, ds.PatientSex) == ("Müller^Änne", "ID 77", "F")
        assert not ds.PatientBirthDate  # the thirtieth of February
        assert ds.get("ContentDate", "20240229") == ds.StudyDate == "20240229"
        assert "InstanceCreationDate" not in ds
        assert ds.SpecificCharacterSet == "ISO_IR 100"
    assert complaints(paths) == []


@pytest.mark.parametrize("state", ["draft", "in review", "preliminary", "final", "amended"])
def test_only_a_named_person_verifies(state, tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    more = {} if state == "draft" else {"state": state, "reviewer": "Doe^Jane"}
    paths = RADIOLOGY.write(report(study, finding("liver"), **more), files, tmp_path / "out", ["dicom-sr", "dicom-pdf"])
    sr, pdf = map(pydicom.dcmread, paths)
    verified = state in ("preliminary", "final", "amended")
    assert {sr.VerificationFlag, pdf.VerificationFlag} == {"VERIFIED" if verified else "UNVERIFIED"}
    assert sr.CompletionFlag == ("COMPLETE" if verified else "PARTIAL")
    assert sr.PreliminaryFlag == ("FINAL" if state in ("final", "amended") else "PRELIMINARY")
    names = [str(item.VerifyingObserverName) for item in sr.get("VerifyingObserverSequence") or ()]
    assert names == (["Doe^Jane"] if verified else [])
    assert complaints(paths) == []


def test_key_pictures_say_what_they_are(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    one = finding("liver", region=Box((1, 4, 5), (2, 9, 17)))
    (path,) = RADIOLOGY.write(report(study, one), files, tmp_path / "out", ["dicom-sc"])
    ds = pydicom.dcmread(path)
    assert (ds.ImageType[3], ds.ImageComments[:12]) == ("FOVEA FINDINGS", "NOT VERIFIED")
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5.2"
    drawn = (ds.pixel_array == (166, 86, 40)).all(-1)
    assert drawn.sum() > 200
    with pytest.raises(UnsupportedError, match="drawn over"):
        RADIOLOGY.load(path)


@pytest.mark.parametrize(
    ("said", "told"),
    [({}, None), ({"BurnedInAnnotation": "NO"}, "NO"), ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, "NO"),
     ({"ImageType": ["DERIVED", "SECONDARY"]}, None)],
)  # fmt: skip
def test_pictures_say_that_no_identity_is_burned_in_where_the_source_allows_it(said, told, tmp_path):
    files = series(tmp_path / "in", AXIAL)
    for file in files:
        ds = pydicom.dcmread(file)
        ds.update(said)
        ds.save_as(file)
    written = report(RADIOLOGY.load(files), finding("liver"))
    picture, page = map(pydicom.dcmread, RADIOLOGY.write(written, files, tmp_path / "out", ["dicom-sc", "dicom-pdf"]))
    assert picture.get("BurnedInAnnotation") == told
    assert page.BurnedInAnnotation == (told or "YES")


def test_what_cannot_be_written_is_refused_in_words(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    plain = report(study, finding("liver"))
    assert isinstance(RADIOLOGY, Writer)
    with pytest.raises(UnsupportedError, match="one of dicom-seg"):
        RADIOLOGY.write(plain, files, tmp_path / "out", ["dicom"])
    with pytest.raises(UnsupportedError, match="without masks"):
        RADIOLOGY.write(plain, files, tmp_path / "out", ["dicom-seg"])
    with pytest.raises(InputError, match="not those of the study"):
        RADIOLOGY.write(plain, files[:-1], tmp_path / "out", ["dicom-sr"])
    wrong = replace(plain, state="entered in error", reviewer="Doe^Jane")
    with pytest.raises(UnsupportedError, match="entered in error"):
        RADIOLOGY.write(wrong, files, tmp_path / "out", ["dicom-sr"])
    with pytest.raises(InputError, match="a mask"):
        RADIOLOGY.write(
            report(study, finding("liver", region=blob((1, 2, 3), 1))), files, tmp_path / "out", ["dicom-sr"]
        )
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    written = RADIOLOGY.write(plain, files, tmp_path / "out")
    assert {"sr", "sc", "pdf"} <= {path.name.split("-")[-2] for path in written if path.suffix == ".dcm"}


def test_a_picture_has_no_dicom_to_refer_to(tmp_path):
    from PIL import Image

    path = tmp_path / "gray.png"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    study = RADIOLOGY.load(path)
    with pytest.raises(UnsupportedError, match="not read from DICOM"):
        RADIOLOGY.write(report(study, finding("nodule")), path, tmp_path / "out", ["dicom-sr"])


def test_the_last_claim_of_an_expert_counts(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    found = finding("liver", present=False), finding("liver"), finding("liver", by=replace(BY, name="b"))
    (path,) = RADIOLOGY.write(report(study, *found), files, tmp_path / "out", ["dicom-sr"])
    groups = hd.sr.srread(path).content.get_image_measurement_groups()
    assert len(groups) == 2


@pytest.mark.skipif(not shutil.which("dsrdump") or not shutil.which("dcmpschk"), reason="dcmtk is not installed")
def test_dcmtk_reads_what_was_written(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    one = finding("liver", region=blob(study.images[0].grid.shape, 1), measures=(Measure("volume", 12.5, "mL", 0.75),))
    seg, sr, _, state, pdf = RADIOLOGY.write(report(study, one), files, tmp_path / "out", DICOM)[:5]
    environment = {"env": os.environ, "capture_output": True, "text": True, "check": True, "encoding": "latin-1"}
    text = subprocess.run([shutil.which("dsrdump"), str(sr)], **environment)
    assert 'NUM:(,,"Volume")="12.5" (mL,UCUM,"milliliter")' in text.stdout
    checked = subprocess.run([shutil.which("dcmpschk"), str(state)], **environment)
    assert "Test passed" in checked.stdout + checked.stderr
    for path in (seg, pdf):
        subprocess.run([shutil.which("dcmdump"), str(path)], **environment)


def test_the_page_is_a_whole_pdf_without_the_patient(tmp_path):
    files = series(tmp_path / "in", AXIAL)
    study = RADIOLOGY.load(files)
    (path,) = RADIOLOGY.write(report(study, finding("liver")), files, tmp_path / "out", ["dicom-pdf"])
    ds = pydicom.dcmread(path)
    page = ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength]
    assert page.startswith(b"%PDF-")
    assert page.rstrip().endswith(b"%%EOF")
    if shutil.which("pdftotext"):
        page_path = Path(tmp_path / "page.pdf")
        page_path.write_bytes(page)
        text = subprocess.run(
            [shutil.which("pdftotext"), str(page_path), "-"], capture_output=True, text=True, check=True
        ).stdout
        assert "NOT VERIFIED" in text
        assert "liver" in text
        assert "ller" not in text
