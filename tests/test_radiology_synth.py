"""Made radiographs and CT series: the physics against references, the files against readers, the truth against both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from pydicom import dcmread
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation
from scipy import ndimage
from scipy.spatial.distance import pdist

from domains.radiology import reader
from domains.radiology.anatomy import Patient, caliper
from domains.radiology.beam import Beam, chain, ellipsoids, tubes, turn
from domains.radiology.chest import Plan
from domains.radiology.synth import CT_LABELS, RADIOGRAPH_LABELS, study, synth
from domains.radiology.thorax import radiograph
from domains.radiology.vocabulary import TERMS
from fovea.types import DETECTOR, LPS

BEAM = Beam((12.0, 1700.0, -20.0), -110.0, (-160.0, 150.0), 1.3, (230, 250))
SEED, COUNT = 11, 40


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return synth(tmp_path_factory.mktemp("synth") / "new", COUNT, SEED)


@pytest.fixture(scope="module")
def pairs(samples):
    return [(reader.load(Path(sample.path)), sample.facts) for sample in samples]


@pytest.fixture(scope="module")
def radiographs(pairs):
    return [(study.images[0], facts) for study, facts in pairs if study.modality == "DX"]


@pytest.fixture(scope="module")
def volumes(pairs):
    return [(study.images[0], facts) for study, facts in pairs if study.modality == "CT"]


def rays(beam):
    """Source (3,) and unit directions (row, column, 3)."""
    x = beam.corner[0] + np.arange(beam.shape[1]) * beam.spacing
    z = beam.corner[1] - np.arange(beam.shape[0]) * beam.spacing
    pixels = np.stack(np.broadcast_arrays(x, beam.plane, z[:, None]), -1)
    ray = pixels - np.array(beam.source)
    return np.array(beam.source), ray / np.linalg.norm(ray, axis=-1, keepdims=True)


def sampled(beam, solids, place, step=0.02):
    """Path length (solid,) of one ray, by counting points inside."""
    source, ray = rays(beam)
    points = source + np.arange(1500, 1850, step)[:, None] * ray[place]
    offset = points[:, None] - solids.center
    inside = np.einsum("mni,nij,mnj->mn", offset, solids.form, offset) <= 1
    height = np.einsum("mni,npi->mnp", offset, solids.normal)
    inside &= (height[..., 0] >= -solids.offset[:, 0]) & (height[..., 1] <= solids.offset[:, 1])
    return inside.sum(0) * step


@pytest.mark.parametrize(("center", "radius"), [((60, 30, -40), 40), ((-110, -80, 90), 12), ((0, 0, 0), 3)])
def test_the_line_integral_of_a_sphere_is_its_chord(center, radius):
    source, ray = rays(BEAM)
    to = source - np.array(center, float)
    below = (ray @ to) ** 2 - (to @ to - radius**2)
    chord = 2 * np.sqrt(np.maximum(below, 0))
    shadow = BEAM.shadows(ellipsoids([center], [[radius] * 3]))
    spans = shadow.spans((0, BEAM.shape[0]), (0, BEAM.shape[1]))
    for length in (spans.length, shadow.deposit(1.0)):
        np.testing.assert_allclose(length * BEAM.obliquity(), chord, atol=0.003 * radius + 0.01)
    np.testing.assert_array_equal(spans.hit[abs(below) > 0.1], (below > 0)[abs(below) > 0.1])
    low, high = shadow.widths()
    columns = np.flatnonzero((below > 0).any(0))
    assert low[0] <= columns[0] < low[0] + 1
    assert high[0] - 1 < columns[-1] <= high[0]


@pytest.mark.parametrize("round_", [True, False])
def test_turned_ellipsoids_and_cut_tubes_agree_with_sampling(round_):
    rng = default_rng(0)
    pose = turn(20, 2) @ turn(-30, 0) @ turn(50, 1)
    start = rng.normal(0, 40, (6, 3))
    if round_:
        solids = ellipsoids(start, rng.uniform(4, 40, (6, 3)), pose)
    else:
        solids = tubes(start, start + rng.normal(0, 25, (6, 3)), rng.uniform(3, 12, (6, 2)))
    solids = solids.turned(pose)
    for k in range(len(solids)):
        image = BEAM.shadows(solids[k : k + 1]).deposit(1.0) * BEAM.obliquity()
        places = np.argwhere(image > 0)
        assert len(places)
        for place in places[:: max(1, len(places) // 6)]:
            expected = sampled(BEAM, solids[k : k + 1], tuple(place)).sum()
            assert image[tuple(place)] == pytest.approx(expected, abs=0.05 if round_ else 0.35)


def test_a_chain_counts_no_length_twice():
    angle = np.linspace(0, 2.5, 9)
    points = np.stack([60 * np.sin(angle), 50 * np.cos(angle), -8 * angle], 1)
    bent = chain(points, (6.0, 3.5))
    whole = BEAM.shadows(bent).deposit(1.0)
    parts = np.stack([BEAM.shadows(bent[k : k + 1]).deposit(1.0) for k in range(len(bent))])
    np.testing.assert_allclose(parts.sum(0), whole, atol=1e-3)
    volume = whole.sum() * BEAM.spacing**2 * ((1700 - 30) / 1810) ** 2  # shadows of the arc's middle depth
    assert volume == pytest.approx(np.pi * 6 * 3.5 * np.linalg.norm(np.diff(points, axis=0), axis=1).sum(), rel=0.06)
    both = BEAM.shadows(bent).deposit(1.0, 0.7, 1.0)
    assert (both <= whole + 1e-4).all()
    assert both.sum() == pytest.approx(0.51 * whole.sum(), rel=0.05)


def test_what_lies_outside_obstacles_is_what_no_obstacle_covers():
    rng = default_rng(1)
    solids = ellipsoids(rng.normal(0, 25, (4, 3)), rng.uniform(30, 70, (4, 3)))
    spans = [BEAM.shadows(solids[k : k + 1]).spans((0, BEAM.shape[0]), (0, BEAM.shape[1])) for k in range(4)]
    left = spans[0].outside(*spans[1:])
    depth = np.arange(1500, 1850, 0.25)[:, None, None]
    rows, columns = slice(None, None, 20), slice(None, None, 20)
    inside = [(depth > near[rows, columns]) & (depth < far[rows, columns]) for near, far in spans]
    expected = (inside[0] & ~inside[1] & ~inside[2] & ~inside[3]).sum(0) * 0.25
    np.testing.assert_allclose(left[rows, columns], expected, atol=1.1)
    assert expected.max() > 20


@pytest.mark.parametrize("size", [5.0, 9.0, 17.0, 31.0])
def test_the_caliper_is_right_for_discs(size):
    rows, columns = np.mgrid[:40, :40]
    for shift in default_rng(0).random((20, 2)):
        disc = (rows - 20 - shift[0]) ** 2 + (columns - 19 - shift[1]) ** 2 <= size**2 / 4
        assert caliper(disc, 0.8) == pytest.approx(0.8 * size, abs=0.8 * 0.7)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    def written(name, seed, indices):
        samples = [study(tmp_path / name, seed, index) for index in indices]
        files = {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.dcm")}
        masks = [f.region.data.tobytes() for s in samples for f in s.facts.findings if f.region]
        return files, masks

    first, masks = written("first", 3, (0, 2))
    again, same = written("again", 3, (2, 0))
    other, _ = written("other", 4, (0, 2))
    assert first == again
    assert sorted(masks) == sorted(same)
    assert not set(first.values()) & set(other.values())


def test_files_are_whole_and_their_patients_invented(samples):
    uids: list[str] = []
    classes = {"DX": DigitalXRayImageStorageForPresentation, "CT": CTImageStorage}
    for sample in samples:
        path = Path(sample.path)
        for file in sorted(path.rglob("*.dcm")) if path.is_dir() else [path]:
            ds = dcmread(file)
            assert ds.SOPClassUID == classes[ds.Modality]
            assert ds.pixel_array.shape == (ds.Rows, ds.Columns)
            assert ds.pixel_array.max() < 2**ds.BitsStored
            assert str(ds.PatientName).startswith("Synthetic^")
            assert ds.PatientID == f"SYNTHETIC-{sample.group}"
            assert all(uid.is_valid for uid in (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID))
            uids.append(ds.SOPInstanceUID)
    assert len(set(uids)) == len(uids)
    assert all(uid.startswith("2.25.") for uid in uids)


def test_the_kinds_of_file_are_mixed(samples):
    kinds = Counter()
    for sample in samples:
        if sample.path.endswith(".dcm"):
            ds = dcmread(sample.path, stop_before_pixels=True)
            kinds += Counter((ds.PhotometricInterpretation, ds.PatientOrientation[0], ds.ViewPosition))
            kinds["spacing" if "PixelSpacing" in ds else "none"] += 1
            assert 384 <= max(ds.Rows, ds.Columns) <= 512
            kinds["square"] += ds.Rows == ds.Columns
        else:
            slices = [dcmread(p, stop_before_pixels=True) for p in sorted(Path(sample.path).iterdir())]
            heights = [float(ds.ImagePositionPatient[2]) for ds in slices]
            kinds["upwards" if heights == sorted(heights) else "downwards"] += 1
    assert all(kinds[kind] for kind in ("MONOCHROME1", "MONOCHROME2", "L", "R", "PA", "AP", "spacing", "none"))
    assert kinds["upwards"]
    assert kinds["downwards"]
    assert 0 < kinds["square"] < 0.6 * COUNT


def test_a_few_patients_have_two_studies(samples, tmp_path):
    studies = Counter(sample.group for sample in samples)
    assert set(studies.values()) == {1, 2}
    assert sum(count == 2 for count in studies.values()) == COUNT // 10
    files = [Path(s.path) for s in samples if studies[s.group] == 2][:2]
    pair = [dcmread(f if f.is_file() else next(f.iterdir()), stop_before_pixels=True) for f in files]
    assert pair[0].PatientSex == pair[1].PatientSex
    assert pair[0].PatientAge == pair[1].PatientAge
    assert pair[0].StudyInstanceUID != pair[1].StudyInstanceUID
    assert study(tmp_path, SEED + 1, 0).group not in studies


def test_two_of_three_are_radiographs(radiographs, volumes):
    assert len(volumes) == COUNT // 3
    assert len(radiographs) + len(volumes) == COUNT


def test_truth_fits_the_image_that_the_reader_gives(pairs):
    for study_, facts in pairs:
        image = study_.images[0]
        assert image.grid.frame == (LPS if study_.modality == "CT" else DETECTOR)
        assert facts.assessed == set(CT_LABELS if study_.modality == "CT" else RADIOGRAPH_LABELS)
        assert dict(facts.attributes) == ({"view": study_.meta["view"]} if study_.modality == "DX" else {})
        for finding in facts.findings:
            assert finding.label in facts.assessed
            assert finding.code == TERMS[finding.label].code
            assert finding.present
            assert finding.score == 1
            if finding.label == "cardiomegaly":
                assert finding.region is None
                continue
            used = np.flatnonzero(finding.region.data.any(axis=(1, 2)))
            assert finding.region.data.shape == image.grid.shape
            assert finding.slices == (used[0], used[-1] + 1)


def longest(mask, grid):
    """The largest distance between two pixels of one slice of the largest piece, in mm."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    best = 0.0
    for plane in numbers == sizes.argmax():
        if plane.any():
            best = max(best, pdist(np.argwhere(plane) * grid.spacing[1:]).max(initial=0))
    return best


