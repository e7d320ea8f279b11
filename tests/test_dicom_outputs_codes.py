"""What DICOM files of our making say in codes reads back: labels, measures with units and uncertainty, presence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from output_reports import BY, RADIOLOGY, blob, finding, pixels, radiograph, report, series

from domains.formats.dicom import own
from domains.radiology.vocabulary import TERMS
from experts.measure import MEASURES, Context
from fovea.types import DETECTOR, LPS, Box, Grid, Instance, Mask, Measure, Patch

AXES = np.eye(3)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    files = series(tmp_path_factory.mktemp("ct"), AXES)
    return files, RADIOLOGY.load(files)


def back(study, files, folder, *found, outputs=("dicom-sr",)):
    paths = RADIOLOGY.write(report(study, *found), files, folder, outputs)
    return paths, RADIOLOGY.findings(paths, study, files)


def same(read, written):
    assert [(m.name, m.unit) for m in read] == [(m.name, m.unit) for m in written]
    assert [m.value for m in read] == pytest.approx([m.value for m in written], rel=1e-8)
    assert [m.uncertainty is None for m in read] == [m.uncertainty is None for m in written]
    pairs = [(one.uncertainty, other.uncertainty) for one, other in zip(read, written, strict=True) if one.uncertainty]
    assert [one for one, _ in pairs] == pytest.approx([other for _, other in pairs], rel=1e-8)


def measured() -> dict[str, list[Measure]]:
    """What each measure of the experts gives on a volume, a film and the Earth, by the name that recipes have."""
    volume, flat = np.zeros((4, 12, 12), bool), np.zeros((1, 12, 12), bool)
    volume[1:3, 3:8, 2:9] = flat[0, 3:8, 2:9] = True
    lungs = {"left_lung": np.roll(flat, 2, 2), "right_lung": np.roll(flat, -2, 2)}
    places = [
        (volume, Grid(np.diag([0.7, 0.8, 2.0, 1]), LPS, volume.shape)),
        (flat, Grid(np.diag([0.2, 0.2, 1.0, 1]), DETECTOR, flat.shape)),
        (flat, Grid.from_gdal((10, 0, 399960, 0, -10, 5500020), "EPSG:32633", 12, 12)),
    ]
    found: dict[str, list[Measure]] = {}
    for mask, grid in places:
        share = np.where(mask, 0.9, 0.2).astype(np.float32)
        values = np.random.default_rng(0).normal(40, 9, mask.shape).astype(np.float32)
        context = Context(structures=lungs, probabilities=share, pixels=values, unit="HU")
        for name, function in MEASURES.items():
            if one := function(mask, grid, context):
                found.setdefault(name, []).append(one)
    return found


def test_every_measure_of_the_experts_comes_back(ct, tmp_path):
    files, study = ct
    told = measured()
    assert told.keys() == MEASURES.keys()
    written = tuple(measure for some in told.values() for measure in some)
    assert any(measure.uncertainty for measure in written)
    (path,), (read,) = back(study, files, tmp_path, finding("liver", measures=written))
    same(read.measures, written)
    assert pydicom.dcmread(path).CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == own.SCHEME


def test_every_name_and_unit_comes_back_whatever_the_value(ct, tmp_path):
    files, study = ct
    random = np.random.default_rng(3)
    names, units = [*own.PUBLIC, *own.PRIVATE], list(own.UNITS)
    written = tuple(
        Measure(
            names[n % len(names)],
            float(random.choice([-1, 1]) * 10 ** random.uniform(-7, 9)),
            units[n % len(units)],
            None if n % 3 == 0 else float(10 ** random.uniform(-9, 3)),
        )
        for n in range(120)
    )
    _, (read,) = back(study, files, tmp_path, finding("liver", measures=(*written, Measure("count", 0.0, "1", 0.0))))
    same(read.measures[:-1], written)
    assert (read.measures[-1].value, read.measures[-1].uncertainty) == (0, 0)


def test_every_label_comes_back_as_itself_present_and_absent(ct, tmp_path):
    files, study = ct
    shape = study.images[0].grid.shape
    there = [
        finding(label, region=blob(shape, n), score=n / 97, location="" if "_" in label else "left")
        for n, label in enumerate(TERMS, 1)
    ]
    gone = [finding(label, present=False, score=n / 97, by=replace(BY, name="b")) for n, label in enumerate(TERMS, 1)]
    _, read = back(study, files, tmp_path, *there, *gone)
    parts = [read[n : n + len(TERMS)] for n in range(0, len(read), len(TERMS))]
    assert [[one.label for one in part] for part in parts] == [list(TERMS)] * 3
    assert all(one.code == TERMS[one.label].code for one in read)
    assert [[one.present for one in part] for part in parts] == [[True] * len(TERMS)] * 2 + [[False] * len(TERMS)]
    for part in parts[1:]:
        assert [one.score for one in part] == pytest.approx([one.score for one in there], abs=1e-8)
    for one in read[: 2 * len(TERMS)]:
        (want,) = [other for other in there if other.label == one.label]
        np.testing.assert_array_equal(one.region.data, want.region.data)


def test_objects_come_back_with_place_probability_and_measures(ct, tmp_path):
    files, study = ct
    shape = study.images[0].grid.shape
    places = [(2, 9, 5), (1, 2, 5), (3, 2, 15)]
    parts = tuple(
        Instance(
            Patch(start, np.arange(12).reshape(1, 3, 4) % 5 > 0),
            0.9 - 0.2 * n,
            (Measure("longest_diameter", 4.5 - n, "mm", 0.2), Measure("volume", 1.5, "mL")),
            ("left", "", "right")[n],
        )
        for n, start in enumerate(places)
    )
    whole = np.zeros(shape, bool)
    for one in parts:
        whole[one.region.start[0], one.region.start[1] :][:3, one.region.start[2] :][:, :4] |= one.region.data[0]
    several = finding(
        "liver_lesion", region=Mask(whole), instances=parts, measures=(Measure("count", 3, "1", 0.5),), score=0.95
    )
    other = finding("liver_lesion", region=Mask(whole), by=replace(BY, name="b"), instances=parts[:2])
    drawn = finding(
        "nodule", instances=tuple(Instance(Box((2, r, 3), (3, r + 2, 6)), 0.5) for r in (4, 9)), location="right"
    )
    _, read = back(study, files, tmp_path, several, drawn, other)
    assert [(one.label, one.by.name, len(one.instances)) for one in read] == [
        ("liver_lesion", "dicom-seg/automatic", 3),
        ("liver_lesion", "dicom-seg/automatic", 2),
        ("liver_lesion", "dicom-sr/device", 3),
        ("liver_lesion", "dicom-sr/device", 2),
        ("nodule", "dicom-sr/device", 2),
    ]
    np.testing.assert_array_equal(read[2].region.data, whole)
    assert read[2].score == 0.95
    same(read[2].measures, several.measures)
    for one, want in zip(read[2].instances, parts, strict=True):
        np.testing.assert_array_equal(one.region.start, want.region.start)
        np.testing.assert_array_equal(one.region.data, want.region.data)
        assert (one.score, one.location) == (pytest.approx(want.score), want.location)
        same(one.measures, want.measures)
    for one, want in zip(read[0].instances, parts, strict=True):
        np.testing.assert_array_equal(one.region.data, want.region.data)
    assert [(one.region.start, one.region.data.shape, one.score) for one in read[4].instances] == [
        ((2, 4, 3), (1, 2, 3), 0.5),
        ((2, 9, 3), (1, 2, 3), 0.5),
    ]


def lone(folder):
    """A slice whose file has a plane and no thickness, so that the study has no size."""
    (path,) = series(folder, AXES, count=1)
    ds = pydicom.dcmread(path)
    del ds.SliceThickness
    ds.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["plane without thickness", "films", "real"])
def test_regions_on_images_without_a_size_come_back(kind, tmp_path, request):
    if kind == "real":
        file = (
            request.getfixturevalue("data_dir") / "med/dicom_zoo/dicom_pydicom_data/data_store/data/explicit_VR-UN.dcm"
        )
        if not file.exists():
            pytest.skip("no such file here")
    else:
        file = lone(tmp_path / "in") if kind != "films" else radiograph(tmp_path / "in.dcm", ("R", "F"))
    if kind == "films":
        ds = pixels(pydicom.dcmread(file), np.zeros((20, 24), np.uint16))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.12.2"  # fluoroscopy
        ds.Modality, ds.NumberOfFrames, ds.PixelData = "RF", 3, bytes(3 * 20 * 24 * 2)
        del ds.PixelSpacing, ds.ImagerPixelSpacing
        ds.save_as(file)
    study = RADIOLOGY.load(file)
    shape = study.images[0].grid.shape
    assert study.images[0].grid.frame not in (LPS, DETECTOR)
    last = shape[0] - 1
    found = [finding("nodule", region=Box((last, 4, 5), (last + 1, 9, 17)))]
    found += [finding("liver", region=blob(shape, 1))] if kind != "films" else []
    _, read = back(study, [file], tmp_path / "out", *found)
    box = np.zeros(shape, bool)
    box[last, 4:9, 5:17] = True
    for one in read:
        want = box if one.label == "nodule" else found[1].region.data
        np.testing.assert_array_equal(one.region.data, want)
    assert len(read) == (1 if kind == "films" else 3)


def edited(path, out, edit):
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(out)
    return out


def elsewhere(ds):
    """The same codes, but not of our table."""
    ds.Manufacturer = "Other"
    ds.CodingSchemeIdentificationSequence[0].CodingSchemeName = "Other"


def test_codes_of_our_table_count_in_our_files_only_and_closed_words_only(ct, tmp_path):
    files, study = ct
    shape = study.images[0].grid.shape
    label = "cardiomediastinum"  # has no code but ours
    one = finding(label, region=blob(shape, 1), measures=(Measure("cardiothoracic_ratio", 0.5, "1", 0.01),))
    (seg, path), read = back(study, files, tmp_path, one)
    assert [found.label for found in read] == [label, label]
    assert [m.name for m in read[1].measures] == ["cardiothoracic_ratio"]

    def hostile(ds):
        for element in ds.iterall():
            if element.keyword == "CodeValue" and element.value.startswith("cardio"):
                element.value = "DOE_JANE"

    for edit in (elsewhere, hostile):
        paths = [edited(seg, tmp_path / "seg.dcm", edit), edited(path, tmp_path / "sr.dcm", edit)]
        told = RADIOLOGY.findings(paths, study, files)
        assert [found.label for found in told] == ["uncoded", "uncoded"]
        assert {found.code.value for found in told} == {"uncoded"}
        assert [m.name for m in told[1].measures] == ["volume"]  # of the mask: the report's own has no name
        assert "DOE" not in repr(told)


def test_what_lies_on_one_of_several_films_comes_back_on_that_one(tmp_path):
    files = [radiograph(tmp_path / f"{n}.dcm", ("L", "F")) for n in range(3)]
    for number, file in enumerate(files):
        ds = pydicom.dcmread(file)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.5.{number + 7}"
        ds.InstanceNumber, ds.PixelData = number, bytes([number]) * len(ds.PixelData)
        ds.save_as(file)
    study = RADIOLOGY.load(files)
    shape = study.images[0].grid.shape
    boxes = tuple(Instance(Box((0, r, 3), (1, r + 2, 6)), 0.5) for r in (4, 9))
    written = [finding("left_lung", region=blob(shape, n), image=n) for n in (2, 0, 1)]
    written += [finding("pneumothorax", region=Box((0, 4, 5), (1, 9, 17)), image=n) for n in (1, 2)]
    written += [finding("nodule", image=2, instances=boxes), finding("spleen", present=False)]
    _, read = back(study, files[::-1], tmp_path / "out", *written)
    assert [one.image for one in read if one.label == "left_lung"] == [0, 1, 2, 2, 0, 1]
    for one in read:
        if one.label == "left_lung":
            np.testing.assert_array_equal(one.region.data, blob(shape, one.image).data)
    assert [one.image for one in read if one.label == "pneumothorax"] == [1, 2]
    assert [(one.image, len(one.instances)) for one in read if one.label == "nodule"] == [(2, 2)]
    assert RADIOLOGY.findings([], study, files) == ()
