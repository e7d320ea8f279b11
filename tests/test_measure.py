"""Every measure against a phantom whose value is known without it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from experts import measure
from experts.ground import areas, weigh
from fovea.errors import GeometryError, InputError
from fovea.types import DETECTOR, LPS, Grid, Strip

WGS84 = Geod(ellps="WGS84")


def patient(shape, spacing=(1.0, 1.0, 1.0), frame=LPS):
    """A grid with spacing along (slice, row, column) in mm."""
    return Grid(np.diag([*spacing[::-1], 1.0]), frame, shape)


def scene(rows, columns, pixel=2.0, crs="EPSG:32636", x=500_000.0, y=4_500_000.0, turn=0.0):
    """A north-up scene, or one turned by degrees about its first corner."""
    a, b = pixel * np.cos(np.deg2rad(turn)), pixel * np.sin(np.deg2rad(turn))
    return Grid.from_gdal((a, b, x, b, -a, y), crs, rows, columns)


def disc(grid, center, diameter, spacing=(1.0, 1.0)):
    """Pixels at least half inside a disc; centre in pixels, diameter in the unit of the spacing."""
    rows, columns = np.mgrid[: grid.shape[1], : grid.shape[2]]
    inside = sum(
        ((rows + a - center[0]) * spacing[0]) ** 2 + ((columns + b - center[1]) * spacing[1]) ** 2 <= diameter**2 / 4
        for a in (-0.4, -0.2, 0, 0.2, 0.4)
        for b in (-0.4, -0.2, 0, 0.2, 0.4)
    )
    return (inside >= 13)[None]


def rectangle(grid, center, size, degrees):
    """Pixels inside a rectangle (length, width) in pixels whose long side lies `degrees` clockwise from the top."""
    rows, columns = np.mgrid[: grid.shape[1], : grid.shape[2]]
    turn = np.deg2rad(degrees)
    up, right = center[0] - rows, columns - center[1]
    along, across = up * np.cos(turn) + right * np.sin(turn), right * np.cos(turn) - up * np.sin(turn)
    return ((abs(along) <= size[0] / 2) & (abs(across) <= size[1] / 2))[None]


def between(first, second):
    """The angle between two axes in degrees."""
    return abs((first - second + 90) % 180 - 90)


@given(st.floats(5, 40), st.floats(0, 1), st.floats(0, 1), st.sampled_from([(1, 1), (0.5, 0.5), (0.8, 0.5)]))
@settings(max_examples=40, deadline=None)
def test_a_disc_keeps_its_diameter_and_area(diameter, dy, dx, spacing):
    """In pixels of unequal sides too; the diameter is given in longer pixel sides."""
    wide = max(spacing)
    rows = int(1.4 * diameter * wide / min(spacing)) + 8
    grid = patient((1, rows, rows), (1.0, *spacing), DETECTOR)
    mask = disc(grid, (rows / 2 + dy, rows / 2 + dx), diameter * wide, spacing)
    found = measure.longest_diameter(mask, grid)
    assert found.unit == "mm"
    assert abs(found.value - diameter * wide) < 0.6 * wide
    area = measure.area_cm2(mask, grid)
    truth = np.pi * (diameter * wide) ** 2 / 400
    assert abs(area.value - truth) < 2 * area.uncertainty
    assert abs(area.value - truth) < 1.2 / diameter * truth


def test_the_uncertainty_of_a_discs_area_is_that_of_its_outline():
    """A ring of half-width w has the area 2·pi·r·w; uniform within one pixel, w has the deviation 1 / sqrt(12)."""
    grid = patient((1, 90, 90), frame=DETECTOR)
    mask = disc(grid, (45, 45), 60)
    perimeter = np.pi * 60 / 100
    fine, coarse = (measure.area_cm2(mask, grid, measure.Context(coarseness=c)).uncertainty for c in (1, 3))
    assert fine == pytest.approx(perimeter / np.sqrt(12), rel=0.15)
    assert coarse == pytest.approx(3 * fine)


@given(st.floats(8, 20), st.tuples(st.floats(0.5, 2), st.floats(0.4, 1.2), st.floats(0.4, 1.2)))
@settings(max_examples=15, deadline=None)
def test_a_ball_keeps_its_volume_and_diameter_in_a_turned_grid(radius, spacing):
    shape = tuple(int(2 * radius / s) + 6 for s in spacing)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing[::-1])
    grid = Grid(affine, LPS, shape)
    index = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    mask = np.linalg.norm(index * spacing, axis=-1) <= radius
    volume = measure.volume(mask, grid)
    truth = 4 / 3 * np.pi * radius**3 / 1000
    assert volume.unit == "mL"
    assert abs(volume.value - truth) < min(2 * volume.uncertainty, 0.06 * truth)
    assert abs(measure.longest_diameter(mask, grid).value - 2 * radius) < 1.3 * max(spacing[1:])


def test_the_longest_diameter_is_in_plane_and_of_the_largest_piece():
    """A rod along the slice axis is long in space, but short on every slice."""
    grid = patient((40, 40, 40))
    mask = np.zeros(grid.shape, bool)
    mask[2:38, 10:14, 10:14] = True
    rod = measure.longest_diameter(mask, grid).value
    assert rod == pytest.approx(np.hypot(3, 3), abs=0.6)
    mask[5, 30, 20:39] = True
    assert measure.longest_diameter(mask, grid).value == rod
    assert measure.count(mask, grid).value == 2


@given(st.floats(0, 179.9), st.floats(10, 40), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_rectangle_keeps_its_length_and_bearing(degrees, size, dy, dx):
    """On the central meridian of a UTM zone, where grid north is geographic north."""
    grid = scene(70, 70)
    mask = rectangle(grid, (35 + dy, 35 + dx), (size, size / 4), degrees)
    length, bearing = measure.length(mask, grid), measure.bearing(mask, grid)
    assert abs(length.value - 2 * size) < 2 * 1.2  # 1.2 pixels of 2 m
    assert between(bearing.value, degrees) < 8 if size < 20 else between(bearing.value, degrees) < 2.5
    assert 0 <= bearing.value < 180
    assert length.uncertainty == pytest.approx(2 / np.sqrt(6), rel=0.01)


@pytest.mark.parametrize("turn", [0.0, 30.0, 200.0])
@pytest.mark.parametrize(
    ("crs", "x", "y", "pixel"),
    [
        ("EPSG:32636", 740_000.0, 6_700_000.0, 2.0),  # 2.4 degrees of meridian convergence
        ("EPSG:3857", 1_500_000.0, 8_400_000.0, 2.0),  # Web Mercator at 60 degrees: twice too large
        ("EPSG:4326", 13.4, 60.0, 2e-5),  # degrees, twice as long northwards as eastwards
        ("EPSG:2263", 300_000.0, 60_000.0, 6.0),  # US survey feet
    ],
)
def test_bearing_length_and_area_are_those_on_the_earth(crs, x, y, pixel, turn):
    """A ship drawn by geodesics from its middle comes out as drawn, in any reference system."""
    rows = 140
    grid = scene(rows, rows, pixel, crs, x, y, turn)
    middle = grid.world(np.array([[0, rows / 2, rows / 2]]))[0, :2]
    system = CRS(crs)
    to_earth = Transformer.from_crs(system, system.geodetic_crs, always_xy=True)
    earth = system.get_geod()
    longitude, latitude = to_earth.transform(*middle)
    points = np.stack(np.mgrid[:1, :rows, :rows], -1).reshape(-1, 3)
    east_north = grid.world(points)[:, :2]
    azimuth, _, distance = earth.inv(
        np.full(len(points), longitude), np.full(len(points), latitude), *to_earth.transform(*east_north.T)
    )
    heading, long, wide = 70.0, 60.0, 15.0
    angle = np.deg2rad(azimuth - heading)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    mask = ((abs(along) <= long / 2) & (abs(across) <= wide / 2)).reshape(grid.shape)
    assert measure.length(mask, grid).value == pytest.approx(long, abs=2.8)
    assert between(measure.bearing(mask, grid).value, heading) < 1.5
    assert measure.area_m2(mask, grid).value == pytest.approx(long * wide, rel=0.05)
    assert measure.area_ha(mask, grid).value == pytest.approx(measure.area_m2(mask, grid).value / 1e4)


@given(st.floats(-80, 80), st.floats(-170, 170), st.floats(1e-4, 0.05))
@settings(max_examples=25, deadline=None)
def test_the_area_of_a_box_in_degrees_is_the_geodesic_polygons(latitude, longitude, pixel):
    grid = scene(20, 30, pixel, "EPSG:4326", longitude, latitude)
    top, left, bottom, right = latitude, longitude, latitude - 20 * pixel, longitude + 30 * pixel
    # edges along parallels are followed by many short geodesics
    along = np.linspace(left, right, 400)
    ring = (np.concatenate((along, along[::-1])), np.repeat((top, bottom), 400))
    truth = abs(WGS84.polygon_area_perimeter(*ring)[0])
    whole = np.ones(grid.shape, bool)
    assert measure.area_m2(whole, grid).value == pytest.approx(truth, rel=2e-5)


def test_the_area_in_a_projection_is_the_affines_but_for_its_scale():
    """UTM's scale is 0.9996 on the central meridian, so that a 10 m pixel covers 100 / 0.9996² m2."""
    assert areas(scene(3, 3, 10.0), (0, 3), (0, 3)) == pytest.approx(np.full((3, 3), 100 / 0.9996**2), rel=1e-6)