def test_measures_are_those_of_the_masks(pairs):
    seen = Counter()
    for study_, facts in pairs:
        grid = study_.images[0].grid
        for finding in facts.findings:
            if finding.region is None:
                continue
            mask = finding.region.data
            for measure in finding.measures:
                seen[finding.label, measure.name] += 1
                if measure.name == "area":
                    expected = ndimage.sum_labels(np.ones(mask.shape), mask) * np.prod(grid.spacing[1:]) / 100
                    assert (measure.unit, measure.value) == ("cm2", pytest.approx(expected, rel=1e-3))
                elif measure.name == "volume":
                    expected = ndimage.sum_labels(np.ones(mask.shape), mask) * np.prod(grid.spacing) / 1000
                    assert (measure.unit, measure.value) == ("mL", pytest.approx(expected, rel=1e-3))
                elif measure.name == "count":
                    assert measure.value == ndimage.label(mask, np.ones((3, 3, 3)))[1]
                elif measure.name == "longest_diameter":
                    excess = measure.value - longest(mask, grid)
                    assert 0.3 * grid.spacing[1] < excess < 0.75 * grid.spacing[1]
    assert len(seen) == 12  # every measure of every label came up
    assert min(seen.values()) >= 2


def test_the_cardiothoracic_ratio_decides_on_cardiomegaly(radiographs):
    ratios = []
    for _, facts in radiographs:
        heart, *lungs = (facts.finding(name).region.data[0] for name in ("heart", "left_lung", "right_lung"))
        rows, columns = ndimage.find_objects(heart.astype(int))[0]
        width = max(np.ptp(np.flatnonzero(row)) + 1 for row in lungs[0] | lungs[1] if row.any())
        ratio = facts.finding("heart").measure("cardiothoracic_ratio").value
        assert ratio == pytest.approx((columns.stop - columns.start) / width)
        assert (facts.finding("cardiomegaly") is not None) == (ratio > 0.5)
        assert rows.stop - rows.start > 30
        ratios.append(ratio)
    assert min(ratios) < 0.44
    assert max(ratios) > 0.55


