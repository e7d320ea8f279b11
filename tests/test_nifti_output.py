"""Masks as NIfTI: our own reader, and SimpleITK, find the same voxels at the same place."""

from __future__ import annotations

import gzip
import json
import time

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.formats.volumes import volume
from domains.radiology.outputs import nifti
from domains.radiology.vocabulary import TERMS
from fovea.errors import UnsupportedError
from fovea.image import DETECTOR, LPS
from fovea.types import (
    Answer,
    Box,
    Call,
    Channel,
    Finding,
    Grid,
    Image,
    Instance,
    Mask,
    Origin,
    Patch,
    Report,
    Source,
    Study,
)

LABELS = list(TERMS)
BY = Origin("organs", "1")


def turned(seed: int, shape: tuple[int, int, int] = (5, 6, 7)) -> Grid:
    """A grid with axes in any order and direction, somewhat oblique."""
    rng = np.random.default_rng(seed)
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    tilt = np.linalg.qr(np.eye(3) + rng.normal(0, 0.15, (3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * rng.uniform(0.4, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return Grid(affine, LPS, shape)


def finding(label: str, region: object = None, by: Origin = BY, **more: object) -> Finding:
    return Finding(label, TERMS[label].code, True, 0.9, by, region=region, **more)


def report(grids: list[Grid], *findings: Finding) -> Report:
    images = tuple(Image.from_array((Channel("CT", "HU"),), g, np.zeros((1, *g.shape), np.float32)) for g in grids)
    study = Study("radiology", images, Source(("0" * 64,), "test"), {"modality": "CT"})
    return Report(study, (Answer("Report.", "Text.", 0.5, (), (Call("organs", "all", findings),)),), {})


def loaded(path, grid: Grid) -> np.ndarray:
    """The values of a file as our reader has them, brought to the voxels of a grid by their places."""
    image = volume.read(path).images[0]
    every = np.indices(image.grid.shape).reshape(3, -1).T
    index = grid.index(image.grid.world(every))
    np.testing.assert_allclose(index, np.rint(index), atol=2e-3)
    values = np.full(grid.shape, -1)
    values[tuple(np.rint(index).astype(int).T)] = image.pixels[0].ravel()
    return values


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_masks_come_back_on_the_same_voxels(seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nifti")
    grid = turned(seed)
    place = np.random.default_rng(seed).integers(0, 4, grid.shape)
    drawn = [finding(label, Mask(place == n)) for n, label in enumerate(("liver", "spleen", "liver_lesion"), 1)]
    paths = nifti.write(report([grid], *drawn), (), folder)
    assert [path.name for path in paths] == ["findings.nii.gz", "findings.json", "findings.label.txt"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    expected = np.array([0, *(LABELS.index(f.label) + 1 for f in drawn)])[place]
    np.testing.assert_array_equal(loaded(paths[0], grid), expected)
    header = nibabel.load(paths[0]).header
    assert (header.get_data_dtype(), header.get_intent()[0], header["sform_code"]) == (np.uint8, "label", 1)
    assert volume.read(paths[0]).meta == {"content": "label map"}


def test_another_toolkit_sees_the_same_place(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    grid = turned(3)
    mask = np.zeros(grid.shape, bool)
    mask[1, 2, 3] = True
    (path, *_) = nifti.write(report([grid], finding("liver", Mask(mask))), (), tmp_path)
    image = itk.ReadImage(str(path))
    index = [int(n) for n in np.argwhere(itk.GetArrayFromImage(image))[0][::-1]]
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint(index), grid.world(np.array([[1, 2, 3]]))[0], atol=1e-3
    )


def test_a_sheared_grid_is_kept_by_the_affine_alone(tmp_path):
    affine = np.eye(4)
    affine[0, 2] = 0.6  # a tilted gantry
    mask = np.zeros((4, 5, 6), bool)
    mask[2:, 1:3] = True
    grid = Grid(affine, LPS, mask.shape)
    (path, *_) = nifti.write(report([grid], finding("liver", Mask(mask))), (), tmp_path)
    header = nibabel.load(path).header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    np.testing.assert_array_equal(loaded(path, grid) > 0, mask)


def test_overlapping_labels_and_two_experts_stand_in_files_of_their_own(tmp_path):
    grid = turned(1)
    whole, part = np.ones(grid.shape, bool), np.zeros(grid.shape, bool)
    part[2] = True
    paths = nifti.write(
        report([grid], finding("liver", Mask(whole)), finding("liver_lesion", Mask(part))), (), tmp_path
    )
    assert [p.name for p in paths if p.suffix == ".gz"] == ["findings-liver.nii.gz", "findings-liver_lesion.nii.gz"]
    for path, mask in zip(paths[::3], (whole, part), strict=True):
        np.testing.assert_array_equal(loaded(path, grid) > 0, mask)
    twice = [finding("spleen", Mask(m), Origin(name, "1")) for m, name in ((part, "a"), (~part, "b"))]
    paths = nifti.write(report([grid], *twice), (), tmp_path)
    assert [p.name for p in paths if p.suffix == ".gz"] == ["findings-spleen-1.nii.gz", "findings-spleen-2.nii.gz"]


def test_objects_and_further_images(tmp_path):
    grids = [turned(1), turned(2)]
    patch = Patch((1, 2, 3), np.ones((2, 2, 2), bool))
    lesion = finding(
        "liver_lesion", image=1, instances=(Instance(patch, 0.8), Instance(Box((0, 0, 0), (1, 1, 1)), 0.5))
    )
    paths = nifti.write(report(grids, lesion), (), tmp_path)
    assert [path.name for path in paths] == [f"image-2-findings.{e}" for e in ("nii.gz", "json", "label.txt")]
    mask = np.zeros(grids[1].shape, bool)
    mask[1:3, 2:4, 3:5] = True
    np.testing.assert_array_equal(loaded(paths[0], grids[1]) > 0, mask)


def test_names_codes_and_colours_stand_beside_the_volume_and_no_clock_in_it(tmp_path):
    grid = turned(4)
    given_report = report([grid], finding("spleen", Mask(np.ones(grid.shape, bool))))
    paths = nifti.write(given_report, (), tmp_path)
    before = [path.read_bytes() for path in paths]
    (label,) = json.loads(before[1])["labels"]
    assert label == {
        "value": LABELS.index("spleen") + 1, "label": "spleen", "score": 0.9, "by": "organs@1",
        "code": {"scheme": "SCT", "value": "78961009", "meaning": "Splenic structure"},
        "color": list(TERMS["spleen"].color),
    }  # fmt: skip
    rows = [line.split() for line in before[2].decode().splitlines()]
    assert rows[1] == [str(label["value"]), *map(str, label["color"]), "1", "1", "1", '"spleen"']
    time.sleep(1.1)
    assert [path.read_bytes() for path in nifti.write(given_report, (), tmp_path)] == before
    assert b"spleen" not in gzip.decompress(before[0])


def test_what_lies_in_no_patient_is_refused(tmp_path):
    flat = Grid(np.eye(4), DETECTOR, (1, 5, 5))
    for given_report in (
        report([flat], finding("heart", Mask(np.ones((1, 5, 5), bool)))),
        report([turned(0)], finding("liver", Box((0, 0, 0), (1, 1, 1)))),
        report([turned(0)]),
    ):
        with pytest.raises(UnsupportedError, match="mask"):
            nifti.write(given_report, (), tmp_path)
    assert not list(tmp_path.iterdir())
