"""Objects: what the network learns, what it says of each, and how that is examined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experts import boxes as rectangles
from experts import detection, detection_examination, detection_training
from experts.calibration import Calibration
from experts.network import NetworkExpert
from experts.settings import ExpertConfig
from fovea import config as recipes
from fovea import registry
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.testing import ExpertContract, check_finding
from fovea.types import Box, Code, Facts, Finding, Instance, Mask, OrientedBox, Origin

CODE = Code("99FOVEA", "bar", "bar")
SIDE = 64
RECIPE = {
    "name": "bars",
    "kind": "detection",
    "task": "finds bars",
    "modalities": ["optical"],
    "channels": ["red"],
    "size": [1, SIDE, SIDE],
    "low": 0.0,
    "high": 1.0,
    "labels": {"bar": {"measures": ["count", "length", "bearing"], "location": "quadrant", "code": CODE}},
    "training": {"steps": 160, "batch": 6, "width": 8, "rate": 0.01, "turns": True},
}


def recipe(**changes):
    return recipes.parse(ExpertConfig, RECIPE | changes)


def bars(seed, n=None, side=SIDE, pixel=10.0):
    """A scene of bright bars on noise, and where they are."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 4)) if n is None else n
    found = rectangles.NO_BOXES
    while len(found) < n:
        one = np.array(
            [[*rng.uniform(10, side - 10, 2), rng.uniform(14, 22), rng.uniform(5, 7), rng.uniform(-1.5, 1.5)]]
        )
        if not len(found) or np.hypot(*(found[:, :2] - one[0, :2]).T).min() > 20:
            found = np.concatenate((found, one))
    red = 0.2 + 0.05 * rng.normal(size=(side, side)) + 0.5 * rectangles.covered(found, (side, side))
    study = scenes.study(scenes.optical({"red": red.astype(np.float32)}, scenes.scene_grid(side, side, pixel)))
    regions = [rectangles.to_region(box, True, (side, side)) for box in found]
    instances = tuple(Instance(region, 1.0) for region in regions)
    truth = (Finding("bar", CODE, True, 1.0, Origin("truth", "1"), instances=instances),) if n else ()
    return study, Facts(truth, frozenset({"bar"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bars")
    detection.train(recipe(), [bars(i) for i in range(60)], [bars(i) for i in range(100, 130)], folder, 0)
    return folder


@pytest.fixture(scope="module")
def expert(folder):
    return detection.open(folder)


class TestBars(ExpertContract):
    @pytest.fixture(scope="class", params=["as calibrated", "eager"])
    @classmethod
    def expert(cls, folder, request):
        expert = detection.open(folder)
        if request.param == "eager":
            expert.calibrations = {k: replace(c, threshold=0.0) for k, c in expert.calibrations.items()}
        return expert

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return bars(200, 3)[0]


def test_bars_are_found_counted_and_measured(expert):
    rows = {row.metric: row for row in expert.card.performance}
    assert rows["ap50"].value > 0.8
    assert rows["f1"].value > 0.8
    assert rows["ap50"].low <= rows["ap50"].value <= rows["ap50"].high
    assert rows["ece"].value < 0.2
    assert {"ece_uncalibrated", "precision", "recall", "error of count"} <= set(rows)
    right = 0
    for seed in range(300, 310):
        study, facts = bars(seed, 2)
        finding = expert.run(study, "bar")[0]
        check_finding(finding, study)
        if len(finding.instances) != 2:
            continue
        right += 1
        assert finding.measure("count").value == 2
        assert 0 < finding.measure("count").uncertainty < 2
        assert [i.score for i in finding.instances] == sorted((i.score for i in finding.instances), reverse=True)
        regions = [instance.region for instance in facts.findings[0].instances]
        longest = max(regions, key=lambda region: region.length)
        assert finding.measure("length").value == pytest.approx(10 * longest.length, rel=0.25)
        told = max(finding.instances, key=lambda instance: instance.measures[0].value)
        assert finding.measure("bearing") == told.measures[1]
        nearest = min(regions, key=lambda region: np.hypot(*np.subtract(region.center, told.region.center)))
        bearing = (90 + nearest.angle) % 180
        assert abs((told.measures[1].value - bearing + 90) % 180 - 90) < 15
        np.testing.assert_array_equal(
            finding.region.data[0],
            rectangles.covered(
                np.concatenate([rectangles.of_region(i.region, True) for i in finding.instances]), (SIDE, SIDE)
            ),
        )
    assert right >= 6


def test_nothing_is_found_where_nothing_is(expert):
    empty = [expert.run(bars(seed, 0)[0], "bar")[0] for seed in range(400, 406)]
    assert sum(finding.present for finding in empty) <= 1
    assert all(finding.score < 0.8 for finding in empty)
    assert all(not finding.instances for finding in empty if not finding.present)


def test_large_scenes_are_read_by_windows(expert, folder):
    """With a spacing each object is told once, whichever windows see it, and the scene is never read as a whole."""
    spaced = recipe(spacing=[1, 10, 10], training=RECIPE["training"] | {"steps": 140})
    made = detection.train(
        spaced, [bars(i) for i in range(40)], [bars(i) for i in range(100, 120)], folder / "spaced", 0
    )
    assert "windows" in made.accepts
    wide = detection.open(folder / "spaced")
    study, facts = bars(500, 9, 160)
    asked, image = [], study.images[0]

    def read(window, shape):
        asked.append(window)
        return image.read(window, shape)

    finding = wide.run(replace(study, images=(replace(image, read=read),)), "bar")[0]
    check_finding(finding, study)
    truth = detection_training.truth(facts, "bar", 0, True)
    found = np.concatenate([rectangles.of_region(i.region, True) for i in finding.instances])
    fits = detection_examination.matched(found, truth).sum()
    assert fits >= 5
    at_once = NetworkExpert.outputs(wide, [study])[0]  # the network over the whole scene
    told = wide.calibrations["bar"].probabilities(at_once.evidence["bar"]) >= wide.calibrations["bar"].threshold
    assert abs(fits - detection_examination.matched(at_once.boxes["bar"][told], truth).sum()) <= 1
    near = np.hypot(*(found[:, None, :2] - found[None, :, :2]).transpose(2, 0, 1)) + 99 * np.eye(len(found))
    assert near.min() > 8
    assert all(window is not None and window.rows[1] - window.rows[0] <= 2 * SIDE for window in asked)


def test_upright_boxes_are_told_without_length_or_bearing(tmp_path):
    plain = recipe(labels={"bar": {"measures": ["count"], "code": CODE}}, training=RECIPE["training"] | {"steps": 2})
    assert not detection.is_oriented(plain)
    detection.train(plain, [bars(i, 2) for i in range(4)], [bars(i, 2) for i in range(4)], tmp_path, 0)
    expert = detection.open(tmp_path)
    expert.calibrations = {"bar": Calibration(threshold=0.0)}
    finding = expert.run(bars(9, 2)[0], "bar")[0]
    assert all(isinstance(instance.region, Box) and not instance.measures for instance in finding.instances)
    assert [measure.name for measure in finding.measures] == ["count"]


def said(shapes):
    """Targets (5, cell, cell) as the network says them: the angle as cosine and sine of twice of it."""
    turn = 2 * shapes[4:5]
    return np.concatenate((shapes[:4], np.cos(turn), np.sin(turn))).astype(np.float32)


def test_targets_are_decoded_as_what_was_drawn():
    """What the network should say, said in full, gives the boxes back."""
    for seed in range(20):
        _, facts = bars(seed, 3)
        boxes = detection_training.truth(facts, "bar", 0, True)
        shown = detection_training.Shown(torch.zeros(1, SIDE, SIDE), (boxes,), (True,))
        peaks, known, shapes, weights = detection_training.draw(shown)
        assert known.item() == 1
        assert (peaks == 1).sum() == 3
        assert weights.sum() == pytest.approx(3, abs=1e-4)
        logits = torch.from_numpy(np.concatenate((np.where(peaks == 1, 5.0, 20 * peaks - 20), said(shapes[0]))))
        found, evidence = detection.decode(recipe(), logits)["bar"]
        strong = found[evidence > 0]
        assert len(strong) == 3
        assert detection_examination.matched(strong, boxes).all()
        assert np.diag(np.sort(rectangles.overlaps(strong, boxes), 1)[:, -1:]).min() > 0.95


def test_the_loss_ends_where_the_targets_are_met():
    boxes = detection_training.truth(bars(0, 3)[1], "bar", 0, True)
    shown = detection_training.Shown(torch.zeros(1, SIDE, SIDE), (boxes,), (True,))
    targets = [torch.from_numpy(part)[None] for part in detection_training.draw(shown)]
    shapes = torch.from_numpy(said(targets[2][0, 0].numpy()))[None]
    right = torch.cat((torch.where(targets[0] == 1, 20.0, -20.0), shapes), 1)
    assert detection_training.detection_loss(right, *targets).item() == pytest.approx(0, abs=1e-3)
    assert detection_training.detection_loss(-right, *targets).item() > 5
    targets[1] = torch.zeros(1, 1, 1, 1)
    unknown = torch.cat((-right[:, :1], right[:, 1:]), 1)
    assert detection_training.detection_loss(unknown, *targets).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("oriented", [True, False])
def test_what_is_varied_is_not_half_a_pixel_beside_its_boxes(oriented):
    """Objects of three pixels are lost by less."""
    wanted, off = recipe() if oriented else recipe(labels={"bar": {"measures": ["count"]}}), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn = rectangles.covered(np.array([[*rng.uniform(24, 40, 2), 14, 6, 0.4]]), (SIDE, SIDE))
        place = np.argwhere(drawn).mean(0)
        pixels = torch.from_numpy(np.stack([drawn] * 4).astype(np.float32))  # the last is not made brighter
        one = detection_training.Shown(pixels, (np.array([[*place, 14, 6, 0.4]]),), (True,))
        varied = detection_training.vary(wanted, one, rng)
        light = varied.pixels[3].numpy()
        center = (np.mgrid[:SIDE, :SIDE] * light).sum((1, 2)) / light.sum()
        if (abs(center - SIDE / 2) < SIDE / 2 - 14).all():
            off.append(varied.boxes[0][0, :2] - center)
    assert len(off) > 15
    assert abs(np.array(off)).max() < 0.2


@given(st.floats(6, 40), st.floats(0.2, 0.9), st.floats(-1.5, 1.5), st.floats(1.2, 3), st.booleans())
def test_boxes_are_as_far_off_at_every_scale(length, slimness, turn, scale, oriented):
    """Half a width off is as bad for a large box as for a small one, and worse than as much along it."""
    turn = turn * oriented
    along, across = np.array((np.sin(turn), np.cos(turn))), np.array((np.cos(turn), -np.sin(turn)))

    def off(length, way=0.0, size=0.0, more=0.0):
        width = slimness * length
        wanted = np.array([0, 0, np.log(length), np.log(width), turn])
        told = wanted + np.array([*(way * width / 2 / detection.STRIDE), size, 0, more])
        shapes = (torch.from_numpy(part.astype(np.float32))[:, None, None] for part in (told, wanted))
        told, wanted = (one[None, None] for one in shapes)
        heard = torch.from_numpy(said(told[0, 0].numpy()))[None, None] if oriented else told[:, :, :4]
        return detection_training.misfit(heard, wanted).item()

    assert off(length, 0 * across) == pytest.approx(0, abs=2e-3)
    assert off(length, across) == pytest.approx(1, abs=1e-3)
    assert off(length, along) == pytest.approx(slimness, abs=1e-3)
    assert off(length, 0 * along, size=0.3) == pytest.approx(0.3, abs=2e-3)
    assert off(scale * length, across, 0.2, 0.3) == pytest.approx(off(length, across, 0.2, 0.3), abs=1e-3)
    if oriented:
        assert 0 < off(length, 0 * along, more=0.3) <= 2 * 2 * 0.3 * (1 - slimness) + 2e-3


def test_large_objects_are_found_beside_many_small_ones(tmp_path):
    """Sizes are learned by label, all over a peak: one large square a scene, among dots."""
    wanted = recipe(
        labels={"square": {"measures": ["count"]}, "dot": {"measures": ["count"]}},
        training={"steps": 150, "batch": 6, "width": 8, "rate": 0.01},
    )
    card = detection.train(wanted, [squares(i) for i in range(40)], [squares(i) for i in range(100, 120)], tmp_path, 0)
    found = {row.label: row.value for row in card.performance if row.metric == "ap50"}
    assert min(found.values()) > 0.8, found


def squares(seed):
    """A scene of one large square, of 20 to 36 pixels, and six dots of 5."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(20, 36)
    large = np.array([[*rng.uniform(side / 2, SIDE - side / 2, 2), side, side, 0.0]])
    small = rectangles.NO_BOXES
    while len(small) < 6:
        one = np.array([[*rng.integers(3, SIDE - 3, 2), 5.0, 5.0, 0.0]])
        if (
            abs(np.concatenate((large, small))[:, :2] - one[0, :2]).max(1) > 7 + np.r_[side / 2, [0] * len(small)]
        ).all():
            small = np.concatenate((small, one))
    pixels = 0.2 + 0.05 * rng.normal(size=(SIDE, SIDE))
    for boxes, light in ((large, 0.3), (small, 0.6)):
        pixels += light * rectangles.covered(boxes, (SIDE, SIDE))
    study = scenes.study(scenes.optical({"red": pixels.astype(np.float32)}, scenes.scene_grid(SIDE, SIDE, 10.0)))
    by, findings = Origin("truth", "1"), []
    for label, boxes in (("square", large), ("dot", small)):
        regions = [rectangles.to_region(box, False, (SIDE, SIDE)) for box in boxes]
        findings.append(Finding(label, CODE, True, 1.0, by, instances=tuple(Instance(r, 1.0) for r in regions)))
    return study, Facts(tuple(findings), frozenset({"square", "dot"}))


def test_training_stops_where_precision_no_longer_grows(tmp_path):
    said = []
    early = recipe(training=RECIPE["training"] | {"steps": 60, "patience": 1, "check": 10, "rate": 1e-6})
    pairs = [bars(i, 2) for i in range(16)]
    detection.train(early, pairs, pairs[:4], tmp_path, 0, log=lambda *told: said.append(told))
    checks = [step for name, _, step in said if name.endswith("validation score")]
    assert 1 < len(checks) < 6
    assert said[-1][0] == "bars/best step"


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40)
def test_what_is_varied_still_lies_under_its_boxes(seed, oriented):
    rng = np.random.default_rng(seed)
    study, facts = bars(seed, 2)
    wanted = recipe() if oriented else recipe(labels={"bar": {"measures": ["count"]}})
    shown = detection_training.gather(wanted, [(study, facts)])[0][0]
    varied = detection_training.vary(wanted, shown, rng)
    if not oriented:
        edges = np.stack(
            (
                varied.boxes[0][:, :2] - varied.boxes[0][:, 3:1:-1] / 2,
                varied.boxes[0][:, :2] + varied.boxes[0][:, 3:1:-1] / 2,
            )
        )
        assert ((edges >= -0.5 - 1e-6) & (edges <= SIDE - 0.5 + 1e-6)).all()
    assert varied.pixels.shape == shown.pixels.shape
    inside = [box for box in varied.boxes[0] if ((box[:2] > box[2] * 0.75) & (box[:2] < SIDE - box[2] * 0.75)).all()]
    for box in inside:
        core = box.copy()
        if oriented:
            core[2:4] *= 0.7
            assert varied.pixels[0].numpy()[rectangles.covered(core[None], (SIDE, SIDE))].mean() > 0.5
        mask = rectangles.covered(box[None], (SIDE, SIDE))
        around = rectangles.covered((box * (1, 1, 1.5, 2.5, 1))[None], (SIDE, SIDE)) & ~mask
        bright = varied.pixels[0].numpy()
        assert bright[mask].mean() > bright[around].mean()


def test_the_truth_may_be_boxes_instances_or_masks():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 2:5, 3:9] = mask[0, 10:14, 10:12] = True
    box = Box((0, 2, 3), (1, 5, 9))
    by = Origin("truth", "1")

    def boxes(*findings, assessed=("bar",), image=0):
        return detection_training.truth(Facts(findings, frozenset(assessed)), "bar", image, False)

    assert len(boxes(Finding("bar", CODE, True, 1.0, by, region=Mask(mask)))) == 2
    assert len(boxes(*[Finding("bar", CODE, True, 1.0, by, region=box)] * 3)) == 3
    assert len(boxes(Finding("bar", CODE, True, 1.0, by, region=Mask(mask), instances=(Instance(box, 1.0),)))) == 1
    assert len(boxes()) == 0
    assert boxes(Finding("bar", CODE, True, 1.0, by)) is None  # somewhere
    assert boxes(assessed=()) is None


def test_the_same_seed_gives_the_same_expert(tmp_path):
    short = recipe(training=RECIPE["training"] | {"steps": 3})
    pairs = [bars(i) for i in range(6)]
    versions = {
        detection.train(short, pairs, pairs, tmp_path / str(n), seed).version for n, seed in enumerate((1, 1, 2))
    }
    assert len(versions) == 2


def test_what_boxes_cannot_tell_is_refused(tmp_path):
    for changes in (
        {"labels": {"bar": {"measures": ["area_m2"]}}},
        {"labels": {"bar": {}, "long": {"rule": {"measure": "length", "of": "bar", "above": 3}}}},
        {"size": [16, SIDE, SIDE]},
        {"labels": {"bar": {"operating": "specificity>=0.9"}}},
    ):
        with pytest.raises(ConfigError):
            detection.train(recipe(**changes), [], [], tmp_path, 0)
    with pytest.raises(ModelError):
        detection.open(None)


def test_other_studies_are_refused(expert):
    study = bars(0)[0]
    assert not expert.accepts(replace(study, meta={"modality": "radar"}))
    blind = replace(study.images[0], read=lambda w, s: (study.images[0].pixels, ~study.images[0].valid))
    with pytest.raises(ExpertError, match="no data"):
        expert.run(scenes.study(blind), "all")


def test_made_up_ships_are_truth_to_learn_from(tmp_path):
    """The masks of ships in made-up scenes become as many boxes, as long as the truth says."""
    domain, seen = registry.domain("remote_sensing"), 0
    for sample in domain.synth(tmp_path, 5, seed=3):
        finding = sample.facts.finding("ship")
        if finding:
            boxes = detection_training.truth(sample.facts, "ship", 0, True)
            grid = domain.load(tmp_path / sample.path).images[0].grid
            regions = [rectangles.to_region(box, True, grid.shape[1:]) for box in boxes]
            lengths = [detection.lengths(region, grid, 1.0)[0].value for region in regions]
            assert len(boxes) == finding.measure("count").value
            assert max(lengths) == pytest.approx(finding.measure("length").value, rel=0.2)
            assert all(isinstance(region, OrientedBox) for region in regions)
            seen += 1
    assert seen