def test_sides_are_the_patients_own(radiographs, volumes):
    for _, facts in radiographs:
        left, right = (facts.finding(name).region.data for name in ("left_lung", "right_lung"))
        middle = (ndimage.center_of_mass(left)[2] + ndimage.center_of_mass(right)[2]) / 2
        assert np.argwhere(left)[:, 2].min() > np.argwhere(right)[:, 2].max()
        assert ndimage.center_of_mass(facts.finding("heart").region.data)[2] > middle
        for name in ("pleural_effusion", "pneumothorax", "nodule"):
            finding = facts.finding(name)
            if finding:
                columns = np.nonzero(finding.region.data)[2]
                sides = {"left": (columns > middle).all(), "right": (columns < middle).all()}
                assert sides.get(finding.location, not any(sides.values())), (name, finding.location)
            if finding and name != "nodule":
                assert not (finding.region.data & ~(left | right)).any()
    for _, facts in volumes:
        center = {f.label: ndimage.center_of_mass(f.region.data) for f in facts.findings}
        assert center["liver"][2] < center["spleen"][2]
        for kidney in {"left_kidney", "right_kidney"} & set(center):
            assert center[kidney][0] < center["liver"][0]
            assert (center[kidney][2] > center["liver"][2]) or kidney == "right_kidney"
        lesion = facts.finding("liver_lesion")
        if lesion:
            assert not (lesion.region.data & ~facts.finding("liver").region.data).any()


