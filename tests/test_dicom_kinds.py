"""Values in the unit that they measure: PET, dose, maps, slides, unused bits; each against a computation by hand."""

from __future__ import annotations

import os

import numpy as np
import pydicom
import pytest
from dicom_files import DX, MR, PLANE, SC, make, one, rng, save
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000Lossless, RLELossless

from domains.formats import dicom
from domains.formats.dicom import pixels as dicom_pixels
from domains.formats.dicom.pixels import stream_size
from domains.radiology import reader
from domains.radiology.render import render
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import LPS, SLIDE, View, Window

PET, DOSE, MAP, SLIDES = (
    "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.77.1.6",
)


def pet(folder, **tags):
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
    drug.RadiopharmaceuticalStartTime = "080000"
    given = {
        "Units": "BQML", "CorrectedImage": ["DECY", "ATTN"], "DecayCorrection": "START", "PatientWeight": 74,
        "SeriesDate": "20200101", "SeriesTime": "090000", "AcquisitionDate": "20200101", "AcquisitionTime": "090500.5",
        "RescaleSlope": 2.5, "RescaleIntercept": 0, "RadiopharmaceuticalInformationSequence": [drug], **PLANE,
        "SliceThickness": 3, **tags,
    }  # fmt: skip
    stored = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    kept = {name: value for name, value in given.items() if value is not None}
    return stored, one(folder, stored, modality="PT", sop=PET, **kept)


def test_uptake_by_body_weight(tmp_path):
    stored, image = pet(tmp_path)
    left = 370e6 * 2 ** (-3600 / 6586.2)
    assert (image.channels[0].name, image.channels[0].unit) == ("SUV", "g/mL")
    assert np.allclose(image.pixels[0, 0], stored * 2.5 * 74000 / left, rtol=1e-6)
    _, corrected = pet(tmp_path, DecayCorrection="ADMIN")
    assert np.allclose(corrected.pixels[0, 0], stored * 2.5 * 74000 / 370e6, rtol=1e-6)
    _, done = pet(tmp_path, Units="GML")
    assert done.channels[0].name == "SUV"
    assert np.array_equal(done.pixels[0, 0], (stored * 2.5).astype(np.float32))


@pytest.mark.parametrize(
    "lacks",
    [
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"CorrectedImage": ["ATTN"]},
        {"SeriesTime": "100000"},  # a later series, whose time says nothing of the scan
        {"SeriesTime": "070000"},  # before the injection
        {"RadiopharmaceuticalInformationSequence": None},
        {"DecayCorrection": "NONE"},
    ],
    ids=str,
)
def test_without_all_that_an_uptake_takes_activity_stays(tmp_path, lacks):
    stored, image = pet(tmp_path, **lacks)
    assert (image.channels[0].name, image.channels[0].unit) == ("activity", "Bq/mL")
    assert np.array_equal(image.pixels[0, 0], (stored * 2.5).astype(np.float32))


@pytest.mark.parametrize("offsets", [[0, 2, 4], [3, 5, 7], [0, -2, -4]], ids=str)
def test_a_dose_is_in_gray_at_the_offsets_of_its_frames(tmp_path, offsets):
    stored = rng.integers(0, 2**31, (3, 4, 5)).astype(np.uint32)
    image = one(
        tmp_path, stored, modality="RTDOSE", sop=DOSE, DoseUnits="GY", DoseGridScaling=1.7e-9,
        GridFrameOffsetVector=offsets, **PLANE,
    )  # fmt: skip
    order = np.argsort(offsets)
    assert image.channels[0].unit == "Gy"
    assert np.array_equal(image.pixels[0], (stored[order] * 1.7e-9).astype(np.float32))
    assert np.allclose(image.grid.affine[:, 3], (1, 2, 3 + min(offsets) - offsets[0], 1))
    assert image.grid.frame == LPS


def test_a_dose_grid_with_steps_of_two_sizes_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="unevenly"):
        one(
            tmp_path, np.zeros((3, 4, 5), np.uint16), modality="RTDOSE", sop=DOSE, DoseGridScaling=1,
            GridFrameOffsetVector=[0, 2, 5], **PLANE,
        )  # fmt: skip


