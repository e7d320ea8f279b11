"""The STAC item of what was found: valid by the packaged schemas, and true to the files that it names."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pystac
import pytest
import shapely
from found import FRAMES, blobs, finding, grid, report, ships, study
from product_files import raster
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from shapely.geometry import shape

from domains.formats.rasters.earth import bounds
from domains.remote_sensing.outputs import stac
from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.vocabulary import VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import Grid, Mask

DOMAIN = RemoteSensing()
DATE = {"date": "2024-05-06", "platform": "Sentinel-2B"}


def scene(frame="north up", valid=None, **meta):
    place = grid(frame)
    return report(study(place, valid, **(meta or DATE)), finding("water", Mask(blobs(60, 80))), ships(place))


def written(given_report, folder, *outputs):
    paths = DOMAIN.write(given_report, (), folder, outputs)
    return json.loads(next(path for path in paths if path.name == "item.json").read_text()), paths


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_an_item_is_valid_and_describes_every_file(frame, tmp_path):
    found, paths = written(scene(frame), tmp_path)
    assert JsonSchemaSTACValidator().validate_core(found, pystac.STACObjectType.ITEM, "1.1.0")
    item = pystac.Item.from_dict(found)
    item.set_self_href(str(tmp_path / "item.json"))
    files = {asset.get_absolute_href(): asset for asset in item.assets.values()}
    assert set(files) == {str(path) for path in paths if path.name != "item.json"}
    for href, asset in files.items():
        content = Path(href).read_bytes()
        told = FileExtension.ext(asset)
        assert (told.checksum, told.size) == (f"1220{sha256(content).hexdigest()}", len(content))
        assert asset.media_type
        assert asset.roles
    place = ProjectionExtension.ext(item)
    assert (place.shape, Grid.from_gdal(tuple(place.transform), "", 60, 80).affine.tolist()) == (
        [60, 80], grid(frame).affine.tolist(),
    )  # fmt: skip
    assert place.code == grid(frame).frame
    classes = ClassificationExtension.ext(item.assets["classes"]).classes
    assert [c.name for c in classes] == ["none", *(term.label for term in VOCABULARY), "no_data"]
    assert [c.color_hint for c in classes[1:-1]] == ["{:02X}{:02X}{:02X}".format(*term.color) for term in VOCABULARY]
    assert (classes[-1].value, classes[-1].nodata) == (255, True)
    (band,) = item.assets["confidence"].to_dict()["bands"]
    assert (band["nodata"], band["raster:scale"], band["data_type"]) == (255, 0.01, "uint8")


def test_what_made_it_from_what_and_when_without_a_clock(tmp_path):
    found, _ = written(scene(), tmp_path / "a")
    properties = found["properties"]
    assert properties["datetime"] is None
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2024-05-06T00:00:00Z", "2024-05-06T23:59:59Z",
    )  # fmt: skip
    assert properties["processing:software"] == {"land_cover": "1.2"}
    assert (properties["processing:level"], "processing:expression" in properties) == ("L4", False)
    assert properties["platform"] == "sentinel-2b"
    assert properties["label:classes"] == [{"name": "label", "classes": ["ship", "water"]}]
    assert properties["label:overviews"][0]["counts"] == [{"name": "ship", "count": 2}, {"name": "water", "count": 1}]
    links = [link["href"] for link in found["links"] if link["rel"] == "derived_from"]
    hashes = [urlsafe_b64decode(href.removeprefix("ni:///sha-256;") + "=").hex() for href in links]
    assert hashes == list(scene().study.source.hashes)
    again, _ = written(scene(), tmp_path / "b")
    assert again == found
    other, _ = written(report(scene().study, ships(grid())), tmp_path / "c")
    assert other["id"] != found["id"]
    assert all(text not in json.dumps(found) for text in (str(tmp_path), "20:", "202611"))


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_the_footprint_is_that_of_the_valid_pixels(frame, tmp_path):
    valid = np.zeros((1, 60, 80), bool)
    valid[0, 10:50, 20:70] = True
    valid[0, 20:30, 30:40] = False  # a hole, which a footprint does not show
    for mask, extent in ((valid, ((10, 50), (20, 70))), (None, ((0, 60), (0, 80)))):
        found, _ = written(scene(frame, mask, **DATE), tmp_path, "stac")
        assert set(found["assets"]) == {"findings.geojson"}
        window = Grid(grid(frame).affine, grid(frame).frame, (1, 60, 80))
        (top, bottom), (left, right) = extent
        affine = np.array(window.affine)
        affine[:3, 3] = window.world(np.array([[0, top, left]]))[0]
        part = Grid(affine, window.frame, (1, bottom - top, right - left))
        size = max(bounds(part)[2] - bounds(part)[0], bounds(part)[3] - bounds(part)[1])
        np.testing.assert_allclose(found["bbox"], bounds(part), atol=1e-3 * size)
        footprint = shape(found["geometry"])
        assert shapely.is_valid(footprint)
        assert not any(polygon.interiors for polygon in footprint.geoms)


def test_the_footprint_of_a_larger_scene_is_read_reduced(tmp_path):
    place = grid("rotated", 600, 500)
    valid = np.zeros(place.shape, bool)
    valid[0, 100:500, 200:450] = True
    found, _ = written(report(study(place, valid, **DATE)), tmp_path, "stac")
    affine = np.array(place.affine)
    affine[:3, 3] = place.world(np.array([[0, 100, 200]]))[0]
    np.testing.assert_allclose(found["bbox"], bounds(Grid(affine, place.frame, (1, 400, 250))), atol=5e-4)


def test_without_a_date_or_a_place_there_is_no_item(tmp_path):
    undated = scene(sensor="Sentinel-2")
    with pytest.raises(UnsupportedError, match="date"):
        written(undated, tmp_path, "stac")
    assert "item.json" not in {path.name for path in DOMAIN.write(undated, (), tmp_path / "x")}
    with pytest.raises(GeometryError):
        written(report(study(Grid.plain(5, 5), **DATE)), tmp_path, "stac")


def test_a_frame_without_a_code_is_given_as_wkt(tmp_path):
    frame = 'PROJCS["unknown",GEOGCS["unknown",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Lambert_Azimuthal_Equal_Area"],PARAMETER["latitude_of_center",12],PARAMETER["longitude_of_center",45],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]'  # noqa: E501
    place = Grid.from_gdal((10, 0, 100, 0, -10, 100), frame, 60, 80)
    found, _ = written(report(study(place, **DATE), finding("water", Mask(blobs(60, 80)))), tmp_path)
    item = pystac.Item.from_dict(found)
    assert ProjectionExtension.ext(item).code is None
    assert ProjectionExtension.ext(item).wkt2.startswith("PROJCRS[")
    back = DOMAIN.load(tmp_path / "classes.tif").images[0].grid
    np.testing.assert_array_equal(back.affine, place.affine)
    assert "Lambert" in back.frame


def model(name):
    return {"type": "Feature", "id": name, "properties": {"mlm:name": f"{name} model"}}


@pytest.mark.parametrize("names", [("land_cover",), ("land_cover", "ships")])
def test_the_items_of_models_stand_beside_the_result_which_is_derived_from_them(names, tmp_path):
    paths = stac.write(scene(), tmp_path, [], [model(name) for name in names])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    found = json.loads((tmp_path / "item.json").read_text())
    assert JsonSchemaSTACValidator().validate_core(found, pystac.STACObjectType.ITEM, "1.1.0")
    links = [link for link in found["links"] if "mlm:name" in link]
    assert [(link["rel"], link["type"]) for link in links] == [("derived_from", "application/geo+json")] * len(names)
    for link, name in zip(links, names, strict=True):
        assert json.loads((tmp_path / link["href"]).read_text()) == model(name)
        assert (link["mlm:name"], link["processing:level"]) == (f"{name} model", "L4")
    assert not any("mlm" in uri for uri in found["stac_extensions"])  # which would ask for a model's file
    expression = found["properties"].get("processing:expression")
    assert expression == ({"format": "stac-mlm", "expression": links[0]["href"]} if len(names) == 1 else None)
    stac.write(scene(), tmp_path, [])
    assert json.loads((tmp_path / "item.json").read_text())["id"] != found["id"]


@pytest.mark.parametrize("names", [("same", "same"), ("../up",), ("",)])
def test_models_are_named_plainly_and_apart(names, tmp_path):
    with pytest.raises(InputError, match="ids"):
        stac.write(scene(), tmp_path, [], [model(name) for name in names])
    assert not list(tmp_path.iterdir())


def test_two_dates_are_read_in_their_order_and_the_item_spans_both(tmp_path):
    data = np.random.default_rng(0).integers(1, 255, (4, 20, 20), np.uint8)
    names = [f"m_4107501_ne_18_060_{day}.tif" for day in ("20221108", "20200705")]
    after, before = (raster(tmp_path / name, data + n, 0.6, alpha="no") for n, name in enumerate(names))
    both = DOMAIN.load([after, before])
    dates = {"date_before": "2020-07-05", "date_after": "2022-11-08"}
    assert {key: value for key, value in both.meta.items() if key.startswith("date")} == dates
    np.testing.assert_array_equal(both.images[0].pixels[:, 0], data + 1)
    assert both.digest == DOMAIN.load([before, after]).digest
    assert DOMAIN.load(after).meta["date"] == "2022-11-08"
    found, _ = written(report(both, finding("water", Mask(np.ones((1, 20, 20), bool)))), tmp_path / "out", "stac")
    assert (found["properties"]["start_datetime"], found["properties"]["end_datetime"]) == (
        "2020-07-05T00:00:00Z", "2022-11-08T23:59:59Z",
    )  # fmt: skip
    half = report(study(grid(), date_after="2022-11-08"))
    with pytest.raises(UnsupportedError, match="date"):
        written(half, tmp_path / "half", "stac")
