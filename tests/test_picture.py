"""Pictures: the values of every depth and colour, pages, rotations, and what is left to others."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from domains.formats import picture
from domains.remote_sensing import reader as scenes
from fovea.errors import InputError, UnsupportedError

rng = np.random.default_rng(0)


def pixels(path, **options):
    return picture.read(path, **options).images[0].pixels[:, 0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
@pytest.mark.parametrize("bands", [3, 4])
def test_colour_of_16_bits_keeps_them(tmp_path, driver, bands):
    values = rng.integers(0, 65536, (bands, 6, 9)).astype(np.uint16)
    path = tmp_path / "a"
    options = {"photometric": "RGB"} if driver == "GTiff" else {}
    with rasterio.open(path, "w", driver=driver, width=9, height=6, count=bands, dtype="uint16", **options) as file:
        file.write(values)
    np.testing.assert_allclose(pixels(path), values[:3] / np.float32(65535), atol=1e-7)
    gray = np.tensordot((0.299, 0.587, 0.114), values[:3] / 65535, 1)
    np.testing.assert_allclose(pixels(path, gray=True)[0], gray, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "tif", "png"])
def test_a_rotation_is_applied_once(tmp_path, orientation, kind):
    values = np.kron(rng.integers(0, 256, (4, 6)), np.ones((8, 8))).astype(np.uint8)
    exif = Pillow.Exif()
    exif[274] = orientation
    Pillow.fromarray(values).save(tmp_path / f"a.{kind}", exif=exif, quality=95)
    upright = picture._turned(values[..., None], orientation)[..., 0]
    found = picture.read(tmp_path / f"a.{kind}").images[0]
    assert found.grid.shape[1:] == upright.shape
    np.testing.assert_allclose(found.pixels[0, 0] * 255, upright, atol=12)


def test_the_depth_and_the_sense_of_grey_come_from_the_file(tmp_path):
    values = rng.integers(0, 4096, (6, 9)).astype(np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    Pillow.fromarray(values).save(tmp_path / "white.tif", tiffinfo=tags)
    np.testing.assert_allclose(pixels(tmp_path / "white.tif")[0], 1 - values / np.float32(65535), atol=1e-6)
    bits = Pillow.fromarray((values > 2000).astype(np.uint8) * 255).convert("1")
    bits.save(tmp_path / "bits.png")
    assert set(np.unique(pixels(tmp_path / "bits.png"))) == {0, 1}
    assert picture.levels(tmp_path / "bits.png") == 2
    assert picture.levels(tmp_path / "white.tif") == len(np.unique(values))


def test_palettes_inks_and_single_frames_are_colour(tmp_path):
    values = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    whole = Pillow.fromarray(values)
    whole.convert("P", palette=Pillow.Palette.ADAPTIVE).save(tmp_path / "a.gif")
    whole.quantize(12).save(tmp_path / "a.png")
    whole.convert("CMYK").save(tmp_path / "a.tif")
    whole.save(tmp_path / "a.webp", lossless=True)
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        np.testing.assert_allclose(pixels(tmp_path / name) * 255, np.moveaxis(values, -1, 0), atol=3)
    assert picture.levels(tmp_path / "a.png") == 12


def test_an_animation_is_refused(tmp_path):
    frames = [Pillow.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)) for _ in range(3)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(UnsupportedError, match="3 frames"):
            picture.read(tmp_path / name)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("compress", ["NONE", "LZW"])
def test_lab_is_the_colour_that_the_eye_sees(tmp_path, compress):
    """Written by libtiff, against the formulas of CIE 15 and IEC 61966-2-1, where sRGB has the colour."""
    lab = rng.integers((0, -128, -128), (256, 128, 128), (40, 50, 3))
    linear = srgb_linear(lab / (2.55, 1, 1))
    inside = ((linear > 0) & (linear < 1)).all(-1)
    assert inside.sum() > 100
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(0, 1) ** (1 / 2.4) - 0.055)
    stored = np.moveaxis(lab, -1, 0).astype(np.uint8)  # a* and b* are signed bytes
    options = {"photometric": "CIELAB", "compress": compress, "width": 50, "height": 40}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=3, dtype="uint8", **options) as file:
        file.write(stored)
    found = np.moveaxis(pixels(tmp_path / "a.tif"), 0, -1)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.013)
    gray = pixels(tmp_path / "a.tif", gray=True)[0]
    np.testing.assert_allclose(gray[inside], (wanted @ (0.299, 0.587, 0.114))[inside], atol=0.013)
    assert not picture.is_gray(tmp_path / "a.tif")
    assert picture.levels(tmp_path / "a.tif") == 256
    scene = scenes.load(tmp_path / "a.tif").images[0]
    np.testing.assert_allclose(scene.pixels[:, 0], 255 * pixels(tmp_path / "a.tif"), atol=1e-3)


def srgb_linear(lab):
    """Red, green and blue, linear in light, of L*, a*, b* under D50, adapted to D65 after Bradford."""
    level = (lab[..., 0] + 16) / 116
    bent = np.stack([level + lab[..., 1] / 500, level, level - lab[..., 2] / 200], -1)
    xyz = np.where(bent > 6 / 29, bent**3, 3 * (6 / 29) ** 2 * (bent - 4 / 29)) * (0.96422, 1, 0.82521)
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    return xyz @ np.transpose(matrix)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["float32", "int16", "int8", "uint32"])
def test_values_without_black_and_white_are_left_to_rasters(tmp_path, kind):
    values = (rng.integers(0, 100, (1, 20, 30)) - (0 if kind == "uint32" else 50)).astype(kind)
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", width=30, height=20, count=1, dtype=kind) as file:
        file.write(values)
    assert not picture.is_picture(path)
    with pytest.raises(UnsupportedError):
        picture.read(path)
    assert scenes.sniff(path)
    np.testing.assert_array_equal(scenes.load(path).images[0].pixels[:, 0], values)


def test_pixels_are_decoded_in_a_process_that_may_die(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Pillow.fromarray(rng.integers(0, 256, (30, 40)).astype(np.uint8)).save(path)
    monkeypatch.setattr(Pillow.Image, "load", lambda self: pytest.fail("decoded here"))
    assert pixels(path).shape == (1, 30, 40)
    assert picture.is_gray(path)
    assert picture.levels(path) > 200


def test_broken_bytes_give_a_picture_or_a_reason(tmp_path):
    path = tmp_path / "a.png"
    Pillow.fromarray(rng.integers(0, 256, (30, 40)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for _ in range(60):
        raw = bytearray(whole[: rng.integers(60, len(whole) + 1)])
        for place in rng.integers(0, len(raw), 4):
            raw[place] = rng.integers(0, 256)
        path.write_bytes(raw)
        try:
            assert pixels(path).max() <= 1
        except InputError:
            continue
