"""Findings from DICOM objects: equal to what was written, at the right place, and without a word of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
from finding_files import SECRET, code, report, segmentation, structure_set
from highdicom import sr
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes

from domains.formats.dicom import annotation
from domains.radiology import reader, synth
from domains.radiology.findings import findings
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import LPS, Finding, Grid, Mask

CM, MM, MM3, ML, HU = (code((unit, ""), "UCUM") for unit in ("cm", "mm", "mm3", "ml", "[hnsf'U]"))
LIVER, SPLEEN, LUNG = (("10200004", SECRET), ("78961009", SECRET), ("39607008", SECRET))
ORGANS = ("liver", "spleen", "left_kidney", "right_kidney")


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A synthetic CT: its files in order of position, the study, and its true masks."""
    sample = synth.study(tmp_path_factory.mktemp("ct"), 3, 2)
    files = sorted(Path(sample.path).iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    masks = {f.label: f.region.data for f in sample.facts.findings if f.region}
    return files, reader.load(Path(sample.path)), masks


def by_label(found: tuple[Finding, ...]) -> dict[str, Finding]:
    assert len({f.label for f in found}) == len(found)
    return {f.label: f for f in found}


def same(found: tuple[Finding, ...], masks: dict[str, np.ndarray]) -> None:
    named = by_label(found)
    assert named.keys() == masks.keys()
    for label, mask in masks.items():
        used = np.flatnonzero(mask.any(axis=(1, 2)))
        assert np.array_equal(named[label].region.data, mask)
        assert named[label].slices == (used[0], used[-1] + 1)
        assert (named[label].present, named[label].score) == (True, 1.0)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("order", ["up", "down", "shuffled"])
def test_a_segmentation_comes_back_by_position(ct, tmp_path, kind, order):
    files, study, masks = ct
    masks = {label: masks[label] & ~masks.get("liver_lesion" if label == "liver" else "", False) for label in masks}
    index = {"up": np.arange(len(files)), "down": np.arange(len(files))[::-1]}.get(
        order, np.random.default_rng(1).permutation(len(files))
    )
    options = {"fractional_type": "OCCUPANCY"} if kind == "FRACTIONAL" else {}
    given = {label: mask[index].astype(float if options else np.uint8) for label, mask in masks.items()}
    segmentation([files[i] for i in index], given, tmp_path / "seg.dcm", kind, **options)
    found = findings(tmp_path / "seg.dcm", study, files)
    same(found, masks)
    voxel = np.prod(study.images[0].grid.spacing) / 1000
    for f in found:
        assert f.by.name == "dicom-seg/automatic"
        assert f.by.digest == study.digest
        assert f.measure("volume").value == pytest.approx(masks[f.label].sum() * voxel)
        assert f.location == ""


def test_overlapping_segments_and_the_kind_of_author(ct, tmp_path):
    files, study, masks = ct
    two = {"liver": masks["liver"], "spleen": masks["spleen"] | masks["liver"]}
    segmentation(files, two, tmp_path / "seg.dcm", by="MANUAL")
    same(found := findings(tmp_path / "seg.dcm", study), two)
    assert {f.by.name for f in found} == {"dicom-seg/manual"}


def test_half_of_the_maximum_counts(ct, tmp_path):
    files, study, masks = ct
    share = np.where(masks["liver"], 0.6, 0.4)
    segmentation(files, {"liver": share}, tmp_path / "seg.dcm", "FRACTIONAL", fractional_type="PROBABILITY")
    same(findings(tmp_path / "seg.dcm", study), {"liver": masks["liver"]})


def test_an_empty_segment_is_an_absent_finding(ct, tmp_path):
    files, study, masks = ct
    segmentation(files, {"liver": masks["liver"], "spleen": masks["liver"] & False}, tmp_path / "seg.dcm")
    found = by_label(findings(tmp_path / "seg.dcm", study))
    assert (found["spleen"].present, found["spleen"].score, found["spleen"].region) == (False, 0.0, None)
    assert found["liver"].present


def test_the_sides_of_an_image_are_those_of_the_patient(ct, tmp_path):
    files, study, masks = ct
    segmentation(files, {"right_kidney": masks["right_kidney"]}, tmp_path / "seg.dcm")
    (found,) = findings(tmp_path / "seg.dcm", study)
    middle = study.images[0].grid.world(np.argwhere(found.region.data)).mean(0)
    assert (found.label, middle[0] < 0) == ("right_kidney", True)  # LPS: x grows to the left


def moved(path: Path, out: Path, edit) -> Path:
    """The object with its frames' planes edited."""
    ds = pydicom.dcmread(path)
    for group in ds.PerFrameFunctionalGroupsSequence:
        edit(group.PlanePositionSequence[0], ds.SharedFunctionalGroupsSequence[0])
    ds.save_as(out)
    return out


def test_planes_that_are_no_slices_are_refused(ct, tmp_path):
    files, study, masks = ct
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")
    step = study.images[0].grid.spacing[0]

    def shifted(z: float):
        def edit(position, _):
            x, y, old = position.ImagePositionPatient
            position.ImagePositionPatient = [x, y, round(old + z, 4)]

        return edit

    same(
        findings(moved(tmp_path / "seg.dcm", tmp_path / "near.dcm", shifted(0.02 * step)), study),
        {"liver": masks["liver"]},
    )
    for shift in (0.5 * step, 100 * step):
        with pytest.raises(GeometryError, match="no slices"):
            findings(moved(tmp_path / "seg.dcm", tmp_path / "far.dcm", shifted(shift)), study)

    def tilted(_, shared):
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0.9848, 0.1736]

    with pytest.raises(GeometryError):
        findings(moved(tmp_path / "seg.dcm", tmp_path / "tilted.dcm", tilted), study)

    def spread(_, shared):
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 2 * step

    with pytest.raises(GeometryError, match="every"):
        findings(moved(tmp_path / "seg.dcm", tmp_path / "spread.dcm", spread), study)


