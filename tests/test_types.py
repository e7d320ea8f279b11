"""Geometry, lazy images, the nouns on disk, and findings drawn over a picture."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine, xy

from fovea.errors import GeometryError, InputError
from fovea.image import DETECTOR, LPS, PIXEL, Channel, Grid, Image, Window
from fovea.jsonable import from_json, to_json
from fovea.overlay import overlay
from fovea.types import (
    Box,
    Code,
    Facts,
    Finding,
    Mask,
    Measure,
    Message,
    OrientedBox,
    Origin,
    Panel,
    Part,
    Picture,
    Polygon,
    Record,
    Report,
    Sample,
    Source,
    Study,
    Term,
)

CODE = Code("99TEST", "1", "thing")
BY = Origin("toy", "1", "abc")


def thing(region=None, **more):
    return Finding("thing", CODE, True, 0.75, BY, region=region, **more)


@st.composite
def grids(draw):
    """Rotated, sheared, anisotropic grids anywhere."""
    numbers = draw(st.lists(st.floats(-1, 1), min_size=9, max_size=9))
    affine = np.eye(4)
    affine[:3, :3] = np.diag(draw(st.lists(st.floats(0.1, 50), min_size=3, max_size=3))) @ (
        np.eye(3) + 0.3 * np.reshape(numbers, (3, 3))
    )
    affine[:3, 3] = draw(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
    return Grid(affine, LPS, tuple(draw(st.lists(st.integers(2, 40), min_size=3, max_size=3))))


@given(grids(), st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_world_and_index_are_inverse(grid, points):
    np.testing.assert_allclose(grid.index(grid.world(np.array(points))), points, atol=1e-5)


@given(grids(), st.data())
def test_a_crop_keeps_every_pixel_where_it_is(grid, data):
    spans = []
    for size in grid.shape:
        start = data.draw(st.integers(0, size - 1))
        spans.append((start, data.draw(st.integers(start + 1, size))))
    part = grid.crop(Window(spans[1], spans[2], spans[0]))
    starts = np.array([start for start, _ in spans])
    points = np.array([[0, 0, 0], [1, 2, 3], np.array(part.shape) - 1])
    np.testing.assert_allclose(part.world(points), grid.world(points + starts), rtol=1e-9, atol=1e-6)
    assert part.shape == tuple(stop - start for start, stop in spans)
    assert part.spacing == pytest.approx(grid.spacing)


@given(grids(), st.tuples(*[st.integers(1, 80)] * 3))
def test_a_resampled_grid_covers_the_same_extent(grid, shape):
    other = grid.resample(shape)
    for corner in (np.zeros(3), np.ones(3)):  # outer corners: half a pixel outside the first and the last centre
        there, here = (corner * np.array(g.shape) - 0.5 for g in (other, grid))
        np.testing.assert_allclose(other.world(there[None]), grid.world(here[None]), rtol=1e-9, atol=1e-6)
    back = other.resample(grid.shape)
    np.testing.assert_allclose(back.affine, grid.affine, rtol=1e-9, atol=1e-6)


@given(
    st.lists(st.floats(-20, 20), min_size=4, max_size=4).filter(lambda m: abs(m[0] * m[3] - m[1] * m[2]) > 1e-3),
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    st.lists(st.integers(0, 99), min_size=2, max_size=2),
)
def test_gdal_transforms_agree_with_rasterio(matrix, corner, index):
    a, b, d, e = matrix
    transform = Affine(a, b, corner[0], d, e, corner[1])
    grid = Grid.from_gdal(tuple(transform), "EPSG:32636", 100, 100)
    np.testing.assert_allclose(
        grid.world(np.array([[0, *index]]))[0, :2], np.ravel(xy(transform, *index)), rtol=1e-9, atol=1e-6
    )
    np.testing.assert_allclose(grid.to_gdal(), tuple(transform)[:6], rtol=1e-9, atol=1e-6)


def test_frames_say_what_they_are():
    plain, detector, crs = (Grid(np.eye(4), frame, (1, 2, 2)) for frame in (PIXEL, DETECTOR, "EPSG:32636"))
    assert [g.physical for g in (plain, detector, crs)] == [False, True, True]
    assert [g.georeferenced for g in (plain, detector, crs)] == [False, False, True]


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        (np.zeros((4, 4)), (1, 2, 2)),
        (np.full((4, 4), np.nan), (1, 2, 2)),
        (np.eye(3), (1, 2, 2)),
        (np.eye(4), (0, 2, 2)),
        (np.eye(4), (2, 2)),
    ],
)
def test_unreadable_geometry_is_an_error(affine, shape):
    with pytest.raises(GeometryError):
        Grid(affine, LPS, shape)


def test_a_grid_cannot_be_changed_through_its_affine():
    affine = np.eye(4)
    grid = Grid(affine, LPS, (1, 2, 2))
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9


@pytest.mark.parametrize("window", [Window((0, 9), (0, 2)), Window((-1, 2), (0, 2)), Window((1, 1), (0, 2))])
def test_a_window_outside_is_an_error(window):
    with pytest.raises(InputError):
        Grid.plain(4, 4).crop(window)
    with pytest.raises(InputError):
        _ = ramp(4, 4).window(window).pixels


def ramp(rows, columns, slices=3):
    pixels = np.arange(2 * slices * rows * columns, dtype=np.float32).reshape(2, slices, rows, columns)
    grid = Grid(np.diag([2.0, 3.0, 5.0, 1.0]), LPS, (slices, rows, columns))
    return Image.from_array((Channel("a"), Channel("b")), grid, pixels, pixels[0] % 7 > 0)


def test_a_windowed_image_is_a_slice_of_the_whole():
    whole = ramp(8, 10)
    part = whole.window(Window((2, 5), (3, 9), (1, 3)))
    np.testing.assert_array_equal(part.pixels, whole.pixels[:, 1:3, 2:5, 3:9])
    np.testing.assert_array_equal(part.valid, whole.valid[1:3, 2:5, 3:9])
    np.testing.assert_array_equal(part.grid.world(np.zeros((1, 3))), whole.grid.world(np.array([[1, 2, 3]])))
    with pytest.raises(InputError):
        _ = part.window(Window((0, 1), (0, 1))).pixels


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_reduced_image_takes_the_pixels_under_its_grid(rows, columns):
    whole = ramp(8, 10)
    small = whole.window(shape=(rows, columns))
    points = np.indices(small.grid.shape).reshape(3, -1).T
    under = whole.grid.index(small.grid.world(points))
    nearest = np.clip(np.floor(under + 0.5 + 1e-9).astype(int), 0, np.array(whole.grid.shape) - 1)
    np.testing.assert_array_equal(small.pixels.reshape(2, -1), whole.pixels[:, *nearest.T])


def test_pixels_are_read_once_and_only_when_asked_for():
    reads = []

    def read(window, shape):
        reads.append(window)
        return np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 2, 2), bool)

    image = Image((Channel("a"),), Grid.plain(2, 2), read)
    assert not reads
    assert image.pixels.shape == (1, *image.valid.shape)
    assert reads == [None]


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(InputError):
        Image.from_array((Channel("a"),), Grid.plain(2, 2), np.zeros((1, 1, 2, 3), np.float32))


def study(**more):
    return Study("toy", (ramp(4, 4),), Source(("a" * 64, "b" * 64), "toy 1"), {"modality": "TOY"}, **more)


def test_a_study_is_known_by_its_content():
    one, same = study(), study()
    assert one.digest == same.digest
    assert one.id == one.digest[:12]
    assert replace(one, source=Source(("a" * 64,), "toy 1")).digest != one.digest
    assert replace(one, source=Source(one.source.hashes, "toy 2")).digest != one.digest
    assert one.modality == "TOY"


def test_nouns_are_frozen_and_a_draft_needs_a_person_to_move_on():
    report = Report(study(), (), {})
    with pytest.raises(FrozenInstanceError):
        report.state = "final"
    with pytest.raises(InputError):
        Report(study(), (), {}, "final")
    assert Report(study(), (), {}, "final", "A. Reader").state == "final"


def test_a_record_has_the_layout_of_chat_templates():
    message = Message("user", (Part(image=0), Part("What is it?")))
    assert Record("r", "g", "presence", (message,), ("key",)).to_chat() == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
    ]


boxes = st.builds(
    lambda start, size: Box(tuple(start), tuple(np.add(start, size).tolist())),
    st.lists(st.floats(0, 9), min_size=3, max_size=3),
    st.lists(st.floats(0.5, 9), min_size=3, max_size=3),
)
masks = st.builds(
    lambda bits, shape: Mask(np.resize(np.array(bits, bool), shape)),
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.tuples(*[st.integers(1, 5)] * 3),
)
regions = st.one_of(
    st.none(),
    masks,
    boxes,
    st.builds(
        OrientedBox, st.tuples(st.floats(0, 9), st.floats(0, 9)), st.floats(1, 9), st.floats(1, 9), st.just(-30.0)
    ),
    st.just(Polygon(((0.0, 0.0), (4.0, 0.0), (4.0, 4.0)), 1)),
)


@given(regions, st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3), st.sampled_from([None, (0, 2)]))
def test_nouns_survive_json(region, values, slices):
    measures = tuple(Measure(f"m{i}", value, "mm", None if i else 0.5) for i, value in enumerate(values))
    finding = thing(region, measures=measures, slices=slices, location="left")
    sample = Sample("a/b", "g", Facts((finding,), frozenset({"thing", "other"}), {"view": "PA"}))
    text = json.dumps(to_json(sample))
    back = from_json(Sample, json.loads(text))
    assert json.dumps(to_json(back)) == text
    assert back.facts.assessed == sample.facts.assessed
    found = back.facts.findings[0]
    assert (found.measures, found.slices, found.by) == (measures, slices, BY)
    if isinstance(region, Mask):
        np.testing.assert_array_equal(found.region.data, region.data)
    else:
        assert found.region == region


def test_json_of_another_form_is_an_input_error():
    for data in ({}, {"label": 1}, [], {"region": "Sphere"}):
        with pytest.raises(InputError):
            from_json(Finding, data)


def canvas(size=40, scale=1, at=0):
    panel = Panel(0, 0, (at, at + size), (at, at + size), (size // scale, size // scale))
    return Picture(np.full((size + 2 * at, size + 2 * at, 3), 100, np.uint8), (panel,))


TERM = Term("thing", CODE, color=(200, 10, 10))


def touched(picture, finding):
    return (overlay(picture, [finding], [TERM]) != picture.pixels).any(-1)


def test_regions_of_one_rectangle_are_drawn_alike():
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10:20, 5:35] = True
    same = [
        Mask(mask),
        Box((0, 10, 5), (1, 20, 35)),
        OrientedBox((15, 20), 30, 10, 0),
        OrientedBox((15, 20), 10, 30, -90),
        Polygon(((10, 5), (10, 35), (20, 35), (20, 5))),
    ]
    for region in same:
        np.testing.assert_array_equal(touched(canvas(), thing(region)), mask[0], err_msg=type(region).__name__)


def test_an_angle_turns_clockwise_on_screen():
    drawn = touched(canvas(), thing(OrientedBox((20, 20), 30, 3, 45)))
    assert drawn[28, 28]
    assert not drawn[12, 28]


def test_an_overlay_follows_its_panel():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 4:8, 10:15] = True
    drawn = touched(canvas(40, scale=2, at=6), thing(Mask(mask)))
    expected = np.zeros((52, 52), bool)
    expected[6:46, 6:46] = mask[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(drawn, expected)


def test_what_is_absent_elsewhere_or_without_region_is_not_drawn():
    box = Box((0, 10, 5), (1, 20, 35))
    for finding in (
        thing(),
        thing(box, image=1),
        replace(thing(box), present=False),
        thing(Box((1, 10, 5), (2, 20, 35))),
        thing(OrientedBox((15, 20), 30, 10, 0, slice=2)),
    ):
        assert not touched(canvas(), finding).any()


def test_the_edge_is_opaque_and_the_picture_untouched():
    picture = canvas()
    before = picture.pixels.copy()
    drawn = overlay(picture, [thing(Box((0, 10, 5), (1, 20, 35)))], [TERM], opacity=0.5)
    np.testing.assert_array_equal(picture.pixels, before)
    assert tuple(drawn[10, 20]) == TERM.color
    assert tuple(drawn[15, 20]) == (150, 55, 55)
