"""Questions about medical images: VQA-RAD, SLAKE, PathVQA and PMC-VQA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from curriculum.data.importers.base import Entry, Labelled, Split, entry
from curriculum.data.importers.source import Row, SourceFolder
from fovea.errors import InputError, UnsupportedError
from fovea.types import Box

_YES_NO = frozenset({"yes", "no"})


class VqaRad:
    """VQA-RAD: questions of clinicians about radiographs, CT and MR from MedPix.

    Expects "VQA_RAD Dataset Public.json", and the images in "VQA_RAD Image Folder", images or the folder itself. The
    test questions are those whose phrase type begins with "test_". The group is the MedPix case, or the image where
    none is named. Most images of the test questions have training questions too: `--disjoint` leaves those out.
    """

    name = "vqa-rad"
    title = "VQA-RAD"
    licence = "CC0 1.0"
    citation = "Lau et al., Scientific Data 5:180251 (2018)"
    url = "https://osf.io/89kps/"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A question each, in the order of the file; those without an answer are left out."""
        for row in source.items("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json"):
            image, question, answer = row.text("image_name"), row.text("question"), row.text("answer")
            if not question or not answer:
                source.leave_out("no question or answer")
                continue
            case = parse_qs(urlsplit(str(row.get("image_case_url"))).query).get("id", [""])[0].strip()
            phrase = row.text("phrase_type")
            yield entry(
                self,
                row.text("qid"),
                case or image,
                "question",
                [source.image(*(f"{folder}{image}" for folder in ("VQA_RAD Image Folder/", "images/", "")))],
                [(question, answer)],
                split="test" if phrase.startswith("test_") else "train",
                attributes={
                    "answer_type": row.text("answer_type").lower(),
                    "question_type": str(row.get("question_type")).strip().lower(),
                    "phrase_type": phrase.removeprefix("test_"),
                    "organ": str(row.get("image_organ")).strip().lower(),
                },
            )


class Slake:
    """SLAKE: questions about CT, MR and radiographs with masks and boxes of organs and lesions, in English.

    Expects train.json, validate.json (or validation.json), test.json, and imgs/xmlab*/source.jpg with mask.png and
    detection.json beside it. The group is the image: patients are not told. Boxes are in pixels of the image.
    """

    name = "slake"
    language = "en"
    title = "SLAKE 1.0"
    licence = "CC BY 4.0"
    citation = "Liu et al., SLAKE, ISBI 2021, arXiv:2102.09542"
    url = "https://www.med-vqa.com/slake/"
    _files: tuple[tuple[tuple[str, ...], Split], ...] = (
        (("train.json",), "train"),
        (("validate.json", "validation.json"), "validation"),
        (("test.json",), "test"),
    )
    _attributes = ("answer_type", "base_type", "content_type", "modality", "location")

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The questions of one language, in the order of the files; those without an answer are left out."""
        known: dict[str, tuple[Labelled, ...]] = {}
        for names, split in self._files:
            for row in source.items(*names):
                if row["q_lang"] != self.language:
                    continue
                image, question, answer = row.text("img_name"), row.text("question"), row.text("answer")
                if not question or not answer:
                    source.leave_out("no question or answer")
                    continue
                folder = f"imgs/{image.rpartition('/')[0]}"
                if folder not in known:
                    known[folder] = _boxes(source, f"{folder}/detection.json")
                mask = f"{folder}/mask.png"
                yield entry(
                    self,
                    row.text("qid"),
                    row.text("img_id"),
                    "question",
                    [source.image(f"imgs/{image}")],
                    [(question, answer)],
                    split=split,
                    regions=known[folder],
                    mask=source.image(mask) if source.has(mask) else "",
                    attributes={key: str(row.get(key)).strip().lower() for key in self._attributes},
                )


class SlakeChinese(Slake):
    """The questions of SLAKE in Chinese."""

    name = "slake-zh"
    language = "zh"


def _boxes(source: SourceFolder, name: str) -> tuple[Labelled, ...]:
    """A list of {name: [left, top, width, height]}."""
    if not source.has(name):
        return ()
    found = []
    for row in source.items(name):
        for label, sides in row.values.items():
            if (
                not isinstance(sides, list)
                or len(sides) != 4
                or not all(isinstance(side, (int, float)) for side in sides)
            ):
                raise InputError("boxes of a form that is not known", "[left, top, width, height]", "Check the source.")
            x, y, width, height = map(float, sides)
            found.append(Labelled(label, Box((0, y, x), (1, y + height, x + width))))
    return tuple(found)


class PathVqa:
    """PathVQA: questions about pictures of pathology from textbooks and a digital library.

    Expects the Parquet files of the Hugging Face form (data/train-*.parquet, validation-*, test-*) with the columns
    image, question and answer; the original with pickled questions is refused. The group is the picture, by its
    content. An answer of yes or no is closed.
    """

    name = "path-vqa"
    title = "PathVQA"
    licence = "MIT (of the questions; the pictures are from textbooks and the PEIR library, whose terms are their own)"
    citation = "He et al., PathVQA, arXiv:2003.10286 (2020)"
    url = "https://huggingface.co/datasets/flaviagiammarino/path-vqa"
    _splits: tuple[Split, ...] = ("train", "validation", "test")

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A question each, in the order of the files; those without an answer are left out."""
        shards = {split: source.find(f"**/{split}-*.parquet") for split in self._splits}
        if not any(shards.values()):
            if source.find("**/*.pkl"):
                raise UnsupportedError(
                    "PathVQA as pickled files, which can run code", "its Parquet form", f"Fetch it from {self.url}."
                )
            raise InputError("a folder without train-*.parquet", "the Parquet form of PathVQA", "Check the path.")
        for split, names in shards.items():
            number = 0
            for name in names:
                for row in source.parquet(name, ("image", "question", "answer")):
                    number += 1
                    question, answer = str(row.get("question")).strip(), str(row.get("answer")).strip()
                    if not question or not answer:
                        source.leave_out("no question or answer")
                        continue
                    key = source.store(_bytes(row))
                    kind = "closed" if answer.lower() in _YES_NO else "open"
                    picture = key.rpartition("/")[2].partition(".")[0][:16]
                    turns, attributes = [(question, answer)], {"answer_type": kind}
                    yield entry(
                        self, f"{split}-{number}", picture, "question", [key], turns, split=split, attributes=attributes
                    )


