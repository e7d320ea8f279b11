"""Sentinel-2 SAFE folders against the numbers that they were written from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product_files import METRES, MSI, first_format, ground, raster, sentinel2

from domains.radiology.plugin import Radiology
from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.products.joined import CLEAR, CLOUD, HAZE, SHADOW, SNOW, WATER
from fovea.errors import GeometryError, InputError
from fovea.image import Image, Window
from fovea.types import View

DOMAIN = RemoteSensing()
L2A = tuple(name for name in MSI if name != "B10")
NAMES = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir1", "swir2",
)  # fmt: skip


def enlarged(data: np.ndarray, metres: int) -> np.ndarray:
    return np.repeat(np.repeat(data, metres // 10, 0), metres // 10, 1)


def load(product: Path) -> Image:
    (scene,) = DOMAIN.load(product).images
    return scene


@pytest.fixture(scope="module")
def numbers() -> dict[str, np.ndarray]:
    return ground(low=1100)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, numbers: dict[str, np.ndarray]) -> Image:
    return load(sentinel2(tmp_path_factory.mktemp("safe"), numbers))


def test_bands_are_reflectance_on_the_finest_grid(scene: Image, numbers: dict[str, np.ndarray]) -> None:
    assert tuple(channel.name for channel in scene.channels) == NAMES
    assert {channel.unit for channel in scene.channels} == {"reflectance"}
    assert scene.grid.shape == (1, 120, 120)
    assert scene.grid.to_gdal() == (10, 0, 399960, 0, -10, 5500020)
    for values, name in zip(scene.pixels, L2A, strict=True):
        expected = (enlarged(numbers[name], METRES[name]).astype(float) - 1000) / 10000
        np.testing.assert_allclose(values[0], expected, atol=1e-6)
    assert scene.valid.all()


def test_broad_and_narrow_near_infrared_are_not_confused(scene: Image, numbers: dict[str, np.ndarray]) -> None:
    names = [channel.name for channel in scene.channels]
    assert (scene.channels[names.index("nir")].wavelength, scene.channels[names.index("nir08")].wavelength) == (
        842,
        865,
    )
    np.testing.assert_allclose(scene.pixels[names.index("nir"), 0], (numbers["B08"] - 1000.0) / 10000, atol=1e-6)
    narrow = (enlarged(numbers["B8A"], 20) - 1000.0) / 10000
    np.testing.assert_allclose(scene.pixels[names.index("nir08"), 0], narrow, atol=1e-6)


@pytest.mark.parametrize("level", ["1C", "2A"])
def test_one_ground_reads_alike_in_both_baselines(tmp_path: Path, level: str) -> None:
    """The offset is the metadata's, though both products are of one date."""
    truth = ground(60, seed=3)
    truth["B04"][5:9, 5:9] = 0
    added = {name: np.where(data > 0, data + 1000, 0).astype(np.uint16) for name, data in truth.items()}
    old = load(sentinel2(tmp_path, truth, level, "03.01", None))
    new = load(sentinel2(tmp_path, added, level, "04.00", -1000))
    again = load(sentinel2(tmp_path / "collection_1", added, level, "05.00", -1000))
    for other in (new, again):
        np.testing.assert_allclose(other.pixels, old.pixels, atol=1e-6)
        np.testing.assert_array_equal(other.valid, old.valid)
    assert (~old.valid).sum() == 16
    assert len(old.channels) == (13 if level == "1C" else 12)


def test_offsets_are_those_of_their_band(tmp_path: Path) -> None:
    """By the band's id, of which B8A has 8 and B12 has 12."""
    change = {f'band_id="{i}">-1000': f'band_id="{i}">{-i}' for i in range(13)}
    numbers = {name: np.full_like(data, 5000) for name, data in ground(60).items()}
    scene = load(sentinel2(tmp_path, numbers, change=change))
    ids = [MSI.index(name) for name in L2A]
    np.testing.assert_allclose(scene.pixels[:, 0, 0, 0], (5000 - np.array(ids)) / 10000, atol=1e-6)


