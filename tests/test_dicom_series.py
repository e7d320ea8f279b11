"""What a folder of slices holds: stacks told apart, copies counted once, tilted gantries, single slices when asked."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
from dicom_files import AXIAL, ENHANCED_CT, PLANE, enhanced, make, rng, save, series
from pydicom.uid import generate_uid

from domains.formats import dicom
from domains.radiology import reader
from fovea.errors import GeometryError


def places(study):
    return sorted(path.name for path in study)


def interleaved(folder, **differs):
    """Two stacks at the same positions in one series; `differs` gives an element its value in the first and second."""
    values = rng.integers(0, 900, (8, 6, 5)).astype(np.int16)
    for index in range(8):
        turn = index % 2
        ds = make(
            values[index],
            ImagePositionPatient=[0, 0, 2.0 * (index // 2)],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            SliceThickness=2,
            InstanceNumber=index + 1,
            **{name: both[turn] for name, both in differs.items()},
        )
        save(ds, folder / f"{index}.dcm")
    return values - 1024


@pytest.mark.parametrize(
    "differs",
    [
        {"EchoTime": (2.5, 80)},
        {"DiffusionBValue": (0.0, 1000.0)},
        {"DiffusionGradientOrientation": ([1.0, 0, 0], [0, 1.0, 0])},
        {"TemporalPositionIdentifier": (1, 2)},
        {"AcquisitionNumber": (1, 2)},
        {"TriggerTime": (0, 400)},
        {"ConvolutionKernel": ("B30f", "B60f")},
        {"ImageType": (["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "LOCALIZER"])},
        {},
    ],
    ids=str,
)
def test_stacks_of_one_series_are_told_apart(tmp_path, differs):
    values = interleaved(tmp_path, **differs)
    first, second = reader.studies(tmp_path)
    assert [places(first), places(second)] == [[f"{n}.dcm" for n in range(turn, 8, 2)] for turn in (0, 1)]
    for turn, study in enumerate((first, second)):
        image = reader.load(study).images[0]
        assert np.array_equal(image.pixels[0], values[turn::2])


def test_a_copy_of_a_slice_counts_once_and_another_picture_at_its_place_does_not(tmp_path):
    files, values = series(tmp_path)
    shutil.copy(files[2], tmp_path / "copy.dcm")
    (study,) = reader.studies(tmp_path)
    assert reader.load(study).images[0].grid.shape[0] == len(values)
    other = make(np.zeros((6, 8), np.int16), **PLANE)
    other.SOPInstanceUID = generate_uid()
    assert len(reader.studies(tmp_path)) == 1
    save(other, tmp_path / "elsewhere.dcm")
    assert len(reader.studies(tmp_path)) == 2  # of another pixel size


@pytest.mark.parametrize("degrees", [-20, 3, 25])
def test_a_tilted_gantry_keeps_every_pixel_in_its_place(tmp_path, degrees):
    across, down = np.array([1.0, 0, 0]), np.array([0, np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    normal = np.cross(across, down)
    table = np.array([0, 0, 2.5])
    files, values = series(tmp_path, axes=(across, down, normal), shift=table - 2.5 * normal, spacing=(2.5, 0.7, 0.9))
    image = dicom.read(files).images[0]
    assert np.array_equal(np.unique(image.pixels), np.unique(values - 1024))
    order = 1 if np.dot(table, normal) > 0 else -1
    for index in range(5):
        at = np.array([-100.0, -80.0, 30.0]) + index * table + 3 * 0.7 * down + 4 * 0.9 * across
        found = image.grid.index(at[None])[0]
        assert np.allclose(found, (index if order > 0 else 4 - index, 3, 4), atol=1e-6)
    voxel = abs(np.linalg.det(image.grid.affine[:3, :3]))
    assert np.isclose(voxel, 0.7 * 0.9 * 2.5 * abs(np.dot(table / 2.5, normal)))


def test_slices_that_make_no_volume_are_read_one_by_one_when_asked(tmp_path):
    def uneven(ds, number):
        if number == 3:
            ds.ImagePositionPatient = [-100, -80, 30 + 3 * 2.5 + 1]

    files, values = series(tmp_path, edit=uneven)
    with pytest.raises(GeometryError, match="slices"):
        reader.load(tmp_path)
    study = reader.load(tmp_path, single_slices=True)
    assert len(study.images) == 5
    for path, image, slice_ in zip(files, study.images, values, strict=True):
        assert image.grid.shape == (1, 6, 8)
        assert np.array_equal(image.pixels[0, 0], slice_ - 1024)
        assert image.grid.affine[2, 3] == dicom.read_header(path).planes[0].position[2]


def test_a_multi_frame_file_of_several_orientations_is_several_images(tmp_path):
    values = rng.integers(0, 100, (4, 5, 6)).astype(np.int16)
    ds = enhanced(values, np.arange(4))
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence
    del shared.PlaneOrientationSequence
    for frame, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlaneOrientationSequence = [copy.deepcopy(orientation[0])]
        turn = [1, 0, 0, 0, 1, 0] if frame < 2 else [0, 1, 0, 0, 0, -1]
        group.PlaneOrientationSequence[0].ImageOrientationPatient = turn
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 3 * frame] if frame < 2 else [3 * frame, 0, 0]
    axial, sagittal = dicom.read([save(ds, tmp_path / "a.dcm")]).images
    assert ds.SOPClassUID == ENHANCED_CT
    assert np.allclose(axial.grid.affine[:3, 2], (0, 0, 3))
    assert abs(sagittal.grid.affine[0, 2]) == 3
    assert len(dicom.read([tmp_path / "a.dcm"], single_slices=True).images) == 4


def test_the_order_of_files_and_their_names_do_not_matter(tmp_path):
    files, _ = series(tmp_path, axes=AXIAL)
    there, back = dicom.read(files), dicom.read(files[::-1])
    assert tuple(there.hashes) == tuple(back.hashes)
    assert np.array_equal(there.images[0].pixels, back.images[0].pixels)
