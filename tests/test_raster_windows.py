"""Reading by block, by level and side by side: many windows, reduced windows, and what decides on validity."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
from geotiff_files import UTM, image, scene, write
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling

from domains.formats.rasters import chips, geotiff
from domains.formats.rasters.raster import Raster
from fovea.errors import InputError
from fovea.image import Channel, Grid, Image, Window

TILES = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
STRIPS = {"blockysize": 3, "compress": "deflate"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene(tmp_path_factory.mktemp("large") / "a.tif", bands=2, shape=(1700, 2100), nodata=7, **TILES)


def windows(rng: np.random.Generator, size: tuple[int, int], chip: int, number: int) -> list[Window]:
    tops, lefts = (rng.integers(0, n - chip + 1, number) for n in size)
    return [Window((int(r), int(r) + chip), (int(c), int(c) + chip)) for r, c in zip(tops, lefts, strict=True)]


@pytest.mark.parametrize("memory", [chips.MEMORY, 1])
def test_chips_are_windows_in_the_order_of_blocks(memory: int, large: Path) -> None:
    whole = image(large)
    wanted = windows(np.random.default_rng(0), (1700, 2100), 200, 40)
    seen = []
    for index, pixels, valid in chips.read(large, wanted, memory=memory):
        expected, mask = whole.read(wanted[index], None)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(valid, mask)
        seen.append(index)
    assert sorted(seen) == list(range(40))
    rows = [wanted[index].rows[0] // 512 for index in seen]
    if memory == chips.MEMORY:
        assert rows == sorted(rows)


def test_every_block_is_decoded_once_and_forgotten_after_use(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[Any] = Counter()
    lock = threading.Lock()
    part = Raster.part

    def counted(self: Raster, level: Any, box: Any) -> Any:
        with lock:
            decoded[box[0] // 512, box[2] // 512] += 1
            assert box[0] // 512 == (box[1] - 1) // 512
            assert box[2] // 512 == (box[3] - 1) // 512
        return part(self, level, box)

    monkeypatch.setattr(Raster, "part", counted)
    wanted = windows(np.random.default_rng(1), (1700, 2100), 256, 60)
    touched = {
        (r, c)
        for window in wanted
        for r in range(window.rows[0] // 512, (window.rows[1] - 1) // 512 + 1)
        for c in range(window.columns[0] // 512, (window.columns[1] - 1) // 512 + 1)
    }
    assert sum(1 for _ in chips.read(large, wanted)) == 60
    assert decoded == Counter(touched)
    decoded.clear()
    next(chips.read(large, wanted))
    assert sum(decoded.values()) < len(touched), "a reader that stops early does not read it all"


@given(data=st.data(), profile=st.sampled_from([TILES, STRIPS, {**TILES, "interleave": "band"}]))
@settings(max_examples=12)
def test_chips_of_any_layout_are_slices(data: st.DataObject, profile: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        rows, columns = data.draw(st.tuples(st.integers(20, 700), st.integers(20, 700)))
        path = scene(Path(folder) / "a.tif", bands=2, shape=(rows, columns), **profile)
        whole = image(path)
        spans = [
            sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
            for n in (rows, columns) * 3
        ]
        wanted = [Window((a, b), (c, d)) for (a, b), (c, d) in pairwise(spans) if b <= rows and d <= columns]
        for index, pixels, valid in chips.read(whole, wanted, workers=1):
            cut = slice(*wanted[index].rows), slice(*wanted[index].columns)
            np.testing.assert_array_equal(pixels, whole.pixels[:, :, *cut])
            assert valid.all()


def test_chips_of_other_images_and_of_none(large: Path) -> None:
    pixels = np.arange(48, dtype=np.float32).reshape(1, 1, 6, 8)
    plain = Image.from_array((Channel("a"),), Grid.plain(6, 8), pixels)
    wanted = [Window((4, 6), (0, 2)), Window((0, 2), (1, 4))]
    assert [index for index, _, _ in chips.read(plain, wanted)] == [1, 0]
    assert list(chips.read(large, [])) == []
    with pytest.raises(InputError):
        next(chips.read(large, [Window((0, 9), (0, 9)), Window((1695, 1701), (0, 9))]))


def test_a_large_window_is_the_same_read_in_parts(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = image(large)
    parts = whole.read(None, None)
    monkeypatch.setattr("domains.formats.rasters.raster._DIRECT", 2**40)
    for one, other in zip(whole.read(None, None), parts, strict=True):
        np.testing.assert_array_equal(one, other)


# Levels


def test_only_the_overview_is_decoded(tmp_path: Path) -> None:
    """The full resolution is destroyed, and its overviews are still read."""
    path = scene(tmp_path / "a.tif", bands=1, shape=(1024, 1024), dtype="float32", **{**TILES, "blockxsize": 256})
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.average)
    before = image(path)
    expected = [before.window(shape=(n, n)).pixels for n in (512, 200, 128, 64)]
    part = before.window(Window((128, 640), (256, 512)), (64, 32)).pixels
    with rasterio.open(path) as file:
        offsets = [int(file.get_tag_item(f"BLOCK_OFFSET_{c}_{r}", "TIFF", bidx=1)) for r in range(2) for c in range(4)]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    after = image(path)
    with pytest.raises(InputError):
        _ = after.pixels
    for n, pixels in zip((512, 200, 128, 64), expected, strict=True):
        np.testing.assert_array_equal(after.window(shape=(n, n)).pixels, pixels)
    np.testing.assert_array_equal(after.window(Window((128, 640), (256, 512)), (64, 32)).pixels, part)


@given(shape=st.tuples(st.integers(1, 90), st.integers(1, 140)))
def test_reduced_reads_keep_the_mean_and_its_area(shape: tuple[int, int]) -> None:
    """Whatever the ratio: the mean over all reduced pixels is that of the full ones."""
    with TemporaryDirectory() as folder:
        data = np.random.default_rng(3).random((2, 90, 140)).astype(np.float32)
        reduced = image(write(Path(folder) / "a.tif", data, **UTM)).window(shape=shape)
        assert reduced.valid.all()
        np.testing.assert_allclose(reduced.pixels.mean((1, 2, 3)), data.mean((1, 2)), rtol=1e-5)
        assert reduced.pixels.min() >= data.min() - 1e-6
        assert reduced.pixels.max() <= data.max() + 1e-6


def test_reduced_reads_leave_out_what_is_not_valid(tmp_path: Path) -> None:
    data = np.full((1, 60, 60), 5, np.float32)
    data[:, 10:25, 20:40] = -9999
    reduced = image(write(tmp_path / "a.tif", data, **UTM, nodata=-9999)).window(shape=(7, 9))
    assert set(np.unique(reduced.pixels)) == {0, 5}
    np.testing.assert_array_equal(reduced.pixels[0] == 5, reduced.valid)
    assert reduced.valid.mean() == pytest.approx((data != -9999).mean(), abs=0.05)


def test_classes_are_never_averaged(tmp_path: Path) -> None:
    data = np.random.default_rng(5).choice(np.array([3, 200], np.uint8), (1, 64, 64))
    path = write(tmp_path / "a.tif", data, **UTM, bands=[{"tags": {"LAYER_TYPE": "thematic"}}])
    assert set(np.unique(image(path).window(shape=(10, 9)).pixels)) <= {3, 200}


# Validity: what comes first


def masked(path: Path, *, mask: bool = False, beside: bool = False, alpha: bool = False, nodata: bool = False) -> Path:
    """A scene with a hole in the first rows by the mask inside, then beside, the alpha band, the nodata value."""
    data = np.full((2, 40, 30), 50, np.uint16)
    data[:, 30:] = 9
    if alpha:
        data[1] = 255
        data[1, 20:30] = 0
    write(path, data, **UTM, **({"nodata": 9} if nodata else {}))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.alpha if alpha else ColorInterp.undefined]
    inside = np.full((40, 30), 255, np.uint8)
    inside[:10] = 0
    if mask:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(inside)
    if beside:
        write(path.with_name(path.name + ".msk"), np.roll(inside, 10, 0)[None], compress="deflate")
    return path


@pytest.mark.parametrize(
    ("present", "rows"),
    [
        ({"mask": True, "beside": True, "alpha": True, "nodata": True}, (0, 10)),
        ({"beside": True, "alpha": True, "nodata": True}, (10, 20)),
        ({"alpha": True, "nodata": True}, (20, 30)),
        ({"nodata": True}, (30, 40)),
        ({}, (0, 0)),
    ],
)
def test_the_first_of_mask_alpha_and_nodata_decides(
    present: dict[str, bool], rows: tuple[int, int], tmp_path: Path
) -> None:
    path = masked(tmp_path / "a.tif", **present)
    expected = np.ones((40, 30), bool)
    expected[slice(*rows)] = False
    whole = image(path)
    np.testing.assert_array_equal(whole.valid[0], expected)
    np.testing.assert_array_equal(whole.window(Window((5, 35), (2, 9))).valid[0], expected[5:35, 2:9])
    np.testing.assert_array_equal(whole.window(shape=(4, 3)).valid[0], expected[::10, ::10])


def test_the_caller_decides_before_the_file(tmp_path: Path) -> None:
    path = masked(tmp_path / "a.tif", mask=True, beside=True, nodata=True)
    given_value = geotiff.read(path, nodata=50).images[0]
    np.testing.assert_array_equal(given_value.valid[0, :, 0], np.arange(40) >= 30)
    each = geotiff.read(path, nodata=[9, 50]).images[0]
    assert not each.valid.any()
    mask = write(tmp_path / "mask.tif", np.eye(40, 30, dtype=np.uint8)[None])
    content = geotiff.read(path, mask=mask)
    np.testing.assert_array_equal(content.images[0].valid[0], np.eye(40, 30, dtype=bool))
    assert len(content.hashes) == 2
    with pytest.raises(InputError, match="nodata values"):
        geotiff.read(path, nodata=[1, 2, 3])


def test_a_band_without_data_makes_a_pixel_invalid_but_in_colours_black_is_black(tmp_path: Path) -> None:
    data = np.full((3, 4, 4), 9)
    data[0, 0], data[:, 1] = 0, 0
    colour = image(write(tmp_path / "a.tif", data.astype(np.uint8), **UTM, nodata=0, photometric="RGB"))
    measured = image(write(tmp_path / "b.tif", data.astype(np.uint16), **UTM, nodata=0))
    assert colour.valid[0, :, 0].tolist() == [True, False, True, True]
    assert measured.valid[0, :, 0].tolist() == [False, False, True, True]


def test_nodata_is_compared_before_the_offset(tmp_path: Path) -> None:
    """0 is no data and 1000 is a reflectance of 0, as Sentinel-2 has it since its processing baseline 04.00."""
    data = np.array([[[0, 1000, 2000, 11000]]], np.uint16)
    path = write(tmp_path / "a.tif", data, **UTM, nodata=0, bands=[{"description": "red"}])
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    whole = image(path)
    assert whole.valid[0, 0].tolist() == [False, True, True, True]
    np.testing.assert_allclose(whole.pixels[0, 0, 0], [0, 0, 0.1, 1], atol=1e-6)
    assert whole.channels[0].unit == "reflectance"


@pytest.mark.parametrize("dtype", ["int32", "uint32", "float64"])
def test_wide_numbers_are_scaled_before_they_are_rounded(dtype: str, tmp_path: Path) -> None:
    data = np.array([[[2**30 + 1, 2**30 + 3]]], dtype)
    path = write(tmp_path / "a.tif", data, **UTM)
    with rasterio.open(path, "r+") as file:
        file.offsets = (-(2.0**30),)
    assert image(path).pixels.ravel().tolist() == [1, 3]