def test_a_reference_system_without_a_datum_is_refused():
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    with pytest.raises(GeometryError):
        areas(scene(3, 3, 10.0, local), (0, 3), (0, 3))


@pytest.mark.parametrize("name", sorted(set(measure.MEASURES) - {"count", "fraction"}))
def test_pixels_without_a_size_give_no_physical_measure(name):
    grid = Grid.plain(8, 8)
    assert measure.MEASURES[name](np.ones(grid.shape, bool), grid, measure.PLAIN) is None


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("area_cm2", scene(8, 8)),
        ("area_ha", patient((1, 8, 8))),
        ("area_cm2", patient((4, 8, 8))),
        ("volume", patient((1, 8, 8))),
        ("longest_diameter", scene(8, 8)),
        ("short_axis", scene(8, 8)),
        ("longest_diameter_3d", patient((1, 8, 8))),
        ("key_slice", patient((1, 8, 8))),
        ("length", patient((1, 8, 8))),
    ],
)
def test_a_measure_of_another_frame_is_left_out(name, grid):
    assert measure.MEASURES[name](np.ones(grid.shape, bool), grid, measure.PLAIN) is None


@pytest.mark.parametrize("name", sorted(measure.MEASURES))
def test_an_empty_mask_breaks_no_measure(name):
    for grid in (Grid.plain(8, 8), scene(8, 8), patient((4, 8, 8)), patient((1, 8, 8), frame=DETECTOR)):
        found = measure.MEASURES[name](np.zeros(grid.shape, bool), grid, measure.PLAIN)
        assert found is None or found.value == 0


