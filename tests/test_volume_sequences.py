"""MR sequences of one head: volumes that are told apart by their names are one study, an image each."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from domains.formats.volumes import bids
from domains.radiology import reader
from fovea.errors import GeometryError, InputError

BRATS = ("case_flair.nii.gz", "case_t1.nii.gz", "case_t1ce.nii.gz", "case_t2.nii.gz")
AFFINE = np.diag((1.0, 2.0, 3.0, 1.0))


def saved(folder, *names, affine=AFFINE, seed=0):
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        values = np.random.default_rng(seed + place).integers(0, 900, (5, 6, 4)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / name)
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("BraTS20_Training_001_t1ce.nii.gz", ("BraTS20_Training_001", "T1c")),
        ("BraTS-GLI-00008-100-t2f.nii.gz", ("BraTS-GLI-00008-100", "FLAIR")),
        ("BraTS-GLI-00008-100-seg.nii.gz", ("BraTS-GLI-00008-100", bids.MAP)),
        ("sub-01_ses-2_T1w.nii", ("sub-01_ses-2", "T1")),
        ("sub-01_ses-2_ce-gadolinium_T1w.nii", ("sub-01_ses-2", "T1c")),
        ("sub-01_ses-2_ce-gadolinium_FLAIR.nrrd", ("sub-01_ses-2", "FLAIR")),
        ("sub-01_bold.nii.gz", ("", "")),
        ("t1.nii.gz", ("", "")),
        ("liver_1.nii.gz", ("", "")),
    ],
)
def test_a_name_tells_the_sequence(tmp_path, name, told):
    assert bids.sequence(tmp_path / name) == told


def test_the_four_images_of_a_case_are_one_study(tmp_path):
    files = saved(tmp_path / "case", *BRATS)
    saved(tmp_path / "case", "case_seg.nii.gz")
    assert reader.studies(tmp_path) == [tuple(files)]
    whole = reader.load(tmp_path)
    assert [image.channels[0].name for image in whole.images] == ["T1", "T1c", "T2", "FLAIR"]
    assert whole.meta == {"modality": "MR", "modality_from": "file name"}
    for image, name in zip(whole.images, (BRATS[1], BRATS[2], BRATS[3], BRATS[0]), strict=True):
        alone = reader.load(tmp_path / "case" / name).images[0]
        np.testing.assert_array_equal(image.pixels, alone.pixels)
        assert image.grid.same(alone.grid)
    assert reader.load(files[::-1]).digest == whole.digest


def test_another_sequence_of_the_same_bytes_is_another_study(tmp_path):
    one = reader.load(saved(tmp_path / "one", "case_t1.nii", "case_t2.nii"))
    other = reader.load(saved(tmp_path / "other", "case_t1ce.nii", "case_t2.nii"))
    assert one.source.hashes == other.source.hashes
    assert one.digest != other.digest


def test_volumes_on_grids_of_their_own_stay_alone(tmp_path):
    files = saved(tmp_path / "a", "sub-1_FLAIR.nii")
    files += saved(tmp_path / "a", "sub-1_T1w.nii", affine=AFFINE + np.diag((0, 0, 0.1, 0)))
    assert reader.studies(tmp_path) == [(file,) for file in files]
    with pytest.raises(GeometryError, match="one grid"):
        reader.load(files)


@pytest.mark.parametrize("names", [("a_t1.nii", "a_t1n.nii"), ("a_t1.nii", "a_pet.nii"), ("a_t1.nii", "a_seg.nii")])
def test_what_names_do_not_tell_apart_stays_alone(tmp_path, names):
    files = saved(tmp_path / "a", *names)
    assert reader.studies(tmp_path) == sorted((file,) for file in files)
    with pytest.raises(InputError, match="MR sequences"):
        reader.load(files)


def test_cases_and_folders_are_kept_apart(tmp_path):
    names = ("a_t1.nii", "a_t2.nii", "b_t1.nii", "b_t2.nii")
    files = saved(tmp_path / "x", *names) + saved(tmp_path / "y", "a_flair.nii", "a_t1ce.nii")
    assert reader.studies(tmp_path) == [tuple(files[:2]), tuple(files[2:4]), tuple(files[4:])]


def test_a_broken_volume_among_them_is_told(tmp_path):
    files = saved(tmp_path / "a", "a_t1.nii", "a_t2.nii", "a_flair.nii")
    files[1].write_bytes(files[1].read_bytes()[:400])
    assert sorted(path for study in reader.studies(tmp_path) for path in study) == sorted(files)
    with pytest.raises(InputError):
        print([image.pixels for image in reader.load(files).images])


def test_what_is_no_mr_is_refused_among_them(tmp_path):
    files = saved(tmp_path / "a", *BRATS[:2])
    (tmp_path / "a" / "case_t1.json").write_text('{"Modality": "PT"}')
    with pytest.raises(InputError, match="PT among MR"):
        reader.load(files)
    with pytest.raises(InputError):
        reader.load(files, modality="CT")
