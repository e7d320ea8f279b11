"""Objects told apart, and how sure measures are where the probabilities of pixels are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import detector_grid, volume_grid
from scipy.special import expit

from experts import measure
from experts.calibration import Calibration
from experts.preparation import prepare
from experts.segmentation import Drawn, SegmentationExpert, build
from experts.settings import ExpertConfig
from fovea.config import parse
from fovea.errors import ConfigError
from fovea.types import Channel, ExpertCard, Grid, Image, Source, Study


def patient_grid(shape, spacing=(1.0, 1.0, 1.0)):
    return volume_grid(shape, spacing, (0, 0, 0), (False, False, False))


def soft_disc(side, center, radius, width):
    """Probabilities (1, side, side) of a disc whose outline is logistic with that width."""
    y, x = np.mgrid[:side, :side]
    return expit((radius - np.hypot(y - center[0], x - center[1])) / width)[None].astype(np.float32)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0, 4.0])
def test_what_is_true_lies_within_two_uncertainties(width):
    """Objects drawn from the probabilities themselves: pixels that err in blocks of three, outlines that move whole."""
    rng, grid = np.random.default_rng(int(width * 10)), detector_grid(96, 96, (1.0, 1.0))
    areas, diameters = [], []
    for _ in range(60):
        radius = rng.uniform(12, 30)
        chances = soft_disc(96, rng.uniform(44, 52, 2), radius, width)
        context = measure.Context(probabilities=chances)
        truth = np.kron(rng.random((32, 32)), np.ones((3, 3))) < chances
        area = measure.area_cm2(chances >= 0.5, grid, context)
        areas.append((area.value - truth.sum() / 100) / area.uncertainty)
        found = measure.longest_diameter(chances >= 0.5, grid, context)
        diameters.append((found.value - 2 * (radius + width * rng.logistic())) / found.uncertainty)
    for errors in (areas, diameters):
        assert np.mean(np.abs(errors) < 2) > 0.85
        assert np.sqrt(np.mean(np.square(errors))) > 0.3, "not far too large either"


def test_pixels_that_err_in_blocks_of_three_scatter_as_said():
    """A half that is there at 7 in 10, beside one at 3 in 10: as many pixels are expected as are drawn."""
    rng, grid = np.random.default_rng(5), detector_grid(30, 60, (1.0, 1.0))
    chances = np.full(grid.shape, 0.7, np.float32)
    chances[..., 30:] = 0.3
    truths = [(np.kron(rng.random((10, 20)), np.ones((3, 3))) < chances).sum() / 100 for _ in range(200)]
    told = measure.area_cm2(chances >= 0.5, grid, measure.Context(probabilities=chances))
    assert np.mean(truths) == pytest.approx(told.value, rel=0.02)
    assert np.std(truths) == pytest.approx(told.uncertainty, rel=0.1)


def test_uncertainty_is_the_same_on_the_networks_grid_and_grows_with_doubt():
    """A map of half the size says the same of the same object."""
    grid = detector_grid(96, 96, (1.0, 1.0))
    mask = soft_disc(96, (47.5, 47.5), 24, 1) >= 0.5

    def spread(width, cell):
        chances = soft_disc(96, (47.5, 47.5), 24, width).reshape(1, 96 // cell, cell, 96 // cell, cell).mean((2, 4))
        context = measure.Context(coarseness=2.0, probabilities=chances, cell=cell**2)
        return measure.area_cm2(mask, grid, context).uncertainty

    assert spread(2, 1) == pytest.approx(spread(2, 2), rel=0.05)
    plain = measure.area_cm2(mask, grid, measure.Context(coarseness=2.0)).uncertainty
    assert plain < spread(0.5, 2) < spread(1, 2) < spread(2, 2)


def test_a_volume_is_less_sure_where_the_network_doubts():
    grid = patient_grid((24, 24, 24))
    away = np.linalg.norm(np.indices(grid.shape) - 11.5, axis=0)
    sharp, soft = (expit((8 - away) / width) for width in (0.2, 1.5))
    mask = away <= 8
    found = [measure.volume(mask, grid, measure.Context(probabilities=p)).uncertainty for p in (sharp, soft)]
    assert measure.volume(mask, grid).uncertainty < found[0] < found[1]


def test_the_count_is_as_sure_as_its_pieces():
    chances = np.zeros((1, 20, 40), np.float32)
    for column, peak in ((5, 0.9), (15, 0.6), (25, 0.3), (35, 0.1)):
        chances[0, 5:8, column : column + 3] = peak
    found = measure.count(chances >= 0.5, Grid.plain(20, 40), measure.Context(probabilities=chances))
    assert found.value == 2
    assert found.uncertainty == pytest.approx(np.sqrt(0.9 * 0.1 + 0.6 * 0.4 + 0.3 * 0.7))
    assert measure.count(chances >= 0.5, Grid.plain(20, 40)).uncertainty is None


@given(st.integers(1, 5), st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_instances_measure_what_each_piece_does_alone(n, seed, limit):
    rng, grid = np.random.default_rng(seed), patient_grid((6, 64, 96), (2.0, 0.7, 0.5))
    chances, alone = np.zeros(grid.shape, np.float32), []
    for cell in rng.permutation(6)[:n]:
        y, x = np.array([cell // 3, cell % 3]) * 32 + rng.uniform(12, 18, 2)
        piece = np.zeros(grid.shape, np.float32)
        piece[1:5] = soft_disc(96, (y, x), rng.uniform(3, 9), rng.uniform(0.1, 0.3))[:, :64]
        piece[piece < 0.05] = 0
        alone.append(piece)
        chances = np.maximum(chances, piece)
    names = ("count", "volume", "longest_diameter", "short_axis", "key_slice")
    context = measure.Context(probabilities=chances)
    told = measure.instances(chances >= 0.5, grid, names, context, limit=limit)
    alone = sorted(alone, key=lambda piece: -np.count_nonzero(piece >= 0.5))
    assert len(told) == min(n, limit)
    for one, piece in zip(told, alone, strict=False):
        mask = piece >= 0.5
        inside = tuple(slice(a, a + k) for a, k in zip(one.region.start, one.region.data.shape, strict=True))
        assert (mask[inside] == one.region.data).all()
        assert mask.sum() == one.region.data.sum()
        assert one.score == pytest.approx(piece[mask].mean(), rel=1e-5)
        expected = [measure.MEASURES[name](mask, grid, measure.Context(probabilities=piece)) for name in names[1:]]
        for found, wanted in zip(one.measures, expected, strict=True):
            assert (found.name, found.unit) == (wanted.name, wanted.unit)
            assert found.value == pytest.approx(wanted.value)
            assert found.uncertainty == pytest.approx(wanted.uncertainty)


def test_an_instance_is_as_sure_as_without_its_neighbour():
    chances = np.zeros((1, 12, 24), np.float32)
    chances[0, 3:9, 3:9] = 0.8
    alone = measure.instances(chances >= 0.5, detector_grid(12, 24, (1, 1)), ["area_cm2"], probabilities=chances)[0]
    chances[0, 3:8, 10:16] = 0.6
    beside = measure.instances(chances >= 0.5, detector_grid(12, 24, (1, 1)), ["area_cm2"], probabilities=chances)[0]
    assert beside.measures == alone.measures


def test_instances_are_few_and_never_specks():
    grid, mask = Grid.plain(10, 10), np.zeros((1, 10, 10), bool)
    assert measure.instances(mask, grid, ("count",)) == ()
    mask[0, 0, 0], mask[0, 4:6, 4:6] = True, True
    (one,) = measure.instances(mask, grid, ("area_cm2",), smallest=2, locate=lambda m: f"{m.sum()} pixels")
    assert (one.region.start, one.score, one.measures, one.location) == ((0, 4, 4), 1.0, (), "4 pixels")


def expert(**label):
    """One that has learned nothing, and what it would have drawn: two nodules in one of two lobes of a CT series."""
    labels = {"upper_lobe": {"reported": False}, "lower_lobe": {"reported": False}, "nodule": label}
    config = parse(
        ExpertConfig,
        {
            "name": "nodules",
            "task": "t",
            "modalities": ["CT"],
            "size": [16, 32, 32],
            "labels": labels,
            "low": 0,
            "high": 1,
        },
    )
    grid = patient_grid((16, 48, 48), (2.0, 0.5, 0.5))
    image = Image.from_array((Channel("HU", "HU"),), grid, np.full((1, *grid.shape), 30, np.float32))
    study = Study("radiology", (image,), Source(("0" * 64,), "test"), {"modality": "CT"})
    maps = np.full((3, *config.size), 0.01, np.float32)
    maps[0, 8:], maps[1, :8] = 0.99, 0.99
    maps[2, 2:6, 4:10, 4:10], maps[2, 9:14, 20:28, 20:28] = 0.9, 0.7
    calibrations = {name: Calibration(threshold=0.0) for name in labels}
    card = ExpertCard("nodules", "1", "t", "", ("CT",), config.arguments)
    told = SegmentationExpert(config, calibrations, build(config), card)
    drawn = Drawn(config, calibrations, prepare(config, study), maps)
    told.outputs = lambda studies: [drawn for _ in studies]
    return told.run(study, "nodule")[0]


def test_an_expert_tells_its_instances_where_they_are_and_what_they_hold():
    measures = ["count", "volume", "mean", "longest_diameter"]
    found = expert(measures=measures, location="within", within=["upper_lobe", "lower_lobe"], instances=5)
    assert [measure.name for measure in found.measures] == measures
    assert found.measure("mean").value == 30
    assert found.measure("count").uncertainty == pytest.approx(np.sqrt(0.09 + 0.21), rel=1e-3)
    assert found.location == "upper_lobe"
    large, small = found.instances
    assert (large.location, small.location) == ("upper_lobe", "lower_lobe")
    assert 0.5 < large.score < 0.7 < small.score < 0.9
    assert sum(one.region.data.sum() for one in found.instances) == found.region.data.sum()
    assert [m.name for m in large.measures] == measures[1:]
    total = sum(one.measures[0].value for one in found.instances)
    assert found.measure("volume").value == pytest.approx(total)
    assert expert(measures=measures).instances == ()


@pytest.mark.parametrize(
    "label", [{"location": "zone"}, {"location": "within"}, {"within": ["x"]}, {"location": "within", "within": ["x"]}]
)
def test_a_recipe_without_what_a_place_needs_is_refused(label):
    with pytest.raises(ConfigError):
        expert(**label)
