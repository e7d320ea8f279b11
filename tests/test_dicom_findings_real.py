"""Findings from real DICOM objects, and the words that codes may have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from finding_files import SECRET

from domains.formats.dicom import codes as dicom_codes
from domains.formats.dicom import seg as dicom_seg
from domains.radiology.findings import findings
from fovea.errors import InputError, UnsupportedError
from fovea.types import LPS, Grid, Study


def test_codes_keep_the_words_of_the_standard_only():
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-62000", "SRT", SECRET
    assert dicom_codes.concept(item).value == "10200004"
    assert dicom_codes.concept(item).meaning == "Liver structure"
    item.CodeValue, item.CodingSchemeDesignator = "999999999", "SCT"
    assert dicom_codes.concept(item).meaning == ""
    for value, scheme in (("DOE", "SCT"), ("1", "99DOE"), ("DOE", "UCUM"), ("", "SCT"), ("1234567", "DCM")):
        item.CodeValue, item.CodingSchemeDesignator = value, scheme
        assert dicom_codes.concept(item) is None


SLIDES = ("_sm_",)
DEFECTS = {"liver_1frame.dcm": "functional groups", "expb": "Big Endian", "_rle.dcm": "RLE"}


def own_study(path: Path) -> Study:
    """A study whose one image is the lattice of a segmentation's own planes."""
    told = dicom_seg.read(path)
    planes = [patch.affine for item in told.items for patch in item.patches]
    shape = next(patch.mask.shape for item in told.items for patch in item.patches)
    normal = planes[0][:3, 2]
    along = np.array([plane[:3, 3] @ normal for plane in planes])
    step = told.spacing or (np.diff(np.unique(along.round(3))).min() if np.ptp(along) > 1e-3 else 1.0)
    affine = planes[int(along.argmin())].copy()
    affine[:3, 2] = normal * step
    grid = Grid(affine, LPS, (round(np.ptp(along) / step) + 1, *shape))
    from fovea.types import Channel, Image, Source

    image = Image.from_array((Channel("HU"),), grid, np.zeros((1, *grid.shape), np.float32))
    return Study("radiology", (image,), Source(("0",), "r"), {"modality": "CT"})


def objects(data_dir: Path, modality: str) -> list[Path]:
    found = []
    for path in sorted((data_dir / "med" / "dicom_zoo").rglob("*")):
        if path.is_file():
            try:
                ds = pydicom.dcmread(path, force=True, specific_tags=["Modality"])
                found += [path] if ds.get("Modality") == modality else []
            except Exception:  # noqa: BLE001 # the zoo holds broken files
                continue
    return found


def test_every_real_segmentation_is_read_or_its_defect_named(data_dir):
    read = 0
    for path in objects(data_dir, "SEG"):
        reason = next((text for part, text in DEFECTS.items() if part in path.name), "")
        reason = "whole-slide" if "_sm_" in path.name else reason
        if reason:
            with pytest.raises(InputError, match=reason):
                dicom_seg.read(path)
            continue
        if "_cr_" in path.name:
            assert dicom_seg.read(path).items[0].patches[0].affine is None
        else:
            assert all(f.present == (f.region is not None) for f in findings(path, own_study(path)))
        read += 1
    assert read == 18


def test_real_encodings_of_one_segmentation_agree(data_dir):
    """Native bits, bits that end inside a byte, JPEG 2000 and deflate, all of one liver."""
    folder = data_dir / "med" / "dicom_zoo" / "dicom_pydicom_data" / "data_store" / "data"
    whole = [dicom_seg.read(folder / f"liver{name}.dcm").items[0].patches for name in ("", "_j2k", "_deflate")]
    short = [
        dicom_seg.read(folder / f"liver_nonbyte_aligned{name}.dcm").items[0].patches
        for name in ("", "_j2k", "_deflate")
    ]
    for same_ones in (whole, short):
        for others in same_ones[1:]:
            for one, other in zip(same_ones[0], others, strict=True):
                assert np.array_equal(one.mask, other.mask)
    assert np.array_equal(whole[0][0].mask[:510, :510], short[0][0].mask)


def test_a_real_report_agrees_with_its_segmentation(data_dir):
    """The volume that a report states is that of the voxels of the segmentation that it refers to."""
    folder = data_dir / "med" / "dicom_zoo" / "dicom_dcmqi" / "data" / "sr-example"
    seg, told = findings([folder / "seg.dcm", folder / "sr.dcm"], own_study(folder / "seg.dcm"))
    assert (told.label, told.by.name, told.code.meaning) == (
        "SCT:86049000",
        "dicom-sr/person",
        "Malignant neoplasm, primary",
    )
    assert np.array_equal(seg.region.data, told.region.data)
    assert told.measure("volume").value == pytest.approx(seg.measure("volume").value, rel=1e-3)
    assert told.measure("suvbw_mean").unit == "g/ml{SUVbw}"


def test_real_reports_and_structures_are_read_or_their_defect_named(data_dir):
    study = own_study(data_dir / "med" / "dicom_zoo" / "dicom_dcmqi" / "data" / "sr-example" / "seg.dcm")
    counts = {"sr.dcm": 1, "sr_document.dcm": 1, "sr_document_with_multiple_groups.dcm": 4}
    for path in objects(data_dir, "SR"):
        if path.name in counts:
            assert len(findings(path, study)) == counts[path.name]
        else:
            with pytest.raises(UnsupportedError, match="TID 1500"):
                findings(path, study)
    (path,) = objects(data_dir, "RTSTRUCT")
    affine = np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = -205, -205, -200
    room = replace(study.images[0], grid=Grid(affine, LPS, (3, 42, 42)))
    found = findings(path, replace(study, images=(room,)))
    assert [f.label for f in found] == ["uncoded"] * 3
    assert found[0].region.data.sum(axis=(1, 2)).tolist() == [40 * 30] * 3
    assert [f.region for f in found[1:]] == [None, None]
