"""Boxes: what they enclose, how they overlap, and that scaling and regions keep them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experts import boxes as rectangles
from fovea.types import Box, Mask, OrientedBox, Patch, Polygon

sides = st.floats(2, 60)
places = st.floats(30, 70)
turns = st.floats(-np.pi / 2, np.pi / 2 - 1e-6)


def box(row, column, length, width, turn=0.0):
    return np.array([[row, column, max(length, width), min(length, width), turn]])


def between(first, second):
    """The angle between two axes in radians."""
    return abs((first - second + np.pi / 2) % np.pi - np.pi / 2)


@given(places, places, sides, sides, turns)
def test_oriented_boxes_survive_as_regions(row, column, length, width, turn):
    one = box(row, column, length, width, turn)
    region = rectangles.to_region(one[0], True, (100, 100))
    assert isinstance(region, OrientedBox)
    assert -90 <= region.angle < 90
    np.testing.assert_allclose(rectangles.of_region(region, True), one, atol=1e-9)


@given(places, places, st.floats(2, 50), st.floats(2, 50))
def test_upright_boxes_survive_as_regions(row, column, length, width):
    one = np.array([[row, column, length, width, 0.0]])
    region = rectangles.to_region(one[0], False, (100, 100))
    assert isinstance(region, Box)
    np.testing.assert_allclose(rectangles.of_region(region, False), one, atol=1e-9)
    cut = rectangles.to_region(np.array([99.0, 0.0, 80.0, 80.0, 0.0]), False, (100, 100))
    assert cut.start[1:] == pytest.approx((59.5, 0))
    assert cut.stop[1:] == pytest.approx((100, 40.5))


@given(places, places, st.floats(12, 40), st.floats(0.2, 0.5), turns)
def test_boxes_of_masks_lie_as_what_was_drawn(row, column, length, slimness, turn):
    one = box(row, column, length, length * slimness, turn)
    mask = rectangles.covered(one, (100, 100))[None]
    found = rectangles.of_region(Mask(mask), True)
    assert len(found) == 1
    assert np.hypot(*(found[0, :2] - one[0, :2])) < 1
    assert abs(found[0, 2] - one[0, 2]) < 2.5
    assert between(found[0, 4], one[0, 4]) < 0.15
    upright = rectangles.of_region(Mask(mask), False)[0]
    rows, columns = np.argwhere(mask[0]).min(0), np.argwhere(mask[0]).max(0)
    np.testing.assert_allclose(upright[:2], (rows + columns) / 2)
    np.testing.assert_allclose(upright[3:1:-1], columns - rows + 1)


@example(30.0, 30.0, 25.0, 31.0, -0.15625, 0.30078125)
@given(places, places, sides, sides, turns, st.floats(0.3, 3))
def test_scaling_is_undone_by_its_inverse_and_keeps_overlaps(row, column, length, width, turn, ratio):
    one = box(row, column, length, width, turn)
    bigger = rectangles.scaled(one, (ratio, ratio), True)
    np.testing.assert_allclose(bigger[0, 2:4], ratio * one[0, 2:4], rtol=1e-9)
    back = rectangles.scaled(bigger, (1 / ratio, 1 / ratio), True)
    assert rectangles.overlaps(back, one)[0, 0] == pytest.approx(1, abs=1e-6)


def test_unequal_scaling_stretches_upright_boxes_exactly():
    one = np.array([[10.0, 20.0, 8.0, 4.0, 0.0]])
    np.testing.assert_allclose(rectangles.scaled(one, (2, 3), False), [[20.5, 61.0, 24.0, 8.0, 0.0]])
    tall = rectangles.scaled(np.array([[0.0, 0.0, 8.0, 4.0, 0.0]]), (4, 1), True)[0]
    np.testing.assert_allclose(tall[2:], [16, 8, -np.pi / 2])


@given(places, places, sides, sides, turns, st.integers(0, 3), st.booleans())
def test_corners_give_the_box_back(row, column, length, width, turn, first, mirrored):
    """From whichever corner, and from either side."""
    one = box(row, column, length, width, turn)
    points = np.roll(rectangles.corners(one), first, 1)[:, :: -1 if mirrored else 1]
    assert rectangles.overlaps(rectangles.of_corners(points, True), one)[0, 0] == pytest.approx(1, abs=1e-6)
    around = rectangles.of_corners(points, False)[0]
    np.testing.assert_allclose(around[3:1:-1], np.ptp(points[0], axis=0))


def test_upright_boxes_are_cut_at_the_border():
    cut = rectangles.cut(np.array([[0.0, 5.0, 6.0, 10.0, 0.0], [-30.0, 5.0, 6.0, 10.0, 0.0]]), (20, 20))
    np.testing.assert_allclose(cut[0], [2.25, 5, 6, 5.5, 0])
    assert cut[1, 3] == 0


def test_overlaps_are_those_of_areas():
    upright = np.array([[0.0, 0.0, 10.0, 10.0, 0.0], [0.0, 5.0, 10.0, 10.0, 0.0], [50.0, 50.0, 4.0, 4.0, 0.0]])
    np.testing.assert_allclose(rectangles.overlaps(upright, upright)[0], [1, 1 / 3, 0])
    cross = np.array([[0.0, 0.0, 10.0, 2.0, 0.0], [0.0, 0.0, 10.0, 2.0, np.pi / 2]])
    assert rectangles.overlaps(cross[:1], cross[1:])[0, 0] == pytest.approx(4 / 36)
    assert rectangles.overlaps(rectangles.NO_BOXES, cross).shape == (0, 2)


@given(st.integers(0, 2**31), st.booleans())
def test_thinning_keeps_the_best_and_nothing_close_to_it(seed, oriented):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 20))
    boxes = np.stack([*rng.uniform(0, 40, (2, n)), *rng.uniform(4, 20, (2, n)), np.zeros(n)], 1)
    if oriented:
        boxes[:, 4] = rng.uniform(-1.5, 1.5, n)
    scores = rng.random(n)
    kept = rectangles.suppress(boxes, scores, 0.5, oriented)
    close = rectangles.overlaps(boxes, boxes)
    assert (np.diff(scores[kept]) <= 0).all()
    assert (close[np.ix_(kept, kept)] - np.eye(len(kept)) <= 0.5 + 1e-9).all()
    for gone in set(range(n)) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[gone]]
        assert close[gone, better].max() > 0.5 - 1e-9


def test_every_kind_of_region_is_a_box():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 2:5, 3:9] = mask[0, 10:12, 10:12] = True
    two = rectangles.of_region(Mask(mask), False)
    np.testing.assert_allclose(two, [[3, 5.5, 6, 3, 0], [10.5, 10.5, 2, 2, 0]])
    patch = rectangles.of_region(Patch((0, 2, 3), mask[:, 2:5, 3:9]), False)
    np.testing.assert_allclose(patch, two[:1])
    square = Polygon(((0.0, 0.0), (0.0, 8.0), (4.0, 8.0), (4.0, 0.0)))
    np.testing.assert_allclose(rectangles.of_region(square, False), [[2, 4, 8, 4, 0]])
    diamond = OrientedBox((5.0, 5.0), 8.0, 8.0, 45.0)
    np.testing.assert_allclose(rectangles.of_region(diamond, False)[0, 2:4], 8 * np.sqrt(2))
    assert rectangles.of_region(Mask(np.zeros((1, 4, 4), bool)), True).shape == (0, 5)


def test_even_the_smallest_box_covers_a_pixel():
    assert rectangles.covered(box(3.4, 4.6, 0.1, 0.1), (10, 10)).sum() == 1
    assert rectangles.covered(box(-3, 40, 0.1, 0.1), (10, 10))[0, 9]
