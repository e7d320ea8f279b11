"""Pages of a TIFF: all byte orders, modes and sizes; what is no page; lazy, in linear time, within limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from geotiff_files import UTM
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from domains.formats import picture, tiff_pages
from domains.radiology import reader as radiology
from domains.remote_sensing import reader as scenes
from fovea.errors import InputError, LimitError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rng = np.random.default_rng(0)


def stack(path, count, **options):
    pages = [Pillow.fromarray(rng.integers(0, 256, (8 + n % 3, 12)).astype(np.uint8)) for n in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    return [np.asarray(page) for page in pages]


def append(path, values, **options):
    """A page more, as GDAL writes it, of values (band, row, column)."""
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    more = {"APPEND_SUBDATASET": "YES"} if path.exists() else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, **shape, **options, **more) as file:
            file.write(values)


@pytest.mark.parametrize("layout", [{}, {"endianness": "BIG"}, {"bigtiff": "YES"}])
@pytest.mark.parametrize("compress", ["NONE", "LZW"])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3])
def test_every_page_is_an_image(tmp_path, layout, compress, kind, bands):
    top = np.iinfo(kind).max
    pages = [rng.integers(0, top, (bands, 6 + n, 9), kind, endpoint=True) for n in range(3)]
    for page in pages:
        photometric = "RGB" if bands == 3 else "MINISBLACK"
        append(tmp_path / "a.tif", page, compress=compress, photometric=photometric, **layout)
    images = picture.read(tmp_path / "a.tif").images
    assert len(images) == 3
    for image, page in zip(images, pages, strict=True):
        assert image.grid.shape == (1, *page.shape[1:])
        np.testing.assert_allclose(image.pixels[:, 0] * top, page, atol=top * 1e-6)


def test_pages_keep_their_own_modes(tmp_path):
    gray = rng.integers(0, 256, (8, 9)).astype(np.uint8)
    color = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    pages = [Pillow.fromarray(color), Pillow.fromarray(gray > 99), Pillow.fromarray(color).convert("P")]
    Pillow.fromarray(gray).save(tmp_path / "a.tif", save_all=True, append_images=pages)
    images = picture.read(tmp_path / "a.tif").images
    assert [len(image.channels) for image in images] == [1, 3, 1, 3]
    np.testing.assert_allclose(images[1].pixels[:, 0] * 255, np.moveaxis(color, -1, 0), atol=1e-4)
    np.testing.assert_array_equal(images[2].pixels[0, 0], gray > 99)
    assert all(len(image.channels) == 1 for image in radiology.load(tmp_path / "a.tif").images)
    bands = [[channel.name for channel in image.channels] for image in scenes.load(tmp_path / "a.tif").images]
    assert bands == [["gray"], ["red", "green", "blue"]] * 2


@pytest.mark.parametrize("mode", ["L", "I;16B"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("subfile", [1, 4, 5])
def test_reduced_copies_and_masks_are_no_pages(tmp_path, mode, kind, subfile):
    """Of both byte orders (Pillow writes I;16B as big-endian), and of both types that the tag is written in."""
    pages = [Pillow.new(mode, (6, 4), 7 * n) for n in range(3)]
    for page, value in zip(pages[1:], (subfile, 2), strict=True):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[254] = kind
        tags[254] = value
        page.encoderinfo = {"tiffinfo": tags}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert (tmp_path / "a.tif").read_bytes()[:2] == (b"II" if mode == "L" else b"MM")
    images = picture.read(tmp_path / "a.tif").images
    assert [round(float(image.pixels[0, 0, 0, 0]) * (255 if mode == "L" else 65535)) for image in images] == [0, 14]


def test_a_mask_inside_belongs_to_its_picture(tmp_path):
    values = rng.integers(0, 256, (3, 8, 9)).astype(np.uint8)
    valid = rng.integers(0, 2, (8, 9)).astype(bool)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=9, height=8, count=3, dtype="uint8") as file,
    ):
        file.write(values)
        file.write_mask(valid)
    (image,) = picture.read(tmp_path / "a.tif").images
    np.testing.assert_allclose(image.pixels[:, 0] * 255, values, atol=1e-4)
    (scene,) = scenes.load(tmp_path / "a.tif").images
    np.testing.assert_array_equal(scene.valid[0], valid)


def test_the_last_page_costs_as_much_as_the_second(tmp_path, monkeypatch):
    pages = stack(tmp_path / "a.tif", 300)
    offsets = tiff_pages.offsets(tmp_path / "a.tif")
    directory, loads = TiffImagePlugin.ImageFileDirectory_v2, []
    whole = directory.load
    monkeypatch.setattr(directory, "load", lambda self, fp: loads.append(1) or whole(self, fp))
    costs = []
    for number in (1, 299):
        stored, _ = picture._decode(tmp_path / "a.tif", offsets[number], True)
        np.testing.assert_array_equal(stored[..., 0], pages[number])
        costs.append(len(loads))
        loads.clear()
    assert costs[0] == costs[1]


def test_a_page_is_decoded_when_asked_for(tmp_path):
    """Broken pixels of one page do not touch the others."""
    pages = stack(tmp_path / "a.tif", 3, compression="tiff_adobe_deflate")
    with Pillow.open(tmp_path / "a.tif") as file:
        file.seek(1)
        (start,), (count,) = file.tag_v2[273], file.tag_v2[279]
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    whole[start : start + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(whole)
    images = picture.read(tmp_path / "a.tif").images
    for number in (0, 2):
        np.testing.assert_allclose(images[number].pixels[0, 0] * 255, pages[number], atol=1e-4)
    with pytest.raises(InputError):
        _ = images[1].pixels


def test_the_header_of_every_page_is_checked_first(tmp_path):
    append(tmp_path / "large.tif", np.zeros((1, 4, 4), np.uint8))
    with rasterio.open(
        tmp_path / "large.tif", "w", driver="GTiff", width=40_000, height=40_000, count=1, dtype="uint8",
        sparse_ok=True, tiled=True, APPEND_SUBDATASET="YES",
    ):  # fmt: skip
        pass
    with pytest.raises(LimitError):
        picture.read(tmp_path / "large.tif")
    append(tmp_path / "float.tif", np.zeros((1, 4, 4), np.uint8))
    append(tmp_path / "float.tif", np.zeros((1, 4, 4), np.float32))
    for load in (picture.read, radiology.load, scenes.load):
        with pytest.raises(UnsupportedError, match="page 2 of 2"):
            load(tmp_path / "float.tif")


def test_chains_end(tmp_path, monkeypatch):
    """One that comes back to a page ends there; a cut and an endless one are refused."""
    stack(tmp_path / "a.tif", 3)
    whole = (tmp_path / "a.tif").read_bytes()
    first, second, third = tiff_pages.offsets(tmp_path / "a.tif")
    tags = int.from_bytes(whole[third : third + 2], "little")
    end = third + 2 + 12 * tags
    (tmp_path / "a.tif").write_bytes(whole[:end] + second.to_bytes(4, "little") + whole[end + 4 :])
    assert tiff_pages.offsets(tmp_path / "a.tif") == [first, second, third]
    assert len(picture.read(tmp_path / "a.tif").images) == 3
    (tmp_path / "a.tif").write_bytes(whole[: third + 4])
    with pytest.raises(InputError):
        picture.read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(whole)
    monkeypatch.setattr(tiff_pages, "_PAGES", 2)
    with pytest.raises(LimitError, match="more than 2 pages"):
        picture.read(tmp_path / "a.tif")


def test_a_georeferenced_file_is_its_first_page(tmp_path):
    values = rng.integers(0, 256, (3, 8, 9)).astype(np.uint8)
    append(tmp_path / "a.tif", values, photometric="RGB", **UTM)
    append(tmp_path / "a.tif", values[:, ::-1], photometric="RGB")
    assert not picture.is_picture(tmp_path / "a.tif")
    (scene,) = scenes.load(tmp_path / "a.tif").images
    np.testing.assert_array_equal(scene.pixels[:, 0], values)


def test_broken_bytes_give_pages_or_a_reason(tmp_path):
    stack(tmp_path / "a.tif", 3)
    whole = (tmp_path / "a.tif").read_bytes()
    for _ in range(60):
        raw = bytearray(whole[: rng.integers(60, len(whole) + 1)])
        for place in rng.integers(0, len(raw), 6):
            raw[place] = rng.integers(0, 256)
        (tmp_path / "a.tif").write_bytes(raw)
        try:
            assert all(image.pixels.max() <= 1 for image in picture.read(tmp_path / "a.tif").images[:4])
        except InputError:
            continue


def test_real_files_of_several_pages(data_dir):
    folder = data_dir / "rs/tiff_zoo/tiff_pillow/Tests/images"
    names = {
        "compression.tif": 2, "g4-multi.tiff": 3, "multipage-mmap.tiff": 3, "multipage.tiff": 3,
        "total-pages-zero.tif": 3, "multipage_multiple_frame_loop.tiff": 2, "multipage_out_of_order.tiff": 3,
        "multipage-lastframe.tif": 1, "tiff_strip_planar_raw_with_overviews.tif": 1,
    }  # fmt: skip
    for name, count in names.items():
        images = picture.read(folder / name).images
        assert len(images) == count
        with Pillow.open(folder / name) as file:
            for number, image in enumerate(images):
                file.seek(number)
                shown = np.atleast_3d(np.asarray(file.convert("L" if len(image.channels) == 1 else "RGB")))
                np.testing.assert_allclose(image.pixels[:, 0] * 255, np.moveaxis(shown, -1, 0), atol=1e-4)
