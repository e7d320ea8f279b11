"""Chest radiographs with their reports: MIMIC-CXR and the Indiana University collection of Open-i."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from curriculum.data.importers.base import Entry, Split, entry
from curriculum.data.importers.chest_labels import read_label
from curriculum.data.importers.source import SourceFolder

_SPLITS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z0-9 ,/&()\-]{2,80}?)[ \t]*:", re.MULTILINE)
_FINDINGS, _IMPRESSION = "findings", "impression"
_VIEWS = re.compile(r"\b(CHEST|VIEWS?|RADIOGRAPHS?|PORTABLE)\b")


def sections(text: str) -> dict[str, str]:
    """The findings and the impression of a free-text report, each in one line; what the report lacks is left out.

    A section begins with a heading in capitals at the start of a line, closed by a colon, and lasts to the next.
    FINDINGS are findings, as are headings that name the views ("PA AND LATERAL VIEWS OF THE CHEST") where there are no
    others; IMPRESSION, CONCLUSION and OPINION are impression. Of several of one kind the last with text is taken, so
    that a final report stands for its preliminary one.
    """
    found: dict[str, str] = {}
    headings = list(_HEADING.finditer(text))
    for number, heading in enumerate(headings):
        stop = headings[number + 1].start() if number + 1 < len(headings) else len(text)
        body = " ".join(text[heading.end() : stop].split())
        kind = _kind(heading[1])
        if body and kind and not (kind == _FINDINGS and _VIEWS.search(heading[1]) and _FINDINGS in found):
            found[kind] = body
    return {kind: found[kind] for kind in (_FINDINGS, _IMPRESSION) if kind in found}


def _kind(heading: str) -> str:
    if heading.startswith(("IMPRESSION", "CONCLUSION", "OPINION")):
        return _IMPRESSION
    if heading.startswith("FINDING"):
        return _FINDINGS
    named = _VIEWS.search(heading) and not heading.startswith(("EXAM", "STUDY", "COMPARISON", "TECHNIQUE", "HISTORY"))
    return _FINDINGS if named else ""


def report_turn(found: Mapping[str, str]) -> tuple[str, str]:
    """The question that asks for the sections that there are, and the answer that holds them."""
    answer = "\n".join(f"{kind.capitalize()}: {text}" for kind, text in found.items())
    return f"Write the {' and the '.join(found)} of this chest radiograph.", answer


class MimicCxr:
    """MIMIC-CXR-JPG with the free-text reports of MIMIC-CXR; a record is a study with those views that are there.

    Expects mimic-cxr-2.0.0-split.csv and -metadata.csv, -chexpert.csv where it is there (all also as .gz), and
    files/p10/p10000032/s50414267.txt beside files/p10/p10000032/s50414267/DICOM_ID.jpg (or .dcm). Reports may also lie
    under mimic-cxr-reports/. The group is the patient, which the published split keeps whole. The tables of studies
    and labels are held in memory (some 200 MB for the whole set).
    """

    name = "mimic-cxr"
    title = "MIMIC-CXR-JPG 2"
    licence = (
        "PhysioNet Credentialed Health Data License 1.5.0: access for credentialed persons who signed the data use "
        "agreement; not to be shared, nor sent to third-party services"
    )
    citation = "Johnson et al., MIMIC-CXR, Scientific Data 6:317 (2019); Johnson et al., arXiv:1901.07042"
    url = "https://physionet.org/content/mimic-cxr-jpg/"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A report a study, in the order of the split table; studies without findings and impression are left out."""
        views = self._views(source)
        labels = self._labels(source)
        studies: dict[tuple[str, str], tuple[Split, list[str]]] = {}
        for row in source.csv("mimic-cxr-2.0.0-split.csv", columns=("dicom_id", "study_id", "subject_id", "split")):
            split = _SPLITS.get(row["split"])
            if split is None or not (row["subject_id"].isdigit() and row["study_id"].isdigit()):
                raise row.error("numbers of subject and study, and a split of train, validate or test")
            studies.setdefault((row["subject_id"], row["study_id"]), (split, []))[1].append(row["dicom_id"])
        for (subject, study), (split, images) in studies.items():
            patient = f"files/p{subject[:2]}/p{subject}"
            texts = [f"{patient}/s{study}.txt", f"mimic-cxr-reports/{patient}/s{study}.txt"]
            found = sections(source.text(*texts)) if any(map(source.has, texts)) else None
            if not found:
                source.leave_out("no report" if found is None else "a report without findings and impression")
                continue
            keys = [source.image(*(f"{patient}/s{study}/{image}.{end}" for end in ("jpg", "dcm"))) for image in images]
            yield entry(
                self,
                f"s{study}",
                f"p{subject}",
                "report",
                source.there(keys),
                [report_turn(found)],
                split=split,
                labels=labels.get(study, {}),
                attributes={"views": ", ".join(sorted({views.get(image) or "unknown" for image in images}))},
            )

    @staticmethod
    def _views(source: SourceFolder) -> dict[str, str]:
        table = source.csv("mimic-cxr-2.0.0-metadata.csv", columns=("dicom_id", "ViewPosition"))
        return {row["dicom_id"]: row["ViewPosition"].strip() for row in table}

    @staticmethod
    def _labels(source: SourceFolder) -> dict[str, dict[str, int | None]]:
        name = "mimic-cxr-2.0.0-chexpert.csv"
        if not source.has(name) and not source.has(f"{name}.gz"):
            return {}
        columns = ("subject_id", "study_id")
        return {
            row["study_id"]: {label: read_label(row, label) for label in row.values if label not in columns}
            for row in source.csv(name, columns=columns)
        }


class OpenI:
    """The Indiana University chest radiographs; a record is a report with the images that it names.

    Expects ecgen-radiology/*.xml and the PNGs in NLMCXR_png/, images/ or the folder itself. The group is the report's
    uId: patients are not told, so that one with two reports would be two groups. There is no published split. Removed
    names stand in the texts as XXXX, as published. The labels are the major MeSH terms, without their qualifiers.
    """

    name = "iu-xray"
    title = "Indiana University Chest X-ray Collection (Open-i)"
    licence = "CC BY-NC-ND 4.0"
    citation = "Demner-Fushman et al., JAMIA 23(2):304-310 (2016)"
    url = "https://openi.nlm.nih.gov/faq"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A report a file, in the order of the file names; those without text or without images are left out."""
        for name in source.find("ecgen-radiology/*.xml") or source.find("*.xml"):
            root = source.xml(name)
            uid = root.find("uId")
            number = "" if uid is None else (uid.get("id") or "").strip()
            images = [element.get("id") or "" for element in root.iter("parentImage")]
            found = {
                kind: text
                for kind in (_FINDINGS, _IMPRESSION)
                for element in root.iter("AbstractText")
                if (element.get("Label") or "").lower() == kind and (text := " ".join(_words(element)))
            }
            if not number or not found or not all(images) or not images:
                source.leave_out("a report without text, images or number")
                continue
            folders = ("NLMCXR_png/", "images/", "")
            keys = source.there([source.image(*(f"{folder}{image}.png" for folder in folders)) for image in images])
            terms = [term.partition("/")[0] for element in root.iter("major") if (term := " ".join(_words(element)))]
            yield entry(self, number, number, "report", keys, [report_turn(found)], labels=dict.fromkeys(terms, 1))


def _words(element: Any) -> list[str]:
    return "".join(element.itertext()).split()
