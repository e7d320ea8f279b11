"""What an importer is, what it yields, and how a set is written to disk and read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

from curriculum.data.importers.source import FROM_SOURCE, STORED, SourceFolder, inside, parse_line, replacing
from domains.formats.content import file_hash
from fovea.errors import InputError
from fovea.jsonable import from_json, to_json
from fovea.progress import track
from fovea.types import Message, Part, Record, Region

Split = Literal["train", "validation", "test", ""]
"""The split as published; "" where the set has none."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "")
SCHEMA = "fovea-dataset/1"
RECORDS, INFO = "records.jsonl", "dataset.json"


@dataclass(frozen=True, eq=False)
class Labelled:
    """A region of one of the record's images, in its pixels, with the word of the set."""

    label: str
    region: Region
    image: int = 0


@dataclass(frozen=True, eq=False)
class Entry:
    """A conversation with where it is from and what else the set says.

    `original` is the set's own id of the item. `labels` are 1 present, 0 absent, -1 uncertain, None not mentioned.
    `mask` is the key of a mask picture or volume. `attributes` are further words ("answer_type": "closed").
    """

    record: Record
    dataset: str
    original: str
    split: Split = ""
    labels: Mapping[str, int | None] = field(default_factory=dict)
    regions: tuple[Labelled, ...] = ()
    mask: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


class Importer(Protocol):
    """Reads one published set; a new set is a new importer in the registry of `curriculum.data.importers`."""

    @property
    def name(self) -> str:
        """The word on the command line."""

    @property
    def title(self) -> str:
        """The name that its authors gave it."""

    @property
    def licence(self) -> str:
        """The terms of use, and whether access is granted to named persons only."""

    @property
    def citation(self) -> str:
        """Who made it, when, and where it is told."""

    @property
    def url(self) -> str:
        """Where it is published."""

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The set's conversations, one at a time, in an order that only its files decide."""


def conversation(images: int, *turns: tuple[str, str]) -> tuple[Message, ...]:
    """Questions and answers in turn; the images stand before the first question."""
    messages: list[Message] = []
    for number, (question, answer) in enumerate(turns):
        shown = [Part(image=index) for index in range(images)] if number == 0 else []
        messages += [Message("user", (*shown, Part(question))), Message("assistant", (Part(answer),))]
    return tuple(messages)


def entry(
    importer: Importer,
    original: str,
    group: str,
    kind: str,
    images: Sequence[str],
    turns: Sequence[tuple[str, str]],
    **more: Any,
) -> Entry:
    """An entry whose id and group carry the set's name; `more` are the fields of Entry that it adds."""
    record = Record(
        id=f"{importer.name}/{original}",
        group=f"{importer.name}/{group}",
        kind=kind,
        messages=conversation(len(images), *turns),
        images=tuple(images),
    )
    return Entry(record, importer.name, original, **more)


