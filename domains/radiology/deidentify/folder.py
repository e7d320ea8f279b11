"""A folder of files, de-identified into another one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from domains.formats.content import foreign
from domains.formats.dicom import is_dicom
from domains.formats.isolation import isolated
from domains.radiology.deidentify import profile
from domains.radiology.deidentify.instance import deidentify_instance
from domains.radiology.deidentify.ledger import Row, read_ledger, write, write_ledger
from domains.radiology.deidentify.pixels import BurnedIn
from domains.radiology.deidentify.pseudonyms import Key
from fovea.errors import ConfigError, InputError

SECONDS = 600.0
"""How long one file may take."""
_KINDS = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif"), "picture"),
    **dict.fromkeys((".nii", ".gz", ".nrrd", ".mha", ".mhd", ".zip", ".tar"), "volume or archive"),
    **dict.fromkeys((".txt", ".csv", ".json", ".xml", ".html", ".pdf", ".doc", ".docx", ".xlsx"), "document"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a folder: rows of the files, number and reason of the rejected, kinds of what is left out."""

    rows: tuple[Row, ...] = ()
    rejected: tuple[tuple[int, str], ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def faces(self) -> int:
        """How many files may show a face: those of CT, MR and PET."""
        return sum(bool(row["faces"]) for row in self.rows)

    @property
    def masked(self) -> int:
        """In how many files text was masked."""
        return sum(bool(row["masked"]) for row in self.rows)


def deidentify(
    source: Path,
    target: Path,
    key_file: Path,
    options: Collection[str] = profile.DEFAULT,
    burned_in: BurnedIn = "refuse",
    step: Callable[[], object] = lambda: None,
) -> Outcome:
    """De-identify every DICOM file of a folder (or one file) into `target`, each in a process that may die.

    A file that cannot be cleaned is rejected; it is named by its number among the paths, sorted by their bytes, from 1.
    The ledger is written last; the same input, key and options write the same bytes. Raises ConfigError for folders
    inside each other, for a key inside one of them, and for a target that holds something else.
    """
    _check_places(source, target, key_file)
    key = Key.open(key_file)
    rows = dict(read_ledger(target, key.name()))
    head: dict[str, object] = {
        "profile": f"DICOM PS3.15 {profile.EDITION} Basic Application Level Confidentiality Profile",
        "options": sorted(options),
        "burned-in": burned_in,
        "key": key.name(),
    }
    write_ledger(target, head, rows.values(), ())  # so that a run that is cut off can be taken up again
    fresh: dict[str, Row] = {}
    rejected: list[tuple[int, str]] = []
    left_out: Counter[str] = Counter()
    for number, path in enumerate(_files(source), 1):
        try:
            kind = _kind(path)
            if kind:
                left_out[kind] += 1
                continue
            arguments = path, key.hex(), sorted(options), burned_in
            row, written = isolated(deidentify_instance, *arguments, seconds=SECONDS)
            _check_twin(row, fresh)
            write(target / row["file"], written.tobytes())
            fresh[row["file"]] = row
        except InputError as error:
            rejected.append((number, str(error)))
        finally:
            step()
    rows.update(fresh)
    head["left out"] = dict(sorted(left_out.items()))
    write_ledger(target, head, rows.values(), [{"input": n, "rejected": reason} for n, reason in rejected])
    return Outcome(tuple(fresh.values()), tuple(rejected), left_out)


def _check_places(source: Path, target: Path, key_file: Path) -> None:
    inputs, outputs, secret = source.resolve(), target.resolve(), key_file.resolve()
    if not inputs.exists():
        raise ConfigError("an input that does not exist", "a folder or a file")
    if inputs == outputs or inputs in outputs.parents or outputs in inputs.parents:
        raise ConfigError("input and output inside each other", "two folders apart")
    if outputs in secret.parents or inputs in secret.parents:
        raise ConfigError(
            "a key among the data", "a place of its own", "Who has key and output can undo the pseudonyms."
        )


def _files(source: Path) -> list[Path]:
    found = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    return sorted(found, key=os.fsencode)


def _kind(path: Path) -> str:
    """Why a file is left out; nothing for a DICOM file to be taken."""
    with foreign("a file"), path.open("rb") as file:
        head = file.read(512)
    if head[128:132] == b"DICM" and b"1.2.840.10008.1.3.10" in head:
        return "DICOMDIR"
    if is_dicom(path):
        return ""
    return _KINDS.get(path.suffix.lower(), "other")


def _check_twin(row: Row, rows: dict[str, Row]) -> None:
    """Raise InputError when another file of this run is of the same instance and of other content."""
    twin = rows.get(row["file"])
    if twin and twin["sha256"] != row["sha256"]:
        raise InputError("a second, different file of one instance", "one file an instance", "Keep the right one.")
