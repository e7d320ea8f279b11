"""Rasters on other grids: pixels go where the coordinate systems say, classes keep their area, nothing is made up."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geotiff_files import UTM, image, write
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from domains.formats.rasters import earth
from domains.formats.rasters.earth import bounds, transformer
from domains.formats.rasters.warp import warp
from fovea.errors import GeometryError, InputError
from fovea.image import LPS, Channel, Grid, Image, Window

LAEA = "+proj=laea +lat_0=-33 +lon_0=151 +datum=WGS84 +units=m"
PLACES: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "Prague": (14.4, 50.1, ("EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3035")),
    "Fiji, across the antimeridian": (179.999, -17.5, ("EPSG:32701", "EPSG:4326", "EPSG:3832", "EPSG:32760")),
    "Svalbard": (16.0, 78.2, ("EPSG:32633", "EPSG:3413", "EPSG:4326", "EPSG:3575")),
    "Sydney": (151.2, -33.9, ("EPSG:32756", LAEA, "EPSG:3857", "EPSG:4326")),
    "Quito, on the equator": (-78.5, 0.0, ("EPSG:32617", "EPSG:32717", "EPSG:6933", "EPSG:4326")),
}


def grid(frame: str, lon: float, lat: float, size: float, number: int, angle: float = 0, up: bool = False) -> Grid:
    """A grid of square pixels of `size` metres on the ground about a place, turned, and south-up if so said."""
    geod = Geod(ellps="WGS84")
    to_frame = transformer(earth.GEOGRAPHIC, frame)
    east, north = (geod.fwd(lon, lat, azimuth, size)[:2] for azimuth in (90, 0))
    at = to_frame(np.array([(lon, lat), east, north]))
    steps = at[1:] - at[0]
    if frame == earth.GEOGRAPHIC:
        steps[:, 0] = (steps[:, 0] + 180) % 360 - 180
    width, height = np.hypot(*steps.T)
    scale = Affine.scale(width, height if up else -height)
    place = Affine.translation(*at[0]) @ scale @ Affine.rotation(angle) @ Affine.translation(-number / 2, -number / 2)
    return Grid.from_gdal(tuple(place), frame, number, number)


def centres(of: Grid) -> NDArray[Any]:
    rows, columns = np.meshgrid(*(np.arange(n) for n in of.shape[1:]), indexing="ij")
    return np.column_stack([np.zeros(rows.size), rows.ravel(), columns.ravel()])


def index_image(of: Grid) -> Image:
    """Its two channels are the row and the column of each pixel."""
    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in of.shape[1:]), indexing="ij")
    return Image.from_array((Channel("row"), Channel("column")), of, np.stack([rows, columns])[:, None])


def area(of: Grid, mask: NDArray[Any]) -> float:
    """Square metres of the pixels of a mask, from their corners in an equal-area projection of the Earth."""
    rows, columns = (n + 1 for n in of.shape[1:])
    corners = centres(Grid(of.affine, of.frame, (1, rows, columns))) - (0, 0.5, 0.5)
    at = transformer(of.frame, "EPSG:6933")(of.world(corners)[:, :2])
    around = 2 * transformer(earth.GEOGRAPHIC, "EPSG:6933")(np.array([[180.0, 0.0]]))[0, 0]
    x, y = at.T.reshape(2, rows, columns)
    x = x[0, 0] + (x - x[0, 0] + around / 2) % around - around / 2
    down, up = (x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1]), (x[1:, :-1] - x[:-1, 1:], y[1:, :-1] - y[:-1, 1:])
    return float(np.abs(down[0] * up[1] - up[0] * down[1])[mask].sum() / 2)


CASES = [(place, i, j) for place, (_, _, frames) in PLACES.items() for i in range(4) for j in range(4) if i != j]


@given(case=st.sampled_from(CASES), angles=st.tuples(*[st.floats(-180, 180)] * 2), ups=st.tuples(*[st.booleans()] * 2))
@settings(max_examples=60)
def test_pixels_come_from_where_the_systems_say(case: Any, angles: Any, ups: Any) -> None:
    """Rows and columns of the source, read at each target pixel, against pyproj: to a twentieth of a pixel."""
    place, one, other = case
    lon, lat, frames = PLACES[place]
    source = grid(frames[one], lon, lat, 30, 90, angles[0], ups[0])
    target = grid(frames[other], lon, lat, 20, 40, angles[1], ups[1])
    result = warp(index_image(source), target)
    assert result.valid.all()
    to_source = Transformer.from_crs(frames[other], frames[one], always_xy=True)
    x, y = to_source.transform(*target.world(centres(target)).T[:2])
    if frames[one] == earth.GEOGRAPHIC:
        x = lon + (x - lon + 180) % 360 - 180
    expected = source.index(np.column_stack([x, y, np.zeros_like(x)]))[:, 1:].T
    np.testing.assert_allclose(result.pixels.reshape(2, -1), expected, atol=0.05)
    nearest = warp(index_image(source), target, "nearest").pixels.reshape(2, -1)
    np.testing.assert_allclose(nearest, expected, atol=0.55)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("angle", "up"), [(0, False), (33, False), (-120, True)])
def test_a_class_keeps_its_area(place: str, angle: float, up: bool) -> None:
    """Within 0.1 %, from the first system to one of the others, by the areas of pixels on the ellipsoid."""
    lon, lat, frames = PLACES[place]
    source = grid(frames[0], lon, lat, 10, 400, angle, up)
    rows, columns = np.mgrid[:400, :400] - 200
    shape = (np.hypot(rows, columns * 1.2) < 170) & ~(abs(rows - columns) < 12)
    scene = Image.from_array((Channel("class"),), source, shape[None, None].astype(np.float32))
    target = grid(frames[1 + int(abs(angle)) % 3], lon, lat, 9, 620, 20 - angle, not up and angle > 0)
    result = warp(scene, target, "nearest")
    assert set(np.unique(result.pixels)) == {0, 1}
    found = area(target, (result.pixels[0, 0] == 1) & result.valid[0])
    assert found == pytest.approx(area(source, shape), rel=1e-3)
    whole = area(target, result.valid[0])
    assert whole == pytest.approx(area(source, np.ones((400, 400), bool)), rel=1e-3)


@cache
def warped(resampling: Any, size: float) -> Image:
    source = grid("EPSG:32633", 14.4, 50.1, 10, 300)
    return warp(index_image(source), grid("EPSG:4326", 14.4, 50.1, size, 1100, 10), resampling)


@given(data=st.data(), resampling=st.sampled_from(["nearest", "bilinear"]), size=st.sampled_from([2.5, 31]))
@settings(max_examples=20)
def test_windows_of_a_warped_image_are_slices_of_it(data: st.DataObject, resampling: str, size: float) -> None:
    result = warped(resampling, size)
    rows, columns = (
        tuple(sorted(data.draw(st.lists(st.integers(0, 1100), min_size=2, max_size=2, unique=True)))) for _ in range(2)
    )
    part = result.window(Window(rows, columns))
    np.testing.assert_array_equal(part.pixels, result.pixels[:, :, slice(*rows), slice(*columns)])
    np.testing.assert_array_equal(part.valid, result.valid[:, slice(*rows), slice(*columns)])


def test_what_is_not_valid_never_enters(tmp_path: Path) -> None:
    data = np.full((1, 80, 80), 5, np.int16)
    data[:, 20:50, 30:60] = -9999
    source = image(write(tmp_path / "a.tif", data, **UTM, nodata=-9999))
    lon, lat = 13.6, 49.6
    lon, lat = transformer("EPSG:32633", "EPSG:4326")(source.grid.world(np.array([[0, 40, 40]]))[:, :2])[0]
    for size in (4, 10, 33):
        result = warp(source, grid("EPSG:3035", lon, lat, size, 60, 25))
        assert set(np.unique(result.pixels.round(4))) == {0, 5}
        np.testing.assert_array_equal(result.pixels[0] > 0, result.valid)
    outside = warp(source, grid("EPSG:3035", lon + 3, lat, 10, 20))
    assert not outside.valid.any()


def test_coarser_pixels_are_means() -> None:
    """A chess board becomes grey, whatever its phase, and a reduced read of the result is that of a coarser grid."""
    source = grid("EPSG:32633", 14.4, 50.1, 10, 400)
    board = np.indices((400, 400)).sum(0)[None, None] % 2
    target = grid("EPSG:3035", 14.4, 50.1, 80, 30)
    result = warp(Image.from_array((Channel("a"),), source, board.astype(np.float32)), target)
    assert result.valid.all()
    with_reader = Image(result.channels, source, _mean(board[0, 0].astype(np.float32)))
    np.testing.assert_allclose(warp(with_reader, target).pixels, 0.5, atol=0.02)


def _mean(pixels: NDArray[Any]) -> Any:
    """A reader whose reduced pixels are means, as those of files are."""

    def read(window: Window | None, shape: tuple[int, int] | None) -> Any:
        part = pixels if window is None else pixels[slice(*window.rows), slice(*window.columns)]
        if shape is not None:
            edges = [np.linspace(0, n, m + 1).astype(int)[:-1] for n, m in zip(part.shape, shape, strict=True)]
            counts = [np.diff(e, append=n) for e, n in zip(edges, part.shape, strict=True)]
            part = np.add.reduceat(np.add.reduceat(part, edges[0], 0), edges[1], 1) / np.outer(*counts)
        return part[None, None].astype(np.float32), np.ones((1, *part.shape), bool)

    return read


def test_grids_that_coincide_are_not_warped(monkeypatch: pytest.MonkeyPatch) -> None:
    source = grid("EPSG:32633", 14.4, 50.1, 10, 50, 30)
    scene = index_image(source)

    def never(*_: Any) -> Any:
        raise AssertionError("no transformation is needed")

    monkeypatch.setattr("domains.formats.rasters.warp.transformer", never)
    assert warp(scene, source) is scene
    inner = source.crop(Window((5, 20), (8, 50)))
    np.testing.assert_array_equal(warp(scene, inner).pixels, scene.pixels[:, :, 5:20, 8:50])
    affine = np.array(source.affine)
    affine[:3, 3] = source.world(np.array([[0, -10, 40]]))[0]
    beside = warp(scene, Grid(affine, source.frame, (1, 30, 30)))
    np.testing.assert_array_equal(beside.valid[0], np.pad(np.ones((20, 10), bool), ((10, 0), (0, 20))))
    np.testing.assert_array_equal(beside.pixels[:, 0, 10:, :10], scene.pixels[:, 0, :20, 40:])


def test_a_map_of_the_world_is_read_on_both_sides_of_its_seam() -> None:
    lon, lat = np.meshgrid(np.arange(-179.75, 180, 0.5), np.arange(89.75, -90, -0.5))
    world = Grid.from_gdal((0.5, 0, -180, 0, -0.5, 90), "EPSG:4326", 360, 720)
    pixels = np.stack([np.cos(np.deg2rad(lon)), np.sin(np.deg2rad(lon)), lat / 90])[:, None].astype(np.float32)
    scene = Image.from_array(tuple(Channel(name) for name in "abc"), world, pixels)
    widths = []

    def read(window: Window | None, shape: tuple[int, int] | None) -> Any:
        assert window is not None
        widths.append(window.columns[1] - window.columns[0])
        return scene.read(window, shape)

    target = grid("EPSG:3832", 180, -17, 20_000, 100, 12)
    result = warp(Image(scene.channels, world, read), target)
    at = transformer("EPSG:3832", "EPSG:4326")(target.world(centres(target))[:, :2])
    expected = np.stack([np.cos(np.deg2rad(at[:, 0])), np.sin(np.deg2rad(at[:, 0])), at[:, 1] / 90])
    assert result.valid.all()
    np.testing.assert_allclose(result.pixels.reshape(3, -1), expected, atol=5e-3)
    assert len(widths) == 2
    assert max(widths) < 40


def test_what_cannot_be_warped_is_refused() -> None:
    source = grid("EPSG:32633", 14.4, 50.1, 10, 50)
    for other in (Grid.plain(5, 5), Grid(np.eye(4), LPS, (1, 5, 5))):
        with pytest.raises(GeometryError):
            warp(index_image(source), other)
        with pytest.raises(GeometryError):
            warp(index_image(other), source)
    with pytest.raises(GeometryError):
        _ = warp(index_image(source), Grid(np.eye(4), "EPSG:999999", (1, 5, 5))).pixels
    with pytest.raises(InputError, match="resampling"):
        warp(index_image(source), grid("EPSG:3035", 14.4, 50.1, 10, 9), "cubic")  # type: ignore[arg-type]


# Bounds


@given(angle=st.floats(-180, 180), lat=st.floats(-70, 70), epsg=st.sampled_from([32633, 3857, 4326]))
def test_bounds_agree_with_gdal(angle: float, lat: float, epsg: int) -> None:
    frame = f"EPSG:{epsg if lat >= 0 or epsg != 32633 else 32733}"
    place = grid(frame, 15.3, lat, 100, 200, angle)
    corners = place.world(np.array([(0, r, c) for r in (-0.5, 199.5) for c in (-0.5, 199.5)]))
    box = (*corners.min(0)[:2], *corners.max(0)[:2])
    found, around = bounds(place), transform_bounds(frame, "EPSG:4326", *box, densify_pts=51)
    assert found[0] >= around[0] - 1e-6
    assert found[1] >= around[1] - 1e-6
    assert found[2] <= around[2] + 1e-6
    assert found[3] <= around[3] + 1e-6
    if abs(angle) < 1e-9:
        np.testing.assert_allclose(found, around, atol=1e-5)


@pytest.mark.parametrize("frame", ["EPSG:32701", "EPSG:4326", "EPSG:3832"])
def test_bounds_across_the_antimeridian_have_west_above_east(frame: str) -> None:
    west, south, east, north = bounds(grid(frame, 180, -17, 100, 200))
    assert west == pytest.approx(180 - 0.094, abs=0.003)
    assert east == pytest.approx(-180 + 0.094, abs=0.003)
    assert (south, north) == pytest.approx((-17.09, -16.91), abs=0.003)


def test_bounds_of_a_pole_and_of_the_world() -> None:
    pole = Grid.from_gdal((1000, 0, -100_000, 0, -1000, 100_000), "EPSG:3413", 200, 200)
    west, south, east, north = bounds(pole)
    assert (west, east, north) == (-180, 180, 90)
    assert 88 < south < 89
    world = Grid.from_gdal((0.5, 0, -180, 0, -0.5, 90), "EPSG:4326", 360, 720)
    assert bounds(world) == (-180, -90, 180, 90)
    with pytest.raises(GeometryError):
        bounds(Grid.plain(4, 4))


# Ground control points


def points(transform: Affine, noise: float, number: int = 4) -> list[GroundControlPoint]:
    rng = np.random.default_rng(0)
    found = []
    for row in np.linspace(0, 100, number):
        for column in np.linspace(0, 80, number):
            shift = rng.uniform(-noise, noise, 2)
            found.append(GroundControlPoint(row, column, *(transform @ (column + shift[0], row + shift[1]))))
    return found


@pytest.mark.parametrize("noise", [0, 0.1])
def test_points_near_an_affine_transform_make_a_grid(noise: float, tmp_path: Path) -> None:
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(23) @ Affine.scale(10, -12)
    path = write(tmp_path / "a.tif", np.ones((1, 100, 80), np.uint8), gcps=points(transform, noise), crs="EPSG:32633")
    found = image(path).grid
    assert found.frame == "EPSG:32633"
    exact = Grid.from_gdal(tuple(transform), "EPSG:32633", 100, 80)
    far = np.array([(0, 0, 0), (0, 99, 79), (0, 99, 0)])
    np.testing.assert_allclose(exact.index(found.world(far)), far, atol=noise + 1e-6)


def test_other_points_are_refused_with_their_distance(tmp_path: Path) -> None:
    transform = Affine.translation(5e5, 5e6) @ Affine.scale(10, -10)
    bent = points(transform, 3)
    path = write(tmp_path / "a.tif", np.ones((1, 100, 80), np.uint8), gcps=bent, crs="EPSG:32633")
    with pytest.raises(GeometryError, match=r"lie [34]\.\d+ pixels.*gdalwarp"):
        image(path)
    line = [GroundControlPoint(i, i, 5e5 + i, 5e6 - i) for i in range(5)]
    with pytest.raises(GeometryError, match="on a line"):
        image(write(tmp_path / "b.tif", np.ones((1, 100, 80), np.uint8), gcps=line, crs="EPSG:32633"))