def import_set(importer: Importer, source: Path, out: Path, *, disjoint: bool = False) -> dict[str, Any]:
    """Write `out`/records.jsonl (an entry a line) and `out`/dataset.json; returns what the latter says.

    Files of `source` are named by keys, not copied; images from archives and tables go to `out`/images. An entry that
    names a missing file is left out and counted. With `disjoint`, so is one of the training split whose group also
    stands in validation or test, and one of validation whose group stands in test. The same source gives the same
    bytes. Raises InputError when the source cannot be read, holds no entry, or lacks every file that it names.
    """
    folder = SourceFolder(source.resolve(), out)
    if out.resolve() == folder.root:
        raise InputError("an output folder that is the source", "another folder", "Choose a new one.")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / RECORDS) as partial:
        with partial.open("w", encoding="utf-8") as stream:
            for item in track(importer.entries(folder), f"{importer.name}: import"):
                if folder.missing and not folder.missing.isdisjoint((*item.record.images, item.mask)):
                    folder.leave_out("a file is missing")
                else:
                    stream.write(json.dumps(to_json(item), ensure_ascii=False) + "\n")
        if disjoint:
            _keep_apart(partial, folder)
        counts = _counts(partial, folder)
    info = {
        "schema": SCHEMA,
        "name": importer.name,
        "title": importer.title,
        "licence": importer.licence,
        "citation": importer.citation,
        "url": importer.url,
        "root": str(folder.root),
        "source_digest": folder.digest,
        "records_digest": file_hash(out / RECORDS),
        "disjoint": disjoint,
        **counts,
        "missing_files": len(folder.missing),
        "left_out": dict(sorted(folder.left_out.items())),
    }
    with replacing(out / INFO) as partial:
        partial.write_text(json.dumps(info, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return info


def _counts(path: Path, folder: SourceFolder) -> dict[str, Any]:
    """Records, groups and files of each split; raises InputError when there is nothing to count."""
    records: Counter[str] = Counter()
    groups: dict[str, set[bytes]] = {}
    images: set[bytes] = set()
    for row, _ in _rows(path):
        split = row["split"] or "none"
        records[split] += 1
        groups.setdefault(split, set()).add(_short(row["record"]["group"]))
        images.update(map(_short, row["record"]["images"]))
    if not records:
        absent = len(folder.missing)
        given = f"a set of which all {absent} files are missing" if absent else "a source without a usable item"
        raise InputError(given, "a published set, unpacked", "Check the path, and what was downloaded.")
    return {
        "records": dict(sorted(records.items())),
        "groups": {split: len(found) for split, found in sorted(groups.items())},
        "images": len(images),
    }


def _keep_apart(path: Path, folder: SourceFolder) -> None:
    """Drop entries of a group that stands in a later split: test stays whole, then validation."""
    held: dict[str, set[bytes]] = {"validation": set(), "test": set()}
    for row, _ in _rows(path):
        if row["split"] in held:
            held[row["split"]].add(_short(row["record"]["group"]))
    later = {"train": held["validation"] | held["test"], "validation": held["test"]}
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for row, line in _rows(path):
            if _short(row["record"]["group"]) in later.get(row["split"], ()):
                folder.leave_out("the group stands in a held-out split")
            else:
                stream.write(line)


def _short(text: str) -> bytes:
    """Eight bytes for a text, so that millions of them fit in memory."""
    return sha256(text.encode()).digest()[:8]


def _rows(path: Path) -> Iterator[tuple[Any, str]]:
    """What was written, as plain JSON and as its line."""
    with path.open(encoding="utf-8") as stream:
        yield from ((json.loads(line), line) for line in stream)


def _entries(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            yield _checked(from_json(Entry, parse_line(line, number, RECORDS).values), number)


def _checked(item: Entry, number: int) -> Entry:
    shown = [part.image for message in item.record.messages for part in message.parts if part.image is not None]
    if item.split not in SPLITS or any(not 0 <= index < len(item.record.images) for index in shown):
        raise InputError(f"line {number} of {RECORDS} is malformed", "what an import wrote", "Import the set again.")
    return item


@dataclass(frozen=True)
class ImportedSet:
    """An imported set on disk: iterate over its entries as often as wanted; `info` is its dataset.json."""

    folder: Path
    root: Path
    info: Mapping[str, Any]

    def __iter__(self) -> Iterator[Entry]:
        return _entries(self.folder / RECORDS)

    def path(self, key: str) -> Path:
        """Where the file of a key lies. Raises InputError for a key of another form, or that leads out."""
        if key.startswith(FROM_SOURCE):
            return self.root / inside(key.removeprefix(FROM_SOURCE))
        if key.startswith(STORED):
            return self.folder / inside(key)
        raise InputError("a key of no known form", f"{FROM_SOURCE}… or {STORED}…", "Import the set again.")


def load_records(folder: Path, root: Path | None = None) -> ImportedSet:
    """The set that `import_set` wrote; `root` names the source's new place when it has moved.

    Raises InputError when the folder holds no imported set.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if not isinstance(info, dict) or info.get("schema") != SCHEMA or not (folder / RECORDS).is_file():
        raise InputError(
            "a folder without an imported set", f"{INFO} of {SCHEMA} beside {RECORDS}", "Run `fovea data import`."
        )
    return ImportedSet(folder, root or Path(str(info.get("root", ""))), info)
