"""Pixels and places of real files equal those of pydicom, SimpleITK, nibabel and GDAL; the script runs all of them."""

from __future__ import annotations

import time
import warnings
from collections import Counter

import numpy as np
import pytest

from benchmarks.agreement import table, verdict
from benchmarks.likeness import Differs, itk
from domains.radiology import reader

references = pytest.importorskip("benchmarks.references")
pytest.importorskip("SimpleITK")

PARTS = {
    "med/dicom_series/**/*": 6,
    "med/dicom_zoo/**/*.dcm": 30,
    "med/dicom_zoo/**/*.nrrd": 5,
    "med/vol_ivadomed/**/*.nii.gz": 2,
    "med/vol_pyradiomics/*": 4,
    "med/volume_zoo_nibabel/*": 85,
    "med/cxr_seg/*": 6,
    "rs/geotiff/**/*.tif": 25,
    "rs/tiff_zoo/**/*.tif*": 35,
    "rs/dubai_chips/*.jpg": 6,
}
"""Patterns below the folder of real files, and how many files of each are compared, spread evenly."""
DEADLY = ("crash-", "segfault", "oom-", "seek_too_large", "invalid_header")
"""References may die or hang of these; the script reads each file in a child process."""


@pytest.fixture(scope="module")
def rows(data_dir):
    found = []
    start = time.perf_counter()
    for pattern, count in PARTS.items():
        files = sorted(path for path in data_dir.glob(pattern) if path.is_file())
        files = [path for path in files if not any(word in path.name for word in DEADLY)]
        for path in files[:: max(1, len(files) // count)]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append({**references.compare(path), "path": path.name})
    assert time.perf_counter() - start < 45
    return found


APART = {
    "JPGExtended.dcm": "lossy JPEG of 12 bits, where decoders may differ by a level; dcmtk sides with SimpleITK",
    "SC_rgb_rle_16bit.dcm": "SimpleITK alone; dcmtk and the same picture uncompressed side with us",
    "SC_rgb_rle_16bit_2frame.dcm": "as above",
    "SC_rgb_rle_32bit.dcm": "as above",
    "SC_rgb_rle_32bit_2frame.dcm": "as above",
    "rtdose_expb.dcm": "32 bits as big-endian words: SimpleITK and dcmtk swap words, we read what rtdose.dcm holds",
    "8bit.s.tif": "Pillow reads signed bytes as unsigned",
}
"""Files of which the references disagree among themselves, and why."""


def test_nothing_that_is_read_differs_from_its_references(rows):
    unlike = {row["path"]: row["references"] for row in rows if verdict(row) == "differ"}
    assert not unlike
    split = {row["path"]: row["references"] for row in rows if verdict(row) == "split"}
    assert not {path: said for path, said in split.items() if path not in APART}


def test_most_real_files_are_confirmed_by_another_library(rows):
    counts = Counter(verdict(row) for row in rows)
    assert counts["agree"] > 70, table(rows)
    assert counts["agree"] > 3 * counts["same library"], table(rows)


def test_a_witness_that_is_our_own_decoder_is_none():
    said = {"pydicom": "exact", "SimpleITK": "cannot read: RuntimeError"}
    row = {"ours": "read", "library": "pydicom", "references": said}
    assert verdict(row) == "same library"
    assert verdict(row | {"references": said | {"SimpleITK": "rounded"}}) == "agree"
    assert verdict(row | {"references": said | {"SimpleITK": "differs: values"}}) == "split"
    assert verdict(row | {"references": {"SimpleITK": "differs: values"}}) == "differ"


@pytest.mark.parametrize(
    "names",
    [
        ("OBXXXX1A", "OBXXXX1A_expb"),
        ("OBXXXX1A_2frame", "OBXXXX1A_expb_2frame"),
        ("gdcm-US-ALOKA-16", "gdcm-US-ALOKA-16_big"),
    ],
)
def test_a_palette_has_the_same_colours_in_both_byte_orders(data_dir, names):
    """The last pair has segmented tables, whose words pydicom swaps by itself."""
    folder = data_dir / "med" / "dicom_zoo" / "dicom_pydicom_data" / "data_store" / "data"
    little, big = (reader.load(folder / f"{name}.dcm").images[0].pixels for name in names)
    np.testing.assert_allclose(big, little, atol=1 / 255)


def test_volumes_have_the_values_and_places_of_their_references(rows):
    volumes = [row for row in rows if row["format"] in references.VOLUMES]
    assert {row["format"] for row in volumes if row["ours"] == "read"} >= {"NIfTI", "NRRD", "MGH", "MINC 1", "AFNI"}
    said = [text for row in volumes if row["ours"] == "read" for text in row["references"].values()]
    assert {text for text in said if not text.startswith("cannot read")} <= {"exact", "rounded"}


def test_what_references_read_and_we_do_not_is_named(rows):
    for row in rows:
        if verdict(row) == "gap":
            assert row["ours"].startswith(("UnsupportedError", "GeometryError", "InputError"))
            assert row["path"] not in row["ours"]


def test_a_wrong_value_and_a_wrong_place_are_seen(data_dir):
    path = data_dir / "med" / "vol_pyradiomics" / "brain1_image.nrrd"
    study = references._ours(path, "NRRD")
    values, affine = itk(path)
    assert references._volume(study, (values, affine)) == "exact"
    moved = affine.copy()
    moved[0, 3] += 2e-4
    with pytest.raises(Differs, match="apart"):
        references._volume(study, (values, moved))
    with pytest.raises(Differs, match="values"):
        references._volume(study, (values + (values > 100), affine))
    with pytest.raises(Differs, match=r"apart|outside"):
        references._volume(study, (values[::-1], affine @ [[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