def test_what_is_marked_outside_of_the_image_is_refused(ct, tmp_path):
    files, study, masks = ct
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")

    def aside(position, _):
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [x - 300, y, z]

    with pytest.raises(GeometryError, match="outside"):
        findings(moved(tmp_path / "seg.dcm", tmp_path / "aside.dcm", aside), study)


def patched(grid: Grid, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return annotation.paint(annotation.Annotation(None, "", patches=(annotation.Patch(mask, affine),)), grid)


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.integers(-2, 4), st.integers(-2, 4), st.booleans())
def test_a_patch_of_other_pixels_is_resampled_to_the_nearest(turn, fine_r, fine_c, top, left, flip):
    """A mask of coarse pixels on a finer, cropped, turned or mirrored lattice of the same plane."""
    random = np.random.default_rng(turn)
    coarse = random.random((4, 5)) < 0.5
    grid = Grid(np.diag([0.5, 0.7, 3, 1]), LPS, (2, 12, 14))
    small = grid.resample((2, 12 * fine_r, 14 * fine_c))
    truth = np.zeros((12, 14), bool)
    inside = coarse.copy()
    rows, columns = np.indices((4, 5))
    gone = (rows + top < 0) | (columns + left < 0) | (rows + top >= 12) | (columns + left >= 14)
    inside[gone] = False
    truth[(rows + top)[~gone], (columns + left)[~gone]] = coarse[~gone]
    stored, step = inside, np.eye(4)
    for _ in range(turn):  # stored pixels turned: index (r, c) of the turned is (c, n - 1 - r) of the old
        turned = np.eye(4)
        turned[:2, :2], turned[0, 3] = [(0, -1), (1, 0)], stored.shape[1] - 1
        stored, step = np.rot90(stored), step @ turned
    if flip:
        stored, mirror = stored[:, ::-1], np.diag([-1.0, 1, 1, 1])
        mirror[0, 3] = stored.shape[1] - 1
        step = step @ mirror
    start = np.eye(4)
    start[:3, 3] = left, top, 1
    found = patched(small, np.ascontiguousarray(stored), grid.affine @ start @ step)
    assert np.array_equal(found[1], np.kron(truth, np.ones((fine_r, fine_c), bool)))
    assert not found[0].any()


def test_two_frames_of_a_segment_on_one_slice_are_refused(ct):
    grid = ct[1].images[0].grid
    patch = annotation.Patch(np.ones(grid.shape[1:], bool), np.array(grid.affine))
    with pytest.raises(GeometryError, match="same slice"):
        annotation.paint(annotation.Annotation(None, "", patches=(patch, patch)), grid)


