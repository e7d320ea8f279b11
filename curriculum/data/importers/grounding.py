"""Objects in aerial pictures by a phrase: DIOR-RSVG with boxes, RRSIS-D with masks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from curriculum.data.importers.base import Entry, Importer, Labelled, Split, entry
from curriculum.data.importers.lists import first, folder_of, listed, objects, split_of
from curriculum.data.importers.source import Row, SourceFolder
from domains.formats.content import check_size
from fovea.errors import UnsupportedError
from fovea.types import Bools, Box

QUESTION = "Give the box of this as [left, top, right, bottom] in thousandths of the picture: {}"
"""The answer is four whole numbers from 0 to 1000, rounded: it holds at any size of the picture."""


def answer(box: Box, height: float, width: float) -> str:
    """The box in thousandths of a picture of (height, width) pixels, in the order that `QUESTION` says."""
    (_, top, left), (_, bottom, right) = box.start, box.stop
    sides = (left / width, top / height, right / width, bottom / height)
    return f"[{', '.join(str(round(1000 * side)) for side in sides)}]"


def located(
    importer: Importer,
    original: str,
    group: str,
    key: str,
    phrase: str,
    box: Box,
    size: tuple[float, float],
    **more: Any,
) -> Entry:
    """A record that asks for the box of a phrase; the region keeps the box in pixels with the phrase as published."""
    turns = [(QUESTION.format(phrase), answer(box, *size))]
    return entry(importer, original, group, "grounding", [key], turns, regions=(Labelled(phrase, box),), **more)


class DiorRsvg:
    """DIOR-RSVG: Annotations/*.xml, JPEGImages, and train.txt, val.txt and test.txt.

    A record is an object with its phrase. The split files hold numbers of objects, counted from 0 over the annotations
    in the order of their names; where there are none, records have no split. They divide objects and not pictures, so
    one picture can stand in several splits. The group is the picture. Boxes are kept as published, from (xmin, ymin) up
    to (xmax, ymax); boxes that leave their picture are left out and counted.
    """

    name = "dior-rsvg"
    title = "DIOR-RSVG"
    licence = "not stated; the pictures of DIOR come from Google Earth, for academic use"
    citation = "Zhan et al., RSVG, IEEE TGRS 61 (2023), 10.1109/TGRS.2023.3250471"
    url = "https://github.com/ZhanYang-nwpu/RSVG-pytorch"
    _splits: tuple[tuple[str, Split], ...] = (("train.txt", "train"), ("val.txt", "validation"), ("test.txt", "test"))

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The objects, in the order of the annotations. Raises InputError with the number of the object."""
        annotations = folder_of(first(source, "**/Annotations/*.xml"))
        near = folder_of(annotations.removesuffix("/"))
        splits = {number: split for name, split in self._splits for number in _numbers(source, near + name)}
        number = 0
        for name in source.find(f"{annotations}*.xml"):
            root = source.xml(name)
            picture = Row(_texts(root, "filename", "size/width", "size/height"), number, "Annotations", "object")
            for item in root.findall("object"):
                fields = _texts(item, "name", "description", *(f"bndbox/{side}" for side in _SIDES))
                row = Row({**picture.values, **fields}, number, "Annotations", "object")
                split = splits.get(number, "")
                number += 1
                yield from self._object(source, near, row, split)

    def _object(self, source: SourceFolder, near: str, row: Row, split: Split) -> Iterator[Entry]:
        left, top, right, bottom = (row.number(f"bndbox/{side}") for side in _SIDES)
        height, width = row.number("size/height"), row.number("size/width")
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            source.leave_out("a box that is empty or leaves its picture")
            return
        name = row.text("filename")
        yield located(
            self,
            f"{PurePosixPath(name).stem}/{row.line}",
            name,
            source.image(f"{near}JPEGImages/{name}"),
            row.text("description"),
            Box((0, top, left), (1, bottom, right)),
            (height, width),
            split=split,
            labels={row.text("name"): 1},
        )


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _texts(element: Any, *paths: str) -> dict[str, str | None]:
    return {path: (element.findtext(path) or "").strip() or None for path in paths}


def _numbers(source: SourceFolder, name: str) -> Iterator[int]:
    """The numbers of a split file, one a line; none where the file is not there."""
    for line, text in enumerate(source.text(name).split() if source.has(name) else (), start=1):
        if not text.isdecimal():
            raise Row({}, line, PurePosixPath(name).name).error("the number of an object")
        yield int(text)


_CONVERT = (
    'Where you trust it, write it as JSON: python -c "import json, pickle; '
    "json.dump(pickle.load(open('refs(unc).p', 'rb')), open('refs(unc).json', 'w'))\""
)


class RrsisD:
    """RRSIS-D: instances.json and refs(unc).json of one folder, and the pictures in images/rrsisd/JPEGImages.

    A record is a phrase of an object; its mask is written as a PNG of 0 and 255, and the box is that of the mask. The
    group is the picture. The set publishes its phrases as a pickle, refs(unc).p, which could run any code when it is
    read: it is refused, with the command that makes the JSON of it. Empty masks are left out and counted.
    """

    name = "rrsis-d"
    title = "RRSIS-D"
    licence = "not stated; the pictures of DIOR come from Google Earth, for academic use"
    citation = "Liu et al., Rotated Multi-Scale Interaction Network, CVPR 2024, arXiv:2312.12470"
    url = "https://github.com/Lsan2401/RMSIN"
    _folders = ("images/rrsisd/JPEGImages/", "JPEGImages/", "images/", "")

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The phrases, in the order of the file.

        Raises UnsupportedError for a pickle, InputError with the number of the item that is malformed.
        """
        table = first(source, "**/instances.json")
        near = folder_of(table)
        above = folder_of(near.removesuffix("/"))
        refs = next((name for name in ("refs(unc).json", "refs.json") if source.has(near + name)), "")
        if not refs:
            pickled = source.has(f"{near}refs(unc).p")
            given = "phrases as a pickle, refs(unc).p, which is not read" if pickled else "no refs(unc).json"
            raise UnsupportedError(given, "refs(unc).json beside instances.json", _CONVERT)
        pictures = {row["id"]: row for row in listed(source, table, "images")}
        masks = {row["id"]: row for row in listed(source, table, "annotations")}
        for row in source.items(near + refs):
            if row["image_id"] not in pictures or row["ann_id"] not in masks:
                raise row.error("a picture and an annotation that instances.json knows")
            name = pictures[row["image_id"]].text("file_name")
            key = source.image(*(where + folder + name for folder in self._folders for where in (above, near)))
            yield from self._phrases(source, row, masks[row["ann_id"]], name, key)

    def _phrases(self, source: SourceFolder, row: Row, annotation: Row, name: str, key: str) -> Iterator[Entry]:
        if not isinstance(row["sentences"], list):
            raise row.error("a list of sentences")
        sentences = [sentence.text("raw") for sentence in objects(row["sentences"], f"phrase {row.line}", "sentence")]
        mask = read_segmentation(annotation)
        if not mask.any():
            source.leave_out("an empty mask", len(sentences))
            return
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        box = Box((0, float(rows[0]), float(columns[0])), (1, float(rows[-1]) + 1, float(columns[-1]) + 1))
        drawn = source.store(_png(mask))
        for number, phrase in enumerate(sentences, start=1):
            original, split = f"{row.text('ref_id')}/{number}", split_of(row)
            yield located(self, original, name, key, phrase, box, mask.shape, split=split, mask=drawn)


