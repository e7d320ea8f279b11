"""The directory of a DICOM medium (DICOMDIR, PS3.3 annex F): its series by their records, no image being opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import foreign
from domains.formats.isolation import isolated
from fovea.errors import InputError, LimitError

NAME = "DICOMDIR"
RECORDS = 200_000
"""The most records of one directory."""
_CLASS = b"1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Series:
    """The files of one series: `study` counts the studies of the medium from 1, and `missing` names files that are not
    there by their place among all of the series, from 1. Records that belong to no series have study 0."""

    study: int
    modality: str
    paths: tuple[Path, ...] = field(repr=False)
    missing: tuple[int, ...] = ()


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the directory of a medium, by its SOP class."""
    with foreign("a file", warns=False), path.open("rb") as file:
        head = file.read(512)
    return head[128:132] == b"DICM" and _CLASS in head


def read(path: Path) -> list[Series]:
    """The series in the order of their records, with the files that belong to them.

    Raises InputError for a broken directory, or one whose records lead out of its folder: by an absolute name, by "..",
    or through a link. Names that differ in the case of their letters only are found.
    """
    root = path.parent
    found = []
    for study, modality, names in isolated(parse, path):
        paths, missing = [], []
        for number, parts in enumerate(names, 1):
            file = _inside(root, parts)
            if file is None:
                missing.append(number)
            else:
                paths.append(file)
        found.append(Series(study, modality, tuple(paths), tuple(missing)))
    return found


def lacking(paths: Sequence[Path]) -> InputError:
    """The error that says which files a series lacks: given are the DICOMDIR, and the files that are there.

    Raises what `read` raises for a broken DICOMDIR.
    """
    part = next((series for series in read(paths[0]) if series.missing and series.paths == tuple(paths[1:])), None)
    if part is None:
        return InputError("a DICOMDIR beside files that are not one of its series", "one series, or the DICOMDIR alone")
    count, numbers = len(part.paths) + len(part.missing), ", ".join(map(str, part.missing[:8]))
    return InputError(
        f"a series of a medium that lacks {len(part.missing)} of its {count} files (number {numbers})",
        "all of its files",
        "Copy the medium again, or load the files that are there.",
    )


def parse(path: Path) -> list[Any]:
    """Of each series: the number of its study, its modality, and the parts of its files' names; for a child process."""
    with foreign("a DICOMDIR", BytesLengthException, InvalidDicomError):
        ds = dcmread(path)
        records = {int(record.seq_item_tell): record for record in ds.get("DirectoryRecordSequence") or ()}
        if len(records) > RECORDS:
            raise LimitError(f"a DICOMDIR of more than {RECORDS} records", "fewer", "Load the files themselves.")
        start = int(ds.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity") or 0)
        walk = _Walk(records)
        walk.follow(start, 0, None)
        rest = [record for offset, record in records.items() if offset not in walk.seen]
        orphans = [name for record in rest if (name := _name(record))]
        return [*walk.series, *([[0, "", orphans]] if orphans else [])]


class _Walk:
    """The tree of records: each has the offset of its next sibling and of its first child."""

    def __init__(self, records: dict[int, Dataset]) -> None:
        self._records, self.seen = records, set[int]()
        self.series: list[list[Any]] = []
        self._studies = 0

    def follow(self, offset: int, study: int, series: list[Any] | None, depth: int = 0) -> None:
        """Take a record, its siblings and all below them."""
        while offset:
            if offset in self.seen or depth > 16 or offset not in self._records:
                raise InputError(
                    "a DICOMDIR whose records lead nowhere or in a circle", "a whole one", "Copy it again."
                )
            self.seen.add(offset)
            record = self._records[offset]
            kind = record.get("DirectoryRecordType")
            below = series
            if kind == "STUDY":
                self._studies += 1
                study = self._studies
            elif kind == "SERIES":
                modality = str(record.get("Modality") or "")
                below = [study, modality if re.fullmatch(r"[A-Z0-9_]{2,16}", modality) else "", []]
                self.series.append(below)
            elif name := _name(record):
                if below is None:
                    below = [0, "", []]
                    self.series.append(below)
                below[2].append(name)
            self.follow(int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity") or 0), study, below, depth + 1)
            offset = int(record.get("OffsetOfTheNextDirectoryRecord") or 0)


def _name(record: Dataset) -> list[str]:
    """The parts of the name of the file that a record refers to, if it does and is in use."""
    name = record.get("ReferencedFileID") or []
    return [name] if isinstance(name, str) else [str(part) for part in name]


def _inside(root: Path, parts: list[str]) -> Path | None:
    """The file below the medium's folder, None where it is not there; raises InputError where it is not below."""
    outside = InputError(
        "a DICOMDIR whose records lead out of its folder", "files of the medium", "Load the files themselves."
    )
    if any(part in ("", ".", "..") or re.search(r"[/\\:\x00]", part) for part in parts):
        raise outside
    path = root
    for part in parts:
        below = path / part
        if not below.exists() and path.is_dir():
            below = next((other for other in path.iterdir() if other.name.lower() == part.lower()), below)
        path = below
    if not path.resolve().is_relative_to(root.resolve()):
        raise outside
    return path if path.is_file() else None