@given(st.lists(st.tuples(st.floats(-1, 9), st.floats(-1, 9)), min_size=3, max_size=9))
def test_a_polygon_fills_the_pixels_whose_centres_it_encloses(corners):
    points = np.array(corners) + 0.0037
    found = annotation.fill(points, (8, 8))
    for r, c in np.ndindex(8, 8):
        crossed = 0
        for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, 0), strict=True):
            if (y0 > r) != (y1 > r) and c >= x0 + (r - y0) * (x1 - x0) / (y1 - y0):
                crossed += 1
        assert found[r, c] == bool(crossed % 2)


def boxes(mask: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """Contours in LPS mm: for every run of a row of every slice its rectangle, half a pixel around the centres."""
    contours = []
    for s, r in np.argwhere(mask.any(2)):
        edges = np.flatnonzero(np.diff(np.r_[0, mask[s, r].astype(int), 0]))
        for first, last in edges.reshape(-1, 2):
            corners = [(s, r + dr, c - 0.5) for dr, c in ((-0.5, first), (-0.5, last), (0.5, last), (0.5, first))]
            contours.append(grid.world(np.array(corners)))
    return contours


def test_a_structure_set_comes_back_by_position(ct, tmp_path):
    files, study, masks = ct
    names = {"Liver": "liver", "SPLEEN": "spleen", "Kidney_L": "left_kidney", "rt kidney": "right_kidney"}
    grid = study.images[0].grid
    regions = [(name, boxes(masks[label], grid)) for name, label in names.items()]
    structure_set(files, regions, tmp_path / "rs.dcm")
    found = findings(tmp_path / "rs.dcm", study, files)
    same(found, {label: masks[label] for label in ORGANS})
    assert {f.by.name for f in found} == {"dicom-rtstruct/manual"}


def test_a_contour_inside_another_cuts_a_hole(ct, tmp_path):
    files, study, _ = ct
    grid = study.images[0].grid

    def square(low: float, high: float) -> np.ndarray:
        return grid.world(np.array([(2, low, low), (2, low, high), (2, high, high), (2, high, low)]))

    structure_set(files, [("Liver", [square(9.5, 29.5), square(14.5, 19.5)])], tmp_path / "rs.dcm")
    (found,) = findings(tmp_path / "rs.dcm", study)
    assert found.region.data.sum() == 20**2 - 5**2
    assert not found.region.data[2, 17, 17]


def test_a_region_without_a_known_name_is_uncoded(ct, tmp_path):
    files, study, masks = ct
    contours = boxes(masks["liver"], study.images[0].grid)

    def coded(ds):
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "78961009", "SCT", SECRET
        ds.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence = [item]

    structure_set(files, [(SECRET, contours), (SECRET, contours)], tmp_path / "rs.dcm", coded)
    first, second = findings(tmp_path / "rs.dcm", study)
    assert (first.label, first.code.scheme) == ("uncoded", "FOVEA")
    assert second.label == "spleen"


def measured(value: float, unit, name=codes.SCT.Diameter, **more) -> sr.Measurement:
    return sr.Measurement(name, value, unit, **more)


def nodule(region, measures, site=LIVER, kind=("52988006", SECRET), side=None, **more):
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations
    return group(
        sr.TrackingIdentifier(identifier=SECRET), referenced_region=region, finding_type=code(kind),
        finding_sites=[sr.FindingSite(code(site), laterality=side)], measurements=measures, **more,
    )  # fmt: skip


def plain() -> sr.MeasurementsAndQualitativeEvaluations:
    """A measurement of a liver, wherever in it."""
    return sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(identifier=SECRET), finding_type=code(LIVER), measurements=[measured(9, CM)]
    )


