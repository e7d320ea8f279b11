"""Files of the radiology domain beside DICOM: NIfTI and pictures, and how studies are found in folders."""

from __future__ import annotations

import time
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from dicom_files import make, save, series
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from domains.formats import content, picture
from domains.radiology import reader
from domains.radiology.plugin import Radiology
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.types import (
    LPS,
    PIXEL,
    View,
)

DOMAIN = Radiology()
rng = np.random.default_rng(0)


# NIfTI


def nifti(path, data, affine=None, **header):
    image = nibabel.Nifti1Image(data, np.diag((2.0, 3.0, 4.0, 1.0)) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def test_nifti_and_dicom_of_one_volume_agree(tmp_path):
    files, values = series(tmp_path)
    from_dicom = reader.load(files).images[0]
    data = np.ascontiguousarray(values.T - 1024).astype(np.int16)
    affine = np.diag((-1, -1, 1, 1)) @ from_dicom.grid.affine
    study = reader.load(nifti(tmp_path / "a.nii.gz", data, affine))
    (image,) = study.images
    assert study.modality == "CT"
    assert image.channels == from_dicom.channels
    np.testing.assert_array_equal(image.pixels, from_dicom.pixels)
    np.testing.assert_allclose(image.grid.affine, from_dicom.grid.affine, atol=1e-4)
    assert image.grid.frame == LPS


def test_nifti_in_any_orientation_is_one_image(tmp_path):
    data = rng.integers(0, 1000, (3, 4, 5)).astype(np.int16)
    affine = np.array([[2.0, 0.1, 0, -9], [-0.1, 3, 0.2, -5], [0, -0.2, 4, 7], [0, 0, 0, 1]])
    plain = reader.load(nifti(tmp_path / "plain.nii", data, affine)).images[0]
    assert reader.load(tmp_path / "plain.nii").modality == "MR"
    assert all(plain.grid.affine[axis, axis] > 0 for axis in range(3))
    for axes, flips in product(permutations(range(3)), ((1, 1, 1), (-1, 1, 1), (1, -1, -1))):
        turn = nibabel.orientations.inv_ornt_aff(np.array(list(zip(axes, flips, strict=True))), data.shape)
        turned = nibabel.orientations.apply_orientation(data, np.array(list(zip(axes, flips, strict=True))))
        image = reader.load(nifti(tmp_path / "turned.nii", turned, affine @ turn)).images[0]
        np.testing.assert_allclose(image.grid.affine, plain.grid.affine, atol=1e-4)
        np.testing.assert_array_equal(image.pixels, plain.pixels)


def test_nifti_scales_units_volumes_and_invalid_values(tmp_path):
    data = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    data[0, 0, 0, 1] = np.nan
    image = nibabel.Nifti1Image(data, np.diag((0.002, 0.002, 0.004, 1)))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    study = reader.load(tmp_path / "a.nii")
    assert len(study.images) == 2
    np.testing.assert_allclose(study.images[0].grid.spacing, (4, 2, 2), rtol=1e-5)
    assert study.images[0].valid.all()
    assert (~study.images[1].valid).sum() == 1
    assert np.isfinite(study.images[1].pixels).all()
    scaled = nifti(tmp_path / "b.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    raw = bytearray(scaled.read_bytes())
    raw[112:120] = np.array([0.5, -10], "<f4").tobytes()  # scl_slope, scl_inter
    scaled.write_bytes(raw)
    assert reader.load(scaled).images[0].pixels.max() == 1.5


def test_nifti_without_a_place_or_of_another_kind_is_refused(tmp_path):
    data = np.zeros((2, 3, 4), np.int16)
    lost = nibabel.Nifti1Image(data, np.eye(4))
    lost.header["sform_code"] = lost.header["qform_code"] = 0
    lost.set_sform(None, 0)
    lost.set_qform(None, 0)
    nibabel.save(lost, tmp_path / "lost.nii")
    with pytest.raises(GeometryError, match="sform"):
        reader.load(tmp_path / "lost.nii")
    with pytest.raises(UnsupportedError):
        reader.load(nifti(tmp_path / "other.nii", np.zeros((2, 3, 4), np.complex64)))
    whole = nifti(tmp_path / "cut.nii.gz", rng.integers(0, 999, (20, 20, 20)).astype(np.int16))
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(InputError):
        _ = reader.load(whole).images[0].pixels


def test_a_declared_nifti_is_checked_before_it_is_read(tmp_path, monkeypatch):
    path = nifti(tmp_path / "a.nii", np.zeros((20, 20, 20), np.int16))
    monkeypatch.setattr(content, "LIMIT", 1000)
    with pytest.raises(LimitError, match="20 × 20 × 20"):
        reader.load(path)


# pictures


def test_pictures_keep_their_depth(tmp_path):
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        values = rng.integers(0, top + 1, (6, 9)).astype(dtype)
        Pillow.fromarray(values).save(tmp_path / "a.png")
        study = reader.load(tmp_path / "a.png")
        (image,) = study.images
        assert (image.grid.frame, image.grid.shape, study.modality) == (PIXEL, (1, 6, 9), "DX")
        np.testing.assert_allclose(image.pixels[0, 0], values / top, atol=1e-6)


def test_colours_are_kept_where_they_are_wanted(tmp_path):
    values = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    Pillow.fromarray(values).save(tmp_path / "a.png")
    image = picture.read(tmp_path / "a.png").images[0]
    np.testing.assert_allclose(image.pixels[:, 0], np.moveaxis(values, -1, 0) / 255, atol=1e-6)
    assert [c.name for c in image.channels] == ["red", "green", "blue"]
    assert [c.name for c in reader.load(tmp_path / "a.png").images[0].channels] == ["intensity"]


def test_a_rotation_in_exif_is_applied_and_nothing_else_of_it_kept(tmp_path):
    values = rng.integers(0, 256, (6, 9)).astype(np.uint8)
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010E], exif[0x013B] = 6, "DOE JANE", "DOE JANE"
    Pillow.fromarray(values).save(tmp_path / "a.png", exif=exif)
    study = reader.load(tmp_path / "a.png")
    assert study.images[0].grid.shape == (1, 9, 6)
    np.testing.assert_allclose(study.images[0].pixels[0, 0], np.rot90(values, -1) / 255, atol=1e-6)
    assert "DOE" not in repr(study) + repr(study.images[0])


def test_pictures_that_are_none_are_refused(tmp_path, monkeypatch):
    frames = [Pillow.fromarray(np.full((4, 4), n, np.uint8)) for n in (1, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    Pillow.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for file in ("film.gif", "float.tif"):
        with pytest.raises(UnsupportedError):
            reader.load(tmp_path / file)
    Pillow.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        _ = reader.load(tmp_path / "a.png").images[0].pixels
    (tmp_path / "a.png").write_bytes(whole)
    for limits in ((content, "LIMIT"), (Pillow, "MAX_IMAGE_PIXELS")):
        with monkeypatch.context() as patch:
            patch.setattr(*limits, 1000)
            with pytest.raises(LimitError):
                reader.load(tmp_path / "a.png")


# finding


def test_only_what_looks_radiological_is_found(tmp_path):
    gray = rng.integers(0, 256, (80, 80)).astype(np.uint8)
    noise = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8)
    tinted = np.stack([gray, gray, (gray * 0.98).astype(np.uint8)], -1)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550], tags[33922] = (1.0, 1.0, 0.0), (0.0,) * 6
    tags.tagtype[33550] = tags.tagtype[33922] = 12
    Pillow.fromarray(gray).save(tmp_path / "gray.jpg")
    Pillow.fromarray(tinted).save(tmp_path / "tinted.png")
    Pillow.fromarray((gray > 99).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    Pillow.fromarray(np.kron(noise[:8, :8], np.ones((10, 10, 1), np.uint8))).save(tmp_path / "colour.png")
    Pillow.fromarray(gray).save(tmp_path / "map.tif", tiffinfo=tags)
    Pillow.fromarray(gray).save(tmp_path / "plain.tif")
    (tmp_path / "note.txt").write_text("no study")
    (tmp_path / "empty").write_bytes(b"")
    nifti(tmp_path / "volume.nii", np.zeros((2, 3, 4), np.int16))
    found = {path.name for path in tmp_path.iterdir() if reader.sniff(path)}
    assert found == {"gray.jpg", "tinted.png", "plain.tif", "volume.nii"}
    assert {study[0].name for study in reader.studies(tmp_path)} == found
    assert reader.sniff(tmp_path)
    for name in ("colour.png", "mask.png"):
        assert reader.studies(tmp_path / name) == [(tmp_path / name,)], "who names a file says that it is ours"
    assert not reader.studies(tmp_path / "map.tif")


def test_a_folder_is_grouped_into_studies(tmp_path):
    for part in ("b", "a"):
        (tmp_path / part).mkdir()
    files, _ = series(tmp_path / "b")
    other, _ = series(tmp_path / "a", edit=lambda ds, n: setattr(ds, "SeriesInstanceUID", "9.9"))
    (tmp_path / "b" / "cut.dcm").write_bytes(files[0].read_bytes()[:300])
    views = [
        save(make(np.zeros((4, 5), np.uint16), "DX", "1.2.840.10008.5.1.4.1.1.1.1"), tmp_path / f"{n}.dcm")
        for n in "xy"
    ]
    nifti(tmp_path / "v.nii.gz", np.zeros((2, 3, 4), np.int16))
    found = reader.studies(tmp_path)
    assert sorted(map(len, found)) == [1, 1, 1, 1, 5, 5]
    assert tuple(files) in found
    assert tuple(other) in found
    assert all((view,) in found for view in views)
    assert found == sorted(found, key=lambda study: study[0])
    assert reader.load(tmp_path / "a").digest == reader.load(other).digest
    for bad in (tmp_path, [], [*files, tmp_path / "v.nii.gz"], tmp_path / "nothing"):
        with pytest.raises(InputError):
            reader.load(bad)


def test_every_real_file_gives_an_image_or_a_reason(data_dir):
    folder, start, read, reasons = data_dir / "med", time.perf_counter(), 0, []
    parts = ("dicom_zoo", "dicom_series", "vol_ivadomed", "vol_pyradiomics", "volume_zoo_nibabel")
    found = [study for part in parts for study in reader.studies(folder / part)]
    found += [(path,) for path in sorted((folder / "cxr_findings").glob("*.jpg"))[::12]]
    for paths in found:
        try:
            study = reader.load(paths)
            for image in study.images:
                assert np.isfinite(image.pixels).all()
            assert DOMAIN.render(study, View(size=64)).panels
            assert DOMAIN.describe(study)
            read += 1
        except InputError as error:
            reasons.append((paths[0].name, str(error)))
    assert read > 120
    assert len(reasons) > 100
    assert not [reason for file, reason in reasons if not reason or file in reason]
    assert time.perf_counter() - start < 60
