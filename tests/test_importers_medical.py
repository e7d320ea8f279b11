"""Importers of medical sets, each on a small set in the layout of the original."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from curriculum.data.importers import ImportedSet, import_set, importer, load_records, names
from curriculum.data.importers.chest_labels import CHESTXRAY14, CHEXPERT, label_sentences
from curriculum.data.importers.chest_reports import sections
from curriculum.data.importers.volumes import label_volumes
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import Box


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32), np.uint8)).save(path)
    return path


def table(path: Path, head: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def volume(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag((1.0, 1, 2, 1)) if affine is None else affine), path)


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough

 FINDINGS:

 The lungs are clear.  No effusion
 or pneumothorax.

 IMPRESSION:

 No acute process.
"""
MIMIC = "mimic-cxr-2.0.0"


def mimic(root: Path) -> None:
    studies = [(10000032, 50414267, "train"), (10000032, 53189527, "train"), (11000011, 51029426, "test")]
    split, meta, labels = [], [], []
    for number, (subject, study, part) in enumerate(studies):
        patient = root / f"files/p{str(subject)[:2]}/p{subject}"
        for view in ("PA", "LATERAL"):
            dicom = f"{number}-{view}"
            split.append([dicom, study, subject, part])
            meta.append([dicom, subject, study, view])
            picture(patient / f"s{study}" / f"{dicom}.jpg", number)
        (patient / f"s{study}.txt").write_text(REPORT)
        labels.append([subject, study, "1.0", "", "-1.0", "0.0"])
    table(root / f"{MIMIC}-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], split)
    table(root / f"{MIMIC}-metadata.csv.gz", ["dicom_id", "subject_id", "study_id", "ViewPosition"], meta)
    head = ["subject_id", "study_id", "Atelectasis", "Cardiomegaly", "Edema", "Pneumonia"]
    table(root / f"{MIMIC}-chexpert.csv.gz", head, labels)


def open_i(root: Path) -> None:
    (root / "ecgen-radiology").mkdir(parents=True)
    for uid, text in (("CXR1", "Heart size is normal."), ("CXR2", ""), ("CXR3", "Small effusion.")):
        images = [f"{uid}_IM-{view}" for view in (1001, 2001)]
        for image in images:
            picture(root / "NLMCXR_png" / f"{image}.png")
        parents = "".join(f'<parentImage id="{image}"><caption>x</caption></parentImage>' for image in images)
        (root / "ecgen-radiology" / f"{uid[3:]}.xml").write_text(
            f'<?xml version="1.0"?><eCitation><uId id="{uid}"/><MedlineCitation><Article><Abstract>'
            f'<AbstractText Label="INDICATION">Cough</AbstractText><AbstractText Label="FINDINGS">{text}</AbstractText>'
            f'<AbstractText Label="IMPRESSION">{text}</AbstractText></Abstract></Article></MedlineCitation>'
            f"<MeSH><major>Pleural Effusion/small</major></MeSH>{parents}</eCitation>"
        )


def chexpert(root: Path) -> None:
    head = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
    present = dict.fromkeys(CHEXPERT, "") | {"Cardiomegaly": "1.0", "Pneumonia": "-1.0", "Pneumothorax": "0.0"}
    silent = dict.fromkeys(CHEXPERT, "")
    for part, start in (("train", 1), ("valid", 5)):
        rows = []
        for number in range(start, start + 3):
            for view in ("frontal", "lateral"):
                path = f"CheXpert-v1.0-small/{part}/patient{number:05}/study1/view1_{view}.jpg"
                picture(root / path, number)
                values = (silent if number == start + 2 else present).values()
                rows.append([path, "Female", "60", view.title(), "AP" if view == "frontal" else "", *values])
        table(root / f"CheXpert-v1.0-small/{part}.csv", head, rows)


def chestxray14(root: Path, sex: str = "Patient Gender", trailing: bool = True) -> None:
    head = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", sex, "View Position"]
    head += ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"] + [""] * trailing
    found = {"00000001_000.png": "Cardiomegaly|Pleural_Thickening", "00000001_001.png": "No Finding"}
    found["00000002_000.png"] = "Infiltration"
    rows = []
    for name, labels in found.items():
        picture(root / "images_001" / "images" / name, len(rows))
        rows.append([name, labels, 0, int(name[:8]), 58, "M", "PA", 2682, 2749, 0.143, 0.143] + [""] * trailing)
    table(root / "Data_Entry_2017.csv", head, rows)
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (root / "test_list.txt").write_text("00000002_000.png")
    box = [["00000002_000.png", "Infiltrate", 225.5, 547.0, 86.5, 79.0, "", "", ""]]
    table(root / "BBox_List_2017.csv", ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""], box)


