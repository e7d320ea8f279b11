"""RSVQA: questions about Sentinel-2 tiles (LR) and aerial photographs (HR), whose answers were made from OpenStreetMap.

Source of the layout: Lobry et al., RSVQA: Visual Question Answering for Remote Sensing Data, IEEE TGRS 58 (2020).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from curriculum.data.importers.base import Entry, Split, entry
from curriculum.data.importers.lists import folder_of, listed
from curriculum.data.importers.source import Row, SourceFolder
from fovea.errors import InputError

_KINDS = {"presence": "presence", "count": "count", "area": "area", "comp": "comparison", "rural_urban": "class"}


class _Part(NamedTuple):
    """A split as its files name it; `test_set` tells the two test sets of HR apart."""

    name: str
    split: Split
    test_set: str = ""


class _Rsvqa:
    """A record is a question with its answer, as published ("0m2" for an area, "between 0 and 10" for a count).

    Each of the files names every item of the whole set; only those that are "active" are of its split. The group is
    the tile that the picture was cut from, by the picture's original name without its row and column; a picture
    without an original name is its own group.
    """

    name: str
    title: str
    licence: str
    citation = "Lobry et al., RSVQA, IEEE TGRS 58 (2020) 8555, 10.1109/TGRS.2020.2988782"
    url: str
    _prefix: str
    _folders: tuple[str, ...]
    _parts: tuple[_Part, ...]

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The active questions of each split that is there, in the order of its file.

        Raises InputError with the number of the item that is malformed, or whose picture or answer is not there.
        """
        found = False
        for part in self._parts:
            for table in source.find(f"**/{self._prefix}_split_{part.name}_questions.json")[:1]:
                found = True
                yield from self._questions(source, table, part)
        if not found:
            raise InputError(
                f"a folder without {self._prefix}_split_…_questions.json", "the set as published", "Check the path."
            )

    def _questions(self, source: SourceFolder, table: str, part: _Part) -> Iterator[Entry]:
        stem, near = table.removesuffix("questions.json"), folder_of(table)
        images = {row["id"]: row for row in _active(source, f"{stem}images.json", "images")}
        answers = {row["id"]: row for row in _active(source, f"{stem}answers.json", "answers")}
        for row in _active(source, table, "questions"):
            number, kind = row.text("img_id"), row.text("type")
            answer = next((answers[id_] for id_ in _ids(row) if id_ in answers), None)
            if row["img_id"] not in images or answer is None:
                raise row.error("an active picture and an active answer")
            yield entry(
                self,
                row.text("id"),
                _tile(images[row["img_id"]]),
                _KINDS.get(kind, kind),
                [source.image(*(f"{near}{folder}{number}.tif" for folder in self._folders))],
                [(row.text("question"), answer.text("answer"))],
                split=part.split,
                attributes={"question_type": kind} | ({"test_set": part.test_set} if part.test_set else {}),
            )


def _active(source: SourceFolder, name: str, key: str) -> Iterator[Row]:
    return (row for row in listed(source, name, key) if row.get("active"))


def _ids(row: Row) -> list[int]:
    ids = row["answers_ids"]
    if not isinstance(ids, list) or not all(isinstance(id_, int) for id_ in ids):
        raise row.error("a list of numbers as 'answers_ids'")
    return ids


def _tile(image: Row) -> str:
    """The name of the tile: "982217" of "982217_3-5.tif"."""
    name = re.sub(r"\.\w+$", "", str(image.get("original_name")))
    return re.sub(r"_\d+-\d+$", "", name) or f"image {image.text('id')}"


class RsvqaLowResolution(_Rsvqa):
    """RSVQA-LR: LR_split_*.json and the folder Images_LR."""

    name = "rsvqa-lr"
    title = "RSVQA low resolution"
    licence = "CC BY 4.0; contains modified Copernicus Sentinel data, and answers from OpenStreetMap under ODbL"
    url = "https://zenodo.org/records/6344334"
    _prefix = "LR"
    _folders = ("Images_LR/", "Images/", "")
    _parts = (_Part("train", "train"), _Part("val", "validation"), _Part("test", "test"))


class RsvqaHighResolution(_Rsvqa):
    """RSVQA-HR: USGS_split_*.json and the folder Data. Test set 1 is of the region of the training set, 2 is of
    Philadelphia; both are "test", told apart by the attribute "test_set"."""

    name = "rsvqa-hr"
    title = "RSVQA high resolution"
    licence = "CC BY 4.0; pictures of the USGS, public domain, and answers from OpenStreetMap under ODbL"
    url = "https://zenodo.org/records/6344367"
    _prefix = "USGS"
    _folders = ("Data/", "Images/Data/", "")
    _parts = (
        _Part("train", "train"),
        _Part("val", "validation"),
        _Part("test", "test", "1"),
        _Part("test_phili", "test", "2"),
    )
