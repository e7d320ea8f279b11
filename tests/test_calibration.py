"""Probabilities, thresholds and how far they hold: against other implementations and by brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.meandice import compute_dice
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from curriculum.reliability import draw_reliability
from experts.calibration import (
    BINS,
    Calibration,
    Method,
    auroc,
    binned,
    calibrate,
    calibration_error,
    cross_fitted,
    error_by_chance,
    interval,
    logistic,
    temperature,
)
from experts.examination import Trial, dice, write_reliability
from experts.operating import FORMS, operating_point, read_rule
from experts.settings import LabelConfig
from fovea.jsonable import from_json, to_json

METHODS = get_args(Method)


def studies(n, seed=0, sharpness=1.0):
    """Evidence whose calibrated logit is known: `sharpness` times as large as it should be."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, n)
    return sharpness * true, rng.random(n) < expit(true)


both = st.lists(st.tuples(st.integers(-40, 40).map(lambda n: n / 10), st.booleans()), min_size=6, max_size=40).filter(
    lambda rows: len({truth for _, truth in rows}) == 2 and len({value for value, _ in rows}) > 1
)


def arrays(rows):
    evidence, truth = zip(*rows, strict=True)
    return np.array(evidence, float), np.array(truth, bool)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)
@given(rows=both)
def test_more_evidence_is_never_less_probable(method, rows):
    fitted = calibrate(*arrays(rows), method)
    probabilities = fitted.probabilities(np.linspace(-6, 6, 100))
    assert (np.diff(probabilities) >= -1e-9).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert fitted.probability(0.3) == fitted.probabilities(np.array([0.3]))[0]


