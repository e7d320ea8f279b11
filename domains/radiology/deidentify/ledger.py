"""What was done, as JSON lines in the folder that it was done for; no identifier, no name and no hash of an input.

The first line tells the profile, the options and the key by its name; then a line a file, in the order of output names;
then a line for each input that was not taken, by its number among the sorted paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domains.formats.content import foreign
from fovea.errors import ConfigError

NAME = "deidentification.jsonl"
Row = Mapping[str, Any]


def read_ledger(folder: Path, key: str) -> dict[str, Row]:
    """Rows of an earlier run by output name.

    Raises ConfigError for a folder with other things in it, and for one that was filled with another key.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return {}
    path = folder / NAME
    if not path.is_file():
        raise ConfigError("an output folder with other things in it", "an empty folder, or one of an earlier run")
    with foreign("a ledger"):
        head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        if head["key"] != key:
            raise ConfigError("an output folder of another key", "the same key", "Name another folder.")
        return {row["file"]: row for row in rows if "file" in row and (folder / row["file"]).is_file()}


def write_ledger(folder: Path, head: Row, rows: Iterable[Row], rejected: Iterable[Row]) -> Path:
    """Replace the ledger."""
    lines = [head, *sorted(rows, key=lambda row: str(row["file"])), *rejected]
    write(folder / NAME, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())
    return folder / NAME


def write(path: Path, data: bytes) -> None:
    """A whole file or none: written beside its place, then moved there."""
    with foreign("an output file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)
