"""Two dates: gains and losses of maps, growth of lesions, and the response by RECIST 1.1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from experts import change, index, recist, untrained
from fovea.errors import ConfigError, ExpertError, InputError, ModelError
from fovea.testing import ExpertContract, check_finding
from fovea.types import Box, Code, Finding, Instance, Measure, Origin

SHAPE = (60, 80)
WATER = {"green": 0.06, "red": 0.04, "nir": 0.02}
FOREST = {"green": 0.05, "red": 0.04, "nir": 0.35}
SOIL = {"green": 0.12, "red": 0.16, "nir": 0.2}


def cover(water, forest, grid=None, valid=None):
    """Soil with water in the first columns and forest in the last ones."""
    bands = {name: np.full(SHAPE, value, np.float32) for name, value in SOIL.items()}
    for name, values in bands.items():
        values[:, :water] = WATER[name]
        values[:, 80 - forest :] = FOREST[name]
    return scenes.optical(bands, grid or scenes.scene_grid(*SHAPE), valid)


def dates(first, second, **changes):
    return scenes.study(cover(*first), cover(*second, **changes))


def found(study, expert=None):
    return {finding.label: finding for finding in (expert or change.open(None)).run(study, "all")}


def balls(*diameters, spacing=(1.0, 1.0, 1.0)):
    """A CT of balls with diameters in mm along the row axis."""
    shape = (int(40 / spacing[0]), int(40 / spacing[1]), int(45 * max(len(diameters), 1) / spacing[2]))
    where = np.stack(np.indices(shape), -1) * spacing
    pixels = np.zeros(shape, np.float32)
    for place, diameter in enumerate(diameters):
        if diameter:
            pixels[np.linalg.norm(where - (20, 20, 22 + 45 * place), axis=-1) <= diameter / 2] = 100
    return scenes.volume(pixels, spacing)


def patient(before, after, expert=None, **changes):
    """The findings on two CTs of balls with these diameters."""
    config = change.ChangeConfig(expert="test", compare="lesions", recist=("lesion",))
    images = balls(*before), balls(*after, **changes)
    return found(scenes.study(*images, modality="CT"), change.ChangeExpert(config, expert or scenes.Bright()))


class TestMaps(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        return change.open(None)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return dates((10, 20), (30, 10))


class TestLesions(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        config = change.ChangeConfig(expert="test", compare="lesions", recist=("lesion",))
        return change.ChangeExpert(config, scenes.Bright())

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return scenes.study(balls(20, 12), balls(26, 12), modality="CT")


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=6)
def test_the_matrix_balances_and_time_runs_both_ways(water, forest, later_water, later_forest):
    forward = found(dates((water, forest), (later_water, later_forest)))
    back = found(dates((later_water, later_forest), (water, forest)))
    for label, one, two in (("water", water, later_water), ("vegetation", forest, later_forest)):
        gain, loss = forward[f"{label}_gain"], forward[f"{label}_loss"]
        assert gain.present == (two > one)
        assert loss.present == (two < one)
        assert back[f"{label}_gain"].score == pytest.approx(loss.score)
        for finding, columns in ((gain, two - one), (loss, one - two)):
            if finding.present:
                assert finding.region.data.sum() == 60 * columns
                assert finding.measure("area").value == pytest.approx(60 * columns / 100, rel=2e-3)
                parts = [m.value for m in finding.measures if m.name.startswith(("from_", "to_"))]
                assert sum(parts) == pytest.approx(finding.measure("area").value)


def test_gains_say_what_they_were_and_where_they_are():
    changed = found(dates((10, 20), (70, 10)))
    gain, loss = changed["water_gain"], changed["vegetation_loss"]
    assert gain.measure("from_vegetation").value == pytest.approx(60 * 10 / 100, rel=2e-3)
    assert gain.measure("from_none").value == pytest.approx(60 * 50 / 100, rel=2e-3)
    assert loss.measure("to_water").value == pytest.approx(60 * 10 / 100, rel=2e-3)
    assert (gain.image, loss.image) == (1, 0)
    assert loss.location.endswith("east")


def test_nothing_changed_is_said_with_a_low_score():
    for finding in found(dates((20, 20), (20, 20))).values():
        assert not finding.present
        assert finding.score < 0.5


def test_pixels_known_at_one_date_do_not_count():
    valid = np.ones((1, *SHAPE), bool)
    valid[:, :, :20] = False
    changed = found(dates((0, 20), (30, 20), valid=valid))
    assert changed["water_gain"].region.data.sum() == 60 * 10
    assert changed["water_gain"].measure("fraction").value == pytest.approx(10 / 60, rel=1e-3)
    with pytest.raises(ExpertError):
        found(dates((0, 20), (30, 20), valid=np.zeros((1, *SHAPE), bool)))


def test_specks_along_outlines_are_no_change():
    study = dates((20, 20), (20, 20))
    one = study.images[1].pixels.copy()
    for row in (5, 20, 40):
        one[:, 0, row, 20] = [WATER["green"], WATER["red"], WATER["nir"]]
    moved = scenes.optical(dict(zip(("green", "red", "nir"), one[:, 0], strict=True)), study.images[1].grid)
    assert found(scenes.study(study.images[0], moved))["water_gain"].region is None


def test_dates_have_to_lie_on_one_grid():
    expert = change.open(None)
    study = dates((10, 10), (10, 10), grid=scenes.scene_grid(*SHAPE, x=500_030.0))
    assert not expert.accepts(study)
    with pytest.raises(ExpertError, match="different grids"):
        expert.run(study, "all")
    for images in (study.images[:1], (*study.images, study.images[0])):
        with pytest.raises(ExpertError, match="not two dates"):
            expert.run(scenes.study(*images), "all")


def test_volumes_and_diameters_are_compared_whatever_the_grids():
    changed = patient((20,), (26,), spacing=(2.0, 0.8, 0.8))
    growth = changed["lesion_growth"]
    assert growth.present
    assert not changed["lesion_shrinkage"].present
    volumes = [np.pi / 6 * d**3 / 1000 for d in (20, 26)]
    for name, truth in (
        ("volume_before", volumes[0]),
        ("volume_after", volumes[1]),
        ("volume_change", volumes[1] - volumes[0]),
        ("longest_diameter_change", 6),
    ):
        measure = growth.measure(name)
        assert abs(measure.value - truth) < 3 * measure.uncertainty
    assert growth.measure("volume_relative_change").value == pytest.approx(1.3**3 - 1, rel=0.06)
    assert growth.measure("longest_diameter_relative_change").value == pytest.approx(0.3, abs=0.04)
    same = patient((20,), (20,))
    assert not same["lesion_growth"].present
    assert same["lesion_growth"].score == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ((20,), (26,), "progressive_disease"),
        ((20,), (22,), "stable_disease"),
        ((12,), (15.5,), "stable_disease"),  # 29 %, but 3.5 mm
        ((24,), (14,), "partial_response"),
        ((24,), (0,), "complete_response"),
        ((30, 20), (14, 30), "stable_disease"),
        ((6,), (20,), "not_evaluable"),
        ((0,), (0,), "not_evaluable"),
    ],
)
def test_responses_are_those_of_the_criteria(before, after, wanted):
    changed = patient(before, after)
    classes = {name: changed[name] for name in recist.CODES}
    assert [name for name, finding in classes.items() if finding.present] == [wanted]
    assert sum(finding.score for finding in classes.values()) == pytest.approx(1)
    assert classes[wanted].score > 0.5
    assert classes["complete_response"].code.value == "112041"


@given(st.floats(10, 100), st.floats(0.1, 3), st.floats(0.01, 5))
def test_chances_of_a_response_add_up_and_follow_the_rule(first, ratio, spread):
    before, after = (Measure("x", value, "mm", spread) for value in (first, first * ratio))
    chances = recist.response(before, after, 0.1)
    assert sum(chances.values()) == pytest.approx(1)
    assert all(0 <= chance <= 1 for chance in chances.values())
    exact = recist.response(replace(before, uncertainty=0.0), replace(after, uncertainty=0.0), 0.0)
    growth = first * ratio - first
    rule = (
        "progressive_disease"
        if growth >= 0.2 * first and growth >= 5
        else "partial_response"
        if growth <= -0.3 * first
        else "stable_disease"
    )
    assert exact[rule] == pytest.approx(1)


def test_chances_are_those_of_errors_drawn_at_random():
    before, after = Measure("x", 40.0, "mm", 2.0), Measure("x", 47.0, "mm", 2.0)
    rng = np.random.default_rng(0)
    first, second = 40 + 2 * rng.normal(size=100_000), 47 + 2 * rng.normal(size=100_000)
    truth = np.mean((second >= 1.2 * first) & (second - first >= 5))
    assert recist.response(before, after, 0.0)["progressive_disease"] == pytest.approx(truth, abs=0.01)


def test_targets_are_two_of_a_label_and_five_in_all():
    millimetres = lambda *values: [Measure("longest_diameter", float(v), "mm", 1.0) for v in values]  # noqa: E731
    organs = [millimetres(50, 40, 30), millimetres(45, 9), millimetres(20, 15), millimetres(12)]
    later = [millimetres(55, 20, 19), millimetres(45, 44), millimetres(5), millimetres()]
    before, after, n = recist.sums(organs, later)
    assert n == 5
    assert before.value == 50 + 40 + 45 + 20 + 15
    assert after.value == 55 + 20 + 45 + 5
    assert before.uncertainty == pytest.approx(np.sqrt(5))


def test_diameters_told_for_instances_are_taken():
    sizes = [Measure("longest_diameter", value, "mm") for value in (11.0, 25.0)]
    instances = tuple(Instance(Box((0, 0, 0), (1, 2, 2)), 0.9, (size,)) for size in sizes)
    finding = Finding("lesion", Code("x", "y", "z"), True, 0.9, Origin("a", "1"), instances=instances)
    grid = balls(20).grid
    assert [measure.value for measure in recist.diameters(finding, grid)] == [25.0, 11.0]


def test_studies_are_paired_without_names():
    one, two = (scenes.study(cover(10, 10), date=date, sensor="Sentinel-2") for date in ("2024-05-01", "2025-05-01"))
    both = change.pair(one, two)
    assert both.meta["date_before"] == "2024-05-01"
    assert both.meta["date_after"] == "2025-05-01"
    assert both.digest not in (one.digest, two.digest, change.pair(two, one).digest) or one.digest == two.digest
    assert change.open(None).accepts(both)
    for finding in found(both).values():
        check_finding(finding, both)
    with pytest.raises(InputError):
        change.pair(one, replace(two, meta={"modality": "radar"}))


def test_recipes_carry_their_expert(tmp_path, monkeypatch):
    inner, folder = tmp_path / "inner", tmp_path / "outer"
    untrained.save(index.OPEN_WATER.model_copy(update={"labels": index.LAND_COVER.labels}), inner)
    monkeypatch.setattr(change.registry, "expert_kind", {"index": index}.__getitem__)
    change.save(change.ChangeConfig(labels=("water",)), folder, inner)
    expert = change.open(folder)
    assert expert.card.labels == ("water_gain", "water_loss")
    assert expert.expert.card.name == "open_water"
    assert (
        expert.card.version
        != change.ChangeExpert(change.ChangeConfig(labels=("water",)), index.open(None)).card.version
    )
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "expert"]
    with pytest.raises(ModelError, match="to compare"):
        change.ChangeExpert(change.ChangeConfig(labels=("ice",)), index.open(None))
    with pytest.raises(ModelError):
        change.open(tmp_path / "missing")


def test_recipes_that_make_no_sense_are_refused():
    from fovea.config import parse

    for given_, fault in (({"recist": ["x"]}, "lesions"), ({"expert": "change"}, "another kind")):
        with pytest.raises(ConfigError, match=fault):
            parse(change.ChangeConfig, given_)


def test_maps_need_masks():
    class Boxes(scenes.Bright):
        def answer(self, study, labels, by):
            box = Box((0, 0, 0), (1, 1, 1))
            return tuple(replace(finding, region=box) for finding in super().answer(study, labels, by))

    expert = change.ChangeExpert(change.ChangeConfig(expert="test"), Boxes())
    with pytest.raises(ExpertError, match="without a mask"):
        expert.run(scenes.study(balls(20), balls(20), modality="CT"), "all")
