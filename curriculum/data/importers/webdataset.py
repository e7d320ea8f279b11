"""Pictures with captions in tar files: RSTeller, GAIA, and any set in the layout of WebDataset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from curriculum.data.importers.base import Entry, Split, entry
from curriculum.data.importers.lists import first, objects, split_of_path
from curriculum.data.importers.source import Row, SourceFolder
from curriculum.data.importers.tarballs import members
from curriculum.prompts import DESCRIBE
from fovea.errors import UnsupportedError

_PICTURES = ("jpg", "jpeg", "png", "webp", "tif", "tiff")
_TEXTS = ("txt", "caption", "text")


@dataclass
class Sample:
    """Members of an archive that follow each other and share a name up to its first dot, by what comes after it."""

    name: str
    file: str
    number: int
    parts: dict[str, bytes] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The JSON member, empty where there is none; raises InputError when it is no object."""
        try:
            values = json.loads(self.parts.get("json", b"{}"))
        except (ValueError, RecursionError):
            values = None
        row = Row(values if isinstance(values, dict) else {}, self.number, self.file, "sample")
        if not isinstance(values, dict):
            raise row.error("JSON that holds an object")
        return row

    @property
    def picture(self) -> bytes | None:
        return next((self.parts[suffix] for suffix in _PICTURES if suffix in self.parts), None)

    @property
    def text(self) -> str:
        """The text member, "" where there is none."""
        data = next((self.parts[suffix] for suffix in _TEXTS if suffix in self.parts), b"")
        try:
            return data.decode().strip()
        except UnicodeDecodeError:
            raise Row({}, self.number, self.file, "sample").error("text in UTF-8") from None


def samples(source: SourceFolder, file: str) -> Iterator[Sample]:
    """The samples of a tar file, one at a time. Raises InputError for a sample with two members of one suffix."""
    sample, number = None, 0
    for member in members(source.path(file)):
        path = PurePosixPath(member.name)
        stem, _, suffix = path.name.partition(".")
        name, suffix = (path.parent / stem).as_posix(), suffix.lower()
        if sample is None or sample.name != name:
            if sample is not None:
                yield sample
            number += 1
            sample = Sample(name, PurePosixPath(file).name, number)
        if suffix in sample.parts:
            raise Row({}, number, sample.file, "sample").error("one member of each suffix")
        sample.parts[suffix] = member.data
    if sample is not None:
        yield sample