def vqa_rad(root: Path) -> None:
    def item(qid: int, image: str, phrase: str, answer: object = "Yes", case: str = "") -> dict[str, object]:
        picture(root / "VQA_RAD Image Folder" / image, qid)
        url = f"https://medpix.nlm.nih.gov/case?id={case}" if case else ""
        return {
            "qid": str(qid), "phrase_type": phrase, "image_case_url": url, "image_name": image, "image_organ": "HEAD",
            "question": "Is there a mass?", "question_type": "PRES", "answer": answer, "answer_type": "CLOSED ",
        }  # fmt: skip

    items = [
        item(1, "synpic1.jpg", "freeform"),
        item(2, "synpic1.jpg", "test_freeform"),
        item(3, "synpic2.jpg", "para", 3),
        item(4, "synpic3.jpg", "test_para", "No", "case-a"),
        item(5, "synpic4.jpg", "para", "No", "case-a"),
        item(6, "synpic5.jpg", "freeform", ""),
    ]
    (root / "VQA_RAD Dataset Public.json").write_text(json.dumps(items))


def slake(root: Path) -> None:
    for number, name in enumerate(("train", "validate", "test")):
        folder = f"xmlab{number}"
        picture(root / "imgs" / folder / "source.jpg", number)
        picture(root / "imgs" / folder / "mask.png", number)
        (root / "imgs" / folder / "detection.json").write_text('[{"Liver": [3, 5, 10, 7]}, {"Lung": [1.5, 2, 3, 4]}]')
        common = {
            "img_id": number, "img_name": f"{folder}/source.jpg", "answer_type": "OPEN", "base_type": "vqa",
            "content_type": "Organ", "modality": "CT", "location": "Abdomen", "triple": ["vhead", "_", "_"],
        }  # fmt: skip
        items = [
            common | {"qid": 10 * number, "q_lang": "en", "question": "Which organ?", "answer": "Liver"},
            common | {"qid": 10 * number + 1, "q_lang": "zh", "question": "哪个器官？", "answer": "肝"},
        ]
        (root / f"{name}.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")


def path_vqa(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (root / "data").mkdir(parents=True)
    for number, split in enumerate(("train", "validation", "test")):
        data = picture(root / "scratch.jpg", number).read_bytes()
        image = {"bytes": data, "path": "x.jpg"}
        rows = [{"image": image, "question": q, "answer": a} for q, a in (("Is it red?", "yes"), ("What?", "liver"))]
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / "data" / f"{split}-00000-of-00001-ab.parquet")
    (root / "scratch.jpg").unlink()


def pmc_vqa(root: Path) -> None:
    head = ["Figure_path", "Question", "Answer", *(f"Choice {c}" for c in "ABCD"), "Answer_label"]
    choices = [" A:Liver ", " B:Lung, left ", " C:Heart ", " D:Brain "]
    for name, figures in (("train", ["PMC1_F1.jpg", "PMC2_F1.jpg"]), ("test", ["PMC1_F2.jpg", "PMC3_F1.jpg"])):
        for figure in figures:
            picture(root / "images" / figure)
        rows = [[figure, " Which organ?", "Lung, left", *choices, "B"] for figure in figures]
        table(root / f"{name}.csv", head, rows)


def brats(root: Path) -> None:
    seg = np.zeros((6, 6, 4), np.uint8)
    seg[0, 0, :3] = 1
    seg[1, :5, 0] = 2
    for case, ends, mark, enhancing in (
        ("BraTS-GLI-00008-100", ("-t1n", "-t1c", "-t2w", "-t2f"), "-seg", 3),
        ("BraTS-GLI-00008-101", ("-t1n", "-t1c", "-t2w", "-t2f"), "-seg", 3),
        ("BraTS-PED-00001-000", ("-t1n", "-t1c", "-t2w", "-t2f"), "-seg", 3),
        ("BraTS20_Training_001", ("_t1", "_t1ce", "_t2", "_flair"), "_seg", 4),
    ):
        folder = root / "TrainingData" / case
        for end in ends:
            volume(folder / f"{case}{end}.nii.gz", np.ones((6, 6, 4), np.int16))
        volume(folder / f"{case}{mark}.nii.gz", np.where(seg == 1, enhancing, seg).astype(np.uint8))
    for end in ends:
        volume(root / "ValidationData" / "BraTS20_Validation_001" / f"BraTS20_Validation_001{end}.nii.gz", seg)


def decathlon(root: Path) -> None:
    seg = np.zeros((4, 5, 6), np.uint8)
    seg[:, :, :3] = 1  # 60 voxels of 2 mm³
    files = ["liver_0.nii.gz", "liver_1.nii.gz"]
    told = {
        "name": "Liver", "licence": "CC-BY-SA 4.0", "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in files],
        "test": ["./imagesTs/liver_2.nii.gz"],
    }  # fmt: skip
    for name in files:
        volume(root / "Task03_Liver/imagesTr" / name, seg.astype(np.int16))
        volume(root / "Task03_Liver/labelsTr" / name, seg)
    volume(root / "Task03_Liver/imagesTs/liver_2.nii.gz", seg.astype(np.int16))
    (root / "Task03_Liver/dataset.json").write_text(json.dumps(told))


SETS = {
    "mimic-cxr": mimic,
    "iu-xray": open_i,
    "chexpert": chexpert,
    "chestxray14": chestxray14,
    "vqa-rad": vqa_rad,
    "slake": slake,
    "slake-zh": slake,
    "path-vqa": path_vqa,
    "pmc-vqa": pmc_vqa,
    "brats": brats,
    "msd": decathlon,
}


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
