"""Chest radiographs with labels that were read from reports: CheXpert and ChestX-ray14."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from curriculum.data.importers.base import Entry, Labelled, Split, entry
from curriculum.data.importers.source import Row, SourceFolder
from fovea.types import Box

QUESTION = "Which findings does this chest radiograph show?"
NORMAL = "No Finding"
CHEXPERT = (
    NORMAL,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHESTXRAY14 = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_WORDS = {"Pleural Other": "other pleural abnormality"}
_LABELS = {"": None, "1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}


def read_label(row: Row, name: str) -> int | None:
    """1 present, 0 absent, -1 uncertain, None not mentioned; raises InputError for another value."""
    value = row.get(name).strip()
    if value not in _LABELS:
        raise row.error("labels of 1, 0, -1 or nothing")
    return _LABELS[value]


def label_sentences(labels: Mapping[str, int | None]) -> str:
    """Labels in words: present ones, then uncertain ones after "Possibly", then absent ones after "No".

    Labels that were not mentioned are not said. "No Finding" is said as "No abnormal finding." in place of the absent
    ones. The empty text where there is nothing to say.
    """
    said = {
        value: [_word(name) for name, got in labels.items() if got == value and name != NORMAL] for value in (1, -1, 0)
    }
    sentences = [_listed(said[1], "and")] if said[1] else []
    sentences += [f"possibly {_listed(said[-1], 'or')}"] if said[-1] else []
    if labels.get(NORMAL) == 1:
        sentences.append("no abnormal finding")
    elif said[0]:
        sentences.append(f"no {_listed(said[0], 'or')}")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def _word(label: str) -> str:
    return _WORDS.get(label, label.replace("_", " ").lower())


def _listed(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


class CheXpert:
    """CheXpert; a record is a study with those views that are there, the group is the patient of the path.

    Expects train.csv and valid.csv (and test.csv where it is there), whose paths begin with the name of the release;
    the source is the release's folder or the one above. Uncertain labels (-1) are kept and said as "Possibly".
    """

    name = "chexpert"
    title = "CheXpert 1.0"
    licence = "Stanford University Dataset Research Use Agreement: non-commercial research by registered persons only"
    citation = "Irvin et al., CheXpert, AAAI 33 (2019), arXiv:1901.07031"
    url = "https://stanfordmlgroup.github.io/competitions/chexpert/"
    _tables: tuple[tuple[str, Split], ...] = (("train.csv", "train"), ("valid.csv", "validation"), ("test.csv", "test"))

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A study's labels, in the order of the tables; rows of one study stand together."""
        inner = next((name.partition("/")[0] + "/" for name in source.find("CheXpert*/train.csv")), "")
        for table, split in self._tables:
            if table == "test.csv" and not source.has(inner + table):
                continue
            rows = source.csv(inner + table, columns=("Path", *CHEXPERT))
            for (patient, study), views in groupby(rows, _study):
                yield from self._entry(source, patient, study, split, list(views))

    def _entry(
        self, source: SourceFolder, patient: str, study: str, split: Split, views: Sequence[Row]
    ) -> Iterator[Entry]:
        labels = {label: read_label(views[0], label) for label in CHEXPERT}
        answer = label_sentences(labels)
        if not answer:
            source.leave_out("no label is set")
            return
        keys = source.there([source.image(row["Path"], row["Path"].partition("/")[2]) for row in views])
        shown = sorted({row.get("AP/PA") or row.get("Frontal/Lateral") or "unknown" for row in views})
        original, turns = f"{patient}/{study}", [(QUESTION, answer)]
        attributes = {"views": ", ".join(shown)}
        yield entry(self, original, patient, "report", keys, turns, split=split, labels=labels, attributes=attributes)


def _study(row: Row) -> tuple[str, str]:
    match = re.search(r"(?:^|/)(patient\d+)/(study\d+)/[^/]+$", row["Path"])
    if match is None:
        raise row.error("a path such as NAME/train/patient00001/study1/view1_frontal.jpg")
    return match[1], match[2]


class ChestXray14:
    """ChestX-ray14 of the NIH; a record is an image, the group is the patient.

    Expects Data_Entry_2017*.csv, the images in images_001/images/ to images_012/images/ or images/, and where they are
    there train_val_list.txt, test_list.txt and BBox_List_2017.csv. Each of the 14 labels is 1 or 0; only those that are
    present are said, for the labels were read from reports that need not name what is absent.
    """

    name = "chestxray14"
    title = "ChestX-ray14 (NIH)"
    licence = "Public, for any use; the NIH Clinical Center asks to be named as the source and to link to the download"
    citation = "Wang et al., ChestX-ray8, CVPR 2017, arXiv:1705.02315"
    url = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    _splits: tuple[tuple[str, Split], ...] = (("train_val_list.txt", "train"), ("test_list.txt", "test"))
    _folders = (*(f"images_{number:03}/images/" for number in range(1, 13)), "images/", "")

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """An image's labels, in the order of the table."""
        tables = source.find("Data_Entry_2017*.csv")
        splits = {
            name: split for listed, split in self._splits if source.has(listed) for name in source.text(listed).split()
        }
        boxes = self._boxes(source)
        table = tables[-1] if tables else "Data_Entry_2017.csv"
        for row in source.csv(table, columns=("Image Index", "Finding Labels", "Patient ID")):
            found = {name.strip() for name in row["Finding Labels"].split("|")}
            if not found <= {NORMAL, *CHESTXRAY14}:
                raise row.error("finding labels of the set")
            labels: dict[str, int | None] = {label: int(label in found) for label in CHESTXRAY14}
            name = row.text("Image Index")
            said = {label: 1 for label in CHESTXRAY14 if label in found} or {NORMAL: 1}
            yield entry(
                self,
                name,
                row.text("Patient ID"),
                "report",
                [source.image(*(folder + name for folder in self._folders))],
                [(QUESTION, label_sentences(said))],
                split=splits.get(name, ""),
                labels=labels,
                regions=tuple(boxes.get(name, ())),
                attributes={"views": row.get("View Position")},
            )

    @staticmethod
    def _boxes(source: SourceFolder) -> dict[str, list[Labelled]]:
        """Boxes in pixels of the published images of 1024 × 1024, by image."""
        found: dict[str, list[Labelled]] = {}
        if not source.has("BBox_List_2017.csv"):
            return found
        sides = ("Bbox [x", "y", "w", "h]")
        for row in source.csv("BBox_List_2017.csv", columns=("Image Index", "Finding Label", *sides)):
            x, y, width, height = map(row.number, sides)
            label = {"Infiltrate": "Infiltration"}.get(row["Finding Label"], row["Finding Label"])
            found.setdefault(row["Image Index"], []).append(Labelled(label, Box((0, y, x), (1, y + height, x + width))))
        return found
