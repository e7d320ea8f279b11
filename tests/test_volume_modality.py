"""What a volume shows is told by its file, the caller, its sidecar or its name; a guess is called one."""

from __future__ import annotations

import json

import nibabel
import nrrd
import numpy as np
import pytest

from apps import inspection, inventory
from apps.report.document import to_document
from apps.service import installed_domains
from domains.formats.volumes import bids
from domains.radiology import reader
from domains.radiology.plugin import Radiology
from fovea.errors import InputError
from fovea.types import Report

rng = np.random.default_rng(0)
HU = rng.integers(-1000, 1500, (4, 5, 6)).astype(np.int16)


def nifti(folder, name="a.nii.gz", data=HU):
    nibabel.save(nibabel.Nifti1Image(data, np.diag((1.0, 2, 3, 1))), folder / name)
    return folder / name


def sidecar(path, facts):
    place = path.with_name(path.name.split(".")[0] + ".json")
    place.write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return path


def told(path, **options):
    meta = reader.load(path, **options).meta
    return meta["modality"], meta.get("modality_from")


def test_values_are_a_guess_and_said_to_be_one(tmp_path):
    assert told(nifti(tmp_path)) == ("CT", "values")
    assert told(nifti(tmp_path, data=np.abs(HU))) == ("MR", "values")
    assert reader.load(nifti(tmp_path)).images[0].channels[0].unit == "HU"


def test_the_caller_the_sidecar_and_the_name_come_before_the_values(tmp_path):
    path = nifti(tmp_path, "sub-01_ses-2_T1w.nii.gz")
    assert told(path) == ("MR", "file name")
    assert told(sidecar(path, {"Modality": "PT"})) == ("PT", "sidecar")
    assert told(path, modality="CT") == ("CT", "caller")
    assert reader.load(path).images[0].channels[0].unit == ""
    assert reader.load(path, modality="CT").images[0].channels[0].unit == "HU"


def test_a_file_that_says_it_is_believed_first(tmp_path):
    nrrd.write(str(tmp_path / "sub-01_T1w.nrrd"), HU, {"sample units": "HU"})
    assert told(sidecar(tmp_path / "sub-01_T1w.nrrd", {"Modality": "MR"}), modality="MR") == ("CT", None)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sub-01_T1w.nii", "MR"), ("sub-01_run-1_FLAIR.nii.gz", "MR"), ("sub-x_task-rest_bold.nii.gz", "MR"),
        ("sub-01_dir-AP_dwi.nii.gz", "MR"), ("sub-01_ct.nii.gz", "CT"), ("sub-01_trc-FDG_pet.nii.gz", "PT"),
        ("sub-01_T1w_mask.nii.gz", ""), ("sub-01_ct_seg-manual.nii.gz", ""), ("patient_ct.nii.gz", ""),
        ("T1w.nii.gz", ""), ("sub-01_t1W.nii.gz", ""), ("sub-01.nii.gz", ""),
    ],
)  # fmt: skip
def test_only_names_after_bids_tell(tmp_path, name, wanted):
    assert bids.modality(tmp_path / name) == (wanted, "file name" if wanted else "")


def test_a_sidecar_tells_the_modality_and_nothing_else(tmp_path):
    path = nifti(tmp_path, "a.b.nii.gz")
    (tmp_path / "a.b.json").write_text(json.dumps({"Modality": "MR", "PatientName": "DOE^JANE", "BodyPart": "HEAD"}))
    study = reader.load(path)
    assert study.meta == {"modality": "MR", "modality_from": "sidecar"}
    assert "DOE" not in f"{study} {study.source}"


def test_json_that_is_no_sidecar_is_left_alone(tmp_path):
    path = nifti(tmp_path)
    for facts in ([1, 2], {"EchoTime": 3}, {"modality": "MR"}, {"Modality": "MR", "notes": "-" * 2**20}):
        assert told(sidecar(path, facts)) == ("CT", "values")


def test_a_word_that_is_no_modality_is_refused(tmp_path):
    path = nifti(tmp_path)
    for facts in ({"Modality": "MRI of DOE^JANE"}, {"Modality": ["MR"]}, {"Modality": None}, "{", "[" * 10**5):
        with pytest.raises(InputError) as caught:
            reader.load(sidecar(path, facts))
        assert "DOE" not in str(caught.value)
        assert "a.json" not in str(caught.value)
    with pytest.raises(InputError, match="CT, MR"):
        reader.load(path, modality="MRI")


def test_what_is_told_is_read_lazily_and_another_study(tmp_path):
    path = nifti(tmp_path)
    studies = [reader.load(path), *(reader.load(path, modality=word) for word in ("CT", "MR"))]
    assert len({study.digest for study in studies}) == 3, "caches and reports of one are not those of the other"
    assert reader.load(path, modality="MR").digest == reader.load(sidecar(path, {"Modality": "MR"})).digest
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(path.read_bytes()[:-40])
    assert reader.load(cut, modality="CT").modality == "CT"
    with pytest.raises(InputError):
        reader.load(cut)


def test_colour_is_never_in_hounsfield_units(tmp_path):
    packed = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    study = reader.load(nifti(tmp_path, data=packed), modality="CT")
    assert [channel.name for channel in study.images[0].channels] == ["red", "green", "blue"]


def test_inspect_and_report_say_that_it_is_a_guess(tmp_path):
    path = nifti(tmp_path)
    study = reader.load(path)
    assert ("modality_from", "values") in inspection.facts(Radiology(), study)
    (row,) = inventory.inventory([path], installed_domains())
    assert (row.modality, row.modality_from) == ("CT", "values")
    assert inventory.cells(row)[3].startswith("CT by its values, ")
    (row,) = inventory.inventory([nifti(tmp_path, "sub-01_ct.nii.gz")], installed_domains())
    assert inventory.cells(row)[3].startswith("CT, ")
    document = to_document(Radiology(), Report(study, (), {}), "key")
    assert document["study"]["meta"]["modality_from"] == "values"
    assert to_document(Radiology(), Report(reader.load(path, modality="MR"), (), {}), "")["study"]["source"][
        "reader"
    ] == ("radiology-volume/2 as MR")
