"""Aerial pictures with sentences: RSICD, UCM-Captions and RSITMD, all in the layout of Karpathy's COCO splits."""

from __future__ import annotations

from collections.abc import Iterator

from curriculum.data.importers.base import Entry, entry
from curriculum.data.importers.lists import first, folder_of, listed, objects, split_of
from curriculum.data.importers.source import Row, SourceFolder
from curriculum.prompts import DESCRIBE

_NOT_STATED = "not stated; the pictures come from map services with terms of their own"


class _Captions:
    """A record is a picture with one of its sentences, also where the set repeats one; the group is the picture, for
    the sets do not tell which pictures are of one scene. Blank sentences are left out and counted."""

    name: str
    title: str
    licence: str
    citation: str
    url: str
    _table: str
    _folders: tuple[str, ...]

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The sentences of each picture, in the order of the file.

        Raises InputError with the number of the picture that is malformed.
        """
        table = first(source, f"**/{self._table}")
        for row in listed(source, table, "images"):
            yield from self._sentences(source, row, folder_of(table))

    def _sentences(self, source: SourceFolder, row: Row, near: str) -> Iterator[Entry]:
        name, split = row.text("filename"), split_of(row)
        if not isinstance(row["sentences"], list):
            raise row.error("a list of sentences")
        key = source.image(*(where + name for folder in self._folders for where in (folder, near + folder)))
        for number, sentence in enumerate(objects(row["sentences"], f"picture {row.line}", "sentence"), start=1):
            caption = sentence.text("raw")
            if not caption:
                source.leave_out("a blank sentence")
                continue
            yield entry(self, f"{name}/{number}", name, "caption", [key], [(DESCRIBE, caption)], split=split)


class Rsicd(_Captions):
    """RSICD: dataset_rsicd.json and the folder RSICD_images."""

    name = "rsicd"
    title = "RSICD"
    licence = _NOT_STATED
    citation = "Lu et al., Exploring Models and Data for Remote Sensing Image Caption Generation, IEEE TGRS 56 (2018)"
    url = "https://github.com/201528014227051/RSICD_optimal"
    _table = "dataset_rsicd.json"
    _folders = ("RSICD_images/", "images/", "")


class UcmCaptions(_Captions):
    """UCM-Captions: dataset.json and the folder imgs."""

    name = "ucm-captions"
    title = "UCM-Captions"
    licence = "not stated for the sentences; the pictures of UC Merced Land Use are of the USGS, public domain"
    citation = "Qu et al., Deep Semantic Understanding of High Resolution Remote Sensing Image, CITS 2016"
    url = "https://github.com/201528014227051/RSICD_optimal"
    _table = "dataset.json"
    _folders = ("imgs/", "images/", "")


class Rsitmd(_Captions):
    """RSITMD: dataset_RSITMD.json and the folder images."""

    name = "rsitmd"
    title = "RSITMD"
    licence = _NOT_STATED
    citation = "Yuan et al., Exploring a Fine-Grained Multiscale Method, IEEE TGRS 60 (2021), 10.1109/TGRS.2021.3078451"
    url = "https://github.com/xiaoyuan1996/AMFMN"
    _table = "dataset_RSITMD.json"
    _folders = ("images/", "")