@pytest.mark.parametrize(
    ("baseline", "offset", "change", "words"),
    [
        ("05.11", None, {}, "without offsets"),
        ("nonsense", None, {}, "without offsets"),
        ("05.11", -1000, {'<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>': ""}, "B04"),
        ("05.11", -1000, {">-1000<": ">soon<"}, "radiometric offset"),
        ("05.11", -1000, {">10000<": "><"}, "quantification"),
        ("05.11", -1000, {">10000<": ">0<"}, "quantification"),
        ("05.11", -1000, {"<n1:General_Info>": "<n1:General"}, "cannot be read"),
        ("05.11", -1000, {'<?xml version="1.0" encoding="UTF-8" standalone="no"?>': "<!DOCTYPE a [<!ENTITY b 'c'>]>"},
         "cannot be read"),
    ],
)  # fmt: skip
def test_metadata_that_does_not_tell_the_scale_is_refused(
    tmp_path: Path, baseline: str, offset: int | None, change: dict[str, str], words: str
) -> None:
    product = sentinel2(tmp_path, ground(60), "2A", baseline, offset, change=change)
    with pytest.raises(InputError, match=words) as caught:
        DOMAIN.load(product)
    assert "S2B" not in str(caught.value)


@settings(max_examples=40)
@given(data=st.data())
def test_a_window_is_a_slice(scene: Image, data: st.DataObject) -> None:
    spans = [tuple(sorted(data.draw(st.lists(st.integers(0, 120), min_size=2, max_size=2, unique=True)))) for _ in "rc"]
    part = scene.window(Window(*spans))
    where = slice(*spans[0]), slice(*spans[1])
    np.testing.assert_array_equal(part.pixels, scene.pixels[..., where[0], where[1]])
    np.testing.assert_array_equal(part.valid, scene.valid[..., where[0], where[1]])


