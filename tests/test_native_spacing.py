"""Pictures at the spacing of a network: of any size, turned, resampled, and back on their own grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scene_files as files
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from experts.network import fused
from experts.preparation import REACH, Sampled, local_features, prepare, spacing
from experts.resampling import reach, resample, resize
from experts.segmentation import build
from experts.windows import plan
from fovea.errors import ExpertError
from fovea.types import LPS, Channel, Grid, Image, Source, Study

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 60), st.integers(1, 60))


@given(SIDES, SIDES, st.data())
def test_resampling_by_sparse_weights_is_that_by_dense_ones(before, after, data):
    array = np.random.default_rng(0).random((2, *before)).astype(np.float32)
    whole = resize(array, after)
    np.testing.assert_allclose(resample(array, after), whole, atol=1e-5)
    wanted = []
    for length in after:
        start = data.draw(st.integers(0, length - 1))
        wanted.append((start, data.draw(st.integers(start + 1, length))))
    inside = [reach(old, new, span) for old, new, span in zip(before, after, wanted, strict=True)]
    here, there = (tuple(slice(*span) for span in part) for part in (inside, wanted))
    part = resample(array[:, *here], after, here, there, before)
    np.testing.assert_allclose(part, whole[:, *there], atol=1e-5)


@given(st.integers(1, 3000), st.integers(1, 12), st.floats(0, 0.5), st.integers(1, 4))
def test_planned_windows_cover_any_length(length, size, overlap, grown):
    windows = plan((32 * size,), (length,), overlap, (32,), (grown,))
    places = windows.places(0, length)
    assert places[-1].start + windows.size[0] >= length
    assert windows.size[0] <= max(32 * size * grown, 2 * windows.overlap[0])
    total = torch.zeros(places[-1].start + windows.size[0])
    for place in places:
        total[place.start : place.start + windows.size[0]] += place.weight
    torch.testing.assert_close(total, torch.ones_like(total))


@given(st.tuples(*[st.integers(1, 600)] * 3), st.integers(2**15, 2**23))
def test_planned_windows_hold_no_more_than_they_may(shape, most):
    windows = plan((32, 64, 64), shape, 0.25, (16, 32, 32), (4, 3, 3), most)
    assert math.prod(windows.size) <= max(most, 32 * 64 * 64)
    large = plan((32, 64, 64), shape, 0.25, (16, 32, 32), (4, 3, 3))
    assert math.prod(large.size) > most or windows == large


def ball(grid: Grid, center: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    points = np.indices(grid.shape).reshape(3, -1).T
    return (np.linalg.norm(grid.world(points) - center, axis=1) < radius).reshape(grid.shape)


def volume(seed: int, shape: tuple[int, int, int], steps: tuple[float, float, float]) -> Grid:
    """A grid of a patient whose axes are swapped, flipped and tilted."""
    rng = np.random.default_rng(seed)
    order, signs = rng.permutation(3), rng.choice((-1, 1), 3)
    turn = np.linalg.qr(np.eye(3) + rng.normal(0, 0.08, (3, 3)))[0]
    turn = turn * np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn[:, order] * signs * np.array(steps)[::-1]
    affine[:3, 3] = rng.normal(0, 100, 3)
    return Grid(affine, LPS, shape)


def recipe(**more):
    given = {"modalities": ("CT",), "channels": ("HU",), "labels": {"liver": {}}, "exclusive": False}
    return files.recipe(**({"size": (16, 32, 32), "spacing": (3.0, 1.5, 1.5)} | given | more))


def ct(grid: Grid, values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> Study:
    image = Image.from_array((Channel("HU"),), grid, values[None], valid)
    return Study("radiology", (image,), Source(("1" * 64,), "test/1"), {"modality": "CT"})


VOLUMES = [
    ((25, 80, 70), (5.0, 0.9, 0.9)),
    ((90, 40, 70), (0.8, 2.2, 1.1)),
    ((12, 50, 40), (3.0, 1.5, 1.505)),
    ((70, 9, 66), (1.0, 6.0, 1.3)),
]
PLACES = [
    ("EPSG:32633", (500_000, 5_500_000), 10.0),
    ("EPSG:4326", (15.0, 60.0), 1e-4),
    ("EPSG:2263", (1_000_000, 200_000), 30.0),
]


@pytest.mark.parametrize(("shape", "steps"), VOLUMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_copies_gives_back_what_a_volume_shows(shape, steps, seed):
    grid = volume(seed, shape, steps)
    center = grid.world((np.array([shape]) - 1) / 2)[0]
    mask = ball(grid, center, 0.33 * min(np.array(shape) * steps))
    expert = files.expert(recipe(), files.Same(1))
    [drawn] = expert.outputs([ct(grid, mask.astype(np.float32))])
    seen, found = drawn.seen, drawn["liver"]
    assert all(length >= least for length, least in zip(seen.valid.shape, (16, 32, 32), strict=True))
    assert seen.valid.sum() == np.prod(seen.size)
    assert not drawn.map("liver")[~seen.valid].any()
    for axis, (wanted, length) in enumerate(zip((3.0, 1.5, 1.5), seen.size, strict=True)):
        along = seen.turn.axes[axis]
        assert abs(length * wanted / (shape[along] * steps[along]) - 1) <= max(0.01, 0.5 / length) + 1e-9
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9
    shrunk = seen.shrink(mask)
    assert 2 * (shrunk & (drawn.map("liver") >= 0.5)).sum() / (shrunk.sum() + (drawn.map("liver") >= 0.5).sum()) > 0.99


def test_a_grid_of_the_wanted_spacing_is_not_resampled():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, (20, 40, 50)).astype(np.float32)
    grid = Grid(np.diag([1.51, 1.49, 3.02, 1]), LPS, values.shape)
    seen = prepare(recipe(), ct(grid, values))
    assert seen.extent == values.shape
    np.testing.assert_array_equal(seen.pixels[0], values)
    off = prepare(recipe(), ct(Grid(np.diag([1.53, 1.49, 3.02, 1]), LPS, values.shape), values))
    assert off.size == (20, 40, 51)


@pytest.mark.parametrize("steps", [(1.0, 10.0, 10.0), (1.0, 25.0, 17.0), (1.0, 4.0, 6.0)])
@pytest.mark.parametrize("chunk", [2**25, 2**13])
def test_parts_have_the_features_of_the_whole(steps, chunk, monkeypatch):
    monkeypatch.setattr("experts.preparation._CHUNK", chunk)
    classes, valid = files.truth(150, 170, 2), files.border(150, 170)
    config = files.recipe(spacing=steps, low=None, high=None, size=(1, 32, 32))
    sampled = Sampled(config, files.study(files.pixels(classes, 2), valid).images[0])
    _, rows, columns = sampled.shape
    whole, known = sampled.read(((0, 1), (0, rows), (0, columns)))
    assert 0 < known.mean() < 1
    assert not whole[:, ~known].any()
    for spans in (
        ((0, 1), (0, 20), (5, 30)),
        ((0, 1), (rows // 2, rows), (columns // 3, columns)),
        ((0, 1), (7, 8), (9, 10)),
    ):
        pixels, there = sampled.read(spans)
        part = tuple(slice(*span) for span in spans)
        np.testing.assert_array_equal(there, known[part])
        np.testing.assert_allclose(pixels, whole[:, *part], atol=2e-5)


def test_features_do_not_tell_where_they_are():
    values = np.random.default_rng(0).uniform(0.1, 0.9, (4, 200, 210)).astype(np.float32)
    config, half = files.recipe(size=(1, 32, 32)), REACH // 2
    whole = prepare(config, files.study(values)).pixels
    part = prepare(config, files.study(values[:, 60:140, 50:170])).pixels
    inner = slice(half, -half)
    np.testing.assert_array_equal(part[..., inner, inner], whole[:, :, 60:140, 50:170][..., inner, inner])


@given(st.tuples(st.integers(1, 3), st.integers(1, 80), st.integers(1, 60)))
def test_local_detail_is_the_difference_from_the_mean_around(shape):
    rng = np.random.default_rng(0)
    channels, valid = rng.random((2, *shape), np.float32), rng.random(shape) > 0.1
    found = local_features(channels, valid)
    around = uniform_filter(channels, (1, 1, REACH, REACH), mode="nearest")
    np.testing.assert_array_equal(found[:2], channels)
    np.testing.assert_allclose(found[2:], np.clip(8 * (channels - around), -1, 1) * valid, atol=1e-5)


@pytest.mark.parametrize(("frame", "place", "step"), PLACES)
def test_a_scene_is_measured_in_metres_on_the_ground(frame, place, step):
    from pyproj import CRS, Geod, Transformer

    grid = Grid.from_gdal((step, 0, place[0], 0, -step, place[1]), frame, 101, 101)
    to = Transformer.from_crs(frame, CRS(frame).geodetic_crs, always_xy=True)
    ends = grid.world(np.array([[0, 50, 0], [0, 50, 100], [0, 0, 50], [0, 100, 50]]))[:, :2]
    longitude, latitude = to.transform(*ends.T)
    _, _, lengths = Geod(ellps="GRS80").inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    assert spacing(grid)[1:] == pytest.approx((lengths[1] / 100, lengths[0] / 100), rel=1e-5)


def test_a_picture_without_a_size_has_no_spacing():
    with pytest.raises(ExpertError, match="physical size"):
        spacing(Grid.plain(5, 5))


@pytest.mark.parametrize("size", [(1, 64, 64), (16, 32, 32)])
def test_a_fused_network_says_what_the_trained_one_says(size):
    config = recipe(size=size)
    torch.manual_seed(0)
    network = build(config)
    pixels = torch.rand(2, 2, *size[size[0] == 1 :])
    with torch.no_grad():
        for _ in range(3):
            network(pixels)  # gives batch normalisation something to do
        wanted = network.eval()(pixels)
        found = fused(network)(pixels)
    assert not [layer for layer in network.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
