"""Landsat, PlanetScope and NAIP products against the numbers that they were written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from product_files import landsat, mtl, raster

from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.products import facts
from domains.remote_sensing.products.joined import CLEAR, CLOUD, HAZE, SHADOW, SNOW, WATER
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.image import Window

DOMAIN = RemoteSensing()
SURFACE = {
    "LEVEL2_PROCESSING_RECORD": {"PROCESSING_LEVEL": "L2SP"},
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
        **{f"REFLECTANCE_MULT_BAND_{i}": 2.75e-05 for i in range(1, 8)},
        **{f"REFLECTANCE_ADD_BAND_{i}": -0.2 for i in range(1, 8)},
    },
    "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
        "TEMPERATURE_MULT_BAND_ST_B10": 0.00341802, "TEMPERATURE_ADD_BAND_ST_B10": 149.0,
    },
    # Level 2 metadata repeats these of Level 1, which are not for its files.
    "LEVEL1_RADIOMETRIC_RESCALING": {
        **{f"REFLECTANCE_MULT_BAND_{i}": 2e-05 for i in range(1, 10)},
        **{f"REFLECTANCE_ADD_BAND_{i}": -0.1 for i in range(1, 10)},
        "RADIANCE_MULT_BAND_10": 3.342e-04, "RADIANCE_ADD_BAND_10": 0.1,
    },
    "LEVEL1_THERMAL_CONSTANTS": {"K1_CONSTANT_BAND_10": 774.8853, "K2_CONSTANT_BAND_10": 1321.0789},
}  # fmt: skip
ABOVE = {name: group for name, group in SURFACE.items() if name.startswith("LEVEL1")}
FLAG = {"fill": 1, "dilated": 2, "cirrus": 4, "cloud": 8, "shadow": 16, "snow": 32, "clear": 64, "water": 128}


def numbers(*suffixes: str, side: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(suffixes))
    return {name: rng.integers(7000, 30000, (side, side)).astype(np.uint16) for name in suffixes}


def clear(side: int = 24) -> np.ndarray:
    return np.full((side, side), 21824, np.uint16)


@pytest.mark.parametrize("form", ["txt", "xml", "json"])
def test_landsat_level_2_is_surface_reflectance_and_kelvin(tmp_path: Path, form: str) -> None:
    bands = numbers("SR_B2", "SR_B4", "SR_B5", "ST_B10")
    study = DOMAIN.load(landsat(tmp_path, bands, clear(), np.zeros((24, 24), np.uint16), form, **SURFACE))
    light, warm = study.images
    assert [channel.name for channel in light.channels] == ["blue", "red", "nir", "quality"]
    assert [channel.unit for channel in light.channels] == ["reflectance"] * 3 + ["class"]
    for values, name in zip(light.pixels, ("SR_B2", "SR_B4", "SR_B5"), strict=False):
        np.testing.assert_allclose(values[0], bands[name] * 2.75e-05 - 0.2, atol=1e-6)
    assert (warm.channels[0].name, warm.channels[0].unit) == ("tir1", "K")
    np.testing.assert_allclose(warm.pixels[0, 0], bands["ST_B10"] * 0.00341802 + 149.0, rtol=1e-6)
    assert dict(study.meta) == {
        "modality": "optical", "sensor": "Landsat 8/9", "platform": "Landsat 8", "level": "L2SP", "date": "2021-06-12",
        "baseline": "Collection 2", "cloud_cover": "33.3 %", "resolution": "30 m",
    }  # fmt: skip


def test_landsat_level_1_is_seen_from_above_the_atmosphere(tmp_path: Path) -> None:
    """The sun stands at 30 degrees, of which the sine is one half."""
    bands = numbers("B3", "B9", "B10")
    mtl_file = landsat(tmp_path, bands, clear(), np.zeros((24, 24), np.uint16), "txt", "L1TP", **ABOVE)
    light, warm = DOMAIN.load(mtl_file).images
    assert [channel.name for channel in light.channels] == ["green", "cirrus", "quality"]
    for values, name in zip(light.pixels, ("B3", "B9"), strict=False):
        np.testing.assert_allclose(values[0], (bands[name] * 2e-05 - 0.1) / 0.5, atol=1e-6)
    radiance = bands["B10"] * 3.342e-04 + 0.1
    np.testing.assert_allclose(warm.pixels[0, 0], 1321.0789 / np.log(774.8853 / radiance + 1), rtol=1e-6)


def test_landsat_flags_become_quality_and_validity(tmp_path: Path) -> None:
    bands = numbers("SR_B2", "SR_B5", "ST_B10")
    bands["ST_B10"][20, :] = 0
    pixel = clear()
    told = ("fill", "water clear", "snow", "shadow water", "cirrus", "dilated", "cloud cirrus shadow", "clear")
    pixel[0, :8] = [sum(FLAG[word] for word in words.split()) for words in told]
    radsat = np.zeros((24, 24), np.uint16)
    radsat[5, :4] = 1 << 1, 1 << 4, 1 << 5, 1 << 11  # B2, B5, B6, terrain in the way
    light, warm = DOMAIN.load(landsat(tmp_path, bands, pixel, radsat, **SURFACE)).images
    quality = light.pixels[-1, 0]
    assert quality[0, 1:8].tolist() == [WATER, SNOW, SHADOW, HAZE, CLOUD, CLOUD, CLEAR]
    assert light.valid[0, 0, :3].tolist() == [False, True, True]
    assert light.valid[0, 5, :5].tolist() == [False, False, True, True, True]
    assert light.valid.sum() == 24 * 24 - 3
    assert light.valid[0, 20].all(), "a gap in the temperature is no gap in the light"
    assert not warm.valid[0, 20].any()
    assert warm.valid[0, 5].all()


def test_landsat_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    bands, zeros = numbers("SR_B2"), np.zeros((24, 24), np.uint16)
    path = landsat(tmp_path, bands, clear(), zeros, **SURFACE)
    text = path.read_text()
    for old, new, words in (
        ('COLLECTION_NUMBER = "02"', 'COLLECTION_NUMBER = "01"', "collection"),
        ('"LANDSAT_8"', '"LANDSAT_3"', "spacecraft"),
        ("REFLECTANCE_MULT_BAND_2 = 2.75e-05", "", "reflectance scale"),
        ("_QA_PIXEL.TIF", "_QA_OTHER.TIF", "QA_PIXEL"),
        ('_SR_B2.TIF"', '_SR_B3.TIF"', "without its bands"),
        ('BAND_2 = "LC08', 'BAND_2 = "../LC08', "without its bands"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=words):
            DOMAIN.load(path)
    night = landsat(tmp_path / "night", numbers("B2"), clear(), zeros, "txt", "L1TP", **ABOVE)
    night.write_text(night.read_text().replace("SUN_ELEVATION = 30.0", "SUN_ELEVATION = -3.0"))
    with pytest.raises(InputError, match="night"):
        DOMAIN.load(night)
    night.with_suffix(".json").write_text(mtl({}, "json"))
    with pytest.raises(UnsupportedError):
        DOMAIN.load(night.with_suffix(".json"))


def test_a_landsat_scene_is_one_study_and_the_panchromatic_band_stays_apart(tmp_path: Path) -> None:
    bands = {**numbers("B2", "B4"), "B8": np.ones((47, 47), np.uint16)}
    zeros = np.zeros((24, 24), np.uint16)
    path = landsat(tmp_path, bands, clear(), zeros, "txt", "L1TP", **ABOVE)
    path.with_suffix(".xml").write_text("<LANDSAT_METADATA_FILE/>")
    (group,) = DOMAIN.studies(tmp_path)
    assert set(group) == set(tmp_path.iterdir())
    assert DOMAIN.load(path).images[0].grid.shape == (1, 24, 24)
    pan = next(file for file in group if file.name.endswith("_B8.TIF"))
    assert DOMAIN.load(pan).images[0].grid.shape == (1, 47, 47)


def planet(
    folder: Path, data: np.ndarray, kind: str, coefficients: bool = True, udm2: np.ndarray | None = None
) -> Path:
    scene = "20210612_101530_55_2416_3B"
    bands = "".join(
        f"<ps:bandSpecificMetadata><ps:bandNumber>{i}</ps:bandNumber><ps:radiometricScaleFactor>0.01"
        f"</ps:radiometricScaleFactor><ps:reflectanceCoefficient>{i}e-05</ps:reflectanceCoefficient>"
        "</ps:bandSpecificMetadata>"
        for i in range(len(data), 0, -1)
    )
    spaces = 'xmlns:ps="http://schemas.planet.com/ps/v1/planet_product_metadata" xmlns:opt="http://earth.esa.int/opt"'
    xml = (
        f"<ps:EarthObservation {spaces}><opt:cloudCoverPercentage>4.2</opt:cloudCoverPercentage>{bands}"
        "</ps:EarthObservation>"
    )
    path = raster(folder / f"{scene}_{kind}.tif", data, 3, nodata=0, photometric="minisblack")
    if coefficients:
        (folder / f"{scene}_AnalyticMS_metadata.xml").write_text(xml)
    if udm2 is not None:
        raster(folder / f"{scene}_udm2.tif", udm2, 3, photometric="minisblack")
    return path


def test_planetscope_radiance_becomes_reflectance_by_the_coefficient_of_its_band(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 9000, (4, 20, 20)).astype(np.uint16)
    data[:, 0, 0] = 0
    study = DOMAIN.load(planet(tmp_path, data, "AnalyticMS"))
    (scene,) = study.images
    assert [channel.name for channel in scene.channels] == ["blue", "green", "red", "nir"]
    np.testing.assert_allclose(scene.pixels[:, 0], data * np.array([1, 2, 3, 4])[:, None, None] * 1e-5, atol=1e-7)
    assert (~scene.valid).sum() == 1
    assert study.meta["date"] == "2021-06-12"
    assert study.meta["cloud_cover"] == "4.2 %"
    with pytest.raises(InputError, match="coefficients"):
        DOMAIN.load(planet(tmp_path / "bare", data, "AnalyticMS", coefficients=False))
    with pytest.raises(UnsupportedError, match="3 bands"):
        DOMAIN.load(planet(tmp_path / "visual", data[:3], "AnalyticMS"))


def test_planetscope_surface_reflectance_with_its_mask(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 9000, (8, 20, 20)).astype(np.uint16)
    udm2 = np.zeros((8, 20, 20), np.uint8)
    udm2[0] = 1
    for place, (band, value) in enumerate(((1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (7, 1), (7, 4))):
        udm2[band, 0, place] = value
    (scene,) = DOMAIN.load(planet(tmp_path, data, "AnalyticMS_SR_8b", udm2=udm2)).images
    names = ["coastal", "blue", "green05", "green", "yellow", "red", "rededge1", "nir", "quality"]
    assert [channel.name for channel in scene.channels] == names
    known = scene.valid[0]
    np.testing.assert_allclose(scene.pixels[:8, 0][:, known], data[:, known] * 1e-4, atol=1e-7)
    assert scene.pixels[-1, 0, 0, :5].tolist() == [SNOW, SHADOW, HAZE, HAZE, CLOUD]
    assert known[0, :7].tolist() == [True] * 5 + [False, True]
    (group,) = DOMAIN.studies(tmp_path)
    assert set(group) == set(tmp_path.iterdir())


def test_naip_has_its_bands_by_its_specification(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 255, (4, 20, 20), np.uint8)
    study = DOMAIN.load(raster(tmp_path / "m_4107501_ne_18_060_20221108.tif", data, 0.6, photometric="RGB", alpha="no"))
    (scene,) = study.images
    assert [channel.name for channel in scene.channels] == ["red", "green", "blue", "nir"]
    np.testing.assert_array_equal(scene.pixels[:, 0], data)
    assert (study.meta["sensor"], study.meta["date"]) == ("NAIP", "2022-11-08")
    with pytest.raises(UnsupportedError):
        DOMAIN.load(raster(tmp_path / "m_4107501_nw_18_060_20221108.tif", data[:1], 0.6))


def test_two_dates_of_a_product_are_one_study(tmp_path: Path) -> None:
    zeros = np.zeros((24, 24), np.uint16)
    paths = [landsat(tmp_path / d, numbers("SR_B2", d), clear(), zeros, **SURFACE) for d in ("SR_B3", "SR_B4")]
    both = DOMAIN.load(paths)
    assert DOMAIN.load([path.parent for path in paths]).digest == both.digest
    assert [image.channels[1].name for image in both.images] == ["green", "red"]
    window = DOMAIN.load(paths, Window((2, 9), (3, 11)))
    for part, whole in zip(window.images, both.images, strict=True):
        np.testing.assert_array_equal(part.pixels, whole.pixels[..., 2:9, 3:11])


def test_flags_without_their_product_are_left_out_beside_a_raster(tmp_path: Path) -> None:
    zeros = np.zeros((24, 24), np.uint16)
    path = landsat(tmp_path, numbers("SR_B2"), clear(), zeros, **SURFACE)
    path.unlink()
    assert [group[0].name[-9:] for group in DOMAIN.studies(tmp_path)] == ["SR_B2.TIF"]
    next(tmp_path.glob("*_SR_B2.TIF")).unlink()
    assert len(DOMAIN.studies(tmp_path)) == 2


def test_metadata_is_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "a"><!ENTITY b "&a;&a;">]><a>&b;</a>'
    outside = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><a>&a;</a>'
    for text in (bomb, outside, "<a>", ""):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(InputError, match="cannot be read"):
            facts.xml(tmp_path / "a.xml")
    monkeypatch.setattr(facts, "LIMIT", 10)
    (tmp_path / "a.xml").write_text("<a>" + " " * 20 + "</a>")
    with pytest.raises(LimitError):
        facts.xml(tmp_path / "a.xml")