def test_a_temperature_is_found_again():
    logits, truth = studies(20_000, sharpness=3.0)
    assert temperature(logits, truth) == pytest.approx(3, rel=0.05)
    assert temperature(logits, np.ones_like(truth)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_what_is_too_sure_becomes_calibrated(method):
    evidence, truth = studies(4000, sharpness=3.0)
    before = calibration_error(binned(expit(evidence), truth))
    after = calibration_error(binned(cross_fitted(evidence, truth, method)[0], truth))
    assert before > 0.1
    assert after < 0.03


def test_many_studies_give_scikit_learns_curve():
    evidence, truth = studies(3000, sharpness=3.0)
    wanted = LogisticRegression(C=np.inf).fit(evidence[:, None], truth)
    for found in (logistic(evidence - 1, truth), calibrate(evidence - 1, truth, "platt")):
        slope, intercept = found if isinstance(found, tuple) else (found.slope, found.intercept)
        assert slope == pytest.approx(wanted.coef_[0, 0], rel=0.02)
        assert intercept - slope == pytest.approx(wanted.intercept_[0], abs=0.02)


@settings(max_examples=30)
@given(rows=both, unit=st.sampled_from([0.01, 1.0, 30.0]))
def test_a_curve_fits_no_worse_than_the_evidence_as_it_is(rows, unit):
    evidence, truth = arrays(rows)
    slope, intercept = logistic(unit * evidence, truth, unit)
    assert slope > 0
    fitted, plain = (log_loss(truth, expit(z)) for z in (slope * unit * evidence + intercept, evidence))
    assert fitted <= plain + 1e-9
    assert (slope * unit, intercept) == pytest.approx(logistic(evidence, truth), rel=1e-3, abs=1e-3)


def test_few_studies_leave_the_evidence_nearly_as_it_is():
    few, many = (logistic(np.tile([-1.0, 1.0, 0.5], n), np.tile([False, True, False], n)) for n in (1, 100))
    assert few == pytest.approx((1, 0), abs=0.5)
    assert many[1] < -1


def test_what_few_studies_teach_holds_for_others():
    def draw(n, seed):
        rng = np.random.default_rng(seed)
        truth = rng.random(n) < 0.3
        return np.where(truth, 8, -8) + rng.normal(0, 1.2, n) + 1, truth

    evidence, truth = draw(4000, 0)

    def error(method):
        fitted = [calibrate(*draw(60, seed), method) for seed in range(1, 9)]
        return np.mean([calibration_error(binned(one.probabilities(evidence), truth)) for one in fitted])

    assert error("logistic") < 0.01 < 0.03 < error("platt")


def test_the_error_by_chance_is_that_of_true_probabilities():
    probability = expit(studies(300)[0])
    mean, low, high = error_by_chance(probability)
    rng = np.random.default_rng(1)
    seen = [calibration_error(binned(probability, rng.random(300) < probability)) for _ in range(200)]
    assert mean == pytest.approx(np.mean(seen), rel=0.05)
    assert np.mean([low <= value <= high for value in seen]) >= 0.9
    assert error_by_chance(np.repeat(probability, 16))[0] < mean / 3  # 16 times the studies: a quarter of the error
    assert error_by_chance(np.array([0.0, 1.0])) == (0, 0, 0)


def test_isotonic_is_scikit_learns():
    evidence, truth = studies(300)
    wanted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(evidence, truth)
    points = np.linspace(-9, 9, 200)
    np.testing.assert_allclose(calibrate(evidence, truth, "isotonic").probabilities(points), wanted.predict(points))


@pytest.mark.parametrize("method", METHODS)
def test_one_class_alone_teaches_nothing(method):
    evidence = np.array([-1.0, 0.5, 2.0])
    fitted = calibrate(evidence, np.ones(3, bool), method, "sensitivity>=0.95")
    assert (fitted.slope, fitted.intercept, fitted.knots, fitted.threshold, fitted.met) == (1, 0, (), 0.5, False)


def test_the_calibration_error_is_that_of_its_definition():
    probability, truth = studies(500)[0], studies(500)[1]
    probability = expit(probability)
    expected = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (probability >= low) & (probability < low + 1 / BINS)
        if inside.any():
            expected += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    assert calibration_error(binned(probability, truth)) == pytest.approx(expected)
    assert calibration_error(binned(truth.astype(float), truth)) == 0
    assert calibration_error(binned(1.0 - truth, truth)) == 1
    assert np.isnan(calibration_error(binned(probability[:0], truth[:0])))


def test_a_study_does_not_calibrate_itself():
    rng = np.random.default_rng(0)
    evidence, truth = rng.normal(size=400), rng.random(400) < 0.5  # nothing to be learned
    apart = np.mean((cross_fitted(evidence, truth, "isotonic")[0] - truth) ** 2)
    together = np.mean((calibrate(evidence, truth, "isotonic").probabilities(evidence) - truth) ** 2)
    assert together < 0.25 < apart


def test_the_interval_of_a_calibration_error_holds_its_value():
    evidence, truth = studies(60)
    probability = expit(evidence)

    def error(chosen):
        return calibration_error(binned(probability[chosen], truth[chosen]))

    low, high = interval(error, 60, centered=True)
    assert 0 <= low < error(np.arange(60)) < high


def figures(probability, truth, threshold):
    called = probability >= threshold
    return called[truth].mean(), (~called[~truth]).mean(), called


def merit(rule, probability, truth, threshold):
    sensitivity, specificity, called = figures(probability, truth, threshold)
    if rule == "f1":
        return 2 * (truth & called).sum() / (truth.sum() + called.sum())
    if rule.startswith("cost"):
        return -(5.0 * (truth & ~called).sum() + 1.0 * (called & ~truth).sum())
    return sensitivity + specificity


@pytest.mark.parametrize("rule", ["youden", "f1", "cost:fn=5,fp=1"])
@given(rows=both)
def test_no_threshold_is_better_by_its_rule(rule, rows):
    probability, truth = arrays(rows)
    point = operating_point(probability, truth, rule)
    values = np.unique(probability)
    best = max(merit(rule, probability, truth, t) for t in (values[1:] + values[:-1]) / 2)
    assert merit(rule, probability, truth, point.threshold) == pytest.approx(best)
    assert point.met


@pytest.mark.parametrize("limit", ["sensitivity>=0.95", "sensitivity>=0.5", "specificity>=0.9", "specificity>=1"])
@given(rows=both)
def test_a_limit_is_kept_wherever_a_threshold_keeps_it(limit, rows):
    probability, truth = arrays(rows)
    point = operating_point(probability, truth, limit)
    kept, least = int(limit.startswith("spec")), float(limit.split("=")[1])
    values = np.unique(probability)
    every = [figures(probability, truth, t)[:2] for t in (values[1:] + values[:-1]) / 2]
    found = figures(probability, truth, point.threshold)[:2]
    possible = [pair for pair in every if pair[kept] >= least]
    assert point.met == bool(possible) == (found[kept] >= least)
    if possible:
        assert found[1 - kept] == max(pair[1 - kept] for pair in possible)
    else:
        assert found[kept] == max(pair[kept] for pair in every)


def test_missed_cases_that_cost_more_lower_the_threshold():
    evidence, truth = studies(500)
    probability = expit(evidence)
    cheap, dear = (operating_point(probability, truth, f"cost:fn={cost},fp=1").threshold for cost in (1, 10))
    assert dear < 0.2 < 0.4 < cheap  # at a cost ratio of 1 and of 10: near 1/2 and near 1/11


@pytest.mark.parametrize(
    "rule", ["", "best", "sensitivity>0.9", "sensitivity>=0", "specificity>=1.2", "cost:fn=0,fp=0", "accuracy>=0.9"]
)
def test_a_rule_that_is_none_is_refused_by_the_recipe(rule):
    with pytest.raises(ValueError, match="one of the form youden, f1"):
        LabelConfig(operating=rule)


@pytest.mark.parametrize("rule", FORMS)
def test_each_form_that_is_named_is_a_rule(rule):
    assert read_rule(LabelConfig(operating=rule).operating)


def test_pixels_are_as_probable_as_their_curve_says():
    shares = np.array([[0.0, 0.2, 0.5], [0.5, 0.9, 1.0]], np.float32)
    assert Calibration().pixel(shares) is shares
    read = Calibration(pixel_slope=0.5, pixel_intercept=-1.0).pixel(shares)
    np.testing.assert_allclose(read[0, 1:], expit(np.array([logit(0.2) / 2 - 1, -1])), rtol=1e-5)
    assert read.dtype == np.float32
    assert (np.diff(read.ravel()) >= 0).all()


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_pixels_that_are_all_too_likely_are_calibrated(shift):
    done, rng = Trial(), np.random.default_rng(1)
    for _ in range(12):
        true = rng.normal(0, 2, (1, 30, 30))
        done.draw(expit(2 * true + shift).astype(np.float32), rng.random(true.shape) < expit(true))
    assert done.pixel_curve() == pytest.approx((0.5, -shift / 2), abs=0.1)
    rows = {row.metric: row.value for row in done.rows("building", "")}
    assert rows["pixel_ece"] < 0.03 < 0.09 < rows["pixel_ece_uncalibrated"]


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_survives_json(method):
    fitted = replace(calibrate(*studies(50), method, "f1"), pixel_slope=1.5, pixel_intercept=0.2)
    assert from_json(Calibration, json.loads(json.dumps(to_json(fitted)))) == fitted
    before = {"slope": 1.5, "intercept": 0.1, "threshold": 0.4, "cut": 0.6, "support": 3}
    assert from_json(Calibration, before).probability(1.0) == pytest.approx(expit(1.6))


@given(rows=both)
def test_auroc_is_scikit_learns(rows):
    evidence, truth = arrays(rows)
    assert auroc(evidence, truth) == pytest.approx(roc_auc_score(truth, evidence))


@given(seed=st.integers(0, 99))
def test_dice_is_monais(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 1, 6, 7)) < rng.random()
    first[0, 0, 0] = True
    wanted = compute_dice(*(torch.from_numpy(mask)[None, None].float() for mask in (second, first))).item()
    assert dice(first, second) == pytest.approx(wanted)