def test_a_report_gives_regions_measures_and_units(ct, tmp_path):
    files, study, _ = ct
    grid = study.images[0].grid
    image = pydicom.dcmread(files[4])
    corners = grid.world(np.array([(4, 9.5, 9.5), (4, 9.5, 29.5), (4, 19.5, 29.5), (4, 19.5, 9.5), (4, 9.5, 9.5)]))
    solid = sr.ImageRegion3D("POLYGON", corners, image.FrameOfReferenceUID)
    flat = sr.ImageRegion(  # SCOORD counts from the corner of the first pixel
        "POLYLINE", np.array([(10, 10), (30, 10), (30, 20), (10, 20), (10, 10)], float),
        sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
    )  # fmt: skip
    circle = sr.ImageRegion(
        "CIRCLE",
        np.array([(50.5, 40.5), (60.5, 40.5)]),
        sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
    )
    secret = sr.CodedConcept(SECRET[:8], "99DOE", SECRET)
    groups = [
        nodule(solid, [measured(1.5, CM), measured(2500, MM3, codes.SCT.VolumeProperty)]),
        nodule(
            flat, [measured(-50, HU, codes.SCT.Area, derivation=codes.SCT.Mean)],
            LUNG, ("27925004", SECRET), codes.SCT.Left,
        ),
        nodule(circle, [measured(3, code(("{DOE}", SECRET), "UCUM")), measured(4, MM, secret)], SPLEEN),
    ]  # fmt: skip
    report(files, groups, tmp_path / "sr.dcm")
    lesion, lung, other = findings(tmp_path / "sr.dcm", study, files)
    assert [(m.name, m.value, m.unit) for m in lesion.measures] == [("diameter", 15, "mm"), ("volume", 2.5, "mL")]
    assert (lesion.label, lesion.by.name, lesion.location) == ("liver_lesion", "dicom-sr/person", "")
    expected = np.zeros(grid.shape, bool)
    expected[4, 10:20, 10:30] = True
    assert np.array_equal(lesion.region.data, expected)
    assert (lung.label, lung.location, lung.measures[0].name) == ("nodule", "left", "area_mean")
    assert lung.measures[0].unit == "[hnsf'U]"
    assert np.array_equal(lung.region.data, expected)
    assert (other.label, other.code.meaning) == ("SCT:52988006", "Lesion")
    assert [(m.name, m.unit) for m in other.measures] == [("volume", "mL")], "one has no unit, the other no name"
    assert other.region.data[4].sum() == pytest.approx(np.pi * 100, rel=0.03)
    assert np.argwhere(other.region.data).mean(0) == pytest.approx((4, 40, 50), abs=0.1)
    without = findings(tmp_path / "sr.dcm", study)
    assert [f.region is None for f in without] == [False, True, True]


def test_a_report_measures_the_segments_of_a_segmentation(ct, tmp_path):
    files, study, masks = ct
    seg = segmentation(files, {"liver": masks["liver"], "spleen": masks["spleen"]}, tmp_path / "seg.dcm")
    series = sr.SourceSeriesForSegmentation(pydicom.dcmread(files[0]).SeriesInstanceUID)
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(identifier=SECRET),
        referenced_segment=sr.ReferencedSegment(seg.SOPClassUID, seg.SOPInstanceUID, 2, source_series=series),
        finding_type=code(("78961009", SECRET)),
        measurements=[measured(7, ML, codes.SCT.VolumeProperty)],
    )  # fmt: skip
    report(files, [group], tmp_path / "sr.dcm", [seg])
    (alone,) = findings(tmp_path / "sr.dcm", study)
    assert (alone.label, alone.region, alone.measure("volume").value) == ("spleen", None, 7)
    *_, found = findings([tmp_path / "sr.dcm", tmp_path / "seg.dcm"], study, files)
    assert found.by.name == "dicom-sr/person"
    assert np.array_equal(found.region.data, masks["spleen"])


def test_a_segmentation_of_a_radiograph_is_laid_as_the_radiograph(tmp_path):
    """One radiograph that is stored as it is shown, and one that is mirrored."""
    seen = {}
    for number in (n for n in range(99) if n % 3 != 2):
        sample = synth.study(tmp_path, 3, number)
        path = Path(sample.path)
        mirrored = pydicom.dcmread(path).PatientOrientation[0] == "R"
        if mirrored in seen:
            continue
        masks = {f.label: f.region.data for f in sample.facts.findings if f.label in ("left_lung", "heart")}
        stored = {label: mask[..., ::-1] if mirrored else mask for label, mask in masks.items()}
        segmentation([path], stored, tmp_path / "seg.dcm")
        study = reader.load(path)
        found = findings(tmp_path / "seg.dcm", study, [path])
        same(found, masks)
        assert all(f.measure("area").value > 5 for f in found)
        with pytest.raises(GeometryError, match="without positions"):
            findings(tmp_path / "seg.dcm", study)
        seen[mirrored] = number
        if len(seen) == 2:
            return
    pytest.fail("no mirrored radiograph")


