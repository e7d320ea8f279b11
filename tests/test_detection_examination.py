"""How objects that were found are examined: matches, average precision, thresholds, and who has seen what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts import boxes as rectangles
from experts import detection_examination


def test_candidates_fit_one_object_each():
    wanted = np.array([[10.0, 10.0, 8.0, 8.0, 0.0], [10.0, 16.0, 8.0, 8.0, 0.0]])
    found = np.array([[10.0, 10.0, 8.0, 8.0, 0.0], [10.0, 11.0, 8.0, 8.0, 0.0], [40.0, 40.0, 8.0, 8.0, 0.0]])
    assert detection_examination.matched(found, wanted).tolist() == [True, False, False]
    assert detection_examination.matched(found, rectangles.NO_BOXES).tolist() == [False] * 3
    assert detection_examination.matched(rectangles.NO_BOXES, wanted).shape == (0,)


def test_average_precision_is_the_area_under_the_curve():
    """By hand: precision 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3; the third object is missed."""
    evidence, right = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    assert detection_examination.average_precision(evidence, right, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert detection_examination.average_precision(evidence[:0], right[:0], 3) == 0
    assert np.isnan(detection_examination.average_precision(evidence, right, 0))


@given(st.integers(0, 10_000))
def test_the_threshold_obeys_its_rule(seed):
    """Also where no candidate is wrong; objects that are no candidate are missed at every threshold."""
    rng = np.random.default_rng(seed)
    n, missed = int(rng.integers(1, 30)), int(rng.integers(0, 5))
    chances, right = rng.choice(np.linspace(0.05, 0.95, 12), n), rng.random(n) < rng.choice([0.5, 1.0])
    objects = int(right.sum()) + missed

    def told(rule):
        return detection_examination.told_from(chances, right, objects, rule)

    def counts(threshold):
        return (right & (chances >= threshold)).sum(), (~right & (chances >= threshold)).sum()

    if not right.any():
        assert told("f1").threshold == 0.5
        assert not told("f1").met
        return
    everywhere = [counts(threshold) for threshold in np.linspace(0, 0.94, 300)]
    f1 = lambda hits, wrong: 2 * hits / (hits + wrong + objects)  # noqa: E731
    assert f1(*counts(told("f1").threshold)) == pytest.approx(max(f1(*pair) for pair in everywhere))
    assert told("youden") == told("f1")
    most = right.sum() / objects
    point = told("sensitivity>=0.8")
    assert point.met == (most >= 0.8)
    assert counts(point.threshold)[0] / objects >= min(0.8, most) - 1e-9
    cost = lambda hits, wrong: 5 * (objects - hits) + wrong  # noqa: E731
    assert cost(*counts(told("cost:fn=5,fp=1").threshold)) == min(cost(*pair) for pair in everywhere)


def test_studies_are_examined_by_calibrations_that_have_not_seen_them():
    """Evidence that means nothing: with calibrations from the same studies it would look better than it is."""
    rng = np.random.default_rng(0)
    trial = detection_examination.Trial()
    for _ in range(20):
        trial.evidence.append(rng.normal(size=5))
        trial.right.append(rng.random(5) < 0.5)
        trial.objects.append(int(trial.right[-1].sum()) + 1)
    rows = {row.metric: row.value for row in trial.rows("bar", "d")}
    own = trial.calibration()
    told = np.concatenate([own.probabilities(e) >= own.threshold for e in trial.evidence])
    best = 2 * (told & np.concatenate(trial.right)).sum() / (told.sum() + sum(trial.objects))
    assert rows["f1"] <= best
    folds = [trial.calibration(np.array([i for i in range(20) if i % 5 != fold])) for fold in range(5)]
    errors = [
        abs((folds[i % 5].probabilities(e) >= folds[i % 5].threshold).sum() - n)
        for i, (e, n) in enumerate(zip(trial.evidence, trial.objects, strict=True))
    ]
    assert rows["error of count"] == pytest.approx(np.mean(errors), abs=1e-4)
