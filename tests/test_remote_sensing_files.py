"""Files of optical scenes: how they are found, what a picture and a window are, and real ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from geotiff_files import UTM
from PIL import Image as Pillow

from domains.formats import picture as formats
from domains.remote_sensing.plugin import RemoteSensing
from fovea.errors import InputError, UnsupportedError
from fovea.image import PIXEL, Window
from fovea.types import (
    View,
)

DOMAIN = RemoteSensing()


def picture(path: Path, colored: bool, size: tuple[int, int] = (40, 30)) -> Path:
    noise = np.random.default_rng(4).integers(60, 200, (*size, 1), np.uint8)
    tint = np.array([30, 10, 0], np.uint8) if colored else np.zeros(3, np.uint8)
    Pillow.fromarray(noise + tint).save(path, quality=95)
    return path


def raster(path: Path, count: int = 3) -> Path:
    data = np.random.default_rng(5).integers(1, 255, (count, 40, 30), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", count=count, width=30, height=40, photometric="RGB", **UTM
        ) as file:
            file.write(data)
    return path


def test_a_folder_gives_its_scenes_and_leaves_companions_out(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    scenes = [raster(tmp_path / "a.TIF"), picture(tmp_path / "b.jpg", colored=True), raster(inner / "c.tiff")]
    (tmp_path / "broken.tif").write_text("not a raster")
    picture(tmp_path / "b__mask.png", colored=True)
    picture(tmp_path / "b_mask.png", colored=True)
    picture(tmp_path / "radiograph.png", colored=False)
    raster(tmp_path / "a.TIF.ovr")
    raster(tmp_path / "a.TIF.msk")
    (tmp_path / "a.TIF.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / "notes.csv").write_text("1,2")
    found = DOMAIN.studies(tmp_path)
    assert found == sorted((path,) for path in (*scenes, tmp_path / "broken.tif"))
    with pytest.raises(UnsupportedError, match="TIFF"):
        DOMAIN.load(tmp_path / "broken.tif")
    assert DOMAIN.studies(tmp_path / "radiograph.png") == [(tmp_path / "radiograph.png",)]
    assert DOMAIN.studies(tmp_path / "notes.csv") == []
    assert DOMAIN.load(inner).digest == DOMAIN.load(scenes[2]).digest
    with pytest.raises(InputError, match="scenes"):
        DOMAIN.load(tmp_path)


def test_sniffing_leaves_grey_pictures_to_others(tmp_path: Path) -> None:
    assert DOMAIN.sniff(raster(tmp_path / "a.tif"))
    assert DOMAIN.sniff(picture(tmp_path / "b.png", colored=True))
    assert not DOMAIN.sniff(picture(tmp_path / "c.jpg", colored=False))
    assert not DOMAIN.sniff(picture(tmp_path / "d.tif", colored=False))
    assert DOMAIN.sniff(tmp_path)
    (tmp_path / "e").mkdir()
    assert not DOMAIN.sniff(tmp_path / "e")


def test_dicom_that_begins_as_a_tiff_is_no_scene(tmp_path: Path) -> None:
    whole = bytearray(raster(tmp_path / "a.tif").read_bytes())
    assert DOMAIN.studies(tmp_path / "a.tif")
    whole[128:132] = b"DICM"
    (tmp_path / "a.dcm").write_bytes(whole)
    assert not DOMAIN.sniff(tmp_path / "a.dcm")
    assert not DOMAIN.studies(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("place", [UTM, {}])
def test_a_raster_larger_than_a_picture_may_be_is_a_scene(tmp_path: Path, place: dict[str, Any]) -> None:
    options = {"count": 3, "dtype": "uint8", "sparse_ok": True, "tiled": True, "photometric": "RGB", **place}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=20_000, height=20_000, **options):
        pass
    assert formats.is_picture(tmp_path / "a.tif") == (not place)
    assert DOMAIN.sniff(tmp_path / "a.tif")
    assert DOMAIN.load(tmp_path / "a.tif").images[0].grid.shape == (1, 20_000, 20_000)


def test_a_picture_reads_as_the_tiff_of_the_same_pixels(tmp_path: Path) -> None:
    """Same channels, units and numbers; the reduced picture is the mean of its blocks."""
    first, second = (DOMAIN.load(picture(tmp_path / name, colored=True)).images[0] for name in ("a.png", "b.tif"))
    assert first.channels == second.channels
    np.testing.assert_allclose(first.pixels, second.pixels, atol=1e-3)
    assert (first.grid.frame, second.grid.frame) == (PIXEL, PIXEL)
    small = first.window(shape=(10, 15)).pixels
    np.testing.assert_allclose(small, first.pixels.reshape(3, 1, 10, 4, 15, 2).mean((3, 5)), rtol=1e-5)
    np.testing.assert_allclose(second.window(shape=(10, 15)).pixels, small, atol=1)
    assert first.window(shape=(80, 60)).pixels.shape == (3, 1, 80, 60)


def test_a_window_is_a_study_of_its_own(tmp_path: Path) -> None:
    """It has another digest, can be drawn reduced, and windowed again."""
    for path in (raster(tmp_path / "a.tif"), picture(tmp_path / "b.png", colored=True)):
        whole, part = DOMAIN.load(path), DOMAIN.load(path, Window((8, 40), (3, 27)))
        assert part.digest != whole.digest
        assert DOMAIN.render(part, View(size=16)).panels[0].shape == (32, 24)
        again = part.images[0].window(Window((2, 10), (4, 9)))
        np.testing.assert_array_equal(again.pixels, whole.images[0].pixels[..., 10:18, 7:12])
        np.testing.assert_allclose(again.grid.affine, whole.images[0].grid.crop(Window((10, 18), (7, 12))).affine)
        with pytest.raises(InputError):
            part.images[0].read(Window((0, 33), (0, 5)), None)


def test_two_dates_are_one_study(tmp_path: Path) -> None:
    paths = [raster(tmp_path / "a.tif"), raster(tmp_path / "b.tif")]
    both = DOMAIN.load(paths)
    assert len(both.images) == len(both.source.hashes) == 2
    with pytest.raises(InputError, match="no files"):
        DOMAIN.load([])


def test_every_real_scene_is_drawn_or_refused_with_a_reason(data_dir: Path) -> None:
    folders = ("geotiff", "deepforest_trees", "dubai_seg")
    found = [paths for folder in folders for paths in DOMAIN.studies(data_dir / "rs" / folder)[1::4]]
    refused = 0
    for paths in found:
        try:
            scene = DOMAIN.load(paths)
            assert DOMAIN.render(scene, View(size=32)).pixels.shape == (32, 32, 3)
            assert paths[0].name not in DOMAIN.describe(scene)
        except InputError:
            refused += 1
    assert len(found) > 20
    assert refused < 4
