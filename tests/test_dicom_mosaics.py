"""Siemens mosaics: the voxels and the place of volumes that the test writes, and of real headers by nibabel."""

from __future__ import annotations

import shutil
import struct
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import MR, make, save
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from domains.formats import dicom
from domains.formats.dicom.mosaic import unfold
from domains.radiology import reader
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.types import LPS, Window

rng = np.random.default_rng(2)
TILT = np.array([(1, 0, 0), (0, np.cos(0.4), np.sin(0.4)), (0, -np.sin(0.4), np.cos(0.4))])
"""Directions of growing column, row and slice."""
SPACING, FIRST = (3.0, 2.0, 1.5), np.array((-20.0, -30.0, 12.5))


def csa(**tags):
    """A CSA2 header; a tag is its kind and its values as texts."""
    found = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, (kind, values) in tags.items():
        found += struct.pack("<64si4s3i", name.encode(), len(values), kind, 0, max(6, len(values)), 77)
        for value in [*values, *[""] * (6 - len(values))]:
            data = value.encode() + b"\0" if value else b""
            found += struct.pack("<4i", len(data), len(data), 77, len(data)) + data + b"\0" * (-len(data) % 4)
    return found


def told(count, normal):
    return csa(NumberOfImagesInMosaic=(b"US", [str(count)]), SliceNormalVector=(b"FD", [f"{v:.8f}" for v in normal]))


def mosaic(volume, axes=TILT, reverse=False, header=None, **tags):
    """The file of a volume (slice, row, column); `reverse` stacks the tiles against the normal of their axes."""
    count, rows, columns = volume.shape
    side = int(np.ceil(np.sqrt(count)))
    picture = np.zeros((side * rows, side * columns), volume.dtype)
    for number, tile in enumerate(volume):
        down, right = divmod(number, side)
        picture[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns] = tile
    across, down, normal = axes
    # the scanner gives the corner that the whole picture would have if it were one slice around the same middle
    corner = FIRST - (side - 1) / 2 * (rows * SPACING[1] * down + columns * SPACING[2] * across)
    ds = make(picture, modality="MR", sop=MR, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    ds.ImagePositionPatient = [f"{value:.10g}" for value in corner]
    ds.ImageOrientationPatient = [f"{value:.10g}" for value in (*across, *down)]
    ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = list(SPACING[1:]), 2.5, SPACING[0]
    header = told(count, -normal if reverse else normal) if header is None else header
    if header:
        ds.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def values(shape=(5, 6, 4)):
    return rng.integers(1, 4000, shape).astype(np.uint16)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(5, 6, 4), (9, 4, 7), (2, 8, 8)])
def test_a_mosaic_is_the_volume_that_was_laid_out_in_it(tmp_path, shape, reverse):
    volume = values(shape)
    (image,) = dicom.read([save(mosaic(volume, reverse=reverse), tmp_path / "a.dcm")]).images
    assert (image.grid.frame, image.grid.shape) == (LPS, shape)
    across, down, normal = TILT
    for place, tile in enumerate(volume):
        at = FIRST + place * SPACING[0] * (-normal if reverse else normal)
        found = image.grid.index(np.array([at, at + SPACING[1] * down + SPACING[2] * across]))
        first = shape[0] - 1 - place if reverse else place
        assert np.allclose(found, [(first, 0, 0), (first, 1, 1)], atol=1e-5)
        assert (image.pixels[0, first] == tile).all()
    assert np.allclose(image.grid.affine[:3, 2], normal * SPACING[0])


def test_a_window_of_a_compressed_mosaic_is_part_of_the_volume(tmp_path):
    volume = values((11, 16, 16))
    path = save(mosaic(volume), tmp_path / "a.dcm", ExplicitVRLittleEndian)
    packed = pydicom.dcmread(path)
    packed.compress(JPEG2000Lossless)
    packed.save_as(path)
    (image,) = dicom.read([path]).images
    part = image.window(Window((3, 9), (2, 14), slices=(4, 9)))
    assert (part.pixels[0] == volume[4:9, 3:9, 2:14]).all()
    assert np.allclose(part.grid.affine[:3, 3], image.grid.world(np.array([[4, 3, 2]], float))[0])


