"""Sentinel-1 GRD as it is delivered: sigma nought and place against the field that the product was written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from product_files import raster
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from sentinel1_files import STAMP, Flight, product

from domains.remote_sensing.plugin import RemoteSensing
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Grid, Window
from fovea.types import View

DOMAIN = RemoteSensing()


def sigma(rows: Any, columns: Any) -> Any:
    return 0.05 * (1 + 0.5 * np.sin(np.asarray(rows) / 15)) * (1 + 0.5 * np.cos(np.asarray(columns) / 20))


def flat(rows: Any, columns: Any) -> Any:
    return 0.08 + 0 * np.asarray(rows) + 0 * np.asarray(columns)


def seen(grid: Grid, rows: Any, columns: Any, flight: Flight | None = None) -> Any:
    """Fractional rows and columns (n, 2) of the map at those of the radar."""
    degrees = (flight or Flight()).ground(rows, columns)
    world = np.stack(Transformer.from_crs("EPSG:4326", grid.frame, always_xy=True).transform(*degrees.T), 1)
    return grid.index(np.column_stack([world, np.zeros(len(world))]))[:, 1:]


@pytest.mark.parametrize("old", [False, True], ids=["range and azimuth noise", "older noise"])
def test_sigma_nought_and_place_are_those_of_the_field(old: bool, tmp_path: Path) -> None:
    study = DOMAIN.load(product(tmp_path, sigma, old=old))
    (scene,) = study.images
    assert [(channel.name, channel.unit) for channel in scene.channels] == [("vv", "sigma0"), ("vh", "sigma0")]
    assert (scene.grid.frame, scene.grid.spacing[1:]) == ("EPSG:32632", (10, 10))
    rows, columns = np.random.default_rng(0).uniform((5, 5), (194, 294), (1000, 2)).T
    at = seen(scene.grid, rows, columns)
    for band, share in enumerate((1.0, 0.2)):
        found = map_coordinates(scene.pixels[band, 0].astype(float), at.T, order=1)
        np.testing.assert_allclose(found, share * sigma(rows, columns), rtol=0.01)
    wrong = map_coordinates(scene.pixels[0, 0].astype(float), at.T + 0.5, order=1)
    assert np.abs(wrong / sigma(rows, columns) - 1).max() > 0.02  # half a pixel would be seen


def test_what_is_said_of_the_scene(tmp_path: Path) -> None:
    root = product(tmp_path, flat)
    assert DOMAIN.sniff(root)
    (group,) = DOMAIN.studies(tmp_path)
    assert group[0].name == "manifest.safe"
    study = DOMAIN.load(root)
    assert (study.modality, study.meta["sensor"], study.meta["date"]) == ("radar", "Sentinel-1", "2021-06-12")
    told = study.meta["geometry"]
    assert told.startswith("210 points at heights from 12.5 to 312 m, less than 0.01 pixels off")
    assert told.endswith("no terrain correction")
    assert len(study.source.hashes) == 7  # two rasters, the factors and the noise of each, and the grid


def test_border_noise_of_zero_is_invalid_and_does_not_bleed(tmp_path: Path) -> None:
    scene = DOMAIN.load(product(tmp_path, flat, border=40)).images[0]
    np.testing.assert_allclose(scene.pixels[0][scene.valid], 0.08, rtol=0.01)
    assert not scene.pixels[:, ~scene.valid].any()
    for column, valid in ((20, False), (60, True)):
        row, found = np.rint(seen(scene.grid, [100], [column])[0]).astype(int)
        assert scene.valid[0, row, found] == valid


def test_reduced_reads_average_power(tmp_path: Path) -> None:
    """A chequerboard of two powers: the mean of amplitudes would be 20 % lower."""

    def board(rows: Any, columns: Any) -> Any:
        return np.where((rows + columns) % 2, 0.09, 0.01)

    scene = DOMAIN.load(product(tmp_path, board)).images[0]
    shape = tuple(size // 6 for size in scene.grid.shape[1:])
    pixels, valid = scene.read(None, (shape[0], shape[1]))
    middle = pixels[0, 0][tuple(size // 2 for size in shape)]
    assert valid.any()
    assert middle == pytest.approx(0.05, rel=0.05)
    part, _ = scene.read(Window((100, 160), (120, 180)), None)
    np.testing.assert_allclose(part, scene.pixels[:, :, 100:160, 120:180], atol=1e-5)


def test_power_below_the_noise_is_zero(tmp_path: Path) -> None:
    change = {"noise": ("<noiseRangeLut", '<noiseRangeLut unit="1"')}
    root = product(tmp_path, lambda r, c: 0 * (r + c), change=change)
    scene = DOMAIN.load(root).images[0]
    assert scene.valid.any()
    assert scene.pixels.min() == 0
    assert scene.pixels.max() < 1e-4


def test_a_scene_is_drawn_in_decibels(tmp_path: Path) -> None:
    picture = DOMAIN.render(DOMAIN.load(product(tmp_path, flat)), View(size=128))
    gray = 255 * (10 * np.log10(0.08) + 25) / 25
    assert (np.abs(picture.pixels[64, 64].astype(float) - gray) <= 1).all()


@pytest.mark.parametrize("first", [(-179.98, 5.0), (20.0, 86.0)], ids=["antimeridian", "pole"])
def test_scenes_at_seams_of_longitude(first: tuple[float, float], tmp_path: Path) -> None:
    flight = Flight(first, near=0)
    scene = DOMAIN.load(product(tmp_path, sigma, flight=flight)).images[0]
    rows, columns = np.random.default_rng(0).uniform((5, 5), (194, 294), (200, 2)).T
    at = seen(scene.grid, rows, columns, flight)
    found = map_coordinates(scene.pixels[0, 0].astype(float), at.T, order=1)
    np.testing.assert_allclose(found, sigma(rows, columns), rtol=0.01)


BROKEN = {
    "another raster's annotation": ("product", ("<numberOfLines>200", "<numberOfLines>201")),
    "a grid of no points": ("product", ("geolocationGridPoint", "point")),
    "a latitude of text": ("product", ("<latitude>", "<latitude>x")),
    "a spacing of nothing": ("product", ("PixelSpacing>1.0", "PixelSpacing>0.0")),
    "a factor of zero": ("calibration", ("<sigmaNought count", '<sigmaNought>0</sigmaNought><x count="')),
    "no factors": ("calibration", ("calibrationVector>", "vector>")),
    "numbers of text": ("calibration", ("</sigmaNought>", " x</sigmaNought>")),
    "a value too many": ("calibration", ("</sigmaNought>", " 1</sigmaNought>")),
    "no noise": ("noise", ("noiseRangeVector>", "vector>")),
    "infinite noise": ("noise", ("</noiseRangeLut>", " inf</noiseRangeLut>")),
    "entities": ("noise", ("<noise>", '<!DOCTYPE a [<!ENTITY b "c">]><noise>')),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_annotation_is_refused(fault: str, tmp_path: Path) -> None:
    kind, change = BROKEN[fault]
    with pytest.raises(InputError):
        DOMAIN.load(product(tmp_path, flat, change={kind: change}))


@pytest.mark.parametrize("kind", ["calibration", "noise", "geolocation"])
def test_missing_annotation_is_named(kind: str, tmp_path: Path) -> None:
    root = product(tmp_path, flat)
    stem = f"s1a-iw-grd-vv-{STAMP}-001.xml"
    folder = root / "annotation"
    (folder / stem if kind == "geolocation" else folder / "calibration" / f"{kind}-{stem}").unlink()
    with pytest.raises(InputError, match=f"{kind} annotation"):
        DOMAIN.load(root)


def test_a_grid_that_folds_is_refused(tmp_path: Path) -> None:
    root = product(tmp_path, flat)
    path = root / "annotation" / f"s1a-iw-grd-vv-{STAMP}-001.xml"
    text = path.read_text()
    for column in range(0, 150, 15):
        text = text.replace(f"<pixel>{column}</pixel>", f"<pixel>{299 - column}</pixel>")
    path.write_text(text)
    with pytest.raises(GeometryError):
        DOMAIN.load(root)


def numbers(folder: Path, kind: str = "grd") -> Path:
    """A product whose rasters somebody laid on a map grid."""
    root = folder / "a.SAFE"
    for order, name in enumerate(("vh", "vv"), 1):
        data = np.full((20, 30), 100 * order, np.uint16)
        raster(root / "measurement" / f"s1a-iw-{kind}-{name}-{STAMP}-00{order}.tiff", data, 10)
    (root / "manifest.safe").write_text("<xfdu/>")
    return root


def test_a_product_on_a_map_grid_is_read_as_its_numbers(tmp_path: Path) -> None:
    (scene,) = DOMAIN.load(numbers(tmp_path)).images
    assert [(channel.name, channel.unit) for channel in scene.channels] == [
        ("vv", "digital number"),
        ("vh", "digital number"),
    ]
    assert scene.pixels[:, 0, 0, 0].tolist() == [200, 100]


def test_a_complex_product_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="complex"):
        DOMAIN.load(numbers(tmp_path, "slc"))
