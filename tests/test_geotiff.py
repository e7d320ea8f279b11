"""GeoTIFFs against rasterio and NumPy: geometry, validity, units, names of bands, windows."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
from geotiff_files import LOCAL, NAME, UTM, image, scene, write
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine, xy

from domains.formats.rasters import geotiff
from domains.formats.rasters.bands import OLI, SENTINEL2, TM, Band, acquired, name_bands
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import PIXEL, Grid, Window

# Geometry


@given(
    angle=st.floats(-180, 180),
    size=st.tuples(st.floats(0.05, 500), st.floats(0.05, 500)),
    up=st.booleans(),
    corner=st.tuples(st.floats(2e5, 8e5), st.floats(0, 9e6)),
)
def test_pixels_lie_where_gdal_puts_them(angle: float, size: Any, up: bool, corner: Any) -> None:
    """North-up, south-up and rotated: centres of pixels as `rasterio.transform.xy` has them."""
    scale = Affine.scale(size[0], size[1] if up else -size[1])
    transform = Affine.translation(*corner) @ Affine.rotation(angle) @ scale
    data = np.ones((1, 5, 7), np.uint8)
    with TemporaryDirectory() as folder:
        grid = image(write(Path(folder) / "a.tif", data, crs="EPSG:32633", transform=transform)).grid
    assert grid.frame == "EPSG:32633"
    assert grid.shape == (1, 5, 7)
    rows, columns = np.array([0, 4, 2, 0]), np.array([0, 6, 3, 6])
    expected = np.stack(xy(transform, rows, columns), -1)
    world = grid.world(np.stack([np.zeros(4), rows, columns], -1))
    np.testing.assert_allclose(world[:, :2], expected, rtol=1e-12, atol=1e-6)
    np.testing.assert_allclose(grid.to_gdal(), tuple(transform)[:6], rtol=1e-12, atol=1e-6)


def test_a_crs_without_a_code_is_kept_as_wkt(tmp_path: Path) -> None:
    crs = CRS.from_proj4("+proj=laea +lat_0=12.3 +lon_0=45.6 +datum=WGS84 +units=m")
    grid = image(scene(tmp_path / "a.tif", crs=crs)).grid
    assert CRS.from_user_input(grid.frame) == crs
    assert grid.georeferenced


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param({"crs": "EPSG:32633"}, id="a CRS without a transform"),
        pytest.param(
            {
                "gcps": [GroundControlPoint(r, c, c**1.1, 50 - r) for r in (0, 30) for c in (0, 50, 60)],
                "crs": "EPSG:4326",
            },
            id="ground control points that no surface joins",
        ),
        pytest.param(
            {"crs": "EPSG:32633", "transform": Affine(1e200, 0, 0, 0, -1e200, 0)}, id="a transform off the Earth"
        ),
    ],
)
def test_geometry_that_is_no_place_is_refused(profile: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 40, 60), np.uint8), **profile)
    with pytest.raises(GeometryError, match=r"transform|gdalwarp"):
        geotiff.read(path)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({}, "no georeference"),
        ({"transform": UTM["transform"]}, "no coordinate reference system"),
        (
            {"transform": UTM["transform"], "crs": LOCAL},
            "local coordinates",
        ),
    ],
)
def test_without_a_system_of_the_earth_pixels_have_no_size(profile: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = geotiff.read(write(tmp_path / "a.tif", np.ones((1, 4, 5), np.uint8), **profile))
    grid = content.images[0].grid
    assert (grid.frame, content.meta["geometry"]) == (PIXEL, said)
    assert geotiff.ground_size(grid) is None


@given(
    place=st.tuples(st.floats(-179, 179), st.floats(-75, 75)),
    epsg=st.sampled_from([4326, 3857, 6933, 2154]),
    size=st.floats(1, 300),
)
def test_size_on_the_ground_agrees_with_geodesics(place: tuple[float, float], epsg: int, size: float) -> None:
    """Also where the CRS counts in degrees or stretches towards the poles (pyproj.Geod as the reference)."""
    if epsg == 2154:
        place = (place[0] / 60 + 3, place[1] / 40 + 46)
    to_crs = Transformer.from_crs(4326, epsg, always_xy=True)
    x, y = to_crs.transform(*place)
    step = size / 111_000 if epsg == 4326 else size
    grid = Grid.from_gdal((step, 0, x, 0, -step, y), f"EPSG:{epsg}", 1, 1)
    at = grid.world(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]]))
    lon, lat = to_crs.transform(at[:, 0], at[:, 1], direction="INVERSE")
    _, _, distance = Geod(ellps="WGS84").inv(lon[[0, 0]], lat[[0, 0]], lon[1:], lat[1:])
    assert geotiff.ground_size(grid) == pytest.approx(tuple(distance), rel=1e-4)


def test_feet_are_not_metres(tmp_path: Path) -> None:
    grid = image(scene(tmp_path / "a.tif", crs="EPSG:2263", transform=Affine(10, 0, 980000, 0, -10, 200000))).grid
    assert geotiff.ground_size(grid) == pytest.approx((3.048, 3.048), rel=1e-3)


# Validity


@pytest.mark.parametrize(
    ("dtype", "nodata", "declared"),
    [
        ("uint16", 0, True),
        ("int16", -9999, True),
        ("float32", -3.4e38, True),
        ("float32", np.nan, True),
        ("float64", np.nan, False),
    ],
)
def test_no_data_is_not_valid_and_reads_as_zero(dtype: str, nodata: float, declared: bool, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 90, (2, 30, 20)).astype(dtype)
    hole = np.zeros((30, 20), bool)
    hole[3:9, 5:12] = True
    data[:, hole] = nodata
    path = write(tmp_path / "a.tif", data, **UTM, **({"nodata": nodata} if declared else {}))
    read = image(path)
    np.testing.assert_array_equal(read.valid[0], ~hole)
    assert not read.pixels[:, 0, hole].any()
    np.testing.assert_array_equal(read.pixels[:, 0, ~hole], data[:, ~hole])


@pytest.mark.parametrize("how", ["alpha", "inside", "beside"])
def test_alpha_and_masks_say_what_is_valid(how: str, tmp_path: Path) -> None:
    path, data = tmp_path / "a.tif", np.random.default_rng(1).integers(0, 255, (4, 32, 24), np.uint8)
    mask = np.zeros((32, 24), np.uint8)
    mask[5:20, 3:17] = 255
    data[3] = mask
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "inside"):
        write(path, data if how == "alpha" else data[:3], **UTM, photometric="RGB")
        with rasterio.open(path, "r+") as file:
            if how == "alpha":
                file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
            else:
                file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() == (how == "beside")
    content = geotiff.read(path)
    read = content.images[0]
    assert [channel.name for channel in read.channels] == ["red", "green", "blue"]
    np.testing.assert_array_equal(read.valid[0], mask > 0)
    part = read.window(Window((4, 10), (2, 9)))
    np.testing.assert_array_equal(part.valid[0], mask[4:10, 2:9] > 0)
    np.testing.assert_array_equal(read.pixels[:, 0, mask > 0], data[:3, mask > 0])
    assert len(content.hashes) == (2 if how == "beside" else 1)


def test_a_mask_beside_has_to_be_a_tiff_of_the_same_size(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif")
    (tmp_path / "a.tif.msk").write_text('<VRTDataset rasterXSize="60" rasterYSize="40"/>')
    with pytest.raises(UnsupportedError, match=r"\.msk"):
        geotiff.read(path)
    (tmp_path / "a.tif.msk").unlink()
    scene(tmp_path / "a.tif.msk", bands=1, shape=(20, 60), dtype="uint8")
    with pytest.raises(InputError, match="size"):
        geotiff.read(path)


# Units and names


def test_scale_and_offset_make_reflectance(tmp_path: Path) -> None:
    data = np.random.default_rng(2).integers(1000, 9000, (2, 30, 20), np.uint16)
    path = write(tmp_path / "a.tif", data, **UTM, bands=[{"description": "red"}, {"description": "nir"}])
    assert [channel.unit for channel in image(path).channels] == ["digital number"] * 2
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1.5e-4), (-0.1, 0)
    read = image(path)
    assert [channel.unit for channel in read.channels] == ["reflectance"] * 2
    np.testing.assert_allclose(read.pixels[0, 0], data[0] * 1e-4 - 0.1, atol=1e-6)
    np.testing.assert_allclose(read.pixels[1, 0], data[1] * 1.5e-4, atol=1e-6)


@pytest.mark.parametrize(("top", "unit"), [(0.9, "reflectance"), (3000, "digital number")])
def test_floats_are_reflectance_where_reflectance_lies(top: float, unit: str, tmp_path: Path) -> None:
    data = np.random.default_rng(3).random((3, 30, 20), np.float32) * np.float32(top)
    assert {channel.unit for channel in image(write(tmp_path / "a.tif", data, **UTM)).channels} == {unit}


@pytest.mark.parametrize(
    ("dtype", "band", "modality", "channel"),
    [
        ("float32", {"unit": "metre"}, "elevation", ("elevation", "m")),
        ("int16", {"description": "DEM"}, "elevation", ("elevation", "")),
        ("float32", {"description": "NDVI"}, "raster", ("ndvi", "")),
        ("float32", {}, "raster", ("value", "")),
        ("uint8", {}, "optical", ("gray", "digital number")),
        ("uint8", {"tags": {"LAYER_TYPE": "thematic"}}, "classes", ("value", "")),
        ("float32", {"description": "nir"}, "optical", ("nir", "reflectance")),
    ],
)
def test_one_band_is_what_its_header_says(
    dtype: str, band: dict[str, Any], modality: str, channel: tuple[str, str], tmp_path: Path
) -> None:
    content = geotiff.read(write(tmp_path / "a.tif", np.ones((1, 8, 8), dtype), **UTM, bands=[band]))
    assert content.meta["modality"] == modality
    assert [(c.name, c.unit) for c in content.images[0].channels] == [channel]


def described(*descriptions: str) -> list[Band]:
    return [Band(text) for text in descriptions]


def test_bands_are_named_by_their_sensor() -> None:
    names = [name for name, _ in name_bands(described("B02", "B8A", "B11"), SENTINEL2)]
    assert names == ["blue", "nir08", "swir1"]
    assert name_bands(described("SR_B5", "B4"), OLI) == [("nir", 865), ("red", 655)]
    assert name_bands(described("B4", "sr_b3"), TM) == [("nir", 835), ("red", 660)]


def test_ambiguous_bands_keep_their_number() -> None:
    """B5 is near infrared on Landsat 8 and red edge on Sentinel-2; a fourth band is not near infrared by its place."""
    assert name_bands(described("B4", "B5")) == [("band_1", None), ("band_2", None)]
    colors = [Band(color=color) for color in ("red", "green", "blue", "undefined")]
    assert [name for name, _ in name_bands(colors)] == ["red", "green", "blue", "band_4"]
    twice = name_bands(described("red", "Red", "NIR"))
    assert [name for name, _ in twice] == ["red", "band_2", "nir"]


def test_wavelengths_name_bands_and_stand_with_them(tmp_path: Path) -> None:
    wavelengths = (0.492, 0.665, 0.66, 1.61, 6.5)
    bands = [{"imagery": {"CENTRAL_WAVELENGTH_UM": str(um)}} for um in wavelengths]
    channels = image(write(tmp_path / "b.tif", np.ones((5, 8, 8), np.uint16), **UTM, bands=bands)).channels
    assert [c.name for c in channels] == ["blue", "red", "band_3", "swir1", "band_5"]
    assert [c.wavelength for c in channels] == pytest.approx([1000 * um for um in wavelengths])


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    data = np.random.default_rng(4).integers(0, 3, (1, 20, 30), np.uint8)
    colors = {0: (255, 0, 10, 255), 1: (20, 200, 30, 255), 2: (1, 2, 3, 0)}
    path = write(tmp_path / "a.tif", data, **UTM, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colors)
        table = np.array([file.colormap(1)[i] for i in range(3)])
    content = geotiff.read(path)
    read = content.images[0]
    assert content.meta["modality"] == "classes"
    assert [channel.name for channel in read.channels] == ["red", "green", "blue"]
    expected = np.where(read.valid[0], table[data[0], :3].transpose(2, 0, 1), 0)
    np.testing.assert_array_equal(read.pixels[:, 0], expected)


@pytest.mark.parametrize(
    ("tags", "day"),
    [
        ({"ACQUISITION_DATE": "2021-06-12"}, "2021-06-12"),
        ({"TIFFTAG_DATETIME": "2020:02:29 10:00:00"}, "2020-02-29"),
        ({"TIFFTAG_DATETIME": "2020:01:01 10:00:00", "DATE_ACQUIRED": "20190304"}, "2019-03-04"),
        ({"ACQUISITION_DATE": "2021-02-30"}, ""),
        ({"ACQUISITION_DATE": "Doe, Jane"}, ""),
    ],
)
def test_dates_are_days_or_nothing(tags: dict[str, str], day: str) -> None:
    assert acquired(tags) == day


def test_free_text_of_the_header_stays_inside(tmp_path: Path) -> None:
    """Artist, host, remarks, unknown names of bands and sensors: none comes out."""
    keys = ("ARTIST", "HOSTCOMPUTER", "IMAGEDESCRIPTION", "DOCUMENTNAME", "COPYRIGHT", "DATETIME")
    tags = {"OWNER": NAME, "SENSOR": NAME, "ACQUISITION_DATE": NAME, **{f"TIFFTAG_{key}": NAME for key in keys}}
    inner = {"WHO": NAME, "LAYER_TYPE": NAME}
    bands = [{"description": NAME, "unit": NAME, "tags": inner, "imagery": {"SATELLITEID": NAME}}] * 2
    path = write(tmp_path / f"{NAME}.tif", np.ones((2, 4, 4), np.uint8), **UTM, tags=tags, bands=bands)
    content = geotiff.read(path)
    assert NAME not in f"{content.images[0].channels} {content.images[0].grid} {content.images[0]!r} {content.meta}"


# Windows


@given(data=st.data())
def test_windows_are_slices_and_move_the_grid(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
        path = scene(Path(folder) / "a.tif", shape=(70, 90), nodata=7, **tiles)
        whole = image(path)
        (r0, r1), (c0, c1) = (
            sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in (70, 90)
        )
        part = whole.window(Window((r0, r1), (c0, c1)))
        np.testing.assert_array_equal(part.pixels, whole.pixels[:, :, r0:r1, c0:c1])
        np.testing.assert_array_equal(part.valid, whole.valid[:, r0:r1, c0:c1])
        np.testing.assert_allclose(part.grid.world(np.zeros((1, 3))), whole.grid.world(np.array([[0, r0, c0]])))


@pytest.mark.parametrize("overviews", [(), (2, 4, 8)])
def test_reduced_reads_average_valid_pixels_over_the_same_extent(overviews: tuple[int, ...], tmp_path: Path) -> None:
    data = np.random.default_rng(5).random((2, 64, 96)).astype(np.float32)
    data[:, :, :8] = -1
    path = write(tmp_path / "a.tif", data, **UTM, nodata=-1)
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, Resampling.average)
    whole = image(path)
    small = whole.window(shape=(16, 24))
    blocks = data.reshape(2, 16, 4, 24, 4).mean((2, 4))
    np.testing.assert_allclose(small.pixels[:, 0, :, 2:], blocks[:, :, 2:], atol=2e-3)
    np.testing.assert_array_equal(small.valid[0], blocks[0] > 0)
    for grid in (whole.grid, small.grid):
        a, b, c, d, e, f = grid.to_gdal()
        rows, columns = grid.shape[1:]
        np.testing.assert_allclose((c, f, c + a * columns, f + e * rows), (399960, 5500020, 400920, 5499380))
        assert (b, d) == (0, 0)


def test_threads_and_processes_may_share_an_image(tmp_path: Path) -> None:
    whole = image(scene(tmp_path / "a.tif", shape=(64, 64)))
    read = pickle.loads(pickle.dumps(whole.read))
    windows = [Window((r, r + 8), (c, c + 8)) for r in range(0, 64, 8) for c in range(0, 64, 8)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda window: read(window, None)[0], windows))
    for window, part in zip(windows, parts, strict=True):
        np.testing.assert_array_equal(part, whole.pixels[:, :, slice(*window.rows), slice(*window.columns)])


# Real files


def test_real_files_agree_with_rasterio(data_dir: Path) -> None:
    """Every raster is refused by name of the reason, or has rasterio's own shape, place, values and mask."""
    read = refused = 0
    zoo = sorted(p for p in (data_dir / "rs" / "tiff_zoo").rglob("*") if p.suffix in (".tif", ".tiff", ".jp2"))
    for path in [*sorted((data_dir / "rs" / "geotiff").rglob("*.tif"))[::2], *zoo[::8]]:
        try:
            content = geotiff.read(path)
            values, valid = content.images[0].pixels, content.images[0].valid[0]
        except InputError:
            refused += 1
            continue
        read += 1
        grid = content.images[0].grid
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                file = rasterio.open(path)
            except RasterioError:
                continue
        with file:
            assert grid.shape[1:] == file.shape
            if grid.georeferenced:
                assert CRS.from_user_input(grid.frame) == file.crs
                np.testing.assert_allclose(grid.to_gdal(), tuple(file.transform)[:6])
            if content.meta["modality"] == "classes":
                continue
            bands = [i for i, color in enumerate(file.colorinterp, 1) if color != ColorInterp.alpha]
            own = file.read(bands).astype(np.float32)
            known = (file.dataset_mask() > 0) & np.isfinite(own).all(0)
            if file.count > 1 and file.dtypes[0] != "uint8":  # where one band is not known, none is
                known &= (file.read_masks(bands) > 0).all(0)
            np.testing.assert_array_equal(valid, known)
            np.testing.assert_array_equal(values[:, 0, valid], own[:, valid])
    assert read > 30
    assert refused >= 1
