"""Made-up scenes: valid files whose truth is what can be measured in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Geod, Transformer
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.synth import LABELS, frame_somewhere, metres_per_degree

SCENES = 100
COVERS = {"water", "forest", "cropland", "grassland", "bare_soil", "built_up", "road", "cloud"}
WGS84 = Geod(ellps="WGS84")
EIGHT = np.ones((3, 3), int)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return RemoteSensing().synth(tmp_path_factory.mktemp("scenes"), SCENES, 20)


def findings(samples, *labels):
    """Pairs of sample and finding, of some labels or all."""
    pairs = [(s, f) for s in samples for f in s.facts.findings if not labels or f.label in labels]
    assert pairs
    return pairs


def plane(finding):
    return finding.region.data[0]


@cache
def header(path):
    """Transform, CRS and shape of a file, by rasterio alone."""
    with rasterio.open(path) as file:
        return file.transform, file.crs, file.shape


def opened(sample):
    """Reflectance (band, row, column) and validity (row, column), by rasterio alone."""
    with rasterio.open(sample.path) as file:
        scale, offset = (np.array(values, np.float32)[:, None, None] for values in (file.scales, file.offsets))
        return file.read() * scale + offset, file.dataset_mask() > 0


def ground(sample, index):
    """Longitude and latitude of (row, column) points."""
    transform, crs, _ = header(sample.path)
    return np.array(degrees(crs.to_epsg()).transform(*(transform @ (np.asarray(index, float)[:, ::-1].T + 0.5)))).T


@cache
def degrees(epsg):
    return Transformer.from_crs(epsg, 4326, always_xy=True)


def pixel_area(sample):
    """m2 of a pixel: the geodesic area of the whole scene over its pixels."""
    rows, columns = header(sample.path)[2]
    corners = [(-0.5, -0.5), (-0.5, columns - 0.5), (rows - 0.5, columns - 0.5), (rows - 0.5, -0.5)]
    return abs(WGS84.polygon_area_perimeter(*ground(sample, corners).T)[0]) / (rows * columns)


def value(finding, name):
    return finding.measure(name).value


def test_areas_are_those_of_the_masks_on_the_ellipsoid(samples):
    sizes = {sample.path: pixel_area(sample) for sample in samples}
    for sample, finding in findings(samples):
        area = finding.measure("area")
        if area is None:
            assert finding.label == "ship"
            continue
        assert area.unit == ("m2" if finding.label == "building" else "ha")
        square_metres = area.value * (1 if area.unit == "m2" else 10_000)
        assert square_metres == pytest.approx(plane(finding).sum() * sizes[sample.path], rel=2e-3)


def test_fractions_leave_pixels_without_data_out(samples):
    cut = 0
    for sample in samples:
        _, valid = opened(sample)
        cut += not valid.all()
        for finding in sample.facts.findings:
            assert not (plane(finding) & ~valid).any()
            if finding.label in COVERS:
                assert value(finding, "fraction") == pytest.approx(plane(finding).sum() / valid.sum())
                assert value(finding, "fraction") >= 0.01
    assert 0.1 * SCENES < cut < 0.5 * SCENES


def test_covers_part_the_scene(samples):
    for sample in samples:
        _, valid = opened(sample)
        layers = np.sum([plane(f) for f in sample.facts.findings if f.label in COVERS], 0)
        assert layers.max() == 1
        assert (layers == valid).sum() >= 0.99 * layers.size


def test_quadrants_follow_the_axes_of_the_crs(samples):
    for sample, finding in findings(samples):
        transform, _, shape = header(sample.path)
        middle = np.array(transform @ (np.array(shape[::-1]) / 2))
        x, y = np.array(transform @ (np.argwhere(plane(finding))[:, ::-1].T + 0.5)) - middle[:, None]
        hair = 1e-6 * abs(transform.a)
        counts = {
            f"{north}-{east}": np.count_nonzero(rows & columns)
            for north, rows in (("north", y > -hair), ("south", y <= -hair))
            for east, columns in (("east", x > -hair), ("west", x <= -hair))
        }
        assert counts[finding.location] == max(counts.values())


@pytest.mark.parametrize("size", [None, 256])
def test_objects_are_counted_as_connected_pieces(samples, size):
    for _, finding in findings(samples, "building", "ship"):
        mask = plane(finding)
        if size is not None:
            rows, columns = ((np.arange(size) + 0.5) * n / size for n in mask.shape)
            mask = mask[rows.astype(int)[:, None], columns.astype(int)]
        assert ndimage.label(mask, EIGHT)[1] == value(finding, "count")


def test_counts_vary_within_their_limits(samples):
    buildings, ships = ([value(f, "count") for _, f in findings(samples, label)] for label in ("building", "ship"))
    assert max(buildings) <= 30
    assert max(ships) <= 8
    assert len(set(buildings)) > 12
    assert len(set(ships)) > 5


def test_buildings_are_built_up_and_ships_on_water(samples):
    for label, below in (("building", "built_up"), ("ship", "water")):
        for sample, finding in findings(samples, label):
            cover = sample.facts.finding(below)
            if cover is None:
                assert label == "building"  # a few lone houses are no built-up land yet
                assert plane(finding).mean() < 0.01
            else:
                assert (plane(cover) | ~plane(finding)).all()


def test_length_and_bearing_are_those_of_the_longest_ship(samples):
    turns, stretches = [], []
    for sample, finding in findings(samples, "ship"):
        pieces, n = ndimage.label(plane(finding), EIGHT)
        found = []
        for piece in range(1, n + 1):
            points = ground(sample, np.argwhere(pieces == piece))
            middle = points.mean(0)
            azimuth, _, distance = WGS84.inv(*np.tile(middle, (len(points), 1)).T, *points.T)
            metres = distance[:, None] * np.stack([np.sin(np.deg2rad(azimuth)), np.cos(np.deg2rad(azimuth))], 1)
            axis = np.linalg.svd(metres, full_matrices=False)[2][0]
            found.append((np.ptp(metres @ axis) + pixel_area(sample) ** 0.5, np.rad2deg(np.arctan2(*axis)) % 180))
        length, bearing = max(found)
        assert 0 <= value(finding, "bearing") < 180
        turn = abs(bearing - value(finding, "bearing"))
        turns.append(min(turn, 180 - turn))
        stretches.append(length / value(finding, "length") - 1)
    assert np.median(turns) < 2
    assert np.quantile(turns, 0.9) < 8
    assert np.abs(np.median(stretches)) < 0.06
    assert np.quantile(np.abs(stretches), 0.9) < 0.2


def test_degrees_and_metres_give_the_same_area(samples):
    geographic = 0
    for sample, finding in findings(samples, "water", "forest", "cropland"):
        transform, crs, (rows, columns) = header(sample.path)
        if crs.to_epsg() != 4326 or not 0.1 < value(finding, "fraction") < 0.9:
            continue
        geographic += 1
        longitude, latitude = transform @ (columns / 2, rows / 2)
        utm = f"EPSG:{(32600 if latitude > 0 else 32700) + int((longitude + 180) // 6) + 1}"
        corners = np.array([transform @ corner for corner in [(0, 0), (0, rows), (columns, 0), (columns, rows)]])
        x, y = Transformer.from_crs(4326, utm, always_xy=True).transform(*corners.T)
        west, south, east, north = x.min() - 2, y.min() - 2, x.max() + 2, y.max() + 2
        warped = np.zeros((int(north - south) + 1, int(east - west) + 1), np.uint8)
        reproject(
            plane(finding).astype(np.uint8), warped, src_transform=transform, src_crs=crs, dst_crs=utm,
            dst_transform=Affine(1, 0, west, 0, -1, north), resampling=Resampling.nearest,
        )  # fmt: skip
        assert warped.sum() / 10_000 == pytest.approx(value(finding, "area"), rel=0.01)
    assert geographic > 3


@pytest.mark.parametrize("latitude", [-61.0, -23.5, 0.0, 37.0, 64.5])
def test_degrees_are_geodesic(latitude):
    east = WGS84.inv(10.0, latitude, 10.001, latitude)[2]
    north = WGS84.inv(10.0, latitude - 0.0005, 10.0, latitude + 0.0005)[2]
    assert metres_per_degree(latitude) / 1000 == pytest.approx([east, north], rel=1e-6)


def test_frames_know_their_true_steps_on_the_ground():
    rng = np.random.default_rng(3)
    seen = set()
    for frame in (frame_somewhere(rng) for _ in range(250)):
        transform = Affine(*frame.transform)
        rows, columns = frame.ground.shape
        places = [(columns / 2, rows / 2), (columns / 2 + 100, rows / 2), (columns / 2, rows / 2 + 100)]
        center, right, below = (degrees(frame.epsg).transform(*(transform @ place)) for place in places)
        for end, step in ((right, frame.ground.step[:, 0]), (below, frame.ground.step[:, 1])):
            azimuth, _, distance = WGS84.inv(*center, *end)
            walk = distance / 100 * np.array([np.sin(np.deg2rad(azimuth)), np.cos(np.deg2rad(azimuth))])
            np.testing.assert_allclose(step, walk, atol=5e-3)
        assert 1.99 < frame.ground.pixel_area**0.5 < 5.01
        seen.add((frame.epsg == 4326, transform.b != 0, transform.e > 0))
    assert len(seen) >= 5  # degrees or metres; turned, south-up or north-up


def test_spectra_are_plausible(samples):
    for sample, finding in findings(samples, "forest", "water", "cloud", "bare_soil"):
        pixels, _ = opened(sample)
        blue, green, red, nir = pixels[:4, plane(finding)]
        vegetation, wetness = np.median((nir - red) / (nir + red)), np.median((green - nir) / (green + nir))
        assert pixels[:, plane(finding)].min() > -0.02
        match finding.label:
            case "forest":
                assert vegetation > 0.4
            case "water":
                assert wetness > 0
            case "bare_soil":
                assert vegetation < 0.3
            case _:
                assert np.median(blue) > 0.35


def test_files_are_valid_and_say_what_they_hold(samples):
    grids, kinds = Counter(), Counter()
    for sample in samples:
        with rasterio.open(sample.path) as file:
            assert file.crs.is_projected or file.crs.to_epsg() == 4326
            assert file.profile["tiled"]
            assert file.profile["compress"] == "deflate"
            assert file.nodata is not None
            assert min(file.shape) >= 256
            assert max(file.shape) <= 320
            assert file.descriptions == ("blue", "green", "red", "nir", "swir1", "swir2")[: file.count]
            kinds[file.dtypes[0]] += 1
            turned = file.transform.b != 0
            grids["turned" if turned else "south-up" if file.transform.e > 0 else "north-up"] += 1
            grids["degrees" if file.crs.is_geographic else "metres"] += 1
    assert set(kinds) == {"uint16", "float32"}
    assert set(grids) == {"turned", "south-up", "north-up", "degrees", "metres"}
    assert grids["north-up"] > 0.75 * SCENES


def test_the_domain_reads_what_was_written(samples):
    for sample in samples[:20]:
        pixels, valid = opened(sample)
        transform, crs, _ = header(sample.path)
        image = RemoteSensing().load(Path(sample.path)).images[0]
        assert image.grid.frame == f"EPSG:{crs.to_epsg()}"
        assert image.grid.to_gdal() == pytest.approx(transform[:6], rel=1e-12)
        assert {channel.unit for channel in image.channels} == {"reflectance"}
        assert all(470 < (channel.wavelength or 0) < 2300 for channel in image.channels)
        assert (image.valid[0] == valid).all()
        np.testing.assert_allclose(image.pixels[:, 0, valid], pixels[:, valid], atol=1e-6)
        assert all(plane(finding).shape == image.grid.shape[1:] for finding in sample.facts.findings)


def test_the_same_seed_writes_the_same_bytes(tmp_path, samples):
    again = RemoteSensing().synth(tmp_path / "again", 6, 20)
    other = RemoteSensing().synth(tmp_path / "other", 6, 21)
    contents = [[Path(s.path).read_bytes() for s in group] for group in (samples[:6], again, other)]
    assert contents[0] == contents[1]
    assert not set(contents[0]) & set(contents[2])
    for first, second in zip(samples, again, strict=False):
        assert first.group == second.group
        pairs = zip(first.facts.findings, second.facts.findings, strict=True)
        assert all(a.measures == b.measures and (plane(a) == plane(b)).all() for a, b in pairs)


def test_no_scene_comes_twice_but_some_places_do(samples):
    assert len({Path(s.path).read_bytes() for s in samples}) == SCENES
    places = defaultdict(list)
    for sample in samples:
        places[sample.group].append(sample)
    twins = [group for group in places.values() if len(group) == 2]
    assert max(map(len, places.values())) == 2
    assert 0.05 * SCENES < len(twins) < 0.3 * SCENES
    for first, second in twins:
        assert header(first.path) == header(second.path)


def test_labels_are_neither_rare_nor_everywhere(samples):
    present = Counter(finding.label for _, finding in findings(samples))
    assert set(present) == LABELS
    for label, count in present.items():
        assert 0.25 <= count / SCENES <= 0.6, label
    assert all(sample.facts.assessed == LABELS for sample in samples)
