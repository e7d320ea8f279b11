"""Overlay planes: regions of interest as findings, all of them as an image when asked for; pydicom is the reference."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import CT, DX, PLANE, SC, enhanced, make, save, series
from pydicom.overlays.numpy_handler import get_overlay_array
from pydicom.pixels.utils import pack_bits
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from domains.formats.dicom import overlays
from domains.radiology import reader
from domains.radiology.findings import findings
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Measure

rng = np.random.default_rng(4)


def put(ds, mask, kind="R", group=0x6000, origin=(1, 1), first=None, **texts):
    """Add an overlay of a mask (row, column) or (frame, row, column)."""
    frames = len(mask) if mask.ndim == 3 else None
    ds.add_new((group, 0x0010), "US", mask.shape[-2])
    ds.add_new((group, 0x0011), "US", mask.shape[-1])
    if frames:
        ds.add_new((group, 0x0015), "IS", frames)
    if first:
        ds.add_new((group, 0x0051), "US", first)
    ds.add_new((group, 0x0040), "CS", kind)
    ds.add_new((group, 0x0050), "SS", list(origin))
    ds.add_new((group, 0x0100), "US", 1)
    ds.add_new((group, 0x0102), "US", 0)
    for element, value in texts.items():
        ds.add_new((group, int(element[1:], 16)), "LO" if isinstance(value, str) else "DS", value)
    ds.add_new((group, 0x3000), "OW", pack_bits(mask.astype(np.uint8).ravel(), pad=True))
    return ds


def radiograph(rows=7, columns=9, **tags):
    return make(rng.integers(0, 900, (rows, columns)).astype(np.uint16), modality="DX", sop=DX, **tags)


def film(count):
    return make(rng.integers(0, 200, (count, 7, 9)).astype(np.uint8), modality="US", sop=SC)


def mask(*shape):
    return rng.random(shape) < 0.4


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_region_of_interest_is_a_finding_with_its_measures(tmp_path, syntax):
    drawn = mask(7, 9)
    ds = put(radiograph(), drawn, x1500="Liver", x1302=41.5, x1303=3)
    ds.add_new((0x6000, 0x1301), "IS", int(drawn.sum()))
    path = save(ds, tmp_path / "a.dcm", syntax)
    study = reader.load(path)
    (found,) = findings(path, study)
    assert (found.region.data == drawn).all()
    assert (found.region.data[0] == get_overlay_array(pydicom.dcmread(path), 0x6000)).all()
    assert (found.label, found.image, found.by.name, found.score) == ("liver", 0, "dicom-overlay/unknown", 1)
    assert found.measures == (
        Measure("pixels", float(drawn.sum()), "1"), Measure("mean", 41.5, "1"), Measure("standard_deviation", 3.0, "1")
    )  # fmt: skip


def test_no_text_of_an_overlay_passes(tmp_path):
    path = save(put(radiograph(), mask(7, 9), x1500="DOE^JANE", x0022="DOE^JANE"), tmp_path / "a.dcm")
    found = findings(path, reader.load(path))
    assert found[0].label == "uncoded"
    assert "DOE" not in repr(found)


def test_graphics_are_no_findings_and_shown_only_when_asked_for(tmp_path):
    lines, region = mask(7, 9), mask(7, 9)
    ds = put(put(radiograph(), lines, kind="G"), region, group=0x6002)
    path = save(ds, tmp_path / "a.dcm")
    (found,) = findings(path, reader.load(path))
    assert (found.region.data[0] == region).all()
    assert len(reader.load(path).images) == 1
    picture, overlay = reader.load(path, overlays=True).images
    assert (picture.channels[0].name, overlay.channels[0].name) == ("intensity", "overlay")
    assert (overlay.pixels[0, 0] == (lines | region)).all()
    assert np.array_equal(overlay.grid.affine, picture.grid.affine)
    lone = save(put(radiograph(), lines, kind="G"), tmp_path / "b.dcm")
    with pytest.raises(UnsupportedError, match="without regions of interest"):
        findings(lone, reader.load(lone))
    assert len(reader.load(save(radiograph(), tmp_path / "c.dcm"), overlays=True).images) == 1


@pytest.mark.parametrize("origin", [(1, 1), (3, 4), (-1, -2), (7, 9), (8, 1), (-40, 1), (1, 32000), (-3, 7)])
def test_an_overlay_is_cut_to_the_image(tmp_path, origin):
    drawn = np.ones((4, 5), bool)
    path = save(put(radiograph(), drawn, origin=origin), tmp_path / "a.dcm")
    wide = np.zeros((90, 32100), bool)
    top, left = 45 + origin[0] - 1, 20 + origin[1] - 1
    wide[top : top + 4, left : left + 5] = drawn
    expected = wide[45:52, 20:29]
    assert (reader.load(path, overlays=True).images[1].pixels[0, 0] == expected).all()
    (found,) = findings(path, reader.load(path))
    assert found.present == expected.any()
    assert not expected.any() or (found.region.data[0] == expected).all()


@pytest.mark.parametrize(("bits", "bit", "sign"), [(12, 12, "u"), (12, 15, "u"), (10, 13, "i")])
def test_overlays_in_unused_bits_of_the_pixels_are_read(tmp_path, bits, bit, sign):
    drawn = mask(3, 7, 9)
    stored = rng.integers(0, 2 ** (bits - 1), (3, 7, 9)).astype(np.uint16)
    ds = make(stored | (drawn.astype(np.uint16) << bit), modality="US", sop=SC)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(sign == "i")
    for element, kind, value in [(0x40, "CS", "R"), (0x100, "US", 16), (0x102, "US", bit)]:
        ds.add_new((0x6000, element), kind, value)
    path = save(ds, tmp_path / "a.dcm")
    study = reader.load(path, overlays=True)
    assert (study.images[1].pixels[0] == drawn).all()
    (found,) = findings(path, study)
    assert (found.region.data == drawn).all()
    ds[0x6000, 0x102].value = bits - 1
    with pytest.raises(InputError, match="unused bits"):
        findings(save(ds, tmp_path / "b.dcm"), reader.load(tmp_path / "b.dcm"))


@pytest.mark.parametrize(
    ("shape", "first", "frames"), [((2, 7, 9), 3, (2, 3)), ((2, 7, 9), None, (0, 1)), ((7, 9), None, range(5))]
)
def test_overlays_of_films_lie_on_their_frames(tmp_path, shape, first, frames):
    drawn = mask(*shape)
    path = save(put(film(5), drawn, first=first), tmp_path / "a.dcm")
    expected = np.zeros((5, 7, 9), bool)
    expected[list(frames)] = drawn
    study = reader.load(path)
    assert (findings(path, study)[0].region.data == expected).all()
    assert (reader.load(path, overlays=True).images[1].pixels[0] == expected).all()


def test_overlays_of_a_volume_are_laid_by_position(tmp_path):
    order = np.array([2, 0, 1])
    drawn = mask(3, 5, 6)
    ds = put(enhanced(np.zeros((3, 5, 6), np.int16), order), drawn[order])
    path = save(ds, tmp_path / "a.dcm")
    (found,) = findings(path, reader.load(path))
    assert (found.region.data == drawn).all()
    paths, _ = series(tmp_path, 4)
    one = pydicom.dcmread(paths[2])
    put(one, drawn[0][:5, :6], origin=(2, 3)).save_as(paths[2])
    study = reader.load(paths)
    (found,) = findings(paths[2], study, source=paths)
    assert found.slices == (2, 3)
    assert (found.region.data[2, 1:6, 2:8] == drawn[0]).all()


def test_a_turned_radiograph_is_laid_with_its_overlay(tmp_path):
    drawn = mask(7, 9)
    path = save(put(radiograph(PatientOrientation=["F", "R"], PixelSpacing=[0.2, 0.3]), drawn), tmp_path / "a.dcm")
    study = reader.load(path, overlays=True)
    (found,) = findings(path, study)
    assert (found.region.data == study.images[1].pixels[0].astype(bool)).all()
    assert found.region.data.sum() == drawn.sum()
    assert (found.region.data[0] == drawn.T[:, ::-1]).all()


def test_an_overlay_lies_on_the_image_of_its_own_file(tmp_path):
    paths = [save(put(radiograph(), mask(7, 9)), tmp_path / f"{name}.dcm") for name in "ab"]
    study = reader.load(paths)
    assert [findings(path, study)[0].image for path in paths] == [0, 1]
    both = reader.load(paths, overlays=True)
    assert [findings(path, both)[0].image for path in paths] == [0, 2]
    with pytest.raises(InputError, match="another image"):
        findings(save(put(radiograph(), mask(7, 9)), tmp_path / "c.dcm"), study)


def _repeated(ds):
    for group in ds.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 1]
    return ds


@pytest.mark.parametrize(
    ("ds", "error", "says"),
    [
        (lambda: put(radiograph(), mask(7, 9), first=2), InputError, "frames 2 to 2 of 1"),
        (lambda: put(film(2), mask(2, 7, 9), first=2), InputError, "frames 2 to 3 of 2"),
        (lambda: put(_repeated(enhanced(np.zeros((3, 7, 9), np.int16), np.arange(3))), mask(7, 9)), InputError, "one"),
        (lambda: put(radiograph(), mask(7, 9)[:, :0]), LimitError, "0 values"),
        (lambda: put(radiograph(ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]), mask(7, 9)), UnsupportedError, "mosaic"),
        (lambda: _cut(put(radiograph(), mask(7, 9))), InputError, "cannot be read"),
        (lambda: _grown(put(radiograph(), mask(7, 9))), LimitError, "65535 × 65535"),
    ],
)  # fmt: skip
def test_overlays_that_do_not_fit_are_refused(tmp_path, ds, error, says):
    with pytest.raises(error, match=says):
        overlays.read(save(ds(), tmp_path / "a.dcm"))


def _cut(ds):
    ds[0x6000, 0x3000].value = b"\1\1"
    return ds


def _grown(ds):
    ds[0x6000, 0x10].value = ds[0x6000, 0x11].value = 65535
    return ds


def test_big_endian_and_compressed_pixels_with_overlays(tmp_path):
    ds = put(radiograph(), mask(7, 9))
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    path = save(ds, tmp_path / "a.dcm", ExplicitVRBigEndian)
    with pytest.raises(UnsupportedError, match="Big Endian"):
        findings(path, reader.load(path))
    drawn = mask(7, 9)
    path = save(put(make(np.zeros((7, 9), np.int16), sop=CT, SliceThickness=2, **PLANE), drawn), tmp_path / "b.dcm")
    packed = pydicom.dcmread(path)
    packed.compress(RLELossless)
    packed.save_as(path)
    assert (findings(path, reader.load(path))[0].region.data[0] == drawn).all()


def test_real_overlays_are_what_pydicom_reads(data_dir):
    paths = [path for name in ("examples_overlay.dcm", "*WithOverlays.dcm") for path in data_dir.rglob(name)]
    if not paths:
        pytest.skip("needs real overlays")
    for path in paths:
        _, overlay = reader.load(path, overlays=True).images
        assert (overlay.pixels[0, 0] == pydicom.dcmread(path).overlay_array(0x6000)).all()
        assert overlay.pixels.any()