def trial(n=80, rule="youden", learned=True, method="platt"):
    out = Trial(method, rule, learned)
    rng = np.random.default_rng(1)
    for evidence, present in zip(*studies(n, sharpness=3.0), strict=True):
        out.add(float(evidence), bool(present))
        true = rng.normal(0, 2, (1, 20, 20))
        out.draw(expit(4 * true).astype(np.float32), rng.random(true.shape) < expit(true))
    return out


def test_the_card_says_how_calibrated_and_by_which_rule():
    done = trial(rule="sensitivity>=0.95")
    rows = {row.metric: row for row in done.rows("nodule", "digest")}
    assert rows["ece"].value < rows["ece_uncalibrated"].value
    assert rows["brier"].value < rows["brier_uncalibrated"].value
    assert rows["pixel_ece"].value < 0.03 < 0.1 < rows["pixel_ece_uncalibrated"].value
    assert done.pixel_curve() == pytest.approx((0.25, 0), abs=0.05)
    assert 0.05 < rows["ece_by_chance"].value < 0.2
    assert rows["threshold by sensitivity>=0.95"].value == pytest.approx(done.calibration().threshold, abs=1e-4)
    for row in rows.values():
        assert row.low <= row.value <= row.high or row.metric.startswith("threshold")
    evidence, truth = np.array(done.evidence), np.array(done.truth)
    fitted = done.calibration()
    assert (fitted.probabilities(evidence)[truth] >= fitted.threshold).mean() >= 0.95