def read_segmentation(row: Row) -> Bools:
    """The mask of an annotation of COCO, bool (row, column): one run-length code or a list of them, together.

    Codes are lists of counts or COCO's compressed text. Raises InputError for polygons and for counts that do not fill
    the picture. Source: the mask API of COCO, github.com/cocodataset/cocoapi.
    """
    value = row["segmentation"]
    codes = value if isinstance(value, list) else [value]
    if not codes or not all(isinstance(code, Mapping) and {"size", "counts"} <= set(code) for code in codes):
        raise row.error("run-length codes with 'size' and 'counts'")
    masks = [_decoded(code["size"], code["counts"], row) for code in codes]
    if len({mask.shape for mask in masks}) > 1:
        raise row.error("run-length codes of one size")
    union: Bools = np.logical_or.reduce(masks)
    return union


def _decoded(size: Any, counts: Any, row: Row) -> Bools:
    """One code: runs of 0 and 1 in turn, down the columns."""
    whole = [value for value in size if isinstance(value, int)] if isinstance(size, list) else []
    if len(whole) != 2:
        raise row.error("a size of height and width")
    check_size(*whole)
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise row.error("counts that are not negative")
    if sum(runs) != whole[0] * whole[1]:
        raise row.error("counts that fill the picture")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask: Bools = flat.reshape(whole[1], whole[0]).T
    return mask


def _uncompressed(text: str) -> list[int]:
    """Counts of COCO's text: groups of five bits, lowest first, and from the third on differences to the last but one.

    A character is a group plus 48; 32 says that more follow, and 16 in the last group is the sign. Nothing for a count
    that no picture has.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        if shift > 40:
            return []
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _png(mask: Bools) -> bytes:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()