class WebDataset:
    """Any set of tar files with pictures and texts, such as img2dataset writes; a record is a picture with a caption.

    Captions are the list "captions" or the text "caption" or "text" of a sample's .json, or else its .txt; all of them
    become records. The group is the sample, the split is read off the names of files and folders ("train-000000.tar").
    Samples without a picture or a caption, and pictures of unknown format, are left out and counted.
    """

    name = "webdataset"
    title = "WebDataset"
    licence = "not stated; that of the set that is imported"
    citation = "the layout: github.com/webdataset/webdataset"
    url = "https://github.com/webdataset/webdataset"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The captions of each sample, in the order of the archives.

        Raises InputError with the number of the sample that is malformed, LimitError for a hostile archive.
        """
        first(source, "**/*.tar", "**/*.tar.gz")
        for file in [*source.find("**/*.tar"), *source.find("**/*.tar.gz")]:
            for sample in samples(source, file):
                yield from self._sample(source, sample, file, split_of_path(file))

    def _sample(self, source: SourceFolder, sample: Sample, file: str, split: Split) -> Iterator[Entry]:
        row = sample.row
        captions = self.captions(row, sample.text)
        if sample.picture is None or not captions:
            source.leave_out("a sample without a picture" if sample.picture is None else "a sample without a caption")
            return
        try:
            key = source.store(sample.picture)
        except UnsupportedError:
            source.leave_out("a picture of unknown format")
            return
        original, group = self.place(row, f"{re.sub(r'[.]tar([.]gz)?$', '', file)}/{sample.name}")
        for number, (caption, attributes) in enumerate(captions, start=1):
            yield entry(
                self,
                f"{original}/{number}",
                group,
                "caption",
                [key],
                [(DESCRIBE, caption)],
                split=split,
                attributes=attributes,
            )

    def place(self, row: Row, name: str) -> tuple[str, str]:  # noqa: ARG002
        """The id and the group of a sample."""
        return name, name

    def captions(self, row: Row, text: str) -> list[tuple[str, dict[str, str]]]:
        """The captions of a sample that are not blank, each with its attributes."""
        found = row.get("captions", "") or row.get("caption", "") or row.get("text", "") or text
        return [(caption, {}) for caption in _texts(row, found)]


class RsTeller(WebDataset):
    """RSTeller: tar files of JPEGs, each with a JSON of its captions by language models from OpenStreetMap.

    A record is a picture with one of its captions; "task" is 1 for areas, 2 for lines and 3 for a rewording, and
    "annotator" the model. The group is the quarter quadrangle of the NAIP picture that it was cut from, the same for
    all years. Captions can name east and west the wrong way round, for the published prompt did.
    """

    name = "rsteller"
    title = "RSTeller"
    licence = "Apache-2.0; pictures of NAIP, public domain, and facts from OpenStreetMap under ODbL"
    citation = "Ge et al., RSTeller, ISPRS J. P&RS 226 (2025) 146, arXiv:2408.14744"
    url = "https://huggingface.co/datasets/SlytherinGe/RSTeller"

    def place(self, row: Row, name: str) -> tuple[str, str]:  # noqa: ARG002
        """The number of the patch, and the quarter quadrangle: "m_4107501_ne" of "m_4107501_ne_18_060_20221108"."""
        whole = row.values.get("metadata")
        about = Row(whole if isinstance(whole, Mapping) else {}, row.line, row.file, row.unit)
        image = about.text("image_name")
        quarter = re.match(r"m_\d+_[ns][ew](?=_)", image)
        return about.text("patch_id"), quarter[0] if quarter else image

    def captions(self, row: Row, text: str) -> list[tuple[str, dict[str, str]]]:  # noqa: ARG002
        """The annotations, in their order."""
        whole = row.values.get("annotations")
        if not isinstance(whole, list):
            raise row.error("a list of annotations")
        rows = list(objects(whole, f"sample {row.line} of {row.file}", "annotation"))
        found = [(item.text("text"), {name: str(item.get(name)) for name in ("task", "annotator")}) for item in rows]
        return [(caption, attributes) for caption, attributes in found if caption]


class Gaia(WebDataset):
    """GAIA: what img2dataset made of train_data.json, val_data.json and test_data.json, in a folder a split.

    A record is a picture with one of its five captions, without the words "The image showcases:" that all begin with.
    Place, sensor and the like of an item are attributes where the JSON files lie in the source. The group is the
    picture, for the set tells no scene. Pictures that could not be fetched are not in the archives and not counted.
    """

    name = "gaia"
    title = "GAIA"
    licence = "MIT for captions and code; the pictures belong to the agencies that the field 'credits' names"
    citation = "Zavras et al., GAIA, IEEE GRSM 14 (2026) 36, arXiv:2502.09598"
    url = "https://huggingface.co/datasets/azavras/GAIA"
    _prefix = re.compile(r"the image showcases:\s*", re.IGNORECASE)
    _fields = ("location", "lat", "lon", "tag", "resolution", "satellite", "sensor", "modalities")

    def __init__(self) -> None:
        self._told: dict[str, dict[str, str]] = {}

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The captions of each picture, in the order of the archives; see `WebDataset.entries`."""
        self._told = {
            row.text("id"): {name: _said(row.values[name]) for name in self._fields if row.values.get(name)}
            for name in source.find("**/*_data.json")
            for row in source.items(name)
        }
        yield from super().entries(source)

    def place(self, row: Row, name: str) -> tuple[str, str]:  # noqa: ARG002
        """The set's own id of the picture, twice."""
        return row.text("id"), row.text("id")

    def captions(self, row: Row, text: str) -> list[tuple[str, dict[str, str]]]:  # noqa: ARG002
        """The list "captions" of the JSON."""
        found = _texts(row, row["captions"])
        return [(self._prefix.sub("", caption, 1), self._told.get(row.text("id"), {})) for caption in found]


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _texts(row: Row, value: Any) -> list[str]:
    """A text or a list of texts as those that are not blank; raises InputError for anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise row.error("captions that are texts")
    return [text.strip() for text in texts if text.strip()]
