"""Findings and their objects as vectors: the same place in every format, and back on the pixels the same mask."""

from __future__ import annotations

import json
import time
import warnings

import geopandas
import numpy as np
import pytest
import shapely
from found import FRAMES, blobs, finding, grid, report, ships, study
from geojson_pydantic import FeatureCollection
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from rasterio.features import rasterize

from domains.remote_sensing.outputs import polygons
from domains.remote_sensing.plugin import RemoteSensing
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import Box, Grid, Instance, Mask, OrientedBox, Patch, Polygon

DOMAIN = RemoteSensing()
VECTORS = ("geojson", "geopackage", "geoparquet")


def written(given_report, folder, *outputs):
    return {path.name: path for path in DOMAIN.write(given_report, (), folder, outputs or VECTORS)}


def collection(given_report):
    found = json.loads(DOMAIN.export(given_report, "geojson"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "BBOX crossing the Antimeridian")
        FeatureCollection.model_validate(found)
    return found


def shapes(found, kind="finding"):
    return [shapely.geometry.shape(f["geometry"]) for f in found["features"] if f["properties"]["kind"] == kind]


def on_pixels(shape, place, to_native=None):
    """The pixels whose centre lies in a geometry of the grid's system, or of degrees where it has to be turned."""
    if to_native is not None:
        shape = shapely.transform(shape, lambda points: np.stack(to_native.transform(*points.T), 1))
    inverse = np.linalg.inv(np.array([place.to_gdal()[:3], place.to_gdal()[3:], (0, 0, 1)]))
    flat = shapely.transform(shape, lambda points: points @ inverse[:2, :2].T + inverse[:2, 2])
    return rasterize([flat], place.shape[1:], dtype="uint8").astype(bool)


def check_rfc7946(shape):
    assert shapely.is_valid(shape)
    for polygon in shape.geoms:
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)
        west, south, east, north = polygon.bounds
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90