def test_a_single_real_world_mapping_gives_value_and_unit(tmp_path):
    mapping, unit = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "mm2/s", "UCUM", "square millimetres per second"
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 1e-6, 0.5
    mapping.MeasurementUnitsCodeSequence = [unit]
    stored = rng.integers(0, 3000, (4, 5)).astype(np.uint16)
    image = one(
        tmp_path, stored, modality="MR", sop=MR, RescaleSlope=3, RescaleIntercept=1, SliceThickness=2,
        RealWorldValueMappingSequence=[mapping], **PLANE,
    )  # fmt: skip
    assert image.channels[0].unit == "mm2/s"
    assert np.array_equal(image.pixels[0, 0], (stored * 1e-6 + 0.5).astype(np.float32))


def test_a_table_of_real_world_values_has_an_end(tmp_path):
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 2, 4
    mapping.RealWorldValueLUTData = [0.5, 0.25, 0.125]
    stored = np.arange(8, dtype=np.uint16).reshape(2, 4)
    image = one(
        tmp_path, stored, modality="MR", sop=MR, SliceThickness=2, RealWorldValueMappingSequence=[mapping], **PLANE
    )
    assert image.valid.ravel().tolist() == [False, False, True, True, True, False, False, False]
    assert image.pixels[0][image.valid].tolist() == [0.5, 0.25, 0.125]


def test_bits_beside_the_stored_ones_do_not_count(tmp_path):
    """Old files keep overlays there, with text."""
    stored = rng.integers(-2048, 2048, (5, 6)).astype(np.int16)
    noisy = (stored & 0x0FFF) | (rng.integers(0, 16, stored.shape).astype(np.int16) << 12)
    for values in (stored, noisy.astype(np.int16)):
        image = one(tmp_path, values, BitsStored=12, HighBit=11, SliceThickness=2, **PLANE)
        assert np.array_equal(image.pixels[0, 0], stored - 1024)


def test_ct_that_measures_something_else_is_not_in_hounsfield_units(tmp_path):
    image = one(tmp_path, np.ones((3, 3), np.int16), RescaleType="Z_EFF", SliceThickness=2, **PLANE)
    assert image.channels[0].unit == ""