def test_pixels_are_examined_by_a_curve_of_other_studies():
    done, rng = Trial(), np.random.default_rng(0)
    for shift in (2.0, -2.0):  # what one study teaches is wrong for the other
        logits = rng.normal(0, 1, (1, 40, 40))
        done.draw(expit(logits).astype(np.float32), rng.random(logits.shape) < expit(logits + shift))
    rows = {row.metric: row.value for row in done.rows("ship", "")}
    assert rows["pixel_ece"] > rows["pixel_ece_uncalibrated"] + 0.2


@pytest.mark.parametrize("scale", [0.001, 1.0, 100.0])
def test_the_unit_of_a_measure_does_not_matter(scale):
    done, rng = Trial(learned=False), np.random.default_rng(0)
    for excess in rng.normal(0, 1, 40):
        done.add(scale * excess, bool(excess > 0.5))  # a limit that is a little too low
    assert done.calibration().probability(-scale) < 0.1 < 0.8 < done.calibration().probability(1.5 * scale)
    rows = {row.metric: row.value for row in done.rows("cardiomegaly", "")}
    over = (np.array(done.evidence) > 0)[~np.array(done.truth)]
    assert (rows["sensitivity"], rows["specificity"]) == (1, pytest.approx((~over).mean(), abs=1e-4))


def test_a_limit_that_cannot_be_kept_is_said():
    poor = Trial(rule="specificity>=0.99")
    for evidence, present in ((2.0, False), (1.0, True), (0.0, True), (-1.0, False)):
        poor.add(evidence, present)
    assert not poor.calibration().met
    assert "threshold by specificity>=0.99 (not met)" in {row.metric for row in poor.rows("nodule", "")}


def test_a_label_that_follows_from_a_measure_has_no_threshold_of_its_own():
    metrics = {row.metric for row in trial(learned=False).rows("cardiomegaly", "")}
    assert {"ece", "brier", "sensitivity"} <= metrics
    assert not any(metric.startswith(("threshold", "ece_un")) for metric in metrics)


def test_a_reliability_diagram_is_drawn(tmp_path):
    from PIL import Image

    write_reliability(tmp_path, {"nodule": trial(), "heart": trial(learned=False), "unseen": Trial()})
    told = json.loads((tmp_path / "reliability.json").read_text())
    assert set(told) == {"nodule", "heart"}
    assert set(told["heart"]) == {"after"}
    assert sum(studies for _, _, studies in told["nodule"]["after"]) == 80
    with Image.open(draw_reliability(tmp_path)) as picture:
        assert picture.size[0] > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reliability.json", "reliability.png"]