@settings(max_examples=25)
@given(frame=st.sampled_from(sorted(FRAMES)), seed=st.integers(0, 999), share=st.floats(0.05, 0.95))
def test_geojson_is_valid_and_lies_where_the_mask_lies(frame, seed, share):
    place = grid(frame)
    mask = blobs(60, 80, seed, share)
    mask[0, 3, 3] = True
    (shape,) = shapes(collection(report(study(place), finding("water", Mask(mask)))))
    check_rfc7946(shape)
    np.testing.assert_array_equal(
        on_pixels(shape, place, Transformer.from_crs(4326, place.frame, always_xy=True)), mask[0]
    )


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_every_format_has_the_same_features(frame, tmp_path):
    place = grid(frame)
    mask = blobs(60, 80, 5)
    given_report = report(study(place), finding("water", Mask(mask)), ships(place), finding("cloud"))
    paths = written(given_report, tmp_path)
    assert sorted(paths) == ["findings.geojson", "findings.gpkg", "findings.parquet", "objects.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(paths)
    found = collection(given_report)
    for kind, name in (("finding", "findings"), ("object", "objects")):
        package = geopandas.read_file(paths["findings.gpkg"], layer=kind)
        parquet = geopandas.read_parquet(paths[f"{name}.parquet"])
        rows = [f["properties"] for f in found["features"] if f["properties"]["kind"] == kind]
        for table in (package, parquet):
            assert CRS.from_user_input(table.crs).equals(CRS.from_user_input(place.frame), ignore_axis_order=True)
            assert [table[key].tolist() for key in ("label", "code", "score", "by", "state")] == [
                [row[key] for row in rows] for key in ("label", "code", "score", "by", "state")
            ]
        assert all(
            shapely.equals_exact(a, b, 0) or a is b for a, b in zip(package.geometry, parquet.geometry, strict=True)
        )
    findings = geopandas.read_parquet(paths["findings.parquet"])
    assert (findings.geometry[2], findings["count"][1]) == (None, 2)
    np.testing.assert_array_equal(on_pixels(findings.geometry[0], place), mask[0])
    objects = geopandas.read_parquet(paths["objects.parquet"])
    both = on_pixels(shapely.union_all(objects.geometry.to_numpy()), place)
    np.testing.assert_array_equal(both, ships(place).region.data[0])
    assert objects["object"].tolist() == [1, 2]


def test_the_same_report_gives_the_same_bytes(tmp_path):
    given_report = report(study(grid(), date="2024-05-06"), ships(grid()))
    first = {name: path.read_bytes() for name, path in written(given_report, tmp_path / "a").items()}
    time.sleep(1.1)  # GeoPackage would note the second
    assert {name: path.read_bytes() for name, path in written(given_report, tmp_path / "b").items()} == first
    assert b"2024-05-06T00:00:00.000Z" in first["findings.gpkg"]


@pytest.mark.parametrize("frame", ["north up", "south up", "degrees"])
def test_objects_are_measured_on_the_ellipsoid(frame):
    place = grid(frame)
    objects = [
        Instance(OrientedBox((30, 40), 20, 6, 30), 0.9),
        Instance(Patch((0, 5, 6), np.ones((1, 10, 20), bool)), 0.8),
        Instance(Box((0, 1, 2), (1, 11, 22)), 0.7),
    ]
    rows = [f["properties"] for f in collection(report(study(place), finding("ship", objects=objects)))["features"]]
    assert [row.get("object") for row in rows] == [None, 1, 2, 3]
    geod = Geod(ellps="WGS84")
    to_degrees = Transformer.from_crs(place.frame, 4326, always_xy=True)
    turn = np.deg2rad(30)
    along = np.array(
        [[0, 30 - 10 * np.sin(turn), 40 - 10 * np.cos(turn)], [0, 30 + 10 * np.sin(turn), 40 + 10 * np.cos(turn)]]
    )
    ends = place.world(along - (0, 0.5, 0.5))
    lon, lat = to_degrees.transform(ends[:, 0], ends[:, 1])
    bearing, _, length = geod.inv(lon[0], lat[0], lon[1], lat[1])
    assert rows[1]["length_m"] == pytest.approx(length, rel=1e-4)
    assert rows[1]["bearing_deg"] == pytest.approx(bearing % 180, abs=0.05)
    assert (
        rows[1]["area_m2"]
        == pytest.approx(rows[1]["length_m"] * rows[1]["width_m"], rel=2e-2 if frame == "degrees" else 2e-3)
        or frame == "degrees"
    )
    corners = place.world(np.array([[0, r - 0.5, c - 0.5] for r, c in ((5, 6), (5, 26), (15, 26), (15, 6))]))
    area = abs(geod.polygon_area_perimeter(*to_degrees.transform(corners[:, 0], corners[:, 1]))[0])
    assert [row["area_m2"] for row in rows[2:]] == pytest.approx([area, area], rel=1e-3)


@pytest.mark.parametrize(
    ("frame", "transform"),
    [
        ("EPSG:32660", (1000, 0, 800_000, 0, -1000, 1_100_000)),
        ("EPSG:4326", (0.01, 0, 179.7, 0, -0.01, 10)),
        ("EPSG:4326", (0.01, 0, -180.3, 0, -0.01, 10)),
        ("EPSG:3832", (1000, 0, 3_300_000, 0, -1000, 1_100_000)),
    ],
)
def test_what_crosses_the_antimeridian_is_cut_there(frame, transform):
    place = Grid.from_gdal(transform, frame, 50, 60)
    found = collection(report(study(place), finding("water", Mask(np.ones((1, 50, 60), bool)))))
    (shape,) = shapes(found)
    check_rfc7946(shape)
    assert len(shape.geoms) == 2
    west, _, east, _ = found["bbox"]
    assert west > 179
    assert east < -179
    assert found["features"][0]["bbox"] == found["bbox"]
    geod = Geod(ellps="WGS84")
    corners = place.world(np.array([[0, -0.5, -0.5], [0, 49.5, -0.5], [0, 49.5, 59.5], [0, -0.5, 59.5]]))
    lon, lat = Transformer.from_crs(frame, 4326, always_xy=True).transform(corners[:, 0], corners[:, 1])
    assert geod.geometry_area_perimeter(shape)[0] == pytest.approx(geod.polygon_area_perimeter(lon, lat)[0], rel=2e-3)


@pytest.mark.parametrize(
    "region",
    [
        Box((0, 10, 20), (1, 30, 60)),
        OrientedBox((20, 40), 40, 20, 0),
        Polygon(((10, 20), (10, 60), (30, 60), (30, 20))),
        Patch((0, 10, 20), np.ones((1, 20, 40), bool)),
    ],
)
def test_all_kinds_of_region_burn_the_same_pixels(region):
    mask = np.zeros((60, 80), bool)
    mask[10:30, 20:60] = True
    np.testing.assert_array_equal(polygons.burned([region], grid()), mask)


def test_a_polygon_that_crosses_itself_becomes_valid_ones():
    bow = Polygon(((10, 20), (30, 60), (10, 60), (30, 20)))
    (shape,) = shapes(collection(report(study(grid()), finding("cloud", bow))))
    check_rfc7946(shape)
    assert len(shape.geoms) == 2


def test_what_has_no_place_is_refused(tmp_path):
    with pytest.raises(GeometryError):
        written(report(study(Grid.plain(5, 5)), finding("water")), tmp_path, "geopackage")
    with pytest.raises(InputError, match="corners"):
        collection(report(study(grid()), finding("cloud", Polygon(((1, 1), (2, 2))))))
    with pytest.raises(InputError, match="mask"):
        collection(
            report(study(grid()), finding("ship", objects=[Instance(Patch((0, 59, 0), np.ones((1, 2, 2), bool)), 1)]))
        )
    far = Grid.from_gdal((1e6, 0, 9e6, 0, -1e6, 9e7), "EPSG:32633", 60, 80)
    with pytest.raises(GeometryError):
        collection(report(study(far), finding("water", Mask(blobs(60, 80)))))
    with pytest.raises(UnsupportedError):
        written(report(study(grid())), tmp_path, "kml")
    assert not list(tmp_path.iterdir())


def test_a_report_without_findings_is_an_empty_collection(tmp_path):
    paths = written(report(study(grid())), tmp_path)
    assert json.loads(paths["findings.geojson"].read_text())["features"] == []
    assert (
        len(geopandas.read_file(paths["findings.gpkg"])) == len(geopandas.read_parquet(paths["findings.parquet"])) == 0
    )
