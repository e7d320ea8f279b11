"""Measures against shapes that are known without pixels: volumes to 0.5 %, areas to 0.1 %, axes to a voxel, 1°."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import Ellipse, Ellipsoid, detector_grid, scene_grid, volume_grid
from pyproj import Geod

from experts import measure
from experts.ground import steps, weigh
from fovea.errors import GeometryError
from fovea.types import Grid

SEEDS = st.integers(0, 2**32 - 1)
SPACINGS = st.tuples(st.floats(0.6, 3), st.floats(0.4, 1.3), st.floats(0.4, 1.3))
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
FLIPS = st.tuples(*[st.booleans()] * 3)


def between(first, second):
    """The angle between two axes in degrees."""
    return abs((first - second + 90) % 180 - 90)


@given(SEEDS, SPACINGS, ANGLES, FLIPS)
@settings(max_examples=8, deadline=None)
def test_an_ellipsoid_in_a_patient(seed, spacing, angles, flips):
    """At odd spacings, in oblique and flipped grids; the diameters are those of the ellipse that a slice cuts out."""
    phantom, shape = Ellipsoid.fitting(np.random.default_rng(seed), spacing)
    grid = volume_grid(shape, spacing, angles, flips)
    mask = phantom.mask(grid)
    long, short = phantom.diameters(grid)
    voxel = max(spacing[1:])
    assert measure.volume(mask, grid).value == pytest.approx(phantom.volume, rel=0.005)
    assert measure.longest_diameter(mask, grid).value == pytest.approx(long, abs=voxel)
    assert measure.short_axis(mask, grid).value == pytest.approx(short, abs=voxel)
    assert measure.longest_diameter_3d(mask, grid).value == pytest.approx(2 * phantom.radii.max(), abs=max(spacing))


@given(st.tuples(*[st.integers(2, 20)] * 3), SPACINGS, ANGLES, FLIPS)
@settings(max_examples=20, deadline=None)
def test_a_box_along_the_axes_of_a_patients_grid(size, spacing, angles, flips):
    """Its voxels fill it, so that the volume is exact; its diagonals are right to that of a voxel."""
    grid = volume_grid((24, 24, 24), spacing, angles, flips)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(1, 1 + n) for n in size)] = True
    sides = np.array(size) * spacing
    assert measure.volume(mask, grid).value == pytest.approx(np.prod(sides) / 1000)
    assert measure.longest_diameter(mask, grid).value == pytest.approx(np.hypot(*sides[1:]), abs=np.hypot(*spacing[1:]))
    found = measure.longest_diameter_3d(mask, grid).value
    assert found == pytest.approx(np.linalg.norm(sides), abs=np.linalg.norm(spacing))


@given(SEEDS, st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4)), st.floats(8, 82), st.booleans(), st.floats(0.35, 1))
@settings(max_examples=12, deadline=None)
def test_an_ellipse_on_a_detector(seed, spacing, degrees, mirrored, ratio):
    """Of 300 to 500 pixels in the longer direction: its pixels then sum up to its area within 0.03 %.

    Turned by 8° or more: along an axis the mask itself may be a pixel longer or shorter than what it shows.
    """
    rng = np.random.default_rng(seed)
    half = rng.uniform(150, 250) * max(spacing) * np.array([1, ratio])
    rows, columns = (int(2 * half[0] / s) + 8 for s in spacing)
    grid = detector_grid(rows, columns, spacing)
    middle = np.array([rows, columns]) / 2 + rng.uniform(-0.5, 0.5, 2)
    y, x = ((np.arange(n) - m) * s for n, m, s in zip((rows, columns), middle, spacing, strict=True))
    turn = np.deg2rad(-degrees if mirrored else degrees)
    along, across = x * np.cos(turn) + y[:, None] * np.sin(turn), y[:, None] * np.cos(turn) - x * np.sin(turn)
    mask = (np.hypot(along / half[0], across / half[1]) <= 1)[None]
    assert measure.area_cm2(mask, grid).value == pytest.approx(np.pi * half[0] * half[1] / 100, rel=0.001)
    assert measure.longest_diameter(mask, grid).value == pytest.approx(2 * half[0], abs=max(spacing))
    assert measure.short_axis(mask, grid).value == pytest.approx(2 * half[1], abs=max(spacing))


@given(st.tuples(st.floats(30, 60), st.floats(8, 18)), st.floats(0, 180))
@settings(max_examples=20, deadline=None)
def test_the_diameters_of_a_turned_rectangle(size, degrees):
    """The longest is a diagonal; perpendicular to it lies the chord through a corner of the other one.

    A mask has no corners: up to a pixel is missing at each end.
    """
    grid = detector_grid(90, 90, (1.0, 1.0))
    y, x = np.mgrid[:90, :90] - 44.6
    turn = np.deg2rad(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    mask = ((abs(along) <= size[0] / 2) & (abs(across) <= size[1] / 2))[None]
    assert measure.longest_diameter(mask, grid).value == pytest.approx(np.hypot(*size), abs=2)
    assert measure.short_axis(mask, grid).value == pytest.approx(size[1] * np.hypot(*size) / size[0], abs=2)


PLACES = {
    "utm at its edge": ("EPSG:32636", 830_000.0, 6_700_000.0, (10.0, 10.0)),
    "polar stereographic, near the pole": ("EPSG:3413", 20_000.0, -15_000.0, (500.0, 500.0)),
    "polar stereographic, 2800 km from the pole": ("EPSG:3031", 2_000_000.0, 2_000_000.0, (1000.0, 1000.0)),
    "degrees at 60°": ("EPSG:4326", 13.4, 60.0, (2e-4, 1e-4)),
    "degrees at 84°": ("EPSG:4326", -179.9, 84.0, (1e-3, 1e-4)),
    "degrees at 80°, over 900 km": ("EPSG:4326", 30.0, 80.0, (0.1, 0.02)),
    "web mercator at 70°": ("EPSG:3857", 1_500_000.0, 11_000_000.0, (20.0, 20.0)),
    "US survey feet": ("EPSG:2263", 1_000_000.0, 200_000.0, (6.0, 4.0)),
}


@pytest.mark.parametrize("name", PLACES)
@given(st.floats(0, 360), st.floats(0, 180))
@settings(max_examples=3, deadline=None)
def test_an_ellipse_on_the_earth(name, turn, bearing):
    """Laid out by geodesics on turned grids; the truth is that of the geodesic polygon of its outline."""
    crs, x, y, pixel = PLACES[name]
    grid = scene_grid(460, 460, pixel, crs, x, y, 0.0 if "degrees" in name else turn)
    middle = 230.3, 229.8
    sides = np.linalg.norm(steps(grid, np.array([middle]))[0], axis=0)
    phantom = Ellipse(grid, middle, (210 * min(sides), 110 * min(sides)), bearing)
    mask = phantom.mask()
    assert measure.area_m2(mask, grid).value == pytest.approx(phantom.area, rel=0.001)
    assert measure.area_ha(mask, grid).value == pytest.approx(phantom.area / 1e4, rel=0.001)
    assert measure.length(mask, grid).value == pytest.approx(2 * phantom.half[0], abs=max(sides))
    assert between(measure.bearing(mask, grid).value, bearing) < 1


@given(SEEDS, st.sampled_from(sorted(PLACES)), st.floats(0, 360))
@settings(max_examples=25, deadline=None)
def test_a_polygon_along_pixel_edges_has_its_geodesic_area(seed, name, turn):
    """No pixel is cut, so that nothing but the areas of the pixels can be wrong."""
    crs, x, y, pixel = PLACES[name]
    grid = scene_grid(700, 900, pixel, crs, x, y, turn)
    rng = np.random.default_rng(seed)
    (top, bottom), (left, right) = (np.sort(rng.choice(n, 2, replace=False)) for n in grid.shape[1:])
    mask = np.zeros(grid.shape, bool)
    mask[0, top : bottom + 1, left : right + 1] = True
    rows, columns = np.linspace(top, bottom + 1, 500) - 0.5, np.linspace(left, right + 1, 500) - 0.5
    ring = np.concatenate(
        [
            np.stack(np.broadcast_arrays(*edge), axis=1)
            for edge in (
                (top - 0.5, columns),
                (rows, right + 0.5),
                (bottom + 0.5, columns[::-1]),
                (rows[::-1], left - 0.5),
            )
        ]
    )
    place = Ellipse(grid, (0, 0), (1, 1), 0)
    longitude, latitude = place.to_earth.transform(*grid.world(np.insert(ring, 0, 0, axis=1))[:, :2].T)
    truth = abs(place.earth.polygon_area_perimeter(longitude, latitude)[0])
    assert measure.area_m2(mask, grid).value == pytest.approx(truth, rel=1e-5)


def test_the_whole_earth_has_its_area():
    """In degrees, with rows that touch the poles; and a grid that has the pole in its middle."""
    earth = Geod(ellps="WGS84")
    world = Grid.from_gdal((0.25, 0, -180, 0, -0.25, 90), "EPSG:4326", 720, 1440)
    e2 = earth.es
    truth = 2 * np.pi * earth.a**2 * (1 + (1 - e2) / np.sqrt(e2) * np.arctanh(np.sqrt(e2)))
    assert weigh(np.ones(world.shape, bool), world) == pytest.approx(truth, rel=2e-6)
    pole = scene_grid(901, 901, (1000.0, 1000.0), "EPSG:3413", 0.0, 0.0)
    ring = [c[:, 0] for c in np.split(np.array([(lon, 88.0) for lon in np.linspace(-180, 180, 7201)[:-1]]), 2, axis=1)]
    lonlat = Ellipse(pole, (450, 450), (1, 1), 0).to_earth
    rows, columns = np.mgrid[:901, :901].reshape(2, -1)
    latitude = lonlat.transform(*pole.world(np.stack((0 * rows, rows, columns), 1))[:, :2].T)[1]
    cap = (latitude >= 88).reshape(pole.shape)
    assert weigh(cap, pole) == pytest.approx(abs(earth.polygon_area_perimeter(*ring)[0]), rel=1e-3)


def test_pixels_off_the_earth_matter_only_under_the_mask():
    """A picture from a geostationary satellite: its corners look past the Earth."""
    crs = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84 +units=m"
    grid = scene_grid(60, 60, (2e5, 2e5), crs, 0.0, 0.0)
    mask = np.zeros(grid.shape, bool)
    mask[0, 25:35, 25:35] = True
    disc = weigh(mask, grid)
    assert disc == pytest.approx(100 * 4e10, rel=0.05)
    mask[0, 0, 0] = True
    with pytest.raises(GeometryError):
        weigh(mask, grid)
