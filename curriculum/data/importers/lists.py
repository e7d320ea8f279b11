"""What the importers of the remote sensing and generic sets share: lists inside JSON objects, and names of splits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from curriculum.data.importers.base import Split
from curriculum.data.importers.source import Row, SourceFolder
from fovea.errors import InputError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""How published sets name their splits."""


def split_of(row: Row, name: str = "split") -> Split:
    """The split that a column names; raises InputError for a word that is none of `SPLIT_NAMES`."""
    word = row.text(name).lower()
    if word not in SPLIT_NAMES:
        raise row.error(f"one of {', '.join(SPLIT_NAMES)} as {name!r}")
    return SPLIT_NAMES[word]


def split_of_path(name: str) -> Split:
    """The split that a file's name or else a folder above it names ("train/00000.tar", "test-00000.parquet")."""
    for part in reversed(PurePosixPath(name).parts):
        found = {SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_NAMES}
        if len(found) == 1:
            return found.pop()
    return ""


def listed(source: SourceFolder, name: str, key: str) -> Iterator[Row]:
    """The objects of the list that a JSON file holds under a key; `line` counts them from 1."""
    whole = source.json(name)
    file = PurePosixPath(name).name
    if not isinstance(whole, dict) or not isinstance(whole.get(key), list):
        raise InputError(f"{file} that holds no list {key!r}", "the file as published", "Fetch it again.")
    yield from objects(whole[key], file)


def objects(values: list[Any], file: str, unit: str = "item") -> Iterator[Row]:
    """Rows of a list of objects, counted from 1; raises InputError for what is no object."""
    for number, item in enumerate(values, start=1):
        row = Row(item if isinstance(item, dict) else {}, number, file, unit)
        if not isinstance(item, dict):
            raise row.error("an object")
        yield row


def first(source: SourceFolder, *patterns: str) -> str:
    """The first file that matches one of the patterns, in their order; raises InputError when there is none."""
    found = next((names[0] for pattern in patterns if (names := source.find(pattern))), "")
    if not found:
        wanted = " or ".join(pattern.removeprefix("**/") for pattern in patterns)
        raise InputError(f"a folder without {wanted}", "the set as published, unpacked", "Check the path.")
    return found


def folder_of(name: str) -> str:
    """The folder of a relative path as a prefix: "a/b/" of "a/b/c.json", "" of "c.json"."""
    head, slash, _ = name.rpartition("/")
    return head + slash