def test_a_series_of_mosaics_is_one_study_in_the_order_of_its_numbers(tmp_path):
    volumes = [values() for _ in range(3)]
    for name, number, volume in zip("cab", (2, 3, 1), volumes, strict=True):
        save(mosaic(volume, InstanceNumber=number), tmp_path / f"{name}.dcm")
    shutil.copy(tmp_path / "a.dcm", tmp_path / "copy.dcm")
    study = reader.load(tmp_path)
    assert [int((image.pixels[0] == volumes[k]).all()) for image, k in zip(study.images, (2, 0, 1), strict=True)] == [
        1
    ] * 3
    assert len(reader.load(tmp_path / "a.dcm", single_slices=True).images) == 5


def test_nothing_of_the_private_header_leaves_the_reader(tmp_path):
    header = csa(
        NumberOfImagesInMosaic=(b"US", ["5"]),
        SliceNormalVector=(b"FD", [*map(str, TILT[2])]),
        Name=(b"LO", ["DOE^JANE"]),
    )
    study = reader.load(save(mosaic(values(), header=header), tmp_path / "a.dcm"))
    assert "DOE" not in repr(study)
    assert set(study.meta) == {"modality"}


@pytest.mark.parametrize(
    ("tags", "error", "says"),
    [
        ({"header": b""}, UnsupportedError, "without the CSA header"),
        ({"header": b"SV10 no"}, InputError, "a CSA header that cannot be read"),
        ({"header": told(5, TILT[2])[:-130]}, InputError, "a CSA header that cannot be read"),
        ({"header": told("many", TILT[2])}, InputError, "a CSA header that cannot be read"),
        ({"header": told(0, TILT[2])}, UnsupportedError, "without the CSA header"),
        ({"header": told(-4, TILT[2])}, InputError, "values that no mosaic has"),
        ({"header": told(5, TILT[2] * np.nan)}, InputError, "values that no mosaic has"),
        ({"header": told(10**9, TILT[2])}, InputError, "values that no mosaic has"),
        ({"header": told(5, TILT[1])}, GeometryError, "stacked askew"),
        ({"header": told(65, TILT[2])}, InputError, "a mosaic of 65 slices in 18 × 12 pixels"),
        ({"header": b"SV10" + b"\0" * 2**18}, InputError, "too long"),
        ({"SpacingBetweenSlices": None}, GeometryError, "without full geometry"),
        ({"ImagePositionPatient": None}, GeometryError, "without full geometry"),
        ({"NumberOfFrames": 2}, UnsupportedError, "several frames"),
    ],
)
def test_mosaics_whose_tiles_are_not_known_are_refused(tmp_path, tags, error, says):
    path = save(mosaic(values(), **tags), tmp_path / "a.dcm")
    with pytest.raises(error, match=says) as caught:
        dicom.read([path])
    assert caught.value.expected
    assert reader.studies(tmp_path) == [(path,)]


def test_a_csa_header_that_walks_backwards_ends(tmp_path):
    item = struct.pack("<4i", 0, -16, 77, 0)
    tag = struct.pack("<64si4s3i", b"a", 1000, b"LO\0\0", 0, 1000, 77)
    header = b"SV10\4\3\2\1" + struct.pack("<2I", 1000, 77) + (tag + item) * 200
    with pytest.raises((InputError, LimitError)):
        dicom.read([save(mosaic(values(), header=header), tmp_path / "a.dcm")])


def test_a_real_header_gives_the_affine_that_nibabel_gives(data_dir):
    path = next(data_dir.rglob("csa_slice_norm.dcm"), None)
    if path is None:
        pytest.skip("needs a real mosaic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental when it is imported
        from nibabel.nicom import csareader, dicomwrappers
    ds = pydicom.dcmread(path)
    across, planes = unfold(path, ds)
    theirs = dicomwrappers.MosaicWrapper(ds)
    count = csareader.get_n_mosaic(csareader.get_csa_header(ds))
    assert (across, len(planes)) == (theirs.mosaic_size, count)
    found = np.array([plane.position for plane in planes])
    assert np.allclose(found, [(theirs.affine @ (0, 0, k, 1))[:3] for k in range(count)], atol=1e-4)