def test_an_object_about_other_images_is_refused(ct, tmp_path):
    files, study, masks = ct
    sample = synth.study(tmp_path / "other", 3, 2)
    for file in Path(sample.path).iterdir():
        ds = pydicom.dcmread(file)
        ds.SOPInstanceUID, ds.SeriesInstanceUID = f"{ds.SOPInstanceUID}.1"[-64:], "1.2.3.4"
        ds.FrameOfReferenceUID = "1.2.3.5"
        ds.save_as(file)
    others = sorted(Path(sample.path).iterdir())
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")
    with pytest.raises(InputError, match="other images"):
        findings(tmp_path / "seg.dcm", reader.load(Path(sample.path)), others)
    with pytest.raises(InputError, match="not those of the study"):
        findings(tmp_path / "seg.dcm", study, others)


def test_the_image_is_the_one_on_which_the_object_lies(ct, tmp_path):
    files, study, masks = ct
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")
    image = study.images[0]
    far = np.array(image.grid.affine)
    far[2, 3] += 5000
    other = replace(image, grid=Grid(far, LPS, image.grid.shape))
    (found,) = findings(tmp_path / "seg.dcm", replace(study, images=(other, image)))
    assert found.image == 1
    with pytest.raises(GeometryError):
        findings(tmp_path / "seg.dcm", replace(study, images=(other,)))


def test_no_word_of_a_file_passes(ct, tmp_path, capfd, caplog):
    files, study, masks = ct
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")
    private = pydicom.dcmread(tmp_path / "seg.dcm")
    item = private.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    item.CodeValue, item.CodingSchemeDesignator = "DOE JANE", "99DOE"
    private.save_as(tmp_path / "private.dcm")
    item.CodeValue, item.CodingSchemeDesignator = "DOE JANE", "SCT"
    private.save_as(tmp_path / "false.dcm")
    structure_set(files, [(SECRET, boxes(masks["liver"], study.images[0].grid))], tmp_path / "rs.dcm")
    report(files, [plain()], tmp_path / "sr.dcm")
    said = []
    for name in ("seg", "private", "false", "rs", "sr"):
        found = findings(tmp_path / f"{name}.dcm", study, files)
        said += [repr(found), *(repr(f.region) for f in found)]
        if name in ("private", "false"):
            assert [f.label for f in found] == ["uncoded"]
        data = (tmp_path / f"{name}.dcm").read_bytes()
        (tmp_path / "broken.dcm").write_bytes(data[: len(data) // 2])
        try:
            findings(tmp_path / "broken.dcm", study)
        except InputError as error:
            said += [str(error), repr(error.__cause__)]
    said += [*capfd.readouterr(), *(record.getMessage() for record in caplog.records)]
    assert "DOE" not in " ".join(said)
    assert "JANE" not in " ".join(said)


def test_images_are_no_findings_and_findings_no_images(ct, tmp_path):
    files, study, masks = ct
    with pytest.raises(UnsupportedError, match="Load images"):
        findings(files[0], study)
    segmentation(files, {"liver": masks["liver"]}, tmp_path / "seg.dcm")
    report(files, [plain()], tmp_path / "sr.dcm")
    structure_set(files, [("Liver", [])], tmp_path / "rs.dcm")
    for name in ("seg", "sr", "rs"):
        with pytest.raises(UnsupportedError, match="refers to"):
            reader.load(tmp_path / f"{name}.dcm")


def test_broken_objects_raise_nothing_but_input_errors(ct, tmp_path):
    files, study, masks = ct
    segmentation(files[:4], {"liver": masks["liver"][:4]}, tmp_path / "seg.dcm")
    structure_set(files, [("Liver", boxes(masks["liver"][:3], study.images[0].grid))], tmp_path / "rs.dcm")
    report(files[:2], [plain()], tmp_path / "sr.dcm")
    random, failed = Random(2), 0
    for turn in range(90):
        data = bytearray((tmp_path / ("seg.dcm", "rs.dcm", "sr.dcm")[turn % 3]).read_bytes())
        for _ in range(random.randint(1, 8)):
            data[random.randrange(300, len(data))] = random.randrange(256)
        path = tmp_path / "broken.dcm"
        path.write_bytes(data[: random.randrange(200, len(data))] if turn % 4 == 0 else data)
        try:
            for found in findings(path, study):
                assert found.region is None or isinstance(found.region, Mask)
        except InputError:
            failed += 1
    assert failed > 20