def test_fraction_is_of_the_valid_pixels():
    grid = scene(10, 10)
    mask, valid = np.zeros(grid.shape, bool), np.ones(grid.shape, bool)
    mask[:, :5], valid[:, :, 6:] = True, False
    found = measure.fraction(mask, grid, measure.Context(valid=valid))
    assert found.value == pytest.approx(0.5)
    assert measure.fraction(mask, grid).value == pytest.approx(0.5)
    assert measure.fraction(mask, grid, measure.Context(valid=~np.ones_like(valid))) is None


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_count_is_the_number_of_discs_and_specks_go(n, seed):
    """Discs in cells of their own, and one single pixel beside them."""
    rng = np.random.default_rng(seed)
    grid = Grid.plain(64, 96)
    mask = np.zeros(grid.shape, bool)
    for cell in rng.permutation(6)[:n]:
        center = np.array([cell // 3, cell % 3]) * 32 + rng.uniform(10, 20, 2)
        mask |= disc(grid, center, rng.uniform(6, 14))
    mask[0, 31, 31] = True
    assert measure.count(mask, grid).value == n + 1
    assert measure.count(measure.without_specks(mask, 4), grid).value == n
    assert (measure.without_specks(mask, 1) == mask).all()
    assert measure.pieces(measure.largest(mask))[1] == 1


def thorax(rows=100, columns=120, heart=(40, 82)):
    """Two lungs whose outer edges are 100 columns apart in the widest row, and a heart of the given columns."""
    left, right, middle = (np.zeros((1, rows, columns), bool) for _ in range(3))
    right[0, 20:70, 20:50], left[0, 20:70, 70:100] = True, True
    right[0, 60, 10:20], left[0, 60, 100:110] = True, True
    middle[0, 40:70, slice(*heart)] = True
    return middle, {"left_lung": left, "right_lung": right}


def test_the_cardiothoracic_ratio_is_the_widest_heart_over_the_widest_thorax():
    heart, lungs = thorax()
    grid = Grid.plain(100, 120)
    found = measure.cardiothoracic_ratio(heart, grid, measure.Context(structures=lungs))
    assert found.value == pytest.approx(0.42)
    assert found.unit == "1"
    assert found.uncertainty == pytest.approx(0.42 * np.hypot(1 / 42, 1 / 100) / np.sqrt(6))
    heart[0, 5, 3] = True  # a speck far out is no heart
    assert measure.cardiothoracic_ratio(heart, grid, measure.Context(structures=lungs)).value == pytest.approx(0.42)
    del lungs["left_lung"]
    assert measure.cardiothoracic_ratio(heart, grid, measure.Context(structures=lungs)) is None


@pytest.mark.parametrize("flip", [False, True])
def test_the_side_is_the_patients_whatever_way_the_columns_run(flip):
    """In LPS the world x decides; the columns may run either way."""
    affine = np.eye(4)
    if flip:
        affine[0, 0], affine[0, 3] = -1, 99
    grid = Grid(affine, LPS, (1, 40, 100))
    low, high = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    low[0, 10:20, 10:20], high[0, 10:20, 80:90] = True, True
    names = ("left", "right") if flip else ("right", "left")
    assert (measure.side(low, grid), measure.side(high, grid)) == names
    assert measure.side(low | high, grid) == "both"
    assert measure.side(low & high, grid) == ""
    assert measure.side(high, grid, midline=-5.0) == "left"
    assert measure.midline(low, high, grid) == pytest.approx(49.5)
    assert measure.midline(low, low & high, grid) is None
    low[0, 30, 90] = True
    assert measure.side(low, grid) == names[0], "a speck on the other side"


@pytest.mark.parametrize("turn", [0.0, 180.0])
def test_the_quadrant_goes_by_the_map(turn):
    """A scene turned by half a circle has its first pixel in the south-east."""
    grid = scene(40, 40, turn=turn)
    mask = np.zeros(grid.shape, bool)
    mask[0, 2:6, 2:6] = True
    assert measure.quadrant(mask, grid) == ("south-east" if turn else "north-west")
    mask[0, 25:35, 3:12] = True
    assert measure.quadrant(mask, grid) == ("north-east" if turn else "south-west")
    assert measure.quadrant(mask & False, grid) == ""
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 3, 30] = True
    assert measure.quadrant(mask, Grid.plain(40, 40)) == "north-east"


def test_values_are_those_of_the_valid_pixels_in_units_of_ucum():
    rng, grid = np.random.default_rng(0), patient((3, 20, 20))
    pixels = rng.normal(40, 10, grid.shape).astype(np.float32)
    mask, valid = rng.random(grid.shape) < 0.5, rng.random(grid.shape) < 0.9
    pixels[~valid] = 999
    inside = pixels[mask & valid].astype(float)
    context = measure.Context(valid=valid, pixels=pixels, unit="HU")
    expected = {
        "mean": inside.mean(), "standard_deviation": inside.std(), "median": np.median(inside),
        "p10": np.percentile(inside, 10), "p90": np.percentile(inside, 90),
    }  # fmt: skip
    for name, value in expected.items():
        found = measure.MEASURES[name](mask, grid, context)
        assert (found.name, found.unit, found.uncertainty) == (name, "[hnsf'U]", None)
        assert found.value == pytest.approx(value)
    assert measure.mean(mask, grid, measure.Context(pixels=pixels, unit="digital number")) is None
    assert measure.mean(mask & ~valid, grid, context) is None
    edge = np.linspace(0, 1, 400, dtype=np.float32).reshape(1, 20, 20)  # brighter where it is surer
    sure = measure.Context(pixels=100 * edge, unit="HU", probabilities=edge)
    assert measure.mean(edge >= 0.5, patient((1, 20, 20)), sure).uncertainty == pytest.approx(1.48 * 12.5, rel=0.05)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_a_change_matrix_adds_up_to_both_maps(seed, n):
    rng, grid = np.random.default_rng(seed), scene(30, 40, 1000.0, "EPSG:3413", 1e6, -1e6, 20.0)
    before, after = rng.integers(0, n + 1, (2, 30, 40)).astype(np.uint8)
    changes = measure.change_matrix(before, after, grid, n)
    assert changes.unit == "ha"
    pixel = measure.area_ha((before == 1)[None] & (after == 0)[None], grid).value
    assert changes.areas[1, 0] == pytest.approx(pixel)
    for classes, totals in ((before, changes.before), (after, changes.after)):
        told = measure.class_areas(classes, grid, n)
        assert [area.value for area, _ in told] == pytest.approx(totals)
        assert sum(share.value for _, share in told) == pytest.approx(1)
    assert changes.gained - changes.lost == pytest.approx(changes.after - changes.before)
    same = measure.change_matrix(before, before, grid, n)
    assert (same.gained == 0).all()
    after[:15] = Strip.NODATA
    known = np.zeros(grid.shape, bool)
    known[:, 15:] = True
    assert measure.change_matrix(before, after, grid, n).areas.sum() == pytest.approx(weigh(known, grid) / 1e4)


def test_class_maps_of_a_volume_are_in_ml_and_wrong_ones_are_refused():
    grid = patient((2, 4, 5), (3.0, 0.5, 0.5))
    classes = np.ones(grid.shape, np.uint8)
    (nothing, _), (volume, share) = measure.class_areas(classes, grid, 1)
    assert (nothing.value, volume.name, volume.unit, share.value) == (0, "volume", "mL", 1)
    assert volume.value == pytest.approx(40 * 0.75 / 1000)
    for wrong in (classes[:, :3], classes * 7):
        with pytest.raises(InputError):
            measure.change_matrix(classes, wrong, grid, 1)


def test_within_names_the_smallest_structure_that_holds_the_mask():
    mask, lung, lobe, other = np.zeros((4, 3, 20, 20), bool)
    lung[:, :, :10], lobe[:, :10, :10], other[:, :, 10:] = True, True, True
    mask[1, 2:8, 2:8] = True
    structures = {"lung": lung, "lobe": lobe, "other": other}
    assert measure.within(mask, structures) == "lobe"
    mask[1, 2:8, 8:15] = True
    assert measure.within(mask, structures) == "lobe"
    mask[1, 12:18, 2:8] = True
    assert measure.within(mask, structures) == "lung"
    mask[1:] = lobe[1:]
    mask[1, 10, 0] = True
    assert measure.within(mask, structures) == "lobe", "but for one pixel of two hundred"
    assert measure.within(mask, {"other": other}) == measure.within(mask & False, structures) == ""


@pytest.mark.parametrize("frame", [LPS, DETECTOR])
def test_the_zone_is_told_from_the_apex_down(frame):
    """In a patient z runs to the head, on a detector y to the feet."""
    grid = patient((30, 8, 8) if frame == LPS else (1, 30, 8), frame=frame)
    lungs, mask = np.ones(grid.shape, bool), np.zeros(grid.shape, bool)
    line = mask if frame == LPS else mask[0]
    names = []
    for place in (2, 15, 27):
        mask[:] = False
        line[place] = True
        names.append(measure.zone(mask, lungs, grid))
    assert names == (["lower", "middle", "upper"] if frame == LPS else ["upper", "middle", "lower"])
    assert measure.zone(mask, lungs & False, grid) == ""
