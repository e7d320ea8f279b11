"""GeoTIFFs that are too large, broken, or something else: refused with a reason."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from geotiff_files import NAME, UTM, image, scene, write
from rasterio.enums import Resampling

from domains.formats.rasters import geotiff
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.image import Window


def test_a_scene_of_40_gigabytes_opens_but_is_not_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    shape = {"width": 200_000, "height": 200_000, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, BIGTIFF="YES", **shape, **UTM):
        pass
    whole = image(path)
    assert whole.grid.shape == (1, 200_000, 200_000)
    assert whole.window(shape=(64, 64)).pixels.shape == (1, 1, 64, 64)
    assert whole.window(Window((199_000, 199_010), (5, 25))).pixels.shape == (1, 1, 10, 20)
    with pytest.raises(LimitError, match="windows"):
        _ = whole.pixels
    with pytest.raises(LimitError):
        _ = geotiff.read(path, limit=2000).images[0].window(shape=(64, 64)).pixels


def test_blocks_and_bands_are_limited_before_anything_is_decoded(tmp_path: Path) -> None:
    one_strip = scene(tmp_path / "a.tif", shape=(600, 500), compress="deflate", blockysize=600)
    with pytest.raises(LimitError, match="blocks"):
        geotiff.read(one_strip, limit=500_000)
    with pytest.raises(LimitError, match="bands"):
        geotiff.read(write(tmp_path / "b.tif", np.ones((1100, 1, 1), np.uint8), **UTM))


@pytest.mark.parametrize(
    "content",
    [
        b'<VRTDataset rasterXSize="5" rasterYSize="5"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        b"<SourceFilename>/etc/hostname</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        b"\x89PNG\r\n\x1a\n",
        b"http://localhost/a.tif",
        b"",
    ],
)
def test_other_formats_named_tif_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UnsupportedError):
        geotiff.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "path", ["/vsicurl/http://localhost/a.tif", "http://localhost/a.tif", "/vsimem/a.tif", "zip://a.zip!a.tif"]
)
def test_paths_that_are_no_local_file_are_refused(path: str) -> None:
    with pytest.raises(InputError) as error:
        geotiff.read(Path(path))
    assert "localhost" not in str(error.value)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="complex"):
        geotiff.read(write(tmp_path / "a.tif", np.ones((1, 4, 4), np.complex64), **UTM))


def test_sidecars_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.random.default_rng(6).integers(1, 99, (1, 64, 64), np.uint8))
    shapes = (None, (32, 32))
    before = geotiff.read(path)
    views = [before.images[0].window(shape=shape) for shape in shapes]
    pixels = [view.pixels for view in views]
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n399965\n5500015\n")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>1,2,0,3,0,-2</GeoTransform><PAMRasterBand band="1">'
        "<NoDataValue>5</NoDataValue><Description>red</Description></PAMRasterBand></PAMDataset>"
    )
    black = write(tmp_path / "b.tif", np.zeros((1, 64, 64), np.uint8), **UTM)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(black, "r+") as other:
        other.build_overviews((2,), Resampling.nearest)
    (tmp_path / "b.tif.ovr").rename(tmp_path / "a.tif.ovr")
    after = geotiff.read(path)
    assert (after.meta, after.hashes) == (before.meta, before.hashes)
    assert after.images[0].channels == before.images[0].channels
    for shape, view, expected in zip(shapes, views, pixels, strict=True):
        now = after.images[0].window(shape=shape)
        np.testing.assert_array_equal(now.pixels, expected)
        np.testing.assert_array_equal(now.grid.affine, view.grid.affine)
    assert after.images[0].valid.all()


def refusal(path: Path) -> InputError | None:
    try:
        _ = [read.pixels for read in geotiff.read(path, limit=2**26).images]
    except InputError as error:
        return error
    return None


def test_broken_files_are_input_errors_without_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Truncated at each tenth and with bytes turned: an image or an InputError, and the name is in no text or log."""
    whole = scene(tmp_path / "whole.tif", compress="deflate").read_bytes()
    rng = np.random.default_rng(7)
    path, failed = tmp_path / f"{NAME}.tif", 0
    caplog.set_level(logging.DEBUG)
    for i in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        if i < 10:
            data = data[: len(data) * i // 10]
        else:
            place = rng.integers(0, 400 if i % 2 else len(data), 3)
            data[place] = rng.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        error = refusal(path)
        failed += error is not None
        if error is not None:
            assert NAME not in f"{error} {error.__cause__}"
            assert error.__suppress_context__ or error.__context__ is None
    assert failed > 15
    assert NAME not in caplog.text
