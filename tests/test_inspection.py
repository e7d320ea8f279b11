"""The table of `fovea inspect`: a row for every file, whatever it is, and no stop at a bad one."""

from __future__ import annotations

import csv
import io
import json
import time

import nibabel
import numpy as np
import pytest
from dicom_files import make, save, series
from PIL import Image as Pillow

from apps import cli, inventory
from apps.inspection import facts, studies
from apps.service import installed_domains
from fovea.errors import InputError

rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Files of every status."""
    root = tmp_path / "root"
    (root / "series").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.png").write_bytes(b"no")
    series(root / "series")
    volume = rng.integers(-900, 1500, (4, 5, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag((2.0, 3, 4, 1))), root / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 0).astype(np.uint8), np.diag((2.0, 3, 4, 1))), root / "ct_seg.nii.gz")
    nibabel.save(nibabel.Nifti1Pair(volume, np.diag((2.0, 3, 4, 1))), root / "pair.hdr")
    Pillow.fromarray(np.kron(NOISE, np.ones((4, 4, 1), np.uint8))).save(root / "smear.jpg")
    Pillow.fromarray((NOISE[..., 0] > 99).astype(np.uint8) * 255).save(root / "lung.png")
    Pillow.fromarray(NOISE[..., 0]).save(root / "gray.png")
    pages = [Pillow.fromarray(NOISE[..., n]) for n in range(3)]
    pages[0].save(root / "pages.tif", save_all=True, append_images=pages[1:])
    (root / "notes.txt").write_text("words")
    (root / "empty.dcm").write_bytes(b"")
    (root / "noise.bin").write_bytes(bytes(range(256)) * 9)
    (root / "cut.dcm").write_bytes(next((root / "series").iterdir()).read_bytes()[:400])
    (root / "cut.png").write_bytes((root / "gray.png").read_bytes()[:200])
    return root


def table(*paths):
    return {row.path: row for row in inventory.inventory(paths, installed_domains())}


def test_every_file_has_its_row(folder):
    rows = table(folder)
    files = [p for p in folder.rglob("*") if p.is_file() and ".hidden" not in p.parts]
    assert set(rows) == {str(p.relative_to(folder)) for p in files}
    wanted = {
        "ct.nii.gz": ("NIfTI", "read"), "ct_seg.nii.gz": ("NIfTI", "companion"), "pair.hdr": ("NIfTI", "read"),
        "pair.img": ("unknown", "companion"), "smear.jpg": ("JPEG", "picture"), "lung.png": ("PNG", "companion"),
        "gray.png": ("PNG", "picture"), "pages.tif": ("TIFF", "picture"), "notes.txt": ("text", "companion"),
        "empty.dcm": ("empty", "refused"), "noise.bin": ("unknown", "refused"), "cut.dcm": ("DICOM", "refused"),
        "cut.png": ("PNG", "refused"),
    }  # fmt: skip
    assert {name: (rows[name].format, rows[name].status) for name in wanted} == wanted
    slices = [row for name, row in rows.items() if name.startswith("series/")]
    assert {(row.format, row.status, row.domains) for row in slices} == {("DICOM", "read", ("radiology",))}
    assert rows["ct.nii.gz"].shape == (6, 5, 4)
    assert rows["ct.nii.gz"].modality == "CT"
    assert rows["ct.nii.gz"].unit == "HU"
    assert rows["ct.nii.gz"].pixel == "2 × 3 mm, 4 mm between slices"
    assert rows["pages.tif"].images == 3
    assert all(row.reason for row in rows.values() if row.status in ("refused", "companion"))
    assert not any(name.split(".")[0] in row.reason for name, row in rows.items() if row.status == "refused")


def test_a_picture_is_no_scene_by_its_colours_alone(folder):
    row = table(folder)["smear.jpg"]
    assert row.status == "picture"
    assert row.domains == ("remote_sensing",), "who would take it by its looks"
    assert not row.modality
    assert inventory.cells(row)[2] == "picture (remote_sensing)"


def test_each_domain_says_that_a_picture_does_not_tell_its_own(folder):
    found = studies(folder / "smear.jpg", installed_domains())
    assert {domain.name for domain, _ in found} == {"radiology", "remote_sensing"}
    for domain, files in found:
        assert "does not tell" in dict(facts(domain, domain.load(files), files))["note"]
    ((domain, files),) = studies(folder / "ct.nii.gz", installed_domains())
    assert "note" not in dict(facts(domain, domain.load(files), files))


def test_several_pages_are_a_mask_only_if_all_are(folder):
    bits = Pillow.fromarray((NOISE[..., 0] > 99).astype(np.uint8) * 255)
    bits.save(folder / "bits.tif", save_all=True, append_images=[bits])
    bits.save(folder / "mixed.tif", save_all=True, append_images=[Pillow.fromarray(NOISE[..., 0])])
    rows = table(folder / "bits.tif", folder / "mixed.tif")
    assert rows["bits.tif"].status == "companion"
    assert (rows["mixed.tif"].status, rows["mixed.tif"].images) == ("picture", 2)


def test_dicom_without_a_picture_is_a_companion(tmp_path):
    ds = make(np.zeros((4, 5), np.uint16), "SR", "1.2.840.10008.5.1.4.1.1.88.11")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(ds, name)
    save(ds, tmp_path / "sr.dcm")
    assert table(tmp_path)["sr.dcm"].status == "companion"


def test_the_table_is_printed_and_leaves_with_zero(folder, capsys):
    for options in ([], ["--json"], ["--csv"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["inspect", "--table", *options, str(folder)])
        assert not caught.value.code
        text = capsys.readouterr().out
        rows = list(table(folder).values())
        if options == ["--json"]:
            assert [json.loads(line)["path"] for line in text.splitlines()] == [row.path for row in rows]
        elif options == ["--csv"]:
            assert [line["status"] for line in csv.DictReader(io.StringIO(text))] == [row.status for row in rows]
        else:
            assert f"{len(rows)} files: " in text
    with pytest.raises(InputError, match="do not exist"):
        table(folder / "nothing")


def test_a_file_named_alone_has_one_row(folder):
    assert list(table(folder / "gray.png", folder / "notes.txt")) == ["gray.png", "notes.txt"]


def test_every_real_file_has_a_row_in_time(data_dir):
    parts = ("med/volume_zoo_nibabel", "med/vol_pyradiomics", "rs/tiff_zoo", "rs/geotiff")
    start = time.perf_counter()
    for part in parts:
        rows = table(data_dir / part)
        assert len(rows) == sum(path.is_file() for path in (data_dir / part).rglob("*"))
        assert all(row.reason or row.shape for row in rows.values())
    assert time.perf_counter() - start < 60
    smears = {file.name: file for file in sorted((data_dir / "med" / "bccd").glob("*.jpg"))[:20]}
    assert {row.status for row in table(*smears.values()).values()} == {"picture"}
