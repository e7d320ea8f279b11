"""STAC items and catalogs of local files: names, scales and offsets of bands, and what lies outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from product_files import item, raster

from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.products import stac
from domains.remote_sensing.products.joined import CLOUD
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Image

DOMAIN = RemoteSensing()
DATA = np.random.default_rng(0).integers(1200, 9000, (40, 40)).astype(np.uint16)


def band(href: str, name: str, common: str, scale: float = 0.0001, offset: float = -0.1, **more: Any) -> dict[str, Any]:
    """An asset as Earth Search writes it."""
    return {
        "href": href, "type": "image/tiff; application=geotiff", "roles": ["data", "reflectance"],
        "eo:bands": [{"name": name, "common_name": common}],
        "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": scale, "offset": offset}], **more,
    }  # fmt: skip


def load(path: Path) -> Image:
    (scene,) = DOMAIN.load(path).images
    return scene


SENTINEL = {"platform": "sentinel-2b", "s2:processing_baseline": "05.11", "eo:cloud_cover": 7.25}


def test_an_item_is_one_study_of_its_assets(tmp_path: Path) -> None:
    raster(tmp_path / "B04.tif", DATA, 10)
    raster(tmp_path / "swir" / "B11.tif", DATA[:20, :20], 20)
    raster(tmp_path / "preview.tif", np.ones((3, 8, 8), np.uint8), 50)
    scl = np.full((20, 20), 4, np.uint8)
    scl[0, :3] = 9, 0, 1
    raster(tmp_path / "SCL.tif", scl, 20, nodata=0)
    assets = {
        "thumbnail": {"href": "https://example.com/t.jpg", "roles": ["thumbnail"]},
        "visual": {"href": "preview.tif", "roles": ["visual"], "eo:bands": [{"name": "red", "common_name": "red"}]},
        "red": band("./B04.tif", "red", "red"),
        "swir16": band("./swir/B11.tif", "swir16", "swir16"),
        "scl": {"href": "SCL.tif", "roles": ["data", "reflectance"], "raster:bands": [{"nodata": 0}]},
        "red-jp2": band("s3://bucket/B04.jp2", "red", "red") | {"roles": ["metadata"]},
    }
    path = item(tmp_path, assets, **SENTINEL)
    study = DOMAIN.load(path)
    (scene,) = study.images
    assert [channel.name for channel in scene.channels] == ["red", "swir1", "quality"]
    assert [channel.wavelength for channel in scene.channels] == [665, 1610, None]
    good = scene.valid[0]
    np.testing.assert_allclose(scene.pixels[0, 0][good], (DATA[good] - 1000.0) / 10000, atol=1e-6)
    assert (scene.pixels[2, 0, :2, :2] == CLOUD).all()
    assert (~good).sum() == 8
    assert dict(study.meta) == {
        "modality": "optical", "sensor": "Sentinel-2", "platform": "Sentinel-2B", "date": "2021-06-12",
        "baseline": "05.11", "cloud_cover": "7.25 %", "resolution": "10 m",
    }  # fmt: skip
    found = DOMAIN.studies(tmp_path)
    assert [group[0] for group in found] == [path]
    assert set(found[0]) == {p for p in tmp_path.rglob("*") if p.is_file()}
    assert DOMAIN.load(found[0]).digest == DOMAIN.load(tmp_path).digest == study.digest
    assert DOMAIN.sniff(path)


@pytest.mark.parametrize(
    ("applied", "baseline", "offset", "expected"),
    [
        (True, "05.11", -0.1, 0.0), (True, "05.11", 0.0, 0.0), (False, "05.11", -0.1, -0.1),
        (None, "04.00", -0.1, -0.1),
        (False, "02.14", 0.0, 0.0), (None, None, -0.1, -0.1), (False, "05.11", 0.0, None), (None, "03.01", -0.1, None),
    ],
)  # fmt: skip
def test_an_offset_is_never_added_twice_nor_guessed(
    tmp_path: Path, applied: bool | None, baseline: str | None, offset: float, expected: float | None
) -> None:
    raster(tmp_path / "B04.tif", DATA, 10)
    told = {"earthsearch:boa_offset_applied": applied, "s2:processing_baseline": baseline}
    properties = {key: value for key, value in told.items() if value is not None}
    path = item(tmp_path, {"red": band("B04.tif", "red", "red", offset=offset)}, platform="sentinel-2a", **properties)
    if expected is None:
        with pytest.raises(InputError, match="baseline"):
            DOMAIN.load(path)
    else:
        np.testing.assert_allclose(load(path).pixels[0, 0], DATA / 10000 + expected, atol=1e-6)


def test_a_file_that_scales_itself_is_scaled_once(tmp_path: Path) -> None:
    import rasterio

    for name, scale in (("a", 0.0001), ("b", 0.0002)):
        with rasterio.open(raster(tmp_path / f"{name}.tif", DATA, 10), "r+") as file:
            file.scales, file.offsets = (scale,), (-0.1,)
    scene = load(item(tmp_path, {"red": band("a.tif", "B04", "red")}, **SENTINEL))
    np.testing.assert_allclose(scene.pixels[0, 0], DATA / 10000 - 0.1, atol=1e-6)
    with pytest.raises(InputError, match="scales"):
        DOMAIN.load(item(tmp_path, {"red": band("b.tif", "B04", "red")}, **SENTINEL))
    with pytest.raises(InputError, match="scales"):
        DOMAIN.load(item(tmp_path, {"red": band("a.tif", "B04", "red")}, "c.json", **SENTINEL | {
            "earthsearch:boa_offset_applied": True}))  # fmt: skip


def test_digital_numbers_without_a_scale_stay_digital_numbers(tmp_path: Path) -> None:
    raster(tmp_path / "B08.tif", DATA, 10)
    raster(tmp_path / "B8A.tif", DATA[:20, :20], 20)
    assets = {
        name: {"href": f"{name}.tif", "roles": ["data"], "eo:bands": [{"name": name, "common_name": "nir"}]}
        for name in ("B08", "B8A")
    }
    scene = load(item(tmp_path, assets, **SENTINEL))
    assert [(channel.name, channel.unit) for channel in scene.channels] == [
        ("nir", "digital number"), ("nir08", "digital number"),
    ]  # fmt: skip
    np.testing.assert_array_equal(scene.pixels[0, 0], DATA)


def test_common_bands_of_version_1_1_and_several_in_one_file(tmp_path: Path) -> None:
    data = np.stack([DATA, DATA[::-1], DATA // 2])
    raster(tmp_path / "all.tif", data, 10)
    asset = {
        "href": "all.tif", "type": "image/tiff", "raster:scale": 0.0001, "nodata": 7,
        "bands": [
            {"name": "SR_B5", "eo:common_name": "nir08"},
            {"name": "first", "eo:common_name": "rededge071", "raster:offset": 0.5},
            {"name": "second", "eo:center_wavelength": 0.561},
        ],
    }  # fmt: skip
    path = item(tmp_path, {"data": asset}, platform="landsat-9")
    path.write_text(path.read_text().replace('"1.0.0"', '"1.1.0"'))
    scene = load(path)
    assert [(channel.name, channel.wavelength) for channel in scene.channels] == [
        ("nir", 865), ("rededge1", None), ("green", 561),
    ]  # fmt: skip
    scaled = data / 10000 + np.array([0, 0.5, 0])[:, None, None]
    np.testing.assert_allclose(scene.pixels[:, 0], scaled, atol=1e-6)
    asset["bands"] = asset["bands"][:2]
    with pytest.raises(InputError, match="3 bands"):
        DOMAIN.load(item(tmp_path, {"data": asset}))


def test_temperature_has_an_image_of_its_own(tmp_path: Path) -> None:
    raster(tmp_path / "red.tif", DATA)
    warm = np.where(np.arange(1600).reshape(40, 40) < 40, 0, DATA + 30000).astype(np.uint16)
    raster(tmp_path / "st.tif", warm)
    assets = {
        "red": band("red.tif", "OLI_B4", "red", 2.75e-05, -0.2),
        "lwir11": band("st.tif", "TIRS_B10", "lwir11", 0.00341802, 149.0),
    }
    assets["lwir11"]["raster:bands"][0]["unit"] = "kelvin"
    light, heat = DOMAIN.load(item(tmp_path, assets, platform="landsat-8")).images
    assert (heat.channels[0].name, heat.channels[0].unit) == ("tir1", "K")
    assert light.valid.all()
    assert heat.valid[0, 1:].all()
    assert not heat.valid[0, 0].any()
    np.testing.assert_allclose(heat.pixels[0, 0, 1:], warm[1:] * 0.00341802 + 149, rtol=1e-6)


@pytest.mark.parametrize(
    ("href", "error"),
    [
        ("https://example.com/B04.tif", UnsupportedError), ("s3://bucket/B04.tif", UnsupportedError),
        ("ftp://example.com/B04.tif", UnsupportedError), ("../outside/B04.tif", InputError),
        ("in/../../outside/B04.tif", InputError), ("%2e%2e/outside/B04.tif", InputError), ("link.tif", InputError),
        ("folder/B04.tif", InputError), ("{root}/outside/B04.tif", InputError),
        ("file://{root}/outside/B04.tif", InputError),
        ("/vsicurl/https://example.com/B04.tif", InputError), ("missing.tif", InputError),
    ],
)  # fmt: skip
def test_nothing_outside_the_folder_is_read(tmp_path: Path, href: str, error: type[Exception]) -> None:
    raster(tmp_path / "outside" / "B04.tif", DATA, 10)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.tif").symlink_to(tmp_path / "outside" / "B04.tif")
    (inside / "folder").symlink_to(tmp_path / "outside")
    path = item(inside, {"red": band(href.format(root=tmp_path), "red", "red")})
    with pytest.raises(error) as caught:
        DOMAIN.load(path)
    assert "B04" not in str(caught.value)
    assert DOMAIN.studies(path)[0] == (path,)


def test_a_place_comes_from_the_item_or_agrees_with_it(tmp_path: Path) -> None:
    raster(tmp_path / "bare.tif", DATA, crs=None, transform=None)
    raster(tmp_path / "placed.tif", DATA, 10)
    place = {"proj:epsg": 32633, "proj:transform": [10, 0, 399960, 0, -10, 5500020]}
    bare = load(item(tmp_path, {"red": band("bare.tif", "red", "red", **place)}))
    placed = load(item(tmp_path, {"red": band("placed.tif", "red", "red", **place)}))
    assert bare.grid.frame == placed.grid.frame == "EPSG:32633"
    np.testing.assert_allclose(bare.grid.affine, placed.grid.affine)
    for wrong in ({"proj:epsg": 32634}, {"proj:epsg": 32633, "proj:transform": [10, 0, 399970, 0, -10, 5500020]}):
        with pytest.raises(GeometryError, match="elsewhere"):
            DOMAIN.load(item(tmp_path, {"red": band("placed.tif", "red", "red", **wrong)}))


def test_a_catalog_gives_its_items_and_follows_nothing_outside(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        raster(tmp_path / name / "B04.tif", DATA, 10)
        paths.append(item(tmp_path / name, {"red": band("./B04.tif", "red", "red")}))
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "id": "c", "description": "c", "license": "other", "extent": {},
        "links": [{"rel": "item", "href": "./b/item.json"}, {"rel": "root", "href": "https://example.com/root.json"},
                  {"rel": "child", "href": "catalog.json"}],
    }  # fmt: skip
    catalog: dict[str, Any] = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "d", "description": "d",
        "links": [{"rel": "item", "href": "./a/item.json"}, {"rel": "child", "href": "./collection.json"}],
    }  # fmt: skip
    (tmp_path / "collection.json").write_text(json.dumps(collection))
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    assert stac.items(tmp_path / "catalog.json") == paths
    assert [group[0] for group in DOMAIN.studies(tmp_path / "collection.json")] == paths
    assert [group[0] for group in DOMAIN.studies(tmp_path)] == paths
    assert DOMAIN.sniff(tmp_path / "catalog.json")
    with pytest.raises(InputError, match="2 scenes"):
        DOMAIN.load(tmp_path / "catalog.json")
    for href, error in (("https://example.com/i.json", UnsupportedError), ("../x/item.json", InputError)):
        catalog["links"] = [{"rel": "item", "href": href}]
        (tmp_path / "catalog.json").write_text(json.dumps(catalog))
        with pytest.raises(error):
            DOMAIN.studies(tmp_path / "catalog.json")


def test_broken_items_are_refused_without_their_words(tmp_path: Path) -> None:
    raster(tmp_path / "B04.tif", DATA, 10)
    good = json.loads(item(tmp_path, {"red": band("B04.tif", "red", "red")}).read_text())
    nonsense: list[dict[str, Any]] = [
        {"assets": {}}, {"assets": None}, {"assets": {"red": {}}}, {"properties": {}}, {"properties": None},
        {"assets": {"red": band("B04.tif", "red", "red", **{"raster:bands": [{"scale": "doe_jane"}]})}},
        {"assets": {"red": band("B04.tif", "red", "red", **{"raster:bands": [{"nodata": "doe_jane"}]})}},
        {"assets": {"red": band("B04.tif", "red", "red", **{"eo:bands": ["doe_jane"]})}},
        {"assets": {"red": band("B04.tif", "red", "red", **{"eo:bands": "doe_jane"})}},
        {"assets": {"red": band("B04.tif", "red", "red", roles=[1])}}, {"assets": {"red": {"href": 5}}},
    ]  # fmt: skip
    for change in nonsense:
        path = tmp_path / "item.json"
        path.write_text(json.dumps(good | change))
        with pytest.raises(InputError) as caught:
            DOMAIN.load(path)
        assert "doe_jane" not in str(caught.value)
        assert DOMAIN.studies(path)
    path.write_text(json.dumps(good)[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        DOMAIN.load(path)
    text = json.dumps(good | {"assets": {"red": band("B04.tif", "doe_jane", "doe_jane")}})
    path.write_text(text.replace('"id": "scene"', '"id": "doe_jane"'))
    study = DOMAIN.load(path)
    assert "doe_jane" not in f"{study.images[0].channels} {dict(study.meta)} {study.source}"
