"""Rasters that control points place, against GDAL, SciPy and fields that are known."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geotiff_files import BENT, LOCAL, image, write
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer
from scipy.interpolate import RBFInterpolator
from sentinel1_files import Flight, lattice

from domains.formats.rasters import chips, gcps, geotiff
from domains.formats.rasters.gcps import Points, Spline
from fovea.errors import GeometryError, LimitError
from fovea.image import Channel, Grid, Image, Window

SHAPE = (120, 160)


def bent(rows: Any, columns: Any) -> Any:
    """x, y (n, 2) in a zone of UTM at rows and columns from the corner of a raster: turned, and curved by 8 pixels."""
    rows, columns = np.asarray(rows, float), np.asarray(columns, float)
    across, down = columns + 3e-4 * rows**2, rows + 2e-4 * columns**2 - 1e-4 * rows * columns
    return np.stack([5e5 + 10 * (0.9 * across + 0.4 * down), 5e6 + 10 * (0.4 * across - 0.9 * down)], -1)


def control(side: int = 6, place: Callable[[Any, Any], Any] = bent) -> list[GroundControlPoint]:
    sides = np.meshgrid(*(np.linspace(0, size, side) for size in SHAPE), indexing="ij")
    rows, columns = (s.ravel() for s in sides)
    return [GroundControlPoint(r, c, x, y) for r, c, (x, y) in zip(rows, columns, place(rows, columns), strict=True)]


def field(rows: Any, columns: Any) -> Any:
    return 1000 + 300 * np.sin(np.asarray(rows) / 9) + 300 * np.cos(np.asarray(columns) / 11)


def raster(path: Path, data: Any = None, points: Any = None, crs: Any = "EPSG:32633", **profile: Any) -> Path:
    rows, columns = np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])[None]
    data = field(rows, columns).astype(np.float32) if data is None else data
    return write(path, data[None], crs=crs, gcps=points or control(), **profile)


def places(grid: Grid, rows: Any, columns: Any) -> Any:
    """Fractional rows and columns (n, 2) of a grid at those of the raster, whole numbers being centres."""
    world = bent(np.asarray(rows) + 0.5, np.asarray(columns) + 0.5)
    return grid.index(np.column_stack([world, np.zeros(len(world))]))[:, 1:]


def test_a_bent_raster_lies_where_its_points_say(tmp_path: Path) -> None:
    content = geotiff.read(raster(tmp_path / "a.tif"))
    scene = content.images[0]
    assert (scene.grid.frame, scene.grid.spacing[1:]) == ("EPSG:32633", (9.8, 9.8))
    assert content.meta["geometry"].startswith("36 ground control points, ")
    rows, columns = (grid.ravel() for grid in np.meshgrid(np.arange(3, 117, 7), np.arange(3, 157, 7), indexing="ij"))
    near = np.rint(places(scene.grid, rows, columns)).astype(int)
    assert scene.valid[0, near[:, 0], near[:, 1]].all()
    world = scene.grid.world(np.column_stack([np.zeros(len(near)), near]))[:, :2]
    exact = np.stack(GCPTransformer(control(16), tps=True).rowcol(world[:, 0], world[:, 1], op=np.positive), 1) - 0.5
    np.testing.assert_allclose(scene.pixels[0, 0][tuple(near.T)], field(*exact.T), atol=0.02 * 300)
    corners = places(scene.grid, [-0.45, -0.45, 119.4, 119.4], [-0.45, 159.4, -0.45, 159.4])
    assert (corners > -0.51).all()
    assert (corners < np.array(scene.grid.shape[1:]) - 0.49).all()


def test_windows_reduced_reads_and_chips_are_parts_of_the_whole(tmp_path: Path) -> None:
    scene = pickle.loads(pickle.dumps(image(raster(tmp_path / "a.tif"))))  # our own bytes
    window = Window((31, 90), (40, 127))
    pixels, valid = scene.read(window, None)
    np.testing.assert_allclose(pixels, scene.pixels[:, :, 31:90, 40:127], atol=1e-3)
    np.testing.assert_array_equal(valid, scene.valid[:, 31:90, 40:127])
    ((_, chip, _),) = chips.read(scene, [window])
    np.testing.assert_array_equal(chip, pixels)
    rows, columns = (size // 4 * 4 for size in scene.grid.shape[1:])
    reduced, known = scene.read(Window((0, rows), (0, columns)), (rows // 4, columns // 4))
    blocks = scene.pixels[0, 0, :rows, :columns].reshape(rows // 4, 4, columns // 4, 4).mean((1, 3))
    whole = scene.valid[0, :rows, :columns].reshape(rows // 4, 4, columns // 4, 4).all((1, 3))
    assert known[0][whole].mean() > 0.95
    inside = whole & known[0]
    assert np.abs(reduced[0, 0] - blocks)[inside].mean() < 20


def test_no_data_does_not_bleed_and_classes_keep_their_values(tmp_path: Path) -> None:
    data = np.full(SHAPE, 500, np.uint16)
    data[:, :30] = 0
    scene = image(raster(tmp_path / "a.tif", data, nodata=0))
    np.testing.assert_allclose(scene.pixels[0], 500 * scene.valid, rtol=1e-6)
    assert 0.4 < scene.valid.mean() < 0.7
    classes = (np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])) % 2 * 255).astype(np.uint8)
    kept = image(raster(tmp_path / "b.tif", classes, photometric="palette"))
    shown = image(write(tmp_path / "c.tif", classes[None], photometric="palette"))
    assert set(np.unique(kept.pixels[:, kept.valid])) <= set(np.unique(shown.pixels))


def test_a_mask_in_the_file_is_warped_with_it(tmp_path: Path) -> None:
    alpha = np.where(np.arange(SHAPE[1]) < 80, 255, 0) * np.ones((SHAPE[0], 1))
    data = np.stack([np.full(SHAPE, 90), alpha]).astype(np.uint8)
    path = write(tmp_path / "a.tif", data, crs="EPSG:32633", gcps=control(), photometric="minisblack", alpha="yes")
    scene = image(path)
    for columns, seen in (([20, 70], True), ([90, 150], False)):
        near = np.rint(places(scene.grid, [60, 60], columns)).astype(int)
        assert (scene.valid[0][tuple(near.T)] == seen).all()


# The surface


@given(st.integers(1, 3), st.integers(12, 40), st.integers(0, 1000))
def test_the_spline_is_scipys_and_its_error_that_of_leaving_out(degree: int, number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, values = rng.uniform(0, 1e4, (number, 2)), rng.uniform(0, 500, (number, 2))
    (spline,) = Spline._fitted(points, values, degree)
    at = rng.uniform(0, 1e4, (50, 2))
    options = {"kernel": "thin_plate_spline", "degree": degree}
    np.testing.assert_allclose(spline(at), RBFInterpolator(points, values, **options)(at), rtol=1e-5, atol=0.1)
    rest = [np.delete(np.arange(number), i) for i in range(number)]
    out = [
        RBFInterpolator(points[r], values[r], **options)(points[i : i + 1])[0] - values[i] for i, r in enumerate(rest)
    ]
    assert spline.error == pytest.approx(float(np.sqrt(np.square(out).sum(1).mean())), rel=1e-3)


def test_the_spline_of_degree_one_is_gdals() -> None:
    points = control()
    index = np.array([(p.row, p.col) for p in points])
    world = np.array([(p.x, p.y) for p in points])
    (spline,) = Spline._fitted(world, index, 1)
    x, y = np.random.default_rng(0).uniform(world.min(0), world.max(0), (200, 2)).T
    gdal = GCPTransformer(points, tps=True).rowcol(x, y, op=np.positive)
    np.testing.assert_allclose(spline(np.stack([x, y], 1)).T, gdal, atol=1e-4)


@pytest.mark.parametrize(
    ("first", "frame"),
    [((12, 47), "EPSG:32632"), ((-179.2, 5), "EPSG:32660"), ((170, -84), "EPSG:5042"), ((25, 87), "EPSG:5041")],
    ids=["Alps", "antimeridian", "south", "north"],
)
def test_a_scene_of_a_radar_lies_within_a_hundredth_of_a_pixel(first: tuple[float, float], frame: str) -> None:
    shape, flight = (16700, 25800), Flight(first)
    index = np.stack(lattice(shape), 1)
    scene, error = gcps.place(
        Image((Channel("vv"),), Grid.plain(*shape), _unread), Points(index, flight.ground(*index.T), "EPSG:4326")
    )
    assert (scene.grid.frame, scene.grid.spacing[1:]) == (frame, (10, 10))
    assert error < 0.01
    rows, columns = np.random.default_rng(0).uniform(0, np.array(shape) - 1, (500, 2)).T
    ground = Transformer.from_crs("EPSG:4326", frame, always_xy=True).transform(*flight.ground(rows, columns).T)
    index = scene.read.places(np.stack(ground, 1))  # type: ignore[attr-defined]
    np.testing.assert_allclose(index, np.stack([rows, columns], 1), atol=0.01)


def _unread(*_: Any) -> Any:
    raise AssertionError("nothing is read before it is asked for")


def test_heights_between_the_points_are_told_as_the_error() -> None:
    shape, flight = (16700, 25800), Flight()
    index = np.stack(lattice(shape), 1)
    hills = np.random.default_rng(0).uniform(0, 1000, len(index))
    rough = Points(index, flight.ground(*index.T, shift=1.4 * hills), "EPSG:4326")
    _, error = gcps.place(Image((Channel("vv"),), Grid.plain(*shape), _unread), rough)
    assert 30 < error < 100


# Refusals


def folded(rows: Any, columns: Any) -> Any:
    return bent(rows, np.abs(np.asarray(columns) - 80))


def noisy(rows: Any, columns: Any) -> Any:
    return bent(rows, columns) + np.random.default_rng(0).normal(0, 40, (len(rows), 2))


@pytest.mark.parametrize("place", [folded, noisy], ids=["fold", "noise"])
def test_points_that_make_no_surface_are_refused(place: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="36 ground control points"):
        image(raster(tmp_path / "a.tif", points=control(place=place)))


def test_a_fold_beyond_the_points_is_refused(tmp_path: Path) -> None:
    """Points of the middle third alone, on a curve that turns back before the edge."""
    columns = np.linspace(55, 105, 8)
    points = [
        GroundControlPoint(row, column, *bent(row, column - (column - 80) ** 2 / 120))
        for row in np.linspace(0, SHAPE[0], 8) for column in columns
    ]  # fmt: skip
    with pytest.raises(GeometryError, match="folds"):
        image(raster(tmp_path / "a.tif", points=points))


def test_contradicting_and_too_many_points_are_refused(tmp_path: Path) -> None:
    points = control()
    twice = [*points, GroundControlPoint(points[7].row, points[7].col, points[7].x + 50, points[7].y)]
    with pytest.raises(GeometryError, match="each in one place"):
        image(raster(tmp_path / "a.tif", points=twice))
    same = [*points, points[7]]
    assert image(raster(tmp_path / "b.tif", points=same)).valid.any()
    with pytest.raises(LimitError, match="at most 2048"):
        image(raster(tmp_path / "c.tif", points=control(46)))


def test_points_off_the_earth_are_refused(tmp_path: Path) -> None:
    far = [GroundControlPoint(p.row, p.col, p.x, p.y + 60) for p in BENT]
    with pytest.raises(GeometryError, match="off the Earth"):
        image(raster(tmp_path / "a.tif", points=far, crs="EPSG:4326"))


def test_points_of_a_system_that_is_not_the_earths_leave_pixels_without_a_size(tmp_path: Path) -> None:
    content = geotiff.read(raster(tmp_path / "a.tif", crs=LOCAL))
    assert content.images[0].grid.frame == "pixel"
    assert content.meta["geometry"]