def _bytes(row: Row) -> bytes:
    image = row["image"]
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes):
        raise row.error("an image of {bytes, path}")
    return data


class PmcVqa:
    """PMC-VQA: questions with four choices about figures of open-access articles.

    Expects train.csv and test.csv, or the second version's train_2.csv and test_2.csv, and the figures in images/,
    figures/, images_2/ or the folder itself. The group is the article, which the published split does not keep whole:
    `--disjoint` does. The answer is the letter with its choice.
    """

    name = "pmc-vqa"
    title = "PMC-VQA"
    licence = "CC BY-SA (as its card states; each figure also has the licence of its article)"
    citation = "Zhang et al., PMC-VQA, arXiv:2305.10415 (2023)"
    url = "https://huggingface.co/datasets/xmcmic/PMC-VQA"
    _files: tuple[tuple[tuple[str, str], Split], ...] = (
        (("train.csv", "train_2.csv"), "train"),
        (("test.csv", "test_2.csv"), "test"),
    )
    _letters = ("A", "B", "C", "D")

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A question each, in the order of the tables; those without all choices are left out."""
        columns = ("Figure_path", "Question", "Answer", *(f"Choice {letter}" for letter in self._letters))
        for names, split in self._files:
            for row in source.csv(*names, columns=columns):
                figure, question = row.text("Figure_path"), row.text("Question")
                choices = {letter: self._choice(row, letter) for letter in self._letters}
                right = (row.get("Answer_label") or row["Answer"]).strip()
                if right not in choices:
                    raise row.error("an answer of A, B, C or D")
                if not question or not all(choices.values()):
                    source.leave_out("no question or choice")
                    continue
                asked = "\n".join([question, *(f"{letter}: {text}" for letter, text in choices.items())])
                article = re.match(r"PMC\d+", figure)
                yield entry(
                    self,
                    f"{split}-{row.line}",
                    article[0] if article else figure,
                    "question",
                    [source.image(*(folder + figure for folder in ("images/", "figures/", "images_2/", "")))],
                    [(asked, f"{right}: {choices[right]}")],
                    split=split,
                    attributes={"answer_type": "choice", "answer": right},
                )

    @staticmethod
    def _choice(row: Row, letter: str) -> str:
        return re.sub(rf"^{letter}\s*[:.)]\s*", "", row.text(f"Choice {letter}"))
