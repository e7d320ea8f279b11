"""DICOM: geometry from positions, and values from the header's transforms."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, DX, MR, PLANE, SC, enhanced, make, one, radiograph, rng, save, series
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing, convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from domains.formats import dicom
from fovea.errors import GeometryError, InputError
from fovea.types import DETECTOR, LPS, PIXEL, Window


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_lies_where_its_header_says(tmp_path, seed):
    axes = AXIAL if seed == 0 else Rotation.random(random_state=seed).as_matrix()
    files, values = series(tmp_path, axes=axes, spacing=(2.5, 0.7, 0.9))
    shuffled = Random(seed).sample(files, len(files))
    found = dicom.read(shuffled)
    (image,) = found.images
    assert image.grid.frame == LPS
    np.testing.assert_array_equal(image.pixels[0], values - 1024.0)
    for index, file in enumerate(files):
        ds = pydicom.dcmread(file)
        corner, turn = np.array(ds.ImagePositionPatient, float), np.array(ds.ImageOrientationPatient, float)
        row, column = 4, 7
        point = corner + column * ds.PixelSpacing[1] * turn[:3] + row * ds.PixelSpacing[0] * turn[3:]
        np.testing.assert_allclose(image.grid.world(np.array([[index, row, column]]))[0], point, atol=1e-6)
    assert found.hashes == dicom.read(files).hashes


def test_slices_ascend_along_the_normal_whatever_the_numbers_say(tmp_path):
    files, _ = series(tmp_path, axes=np.array([AXIAL[0], AXIAL[1], -AXIAL[2]]))
    image = dicom.read(files).images[0]
    np.testing.assert_allclose(image.grid.affine[:3, 2], (0, 0, 2.5))
    assert image.grid.affine[2, 3] == 30 - 4 * 2.5


def moved(index, by):
    def edit(ds, number):
        if number == index:
            x, y, z = ds.ImagePositionPatient
            ds.ImagePositionPatient = [x + by[0], y + by[1], z + by[2]]

    return edit


def turned(ds, number):
    if number == 2:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def stretched(ds, number):
    if number == 3:
        ds.PixelSpacing = [0.7, 0.8]


def lost(ds, number):
    if number == 1:
        del ds.ImagePositionPatient


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"edit": moved(2, (0.3, 0, 0))}, "from slice 3"),
        ({"edit": moved(2, (0, 0, -2.5))}, "slices 2 and 3 at the same"),
        ({"edit": moved(4, (0, 0, 2.5))}, "1 missing between slices 4 and 5"),
        ({"edit": moved(0, (0, 0, -7.5))}, "3 missing between slices 1 and 2"),
        ({"edit": moved(2, (0, 0, 0.9))}, "uneven"),
        ({"edit": turned}, "of another orientation"),
        ({"edit": stretched}, "slice 4 of another pixel spacing"),
        ({"edit": lost}, "no full geometry"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_by_slice_number(tmp_path, arguments, said):
    files, _ = series(tmp_path, **arguments)
    with pytest.raises(GeometryError, match=said):
        dicom.read(files)


def test_positions_as_rounded_by_scanners_are_accepted(tmp_path):
    files, _ = series(
        tmp_path,
        spacing=(0.625, 0.7, 0.7),
        edit=lambda ds, n: setattr(ds, "ImagePositionPatient", [round(float(v), 2) for v in ds.ImagePositionPatient]),
    )
    np.testing.assert_allclose(dicom.read(files).images[0].grid.spacing[0], 0.625, rtol=0.01)


def test_slices_of_two_sizes_are_refused(tmp_path):
    files, _ = series(tmp_path)
    values = np.zeros((4, 4), np.int16)
    odd = make(values, ImagePositionPatient=[0, 0, 99], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1])
    with pytest.raises(GeometryError, match="several sizes"):
        dicom.read([*files, save(odd, tmp_path / "odd.dcm")])


def test_a_lone_slice_is_a_volume_only_if_its_thickness_is_known(tmp_path):
    values = np.zeros((4, 4), np.int16)
    assert one(tmp_path, values, **PLANE, SliceThickness=3).grid.spacing == (3, 0.5, 0.5)
    assert one(tmp_path, values, **PLANE, SpacingBetweenSlices=4).grid.spacing == (4, 0.5, 0.5)
    assert one(tmp_path, values, **PLANE).grid.frame == PIXEL


def test_a_window_reads_only_its_slices(tmp_path):
    files, values = series(tmp_path)
    image = dicom.read(files).images[0]
    for index in (0, 1, 4):
        files[index].unlink()
    part = image.window(Window((1, 5), (2, 7), (2, 4)))
    np.testing.assert_array_equal(part.pixels[0], values[2:4, 1:5, 2:7] - 1024.0)
    with pytest.raises(InputError):
        _ = image.pixels


def test_series_are_told_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _ = series(tmp_path / "a", edit=turned)
    second, _ = series(tmp_path / "b", edit=lambda ds, n: setattr(ds, "SeriesInstanceUID", "1.2.4"))
    mixed = [file for pair in zip(first, second, strict=True) for file in pair]
    found = dicom.group(mixed)
    assert sorted(map(len, found)) == [1, 4, 5]
    assert {frozenset(g) for g in found} >= {frozenset(second)}


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_rescale_agrees_with_pydicom(tmp_path, dtype):
    values = rng.integers(0, 4000, (5, 7)).astype(dtype)
    tags = {"RescaleSlope": "1.73", "RescaleIntercept": "-511.5"}
    expected = apply_modality_lut(values, make(values, **tags))
    np.testing.assert_allclose(one(tmp_path, values, **tags, **PLANE).pixels[0, 0], expected, rtol=1e-6)


def test_ct_without_rescale_is_refused(tmp_path):
    ds = make(np.zeros((4, 4), np.int16))
    del ds.RescaleSlope
    with pytest.raises(InputError, match="RescaleSlope"):
        dicom.read([save(ds, tmp_path / "a.dcm")])


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_agrees_with_pydicom(tmp_path, function):
    values = rng.integers(0, 4096, (9, 11)).astype(np.uint16)
    tags = {"WindowCenter": [1800, 40], "WindowWidth": [900, 400], "RescaleSlope": 2, "RescaleIntercept": -700}
    if function:
        tags["VOILUTFunction"] = function
    ds = make(values, modality="DX", sop=DX, **tags)
    expected = apply_windowing(apply_modality_lut(values, ds), ds)
    low, high = -700, 65535 * 2 - 700
    np.testing.assert_allclose(
        radiograph(tmp_path, values, **tags).pixels[0, 0], (expected - low) / (high - low), atol=2e-6
    )


def test_voi_lut_agrees_with_pydicom_and_comes_before_the_window(tmp_path):
    values = rng.integers(0, 256, (9, 11)).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor = [256, 0, 12]
    item.add_new("LUTData", "US", [int(4095 * (i / 255) ** 2) for i in range(256)])
    tags = {"VOILUTSequence": [item], "WindowCenter": 10, "WindowWidth": 4}
    expected = apply_voi(values, make(values, modality="DX", sop=DX, **tags)) / 4095
    np.testing.assert_allclose(radiograph(tmp_path, values, **tags).pixels[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("window", [None, (1800, 900)])
def test_monochrome1_equals_inverted_monochrome2(tmp_path, window):
    values = rng.integers(0, 4096, (40, 30)).astype(np.uint16)
    two = {"WindowCenter": window[0], "WindowWidth": window[1]} if window else {}
    one_ = {"WindowCenter": 4095 - window[0] + 1, "WindowWidth": window[1]} if window else {}
    upright = radiograph(tmp_path, values, **two)
    inverted = radiograph(tmp_path, (4095 - values).astype(np.uint16), PhotometricInterpretation="MONOCHROME1", **one_)
    np.testing.assert_allclose(upright.pixels, inverted.pixels, atol=1e-5)
    assert upright.pixels.std() > 0.1


def test_without_a_window_the_middle_99_percent_fill_the_range(tmp_path):
    values = rng.integers(1000, 3000, (100, 100)).astype(np.uint16)
    shown = radiograph(tmp_path, values).pixels[0, 0]
    low, high = np.percentile(values, (0.5, 99.5))
    np.testing.assert_allclose(shown, ((values - low) / (high - low)).clip(0, 1), atol=1e-5)


def test_padding_is_invalid_and_does_not_count(tmp_path):
    values = rng.integers(1000, 2000, (50, 50)).astype(np.uint16)
    padded = values.copy()
    padded[:20] = 60000
    whole = radiograph(tmp_path, values[20:])
    image = radiograph(tmp_path, padded, PixelPaddingValue=60000)
    np.testing.assert_array_equal(image.valid[0, :, 0], np.arange(50) >= 20)
    np.testing.assert_array_equal(image.pixels[0, 0, 20:], whole.pixels[0, 0])
    assert not image.pixels[0, 0, :20].any()
    ranged = radiograph(tmp_path, padded, PixelPaddingValue=59000, PixelPaddingRangeLimit=61000)
    np.testing.assert_array_equal(ranged.valid, image.valid)


def test_columns_run_to_the_left_and_rows_to_the_feet(tmp_path):
    values = rng.integers(0, 4096, (6, 9)).astype(np.uint16)
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "ImagerPixelSpacing": [0.2, 0.3]}
    usual = radiograph(tmp_path, values, PatientOrientation=["L", "F"], **window)
    assert usual.grid.frame == DETECTOR
    assert usual.grid.spacing[1:] == (0.2, 0.3)
    for stored, orientation in (
        (values[:, ::-1], ["R", "F"]), (values[::-1], ["L", "H"]),
        (values[::-1, ::-1], ["RP", "H"]), (values, ["", ""]),
    ):  # fmt: skip
        image = radiograph(tmp_path, np.ascontiguousarray(stored), PatientOrientation=orientation, **window)
        np.testing.assert_array_equal(image.pixels, usual.pixels)
    window["ImagerPixelSpacing"] = [0.3, 0.2]
    lying = radiograph(tmp_path, np.ascontiguousarray(values.T[:, ::-1]), PatientOrientation=["H", "L"], **window)
    np.testing.assert_array_equal(lying.pixels, usual.pixels)
    np.testing.assert_array_equal(lying.grid.affine, usual.grid.affine)


def test_the_size_of_a_radiographs_pixel(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert radiograph(tmp_path, values).grid.frame == PIXEL
    assert radiograph(tmp_path, values, PixelSpacing=[0, 0]).grid.frame == PIXEL
    both = radiograph(tmp_path, values, PixelSpacing=[0.1, 0.1], ImagerPixelSpacing=[0.2, 0.2])
    assert both.grid.spacing[1:] == (0.1, 0.1)


def test_colours_agree_with_pydicom(tmp_path):
    values = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    tags = {"modality": "US", "sop": "1.2.840.10008.5.1.4.1.1.6.1"}
    plain = one(tmp_path, values, **tags)
    assert [channel.name for channel in plain.channels] == ["red", "green", "blue"]
    np.testing.assert_allclose(plain.pixels[:, 0], np.moveaxis(values, -1, 0) / 255, atol=1e-6)
    ybr = one(tmp_path, convert_color_space(values, "RGB", "YBR_FULL"), PhotometricInterpretation="YBR_FULL", **tags)
    np.testing.assert_allclose(ybr.pixels, plain.pixels, atol=2.5 / 255)


def test_a_palette_gives_its_colours(tmp_path):
    table = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    names = zip(("Red", "Green", "Blue"), table, strict=True)
    tags = {f"{n}PaletteColorLookupTableDescriptor": [256, 0, 16] for n in ("Red", "Green", "Blue")}
    tags |= {f"{name}PaletteColorLookupTableData": row.tobytes() for name, row in names}
    index = rng.integers(0, 256, (5, 7)).astype(np.uint8)
    image = one(tmp_path, index, modality="US", sop=SC, PhotometricInterpretation="PALETTE COLOR", **tags)
    np.testing.assert_allclose(image.pixels[:, 0], table[:, index] / 65535, atol=1e-6)


def test_frames_of_a_multi_frame_file_are_sorted_and_scaled_one_by_one(tmp_path):
    values = rng.integers(0, 100, (4, 5, 6)).astype(np.int16)
    (image,) = dicom.read([save(enhanced(values, np.array([2, 0, 3, 1])), tmp_path / "a.dcm")]).images
    expected = values * np.arange(1, 5)[:, None, None] - 10
    np.testing.assert_array_equal(image.pixels[0], expected)
    assert image.grid.spacing == (3, 0.7, 0.9)
    np.testing.assert_array_equal(image.window(Window((0, 5), (0, 6), (1, 3))).pixels[0], expected[1:3])


def test_positions_that_repeat_in_a_multi_frame_file_are_volumes(tmp_path):
    values = rng.integers(0, 100, (6, 5, 6)).astype(np.int16)
    images = dicom.read([save(enhanced(values, np.arange(6), repeat=2), tmp_path / "a.dcm")]).images
    assert [image.grid.shape for image in images] == [(3, 5, 6)] * 2
    np.testing.assert_array_equal(images[1].pixels[0], values[1::2] * np.array([2, 4, 6])[:, None, None] - 10)


def test_frames_without_planes_are_slices_without_size(tmp_path):
    values = rng.integers(0, 256, (3, 5, 7)).astype(np.uint8)
    image = one(tmp_path, values, modality="US", sop="1.2.840.10008.5.1.4.1.1.3.1")
    assert (image.grid.frame, image.grid.shape) == (PIXEL, (3, 5, 7))
    missing = make(values.astype(np.int16), modality="MR", sop=MR)
    with pytest.raises(GeometryError):
        dicom.read([save(missing, tmp_path / "mr.dcm")])


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_encodings_hold_the_same_values(tmp_path, syntax):
    values = rng.integers(0, 4000, (9, 11)).astype(np.uint16)
    ds = make(values, modality="DX", sop=DX)
    expected = radiograph(tmp_path, values).pixels
    path = tmp_path / "a.dcm"
    if syntax == RLELossless:
        save(ds, path)
        compressed = pydicom.dcmread(path)
        compressed.compress(RLELossless)
        compressed.save_as(path)
    else:
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = values.astype(">u2").tobytes()
        save(ds, path, syntax)
    np.testing.assert_array_equal(dicom.read([path]).images[0].pixels, expected)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_are_found_and_read(tmp_path, syntax):
    values = rng.integers(0, 4000, (9, 11)).astype(np.uint16)
    path = save(make(values, modality="DX", sop=DX), tmp_path / "a", syntax, preamble=False)
    assert dicom.is_dicom(path)
    np.testing.assert_array_equal(dicom.read([path]).images[0].pixels, radiograph(tmp_path, values).pixels)
    for other in (b"", b"\x08\x00\x05\x00 and then no DICOM", b"text", b"\x08\x00\x05\x00" * 100):
        path.write_bytes(other)
        assert not dicom.is_dicom(path)


@pytest.mark.filterwarnings("ignore")  # pydicom warns where it is used alone
def test_values_of_real_files_agree_with_pydicom(data_dir):
    folder = data_dir / "med" / "dicom_zoo" / "dicom_pydicom"
    checked = 0
    for path in sorted(folder.rglob("*.dcm")) + sorted((data_dir / "med" / "dicom_series").rglob("*.dcm"))[:3]:
        if path.stat().st_size > 600_000 or not dicom.is_dicom(path):
            continue
        try:
            image = dicom.read([path]).images[0]
            pixels = image.pixels
        except InputError:
            continue
        ds = pydicom.dcmread(path, force=True)
        if ds.get("NumberOfFrames", 1) not in (None, 1) or "TransferSyntaxUID" not in ds.file_meta:
            continue
        stored = ds.pixel_array
        if pixels.shape[0] == 3:
            expected = np.moveaxis(stored, -1, 0) / (2**ds.BitsStored - 1) if stored.ndim == 3 else None
        elif image.channels[0].unit == "HU" or ds.get("Modality") in ("MR", "PT"):
            expected = apply_modality_lut(stored, ds)[None]
        else:
            expected = None  # as displayed: tested above
        if expected is not None:
            np.testing.assert_allclose(pixels[:, 0], expected, rtol=1e-6, atol=1e-6)
            checked += 1
    assert checked > 20


def test_a_series_loads_quickly(tmp_path):
    series(tmp_path, count=32)
    files = sorted(tmp_path.glob("*.dcm"))
    dicom.read(files)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        _ = dicom.read(files).images[0].pixels
        times.append(time.perf_counter() - start)
    assert min(times) < 0.4
