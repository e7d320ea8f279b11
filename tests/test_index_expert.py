"""Spectral indices: their values, their noise model, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scenes
from hypothesis import given
from hypothesis import strategies as st

from experts import index, untrained
from fovea import registry
from fovea.config import parse
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.testing import ExpertContract, check_finding
from fovea.types import Channel, Image, Window

SHAPE = (60, 80)
WATER = {"green": 0.06, "red": 0.04, "nir": 0.02, "swir1": 0.01, "swir2": 0.01}
FOREST = {"green": 0.05, "red": 0.04, "nir": 0.35, "swir1": 0.15, "swir2": 0.07}
BURNT = {"green": 0.05, "red": 0.06, "nir": 0.12, "swir1": 0.25, "swir2": 0.22}
CLOUD = {"green": 0.6, "red": 0.6, "nir": 0.55, "swir1": 0.5, "swir2": 0.4}


def land(cover=FOREST, other=WATER, columns=20, shape=SHAPE):
    """Bands of one cover, with another in the first columns."""
    bands = {name: np.full(shape, value, np.float32) for name, value in cover.items()}
    for name, value in other.items():
        bands[name][:, :columns] = value
    return bands


def half_water(valid=None, **changes):
    return scenes.study(scenes.optical(land() | changes, scenes.scene_grid(*SHAPE), valid))


def found(study, config=index.LAND_COVER):
    return {finding.label: finding for finding in index.IndexExpert(config).run(study, "all")}


class TestLandCover(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        return index.open(None)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return half_water()


class TestBurnSeverity(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        return index.IndexExpert(index.BURN_SEVERITY)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        grid = scenes.scene_grid(*SHAPE)
        after = land(other=BURNT)
        return scenes.study(scenes.optical(land(other=FOREST), grid), scenes.optical(after, grid))


def test_areas_shares_and_means_are_those_of_the_scene():
    both = found(half_water())
    water, vegetation = both["water"], both["vegetation"]
    assert water.present
    assert water.region.data.sum() == 60 * 20
    assert water.measure("fraction").value == pytest.approx(0.25, rel=1e-3)
    assert water.measure("area").value == pytest.approx(60 * 20 * 100 / 1e4, rel=2e-3)
    assert water.location.endswith("west")
    assert vegetation.measure("ndvi_mean").value == pytest.approx(0.75 * 31 / 39 - 0.25 / 3, abs=1e-4)
    assert vegetation.measure("ndvi_p50").value == pytest.approx(31 / 39, abs=3e-4)
    assert vegetation.measure("ndvi_p10").value == pytest.approx(-1 / 3, abs=3e-4)


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0, 0.02), st.floats(0, 0.2))
def test_the_uncertainty_is_the_derivative(a, b, absolute, relative):
    values, spread = index.difference(np.float32([[a]]), np.float32([[b]]), absolute, relative)
    a, b = float(np.float32(a)), float(np.float32(b))
    assert values[0, 0] == pytest.approx((a - b) / (a + b))
    assert -1 <= values[0, 0] <= 1
    step = 1e-6
    by_a = ((a + step - b) / (a + step + b) - values[0, 0]) / step * (absolute + relative * a)
    by_b = ((a - b - step) / (a + b + step) - values[0, 0]) / step * (absolute + relative * b)
    assert spread[0, 0] == pytest.approx(np.hypot(by_a, by_b), rel=1e-2, abs=1e-5)


def test_zero_denominators_negative_values_and_gaps_are_handled():
    bands = land()
    bands["nir"][0] = bands["green"][0] = bands["red"][0] = 0  # no light at all: no index
    bands["nir"][1, :20] = -0.01  # counts as 0
    bands["red"][2, 0] = np.nan
    valid = np.ones((1, *SHAPE), bool)
    valid[0, 3] = False
    both = found(half_water(valid, **bands))
    water = both["water"].region.data[0]
    assert not water[0].any()
    assert water[1, :20].all()
    assert not water[2, 0]
    assert not water[3].any()
    assert both["water"].measure("fraction").value == pytest.approx((58 * 20 - 1) / (58 * 80 - 1), rel=1e-3)
    with pytest.raises(ExpertError, match="no pixel"):
        found(half_water(np.zeros((1, *SHAPE), bool)))


def test_clouds_are_no_water_and_flagged_pixels_no_data():
    clouded = half_water(**land(other=CLOUD))
    assert not found(clouded)["water"].present
    quality = np.zeros(SHAPE, np.float32)
    quality[:, 40:] = 5
    flagged = found(half_water(quality=quality))
    assert flagged["water"].measure("fraction").value == pytest.approx(0.5, rel=1e-3)


def test_the_score_falls_towards_the_threshold_and_never_reaches_one():
    scores = []
    for nir in (0.06, 0.07, 0.08, 0.1, 0.3):
        bands = land({**FOREST, "red": 0.04, "nir": nir}, FOREST, 0)
        scores.append(found(half_water(**bands))["vegetation"].score)
    assert scores == sorted(scores)
    assert scores[0] < 0.3
    assert 0.99 < scores[-1] < 1
    edge = 0.04 * 1.3 / 0.7  # an NDVI of 0.3
    bands = land({**FOREST, "nir": edge * 1.0001}, FOREST, 0)
    assert found(half_water(**bands))["vegetation"].score == pytest.approx(0.5, abs=0.03)


def test_the_score_is_how_often_noise_leaves_the_label():
    """Common errors drawn as the model says them give the share of scenes that the score tells."""
    bands = land({**FOREST, "nir": 0.08}, FOREST, 0)
    said = found(half_water(**bands))["vegetation"].score
    rng = np.random.default_rng(0)
    red, nir = (
        0.04 + (0.005 + 0.05 * 0.04) * rng.normal(size=20_000),
        0.08 + (0.005 + 0.05 * 0.08) * rng.normal(size=20_000),
    )
    assert said == pytest.approx(np.mean((nir - red) / (nir + red) >= 0.3), abs=0.03)


@pytest.mark.parametrize("side", [64, 70, 1024])
def test_windows_do_not_change_the_answer(side):
    rng = np.random.default_rng(1)
    shape = (150, 130)
    bands = {name: rng.uniform(0, 0.5, shape).astype(np.float32) for name in ("green", "red", "nir")}
    grid = scenes.scene_grid(*shape, pixel=2e-4, crs="EPSG:4326", x=13.4, y=52.5)
    study = scenes.study(scenes.optical(bands, grid))
    whole, parts = (found(study, index.LAND_COVER.model_copy(update={"window": window})) for window in (2048, side))
    for label, finding in whole.items():
        other = parts[label]
        np.testing.assert_array_equal(finding.region.data, other.region.data)
        assert other.score == pytest.approx(finding.score)
        for one, two in zip(finding.measures, other.measures, strict=True):
            assert two.value == pytest.approx(one.value, rel=1e-9)
            assert two.uncertainty == pytest.approx(one.uncertainty, rel=1e-9)


def test_reflectance_is_never_read_as_a_whole():
    asked = []
    image = scenes.optical(land(shape=(300, 300)), scenes.scene_grid(300, 300))

    def read(window, shape):
        asked.append(window)
        return image.read(window, shape)

    config = index.LAND_COVER.model_copy(update={"window": 64})
    study = scenes.study(image)
    index.IndexExpert(config).run(replace(study, images=(replace(image, read=read),)), "all")
    assert len(asked) == 25
    assert all(isinstance(window, Window) and window.rows[1] - window.rows[0] <= 64 for window in asked)


def test_burns_are_graded_by_their_fall():
    """The classes of Key & Benson: NBR falls from 0.6 by 0.05 to 0.95, five steps over the scene."""
    grid, rows = scenes.scene_grid(10, 50), {}
    falls = np.repeat([0.05, 0.2, 0.35, 0.55, 0.95], 10)
    for name, nbr in (("before", np.full(50, 0.6)), ("after", 0.6 - falls)):
        bands = {"nir": 0.2 * (1 + nbr), "swir2": 0.2 * (1 - nbr)}
        rows[name] = scenes.optical({b: np.tile(v, (10, 1)).astype(np.float32) for b, v in bands.items()}, grid)
    severity = found(scenes.study(rows["before"], rows["after"]), index.BURN_SEVERITY)
    for place, finding in enumerate(severity.values(), 1):
        assert finding.present
        assert np.flatnonzero(finding.region.data[0, 0]).tolist() == list(range(10 * place, 10 * place + 10))
        assert finding.measure("dnbr_mean").value == pytest.approx(falls.mean(), abs=1e-3)


def test_what_is_no_reflectance_is_refused():
    expert = index.open(None)
    raw = scenes.study(scenes.optical(land(), scenes.scene_grid(*SHAPE), unit="digital number"))
    assert not expert.accepts(raw)
    with pytest.raises(ExpertError, match="digital number, not reflectance"):
        expert.run(raw, "all")
    bands = {name: values for name, values in land().items() if name != "nir"}
    with pytest.raises(ExpertError, match="no band nir"):
        expert.run(scenes.study(scenes.optical(bands, scenes.scene_grid(*SHAPE))), "water")
    assert not expert.accepts(replace(half_water(), meta={"modality": "radar"}))


def test_two_dates_have_to_lie_on_one_grid():
    expert = index.IndexExpert(index.BURN_SEVERITY)
    one = scenes.optical(land(), scenes.scene_grid(*SHAPE))
    for grid in (scenes.scene_grid(*SHAPE, x=500_010.0), scenes.scene_grid(*SHAPE, crs="EPSG:32637")):
        with pytest.raises(ExpertError, match="different grids"):
            expert.run(scenes.study(one, scenes.optical(land(), grid)), "all")
    with pytest.raises(ExpertError, match="not two dates"):
        expert.run(scenes.study(one), "all")
    assert not expert.accepts(scenes.study(one, one, one))


def test_recipes_are_saved_opened_and_told_apart(tmp_path):
    untrained.save(index.BURN_SEVERITY, tmp_path)
    opened = index.open(tmp_path)
    assert opened.config == index.BURN_SEVERITY
    changed = index.BURN_SEVERITY.model_copy(update={"smallest": 0.02})
    assert opened.card.version == index.IndexExpert(index.BURN_SEVERITY).card.version
    assert opened.card.version != index.IndexExpert(changed).card.version
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": "quality"}', '{"labels": {}}', "\xff" * 10])
def test_recipes_that_cannot_be_read_are_model_errors(tmp_path, text):
    (tmp_path / "config.json").write_text(text, "latin-1")
    with pytest.raises(ModelError) as error:
        index.open(tmp_path)
    assert tmp_path.name not in str(error.value)


def test_recipes_that_make_no_sense_are_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b" " * (untrained.LIMIT + 1))
    with pytest.raises(ModelError, match="bytes"):
        index.open(tmp_path)
    with pytest.raises(ModelError):
        index.open(tmp_path / "missing")
    mixed = json.loads(index.BURN_SEVERITY.model_dump_json())
    mixed["labels"]["water"] = {"index": "ndwi", "least": 0, "source": "x"}
    with pytest.raises(ConfigError, match="beside others"):
        parse(index.IndexConfig, mixed)
    mixed["labels"] = {"water": {"index": "ndwi", "least": 0, "below": -1, "source": "x"}}
    with pytest.raises(ConfigError, match="under below"):
        parse(index.IndexConfig, mixed)


def test_codes_are_those_of_the_vocabulary():
    codes = {term.label: term.code for term in registry.domain("remote_sensing").vocabulary}
    for config in (index.LAND_COVER, index.OPEN_WATER):
        for label, wanted in config.labels.items():
            assert wanted.code == codes[label]


def test_made_up_scenes_get_their_water_back(tmp_path):
    domain, expert = registry.domain("remote_sensing"), index.open(None)
    seen = 0
    for sample in domain.synth(tmp_path, 4, seed=3):
        study = domain.load(tmp_path / sample.path)
        water = expert.run(study, "water")[0]
        check_finding(water, study)
        truth = sample.facts.finding("water")
        assert water.present == (truth is not None)
        if truth:
            seen += 1
            assert water.measure("fraction").value == pytest.approx(truth.measure("fraction").value, abs=0.03)
    assert seen


def test_a_landsat_scene_is_mapped(data_dir):
    """Real digital numbers are refused; divided by 400 they serve as reflectance for the run alone."""
    domain = registry.domain("remote_sensing")
    rows = [json.loads(line) for line in (data_dir / "manifest.jsonl").read_text().splitlines()]
    files = [data_dir / row["path"] for row in rows if "andsat" in row["path"] and row["path"].endswith(".tif")]
    expert, runs = index.open(None), 0
    for file in files[:6]:
        image = domain.load(file).images[0]
        if len(image.channels) < 4:
            continue
        names = ("blue", "green", "red", "nir", "swir1", "swir2")[: len(image.channels)]
        for unit, factor in (("digital number", 1), ("reflectance", 400)):
            channels = tuple(Channel(name, unit) for name in names)
            scene = scenes.study(Image.from_array(channels, image.grid, image.pixels[:6] / factor, image.valid))
            assert expert.accepts(scene) == (unit == "reflectance")
        for finding in expert.run(scene, "all"):
            check_finding(finding, scene)
        runs += 1
    assert runs