def from_the_wall(pixels, lung, wanted):
    """Values (row, step) from the lateral edge of a lung inwards; NaN where not wanted."""
    out = np.full((len(pixels), 60), np.nan)
    lateral = 1 if ndimage.center_of_mass(lung)[1] > pixels.shape[1] / 2 else -1
    for row in np.flatnonzero(lung.any(axis=1)):
        columns = np.flatnonzero(lung[row])[::-lateral][: out.shape[1]]
        out[row, : len(columns)] = np.where(wanted[row, columns], pixels[row, columns], np.nan)
    return out


def test_findings_can_be_seen_where_they_are_said_to_be(radiographs):
    """Brightness around each mask: this also holds for files that are mirrored or inverted."""
    visible = Counter()
    for image, facts in radiographs:
        pixels = image.pixels[0, 0]
        masks = {f.label: f.region.data[0] for f in facts.findings if f.region}
        filled = np.logical_or.reduce([m for name, m in masks.items() if "lung" not in name])
        aerated = (masks["left_lung"] | masks["right_lung"]) & ~filled
        dark = (masks["left_lung"] | masks["right_lung"]) & ~masks.get("pleural_effusion", np.zeros_like(filled))
        mirrored = dark[:, ::-1]
        assert np.median(pixels[dark & ~mirrored]) < np.median(pixels[mirrored & ~dark])
        if "pleural_effusion" in masks:
            visible["effusion"] += np.median(pixels[masks["pleural_effusion"]]) > np.median(pixels[aerated])
            visible["effusions"] += 1
        if "support_device" in masks:
            around = ndimage.binary_dilation(masks["support_device"], iterations=5) & ~masks["support_device"]
            visible["device"] += pixels[masks["support_device"]].mean() > pixels[around].mean()
            visible["devices"] += 1
        if "nodule" in masks:
            pieces, n = ndimage.label(masks["nodule"])
            for k in range(1, n + 1):
                core = ndimage.binary_erosion(pieces == k) if (pieces == k).sum() > 40 else pieces == k
                around = ndimage.binary_dilation(pieces == k, iterations=4) & ~(masks["nodule"])
                visible["nodule"] += pixels[core].mean() > pixels[around].mean()
                visible["nodules"] += 1
        if "pneumothorax" in masks:
            near = facts.finding("pneumothorax").location
            rim, healthy = (from_the_wall(pixels, masks[f"{side}_lung"], wanted) for side, wanted in (
                (near, masks["pneumothorax"]), ({"left": "right", "right": "left"}[near], ~filled)))  # fmt: skip
            visible["pneumothorax"] += np.nanmedian(rim - healthy) < 0
            visible["pneumothoraces"] += 1
    for one, many in (("effusion", "effusions"), ("device", "devices"), ("nodule", "nodules"),
                      ("pneumothorax", "pneumothoraces")):  # fmt: skip
        assert visible[many] >= 5
        assert visible[one] >= 0.9 * visible[many], (one, visible)


