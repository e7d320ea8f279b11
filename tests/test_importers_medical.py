"""Importers of medical sets, each on a small set in the layout of the original."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from medical_sets import REPORT, SETS, chestxray14, table, volume

from curriculum.data.importers import ImportedSet, import_set, importer, load_records, names
from curriculum.data.importers.chest_labels import CHESTXRAY14, label_sentences
from curriculum.data.importers.chest_reports import sections
from curriculum.data.importers.volumes import label_volumes
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import Box


def read(name: str, tmp_path: Path, *, disjoint: bool = False) -> ImportedSet:
    if not (tmp_path / name).exists():
        (tmp_path / name).mkdir()
        SETS[name](tmp_path / name)
    import_set(importer(name), tmp_path / name, tmp_path / f"{name}-out", disjoint=disjoint)
    return load_records(tmp_path / f"{name}-out")


def crossing(found: ImportedSet) -> set[str]:
    """Groups that stand in more than one split."""
    places: dict[str, set[str]] = {}
    for item in found:
        places.setdefault(item.record.group, set()).add(item.split)
    return {group for group, splits in places.items() if len(splits) > 1}


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_read_whole_and_twice_the_same(name, tmp_path):
    found = read(name, tmp_path, disjoint=True)
    entries = list(found)
    assert entries
    assert not crossing(found)
    assert len({item.record.id for item in entries}) == len(entries)
    for item in entries:
        assert item.record.images
        assert all(found.path(key).is_file() for key in item.record.images)
        assert not item.mask or found.path(item.mask).is_file()
        first, *rest = item.record.messages
        assert [p.image for p in first.parts] == [*range(len(item.record.images)), None]
        assert [m.role for m in item.record.messages] == ["user", "assistant"] * (len(rest) // 2 + 1)
        assert all(m.parts[-1].text.strip() == m.parts[-1].text != "" for m in item.record.messages)
    assert found.info["licence"]
    assert sum(found.info["records"].values()) == len(entries)
    before = [(found.folder / file).read_bytes() for file in ("records.jsonl", "dataset.json")]
    read(name, tmp_path, disjoint=True)
    assert before == [(found.folder / file).read_bytes() for file in ("records.jsonl", "dataset.json")]
    assert not list(found.folder.rglob("*.part"))


@pytest.mark.parametrize("name", sorted({*SETS} - {"vqa-rad", "pmc-vqa"}))
def test_published_splits_that_keep_groups_whole_stay_as_they_are(name, tmp_path):
    assert not crossing(read(name, tmp_path))


@pytest.mark.parametrize(("name", "kept"), [("vqa-rad", {"3"}), ("pmc-vqa", {"train-3"})])
def test_disjoint_leaves_out_training_items_of_held_out_groups(name, kept, tmp_path):
    published = read(name, tmp_path)
    assert crossing(published)
    tests = [item.original for item in published if item.split == "test"]
    apart = read(name, tmp_path, disjoint=True)
    assert not crossing(apart)
    assert [item.original for item in apart if item.split == "test"] == tests
    assert {item.original for item in apart if item.split == "train"} == kept


def test_the_registry_names_importers_that_tell_their_terms():
    for name in names():
        known = importer(name)
        assert known.name == name
        assert known.title
        assert known.licence
        assert known.citation
        assert known.url
    assert "credentialed" in importer("mimic-cxr").licence
    with pytest.raises(InputError, match="vqa-rad"):
        importer("imagenet")


def test_mimic_studies_have_their_views_their_sections_and_their_labels(tmp_path):
    found = list(read("mimic-cxr", tmp_path))
    assert [item.split for item in found] == ["train", "train", "test"]
    first = found[0]
    assert first.record.group == "mimic-cxr/p10000032" == found[1].record.group
    assert len(first.record.images) == 2
    assert first.attributes == {"views": "LATERAL, PA"}
    answer = "Findings: The lungs are clear. No effusion or pneumothorax.\nImpression: No acute process."
    assert first.record.messages[1].parts[0].text == answer
    assert first.labels == {"Atelectasis": 1, "Cardiomegaly": None, "Edema": -1, "Pneumonia": 0}
    assert "cough" not in json.dumps(first.record.to_chat())


def test_mimic_counts_what_is_missing_and_keeps_the_views_that_are_there(tmp_path):
    read("mimic-cxr", tmp_path)
    root = tmp_path / "mimic-cxr"
    (root / "files/p10/p10000032/s50414267/0-PA.jpg").unlink()
    shutil.rmtree(root / "files/p10/p10000032/s53189527")
    (root / "files/p11/p11000011/s51029426.txt").unlink()
    found = read("mimic-cxr", tmp_path)
    assert [len(item.record.images) for item in found] == [1]
    assert found.info["missing_files"] == 3
    assert found.info["left_out"] == {"a file is missing": 1, "no report": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (REPORT, {"findings": "The lungs are clear. No effusion or pneumothorax.", "impression": "No acute process."}),
        (" IMPRESSION: Edema.\n WET READ: x\n IMPRESSION:  No edema.\n", {"impression": "No edema."}),
        (" PA AND LATERAL VIEWS OF THE CHEST: Clear.\n", {"findings": "Clear."}),
        (" FINDINGS: Clear.\n PORTABLE CHEST: other\n", {"findings": "Clear."}),
        (" COMPARISON: Chest radiograph.\n HISTORY: cough\n", {}),
        ("Findings in lower case are prose: nothing.", {}),
    ],
)
def test_sections_are_those_of_the_headings(text, expected):
    assert sections(text) == expected


def test_open_i_takes_reports_with_text_and_terms_without_qualifiers(tmp_path):
    found = read("iu-xray", tmp_path)
    assert [item.original for item in found] == ["CXR1", "CXR3"]
    assert all(item.split == "" and item.labels == {"Pleural Effusion": 1} for item in found)
    assert found.info["left_out"] == {"a report without text, images or number": 1}


def test_xml_with_entities_is_refused(tmp_path):
    (tmp_path / "ecgen-radiology").mkdir()
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><eCitation><uId id="&b;"/></eCitation>'
    (tmp_path / "ecgen-radiology" / "1.xml").write_text(bomb)
    with pytest.raises(InputError, match="XML"):
        import_set(importer("iu-xray"), tmp_path, tmp_path / "out")


def test_chexpert_says_uncertain_labels_as_possible(tmp_path):
    found = read("chexpert", tmp_path)
    assert [item.original for item in found] == [f"patient{n:05}/study1" for n in (1, 2, 5, 6)]
    item = next(iter(found))
    assert item.record.messages[1].parts[0].text == "Cardiomegaly. Possibly pneumonia. No pneumothorax."
    assert item.labels["Pneumonia"] == -1
    assert item.labels["Edema"] is None
    assert found.info["left_out"] == {"no label is set": 2}


def test_labels_in_words():
    assert label_sentences({}) == label_sentences({"Edema": None}) == ""
    assert label_sentences({"No Finding": 1, "Support Devices": 1}) == "Support devices. No abnormal finding."
    assert label_sentences({"Edema": 0, "Mass": 0, "Hernia": 0}) == "No edema, mass or hernia."
    assert label_sentences({"Pleural Other": -1}) == "Possibly other pleural abnormality."


@pytest.mark.parametrize(("sex", "trailing"), [("Patient Gender", True), ("Patient Sex", False)])
def test_chestxray14_reads_both_forms_of_its_table(sex, trailing, tmp_path):
    (tmp_path / "chestxray14").mkdir()
    chestxray14(tmp_path / "chestxray14", sex, trailing)
    first, second, third = read("chestxray14", tmp_path)
    assert [item.split for item in (first, second, third)] == ["train", "train", "test"]
    assert first.record.group == second.record.group != third.record.group
    assert [m.parts[-1].text for m in first.record.messages][1] == "Cardiomegaly and pleural thickening."
    assert second.record.messages[1].parts[0].text == "No abnormal finding."
    assert set(first.labels) == set(CHESTXRAY14)
    assert sum(first.labels.values()) == 2
    assert [(r.label, r.region) for r in third.regions] == [("Infiltration", Box((0, 547, 225.5), (1, 626, 312)))]


def test_vqa_rad_groups_by_case_and_splits_by_phrase(tmp_path):
    found = {item.original: item for item in read("vqa-rad", tmp_path)}
    assert [item.split for item in found.values()] == ["train", "test", "train", "test", "train"]
    assert found["4"].record.group == found["5"].record.group == "vqa-rad/case-a"
    assert found["3"].record.messages[1].parts[0].text == "3"
    assert found["2"].attributes["answer_type"] == "closed"
    assert found["2"].attributes["phrase_type"] == "freeform"


def test_slake_has_boxes_masks_and_two_languages(tmp_path):
    english, chinese = read("slake", tmp_path), read("slake-zh", tmp_path)
    first = next(iter(english))
    assert next((r.label, r.region) for r in first.regions) == ("Liver", Box((0, 5, 3), (1, 12, 13)))
    assert english.path(first.mask).name == "mask.png"
    assert first.attributes["location"] == "abdomen"
    assert [item.split for item in english] == [item.split for item in chinese] == ["train", "validation", "test"]
    assert next(iter(chinese)).record.messages[1].parts[0].text == "肝"


def test_path_vqa_stores_each_picture_once_and_refuses_pickles(tmp_path):
    found = read("path-vqa", tmp_path)
    assert len(list((found.folder / "images").iterdir())) == 3
    assert len(list(found)) == 6
    assert [item.attributes["answer_type"] for item in found][:2] == ["closed", "open"]
    shutil.rmtree(tmp_path / "path-vqa")
    (tmp_path / "path-vqa" / "qas").mkdir(parents=True)
    (tmp_path / "path-vqa" / "qas" / "train_qa.pkl").write_bytes(pickle.dumps([]))
    with pytest.raises(UnsupportedError, match="pickled"):
        read("path-vqa", tmp_path)


def test_pmc_vqa_reads_both_versions(tmp_path):
    first = next(iter(read("pmc-vqa", tmp_path)))
    assert first.record.messages[0].parts[1].text == "Which organ?\nA: Liver\nB: Lung, left\nC: Heart\nD: Brain"
    assert first.record.messages[1].parts[0].text == "B: Lung, left"
    assert first.attributes["answer"] == "B"
    root = tmp_path / "pmc-vqa"
    head = ["index", "Figure_path", "Caption", "Question", *(f"Choice {c}" for c in "ABCD"), "Answer", "split"]
    for name in ("train", "test"):
        (root / f"{name}.csv").unlink()
        table(
            root / f"{name}_2.csv", head, [[0, "PMC1_F1.jpg", "c", "Which?", "A: a", "B: b", "C: c", "D: d", "C", name]]
        )
    assert [item.record.messages[1].parts[0].text for item in read("pmc-vqa", tmp_path)] == ["C: c", "C: c"]


def test_brats_measures_the_parts_of_the_tumour_under_both_namings(tmp_path):
    found = {item.original: item for item in read("brats", tmp_path)}
    for case in ("BraTS20_Training_001", "BraTS-GLI-00008-100"):
        texts = [message.parts[-1].text for message in found[case].record.messages]
        assert texts[3] == "Peritumoural oedema under 0.1 mL, enhancing tumour under 0.1 mL."
        assert found[case].labels["necrotic or non-enhancing core"] == 0
        assert found[case].labels["enhancing tumour"] == 1
    assert found["BraTS-GLI-00008-100"].record.group == found["BraTS-GLI-00008-101"].record.group
    assert len(found["BraTS-PED-00001-000"].record.messages) == 2
    assert found["BraTS-PED-00001-000"].mask
    assert found["BraTS20_Validation_001"].split == "validation"
    assert not found["BraTS20_Validation_001"].mask
    assert [key.rpartition("_")[2] for key in found["BraTS20_Training_001"].record.images] == [
        "t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz", "flair.nii.gz"
    ]  # fmt: skip


def test_a_volume_is_its_voxels_times_their_size(tmp_path):
    data = np.zeros((20, 30, 10), np.uint8)
    data[:10, :10, :5] = 2
    volume(tmp_path / "a.nii.gz", data, np.diag((2.0, 0.5, 3, 1)))
    assert label_volumes(tmp_path / "a.nii.gz") == {2: pytest.approx(500 * 3 / 1000)}
    turned = np.diag((0, 0, 3.0, 1))
    turned[0, 1], turned[1, 0] = 0.5, -2
    volume(tmp_path / "b.nii.gz", data, turned)
    assert label_volumes(tmp_path / "b.nii.gz") == {2: pytest.approx(1.5)}
    volume(tmp_path / "c.nii.gz", data.astype(np.float32) + 0.5)
    with pytest.raises(InputError, match="no labels"):
        label_volumes(tmp_path / "c.nii.gz")


def test_a_segmentation_without_geometry_is_not_measured(tmp_path):
    import nibabel

    image = nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(GeometryError):
        label_volumes(tmp_path / "a.nii.gz")


def test_decathlon_tasks_are_told_by_their_table(tmp_path):
    found = list(read("msd", tmp_path))
    assert [item.split for item in found] == ["train", "train", "test"]
    assert found[0].original == "Task03_Liver/liver_0"
    assert found[0].labels == {"liver": 1, "cancer": 0}
    assert found[0].record.messages[3].parts[0].text == "Liver 0.1 mL."
    assert len(found[2].record.messages) == 2


def test_a_broken_segmentation_is_counted_and_left_out(tmp_path):
    read("msd", tmp_path)
    path = tmp_path / "msd/Task03_Liver/labelsTr/liver_0.nii.gz"
    path.write_bytes(path.read_bytes()[:60])
    found = read("msd", tmp_path)
    assert found.info["left_out"] == {"a segmentation that cannot be read": 1}