def test_reduced_reads_are_means_of_what_they_cover(scene: Image) -> None:
    """Every band of its own pixels, whole ones for coarse bands, and the mean of the scene stays."""
    for shape in ((60, 60), (20, 20), (10, 20), (4, 4)):
        small = scene.window(shape=shape)
        blocks = scene.pixels.reshape(12, 1, shape[0], 120 // shape[0], shape[1], 120 // shape[1])
        for place, name in enumerate(L2A):
            step = METRES[name] // 10
            if shape[0] <= 120 // step and shape[1] <= 120 // step:
                np.testing.assert_allclose(small.pixels[place], blocks[place].mean((2, 4)), atol=2e-4)
    assert scene.window(shape=(240, 240)).pixels.shape == (12, 1, 240, 240)
    doubled = scene.window(shape=(240, 240)).pixels
    np.testing.assert_array_equal(doubled[..., ::2, ::2], scene.pixels)


def test_a_large_tile_is_reduced_by_its_own_resolutions(tmp_path: Path) -> None:
    """A smooth scene of 1024 pixels, read at 64: the thumbnail is the scene, and no data stays out of it."""
    ramp = np.add.outer(np.arange(1024), np.arange(1024)).astype(np.uint16) + 2000
    ramp[:, 700:] = 0
    product = sentinel2(tmp_path, {"B04": ramp, "B11": ramp[::2, ::2].copy()})
    small = load(product).window(shape=(64, 64))
    blocks = ((ramp.astype(float) - 1000) / 10000).reshape(64, 16, 64, 16).mean((1, 3))
    good = small.valid[0]
    assert good[:, :42].all()
    assert not good[:, 44:].any()
    for values in small.pixels:
        np.testing.assert_allclose(values[0][good], blocks[good], atol=2e-3)
    assert (small.pixels[:, 0, ~good] == 0).all()


def test_the_scene_classification_becomes_quality(tmp_path: Path, numbers: dict[str, np.ndarray]) -> None:
    scl = np.full((60, 60), 4, np.uint8)
    scl[0, :12] = np.arange(12)
    scl[10:20, 10:20] = 9
    scene = load(sentinel2(tmp_path, numbers, scl=scl))
    assert scene.channels[-1].name == "quality"
    quality, valid = scene.pixels[-1, 0], scene.valid[0]
    assert quality[0, 6:24:2].tolist() == [SHADOW, CLEAR, CLEAR, WATER, 6, CLOUD, CLOUD, HAZE, SNOW]
    np.testing.assert_array_equal(valid, enlarged(scl > 1, 20))
    assert (quality[20:40, 20:40] == CLOUD).all()
    part = scene.window(Window((15, 45), (13, 50)))
    np.testing.assert_array_equal(part.pixels, scene.pixels[..., 15:45, 13:50])
    small = scene.window(shape=(12, 12)).pixels[-1, 0]
    assert set(np.unique(small)) <= {0, CLOUD}, "classes are never averaged"
    assert (small[2:4, 2:4] == CLOUD).all()


def test_no_data_and_saturation_are_looked_for_before_the_offset(tmp_path: Path) -> None:
    numbers = {name: np.full_like(data, 1000) for name, data in ground(60).items()}
    numbers["B02"][0, :3] = 0, 65535, 1000
    numbers["B12"][10, 10] = 0
    scene = load(sentinel2(tmp_path, numbers))
    assert scene.valid[0, 0, :3].tolist() == [False, False, True]
    assert not scene.valid[0, 20:22, 20:22].any()
    assert scene.valid.sum() == 3600 - 2 - 4
    np.testing.assert_allclose(scene.pixels, 0, atol=1e-8, err_msg="1000 with an offset of -1000 is a reflectance of 0")


def test_what_is_known_of_it(tmp_path: Path) -> None:
    product = sentinel2(tmp_path, ground(60))
    study = DOMAIN.load(product)
    assert dict(study.meta) == {
        "modality": "optical", "sensor": "Sentinel-2", "platform": "Sentinel-2B", "level": "L2A", "date": "2021-06-12",
        "baseline": "05.11", "cloud_cover": "12.3 %", "resolution": "10 m",
    }  # fmt: skip
    assert "sentinel-2/1" in study.source.reader
    assert len(study.source.hashes) == 13


def test_free_text_stays_inside(tmp_path: Path) -> None:
    change = {"Sentinel-2B<": "doe_jane<", ">05.11<": ">doe_jane<", "2021-06-12T": "doe_jane", ">12.345<": ">doe_jane<"}
    product = sentinel2(tmp_path, ground(60), change=change)
    assert "doe_jane" not in str(dict(DOMAIN.load(product).meta))


def test_a_safe_folder_is_one_study(tmp_path: Path) -> None:
    product = sentinel2(tmp_path, ground(60), scl=np.full((30, 30), 4, np.uint8))
    other = raster(tmp_path / "other.tif", np.ones((3, 8, 8), np.uint8))
    found = DOMAIN.studies(tmp_path)
    assert [group[0] for group in found] == [product / "MTD_MSIL2A.xml", other]
    assert set(found[0]) == {path for path in product.rglob("*") if path.is_file()}
    assert DOMAIN.sniff(product)
    assert DOMAIN.sniff(product / "MTD_MSIL2A.xml")
    digests = {DOMAIN.load(what).digest for what in (product, found[0], product / "MTD_MSIL2A.xml")}
    assert len(digests) == 1
    inner = DOMAIN.load(next(product.rglob("*_SCL_20m.jp2")))
    assert set(np.unique(inner.images[0].pixels)) == {4}


def test_a_window_of_the_joined_grid_is_loaded(tmp_path: Path) -> None:
    product = sentinel2(tmp_path, ground(60, low=1100))
    whole, part = DOMAIN.load(product), DOMAIN.load(product, Window((7, 31), (2, 45)))
    np.testing.assert_array_equal(part.images[0].pixels, whole.images[0].pixels[..., 7:31, 2:45])
    assert part.images[0].grid.to_gdal()[2:6:3] == (399960 + 20, 5500020 - 70)
    assert part.digest != whole.digest


def test_the_first_format_has_a_study_for_each_granule(tmp_path: Path) -> None:
    tiles = {name: ground(60, seed) for seed, name in enumerate(("T33UUR", "T33UUS"))}
    product = first_format(tmp_path, tiles)
    found = DOMAIN.studies(product)
    assert len(found) == 2
    for group, numbers in zip(found, tiles.values(), strict=True):
        scene = load(group[0])
        assert [channel.name for channel in scene.channels][8:11] == ["nir08", "nir09", "cirrus"]
        np.testing.assert_allclose(scene.pixels[3, 0], numbers["B04"] / 10000, atol=1e-6)
    with pytest.raises(InputError, match="2 scenes"):
        DOMAIN.load(product)
    alone = first_format(tmp_path / "alone", {"T33UUR": tiles["T33UUR"]})
    np.testing.assert_array_equal(load(alone).pixels, load(found[0][0]).pixels)


def test_a_band_is_taken_at_its_own_resolution(tmp_path: Path, numbers: dict[str, np.ndarray]) -> None:
    """Level 2A repeats fine bands at 20 and 60 m, and the coastal band at 20 m."""
    product = sentinel2(tmp_path, {name: numbers[name] for name in ("B01", "B04")})
    folder = next(product.rglob("R10m")).parent
    raster(folder / "R20m" / "T33UUR_20210612T100029_B04_20m.jp2", np.ones((60, 60), np.uint16), 20)
    raster(folder / "R20m" / "T33UUR_20210612T100029_B01_20m.jp2", np.ones((60, 60), np.uint16), 20)
    scene = load(product)
    np.testing.assert_allclose(scene.pixels[1, 0], (numbers["B04"] - 1000.0) / 10000, atol=1e-6)
    np.testing.assert_allclose(scene.pixels[0, 0], (enlarged(numbers["B01"], 60) - 1000.0) / 10000, atol=1e-6)


def test_bands_that_do_not_share_corners_are_refused(tmp_path: Path, numbers: dict[str, np.ndarray]) -> None:
    product = sentinel2(tmp_path, {name: numbers[name] for name in ("B04", "B11")})
    band = next(product.rglob("*_B11_20m.jp2"))
    raster(band, numbers["B11"][:50], 20)
    with pytest.raises(GeometryError, match="corners"):
        DOMAIN.load(product)
    raster(band, numbers["B11"], 20, crs="EPSG:32634")
    with pytest.raises(GeometryError, match="corners"):
        DOMAIN.load(product)
    band.write_bytes(b"\0\0\0\x0cjP  " + b"\0" * 100)
    with pytest.raises(InputError):
        DOMAIN.load(product)
    for path in product.rglob("*.jp2"):
        path.unlink()
    with pytest.raises(InputError, match="without band files"):
        DOMAIN.load(product)


def test_it_is_drawn_by_its_bands_and_described(scene: Image, tmp_path: Path, numbers: dict[str, np.ndarray]) -> None:
    study = DOMAIN.load(sentinel2(tmp_path, numbers, scl=np.full((60, 60), 4, np.uint8)))
    pictures = [
        DOMAIN.render(study, View(preset=name, size=40)).pixels for name in ("true colour", "false colour", "ndvi")
    ]
    assert all(picture.any() for picture in pictures)
    assert DOMAIN.describe(study).startswith("Optical scene, Sentinel-2, 2021-06-12, 120 x 120 pixels of 10 m, bands")


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_metadata_is_refused_or_read(data: st.DataObject) -> None:
    """A byte changed or a part cut out: an error of ours, or a scene."""
    with TemporaryDirectory() as folder:
        product = sentinel2(Path(folder), {"B04": np.full((12, 12), 3000, np.uint16)})
        text = bytearray((product / "MTD_MSIL2A.xml").read_bytes())
        start = data.draw(st.integers(0, len(text) - 1))
        text[start : start + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=3))
        (product / "MTD_MSIL2A.xml").write_bytes(text)
        with suppress(InputError):
            assert DOMAIN.load(product).images[0].channels[0].name == "red"


def test_its_bands_are_no_radiographs(tmp_path: Path) -> None:
    """JPEG 2000 bands are grey pictures to whoever does not look for their place."""
    product = sentinel2(tmp_path, ground())
    assert Radiology().studies(product) == []
    assert len(DOMAIN.studies(product)) == 1