def test_ct_has_the_densities_of_its_tissues(volumes):
    for image, facts in volumes:
        hu = image.pixels[0]
        masks = {f.label: f.region.data for f in facts.findings}
        assert hu.min() < -950
        inner = {n: ndimage.binary_erosion(m) for n, m in masks.items()}
        lesions = np.logical_or.reduce([m for n, m in masks.items() if "lesion" in n] or [np.zeros(hu.shape, bool)])
        liver = np.median(hu[inner["liver"] & ~lesions])
        assert 10 < liver < 130
        assert 25 < np.median(hu[inner["spleen"]]) < 145
        if "liver_lesion" in masks:
            pieces, n = ndimage.label(masks["liver_lesion"])
            assert all(abs(np.mean(hu[pieces == k]) - liver) > 12 for k in range(1, n + 1))
            assert not (masks["liver_lesion"] & ~masks["liver"]).any()
        for name, (low, high) in {"liver": (600, 2400), "spleen": (50, 700), "left_kidney": (60, 350)}.items():
            if name in masks:
                assert low < facts.finding(name).measure("volume").value < high
        for name in masks:
            assert not masks[name][:, 0].any()
            assert not masks[name][:, :, [0, -1]].any()


def test_every_finding_is_in_a_third_to_a_half_of_the_studies():
    plans = [Plan.draw(default_rng(k)) for k in range(3000)]
    shares = {
        "effusion": np.mean([bool(plan.effusion) for plan in plans]),
        "pneumothorax": np.mean([bool(plan.pneumothorax) for plan in plans]),
        "nodule": np.mean([bool(plan.nodules) for plan in plans]),
        "device": np.mean([plan.device is not None for plan in plans]),
        "large heart": np.mean([plan.ratio > 0.49 for plan in plans]),
    }
    assert all(0.3 < share < 0.5 for share in shares.values()), shares
    for name in ("effusion", "pneumothorax"):
        sides = Counter(side for plan in plans for side in getattr(plan, name))
        assert sides[1] == pytest.approx(sides[-1], rel=0.12)
    table = np.array(
        [[bool(p.effusion), bool(p.pneumothorax), bool(p.nodules), bool(p.device), p.ratio] for p in plans]
    )
    assert abs(np.corrcoef(table.T) - np.eye(5)).max() < 0.07


def test_drawn_findings_reach_the_facts(radiographs):
    shares = Counter(f.label for _, facts in radiographs for f in facts.findings)
    for name in ("cardiomegaly", "pleural_effusion", "pneumothorax", "nodule", "support_device"):
        assert 0.12 < shares[name] / len(radiographs) < 0.7, name


def test_a_patient_keeps_the_body_and_a_study_its_exposure():
    def picture(body, shot):
        return radiograph(Patient.draw(default_rng(body)), default_rng(body), default_rng(shot))

    first, again, another = picture(1, 5), picture(1, 5), picture(2, 5)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.view == another.view
    assert first.pixels.shape != another.pixels.shape or not np.array_equal(first.pixels, another.pixels)
