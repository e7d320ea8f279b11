"""Small medical sets in the layouts in which they are published."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from curriculum.data.importers.chest_labels import CHEXPERT


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
    import pyarrow
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