def compressed(path, ds, syntax):
    save(ds, path)
    packed = pydicom.dcmread(path)
    packed.compress(syntax)
    packed.save_as(path)
    return path


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_frames_are_those_of_pydicom_in_any_window(tmp_path, syntax):
    values = rng.integers(0, 200, (37, 40, 44)).astype(np.uint8)
    path = compressed(tmp_path / "a.dcm", make(values, modality="US", sop=SC), syntax)
    (image,) = dicom.read([path]).images
    expected = pixel_array(path)
    low, high = np.percentile(expected[5], (0.5, 99.5))
    shown = ((expected[5] - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    assert np.allclose(image.pixels[0, 5], shown, atol=1e-6)
    part = image.window(Window((3, 9), (5, 30), (16, 36)))
    assert np.array_equal(part.pixels, image.pixels[:, 16:36, 3:9, 5:30])


def test_a_stream_of_another_size_than_declared_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    ds = make(rng.integers(0, 200, (40, 44)).astype(np.uint8), modality="DX", sop=DX)
    path = compressed(tmp_path / "a.dcm", ds, JPEG2000Lossless)
    forged = pydicom.dcmread(path)
    forged.Rows = 41
    forged.save_as(path)
    monkeypatch.setattr(dicom_pixels, "_stored", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(dicom_pixels, "isolated", lambda function, *given, seconds: function(*given))
    with pytest.raises(InputError, match="40 × 44 pixels in an image of 41 × 44"):
        _ = dicom.read([path]).images[0].pixels
    assert stream_size(b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x01\x02\x03\x04") == (258, 772)
    assert stream_size(b"no picture") is None


def slide(folder, size, tile, step, name, values=None, sparse=()):
    """A level of `size` pixels cut into square tiles; `sparse` keeps some of them, with positions."""
    across = -(-size // tile)
    whole = np.zeros((across * tile, across * tile, 3), np.uint8)
    values = rng.integers(0, 255, (size, size, 3)).astype(np.uint8) if values is None else values
    whole[:size, :size] = values
    corners = [(row, column) for row in range(0, size, tile) for column in range(0, size, tile)]
    kept = [corners[n] for n in sparse] if sparse else corners
    frames = np.stack([whole[r : r + tile, c : c + tile] for r, c in kept])
    ds = make(frames, modality="SM", sop=SLIDES, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    ds.TotalPixelMatrixRows = ds.TotalPixelMatrixColumns = size
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin, measures, shared = Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    measures.PixelSpacing, measures.SliceThickness = [step, step], 0.001
    shared.PixelMeasuresSequence = [measures]
    ds.TotalPixelMatrixOriginSequence, ds.SharedFunctionalGroupsSequence = [origin], [shared]
    if sparse:
        groups = []
        for row, column in kept:
            position, group = Dataset(), Dataset()
            position.RowPositionInTotalImagePixelMatrix = row + 1
            position.ColumnPositionInTotalImagePixelMatrix = column + 1
            group.PlanePositionSlideSequence = [position]
            groups.append(group)
        ds.PerFrameFunctionalGroupsSequence = groups
    return save(ds, folder / name), values


def test_a_slide_is_read_by_window_at_the_level_that_serves(tmp_path, monkeypatch):
    fine, values = slide(tmp_path, 70, 16, 0.0005, "a.dcm")
    coarse, small = slide(tmp_path, 35, 16, 0.001, "b.dcm")
    (study,) = dicom.group([coarse, fine])
    (image,) = dicom.read(study).images
    assert image.grid.shape == (1, 70, 70)
    assert image.grid.frame == SLIDE
    assert np.allclose(image.grid.world(np.array([(0, 2, 3)]))[0], (20 - 2 * 0.0005, 40 - 3 * 0.0005, 0))
    assert np.allclose(image.pixels[:, 0], np.moveaxis(values, -1, 0) / np.float32(255))
    decoded = []
    real = dicom.decode
    monkeypatch.setattr(
        dicom, "decode", lambda header, frames: decoded.append((header.frames, frames)) or real(header, frames)
    )
    part = image.window(Window((17, 40), (30, 50)))
    assert np.array_equal(part.pixels[:, 0], np.moveaxis(values[17:40, 30:50], -1, 0) / np.float32(255))
    assert decoded == [(25, [6, 7, 8, 11, 12, 13])]
    decoded.clear()
    half = image.window(shape=(35, 35))
    assert np.array_equal(half.pixels[:, 0], np.moveaxis(small, -1, 0) / np.float32(255))
    assert {frames for frames, _ in decoded} == {9}


def test_what_no_tile_covers_is_invalid_and_labels_are_not_shown(tmp_path):
    path, values = slide(tmp_path, 40, 16, 0.0005, "a.dcm", sparse=(0, 4))
    (image,) = dicom.read([path]).images
    covered = np.zeros((40, 40), bool)
    covered[:16, :16] = covered[16:32, 16:32] = True
    assert np.array_equal(image.valid[0], covered)
    assert np.array_equal(image.pixels[:, 0][:, covered], (values[covered] / np.float32(255)).T)
    label = make(np.zeros((4, 4, 3), np.uint8), modality="SM", sop=SLIDES, ImageType=["ORIGINAL", "PRIMARY", "LABEL"])
    with pytest.raises(UnsupportedError, match="burned in"):
        dicom.read([save(label, tmp_path / "label.dcm")])


def test_the_windows_of_a_file_can_be_drawn(tmp_path):
    stored = np.arange(64 * 64, dtype=np.int16).reshape(64, 64)
    path = save(
        make(stored, WindowCenter=[40, -600], WindowWidth=[400, 1500], SliceThickness=2, **PLANE), tmp_path / "a.dcm"
    )
    study = reader.load(path)
    assert study.meta["windows"] == "40/400, -600/1500"
    shown = render(study, View("as stored", 64)).pixels
    assert np.array_equal(shown, render(study, View("soft tissue", 64)).pixels)
    other = save(make(stored, WindowCenter=-600, WindowWidth=1500, SliceThickness=2, **PLANE), tmp_path / "b.dcm")
    lung = render(reader.load(other), View("as stored", 64)).pixels
    assert np.array_equal(lung, render(study, View("lung", 64)).pixels)
    assert not np.array_equal(lung, shown)


def test_a_film_of_many_frames_is_opened_a_few_times_only(tmp_path, monkeypatch):
    values = rng.integers(0, 200, (400, 4, 5)).astype(np.uint8)
    (image,) = dicom.read([save(make(values, modality="US", sop=SC), tmp_path / "a.dcm")]).images
    opened = []
    real = dicom.decode
    monkeypatch.setattr(dicom, "decode", lambda header, frames: opened.append(len(frames)) or real(header, frames))
    assert image.pixels.shape == (1, 400, 4, 5)
    assert sum(opened) == 400
    assert len(opened) <= 2 * os.cpu_count()
