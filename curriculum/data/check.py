"""Whether a set of data is fit to learn from: its files, its splits, its texts and its labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from curriculum.data.images import Look, alike, clusters, look, near
from curriculum.data.importers.base import INFO, RECORDS, SPLITS, Entry, load_records
from curriculum.data.importers.source import inside, parse_line
from domains.formats.content import file_hash, parallel
from fovea.errors import InputError
from fovea.progress import track

SCHEMA = "fovea-data-check/1"
MANIFEST = "manifest.jsonl"
SHOWN = 20
"""How many lines of each problem are named."""
_CUT = re.compile(r"(…|\.\.\.|[,;:–-]|\b(and|or|the|of|with|a))$", re.IGNORECASE)
_CLOSED = re.compile(r"""[.!?。！？…)\]"'”’%]$""")


@dataclass(frozen=True)
class Item:
    """One line of a set, in what is checked of it. Masks must be there; copies are looked for among `images` alone."""

    line: int
    group: str
    split: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    labels: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """What is wrong, how often, and in which lines of the set; a `fault` must be mended, other problems be known."""

    text: str
    count: int
    lines: tuple[int, ...]
    fault: bool


@dataclass(frozen=True)
class Twins:
    """Files with one content, or that look the same: the first line of each, its split, and its place."""

    lines: tuple[int, ...]
    splits: tuple[str, ...]
    paths: tuple[Path, ...]
    equal: bool


@dataclass(frozen=True)
class Check:
    """What was found; `numbers` are plain JSON, `leaks` the images that stand in two splits."""

    title: str
    licence: str
    numbers: Mapping[str, Any]
    problems: tuple[Problem, ...]
    leaks: tuple[Twins, ...]

    @property
    def faults(self) -> tuple[Problem, ...]:
        """The problems that must be mended."""
        return tuple(problem for problem in self.problems if problem.fault)

    def document(self) -> dict[str, Any]:
        """The whole check as plain JSON; lines are named in place of patients and files."""
        problems = [
            {"problem": p.text, "count": p.count, "fault": p.fault, "lines": list(p.lines)} for p in self.problems
        ]
        return {"schema": SCHEMA, "title": self.title, "licence": self.licence, "problems": problems, **self.numbers}


def check_set(folder: Path) -> Check:
    """Check an imported set, or a folder with a manifest.jsonl of paths, labels, groups and splits.

    Every file is read once, by as many threads as the machine has cores. Two images are one when their bytes are
    equal, or when their difference hashes are near and their grey copies correlate. Raises InputError for another
    folder, and for records that cannot be read.
    """
    info, items = _opened(folder)
    survey = _Survey()
    for item in items:
        survey.add(item)
    if not survey.lines:
        raise InputError("a set without a record", "at least one", "Import it again.")
    files = survey.masks | survey.images
    looks, absent, broken = _looks(files)
    twins = list(_twins(survey.images, looks))
    leaks = tuple(twin for twin in twins if len({split for split in twin.splits if split}) > 1)
    problems = [
        _problem("files are missing", _lines(files, absent), fault=True),
        _problem("files cannot be read", _lines(files, broken), fault=True),
        _problem("patients or places stand in several splits", _crossing(survey.groups.values()), fault=True),
        _problem("images stand in several splits", _crossing(survey.images.values()), fault=True),
        _problem("images of equal content stand in several splits", _firsts(leaks, equal=True), fault=True),
        _problem("images that look the same stand in several splits", _firsts(leaks, equal=False), fault=True),
        _problem("images have a copy of equal content", _firsts(twins, equal=True)),
        _problem("images have a copy that looks the same", _firsts(twins, equal=False)),
        _problem("texts are empty", survey.empty),
        _problem("answers look cut short", survey.cut),
        _problem("records repeat an earlier one", survey.repeated),
        _problem("records have no group to split by", survey.ungrouped),
    ]
    if "records_digest" in info and file_hash(folder / RECORDS) != info["records_digest"]:
        problems.append(Problem(f"{RECORDS} is not what was imported", 1, (), True))
    left_out = int(info.get("missing_files", 0))
    problems.append(
        Problem("files were missing when the set was imported; their records are not in it", left_out, (), False)
    )
    numbers = survey.numbers() | {"files": _file_numbers(files, looks, absent, broken)}
    found = tuple(problem for problem in problems if problem.count)
    return Check(str(info.get("title", folder.name)), str(info.get("licence", "")), numbers, found, leaks)


Places = dict[str, int]
"""Split to the first line that stands in it."""


class _Survey:
    """What one pass over the lines tells."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.images: dict[Path, Places] = {}
        self.masks: dict[Path, Places] = {}
        self.groups: dict[str, Places] = {}
        self.labels: dict[str, dict[str, list[int]]] = {}
        self.lengths: dict[str, dict[str, list[tuple[int, int]]]] = {"questions": {}, "answers": {}}
        self.answers: dict[str, Counter[str]] = {}
        self.empty: list[int] = []
        self.cut: list[int] = []
        self.repeated: list[int] = []
        self.ungrouped: list[int] = []
        self._known: set[bytes] = set()

    def add(self, item: Item) -> None:
        split = item.split
        self.lines[split] += 1
        for paths, places in ((item.images, self.images), (item.masks, self.masks)):
            for path in paths:
                places.setdefault(path, {}).setdefault(split, item.line)
        if item.group:
            self.groups.setdefault(item.group, {}).setdefault(split, item.line)
        else:
            self.ungrouped.append(item.line)
        for label, value in item.labels.items():
            if value is not None:
                counts = self.labels.setdefault(label, {}).setdefault(split, [0, 0, 0])
                counts[(1, 0, -1).index(value)] += 1
        self._texts(item)

    def _texts(self, item: Item) -> None:
        for kind, texts in (("questions", item.questions), ("answers", item.answers)):
            self.lengths[kind].setdefault(item.split, []).extend((len(t), len(t.split())) for t in texts)
        if not all(text.strip() for text in (*item.questions, *item.answers)):
            self.empty.append(item.line)
        if any(map(cut_short, item.answers)):
            self.cut.append(item.line)
        short = [answer.strip().lower() for answer in item.answers if len(answer.split()) <= 5]
        self.answers.setdefault(item.split, Counter()).update(short)
        told = sha256(repr((item.images, item.questions, item.answers)).encode()).digest()[:12]
        if told in self._known:
            self.repeated.append(item.line)
        self._known.add(told)

    def numbers(self) -> dict[str, Any]:
        groups = Counter(split for places in self.groups.values() for split in places)
        lengths = {
            kind: {split: _length_numbers(pairs) for split, pairs in sorted(splits.items(), key=_turn) if pairs}
            for kind, splits in self.lengths.items()
        }
        return {
            "splits": {s: {"records": n, "groups": groups[s]} for s, n in sorted(self.lines.items(), key=_turn)},
            "labels": {label: dict(sorted(splits.items(), key=_turn)) for label, splits in sorted(self.labels.items())},
            "lengths": lengths,
            "answers": {
                s: [list(pair) for pair in c.most_common(8)] for s, c in sorted(self.answers.items(), key=_turn) if c
            },
        }


def _turn(pair: tuple[str, Any]) -> tuple[int, str]:
    """Training, validation, test, then what other splits there are."""
    return (SPLITS.index(pair[0]) if pair[0] in SPLITS else len(SPLITS)), pair[0]


def cut_short(text: str) -> bool:
    """Whether a text ends as if more should follow: with a comma, hyphen, ellipsis or a word such as "the"; or, of
    twelve words and more, without a mark that closes a sentence."""
    kept = text.strip()
    return bool(_CUT.search(kept)) or (len(kept.split()) >= 12 and not _CLOSED.search(kept))


def _length_numbers(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in zip(("characters", "words"), np.array(pairs).T, strict=True):
        low, middle, high = np.percentile(values, (5, 50, 95))
        edges = np.unique(np.geomspace(values.min() + 1, values.max() + 2, 25).astype(int)) - 1
        counts, _ = np.histogram(values, bins=edges)
        found[name] = {
            "least": int(values.min()),
            "p5": float(low),
            "median": float(middle),
            "p95": float(high),
            "most": int(values.max()),
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }
    return found


def _opened(folder: Path) -> tuple[Mapping[str, Any], Iterator[Item]]:
    if (folder / INFO).is_file():
        found = load_records(folder)
        return found.info, (_item(entry, number, found.path) for number, entry in enumerate(found, start=1))
    if (folder / MANIFEST).is_file():
        return {}, _manifest(folder)
    raise InputError(
        "a folder without a set", f"{INFO} and {RECORDS} of an import, or a {MANIFEST}", "Import it first."
    )


def _item(entry: Entry, line: int, path: Any) -> Item:
    texts: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in entry.record.messages:
        if message.role in texts:
            texts[message.role].append(" ".join(part.text for part in message.parts if part.image is None))
    return Item(
        line,
        entry.record.group,
        entry.split,
        tuple(map(path, entry.record.images)),
        (path(entry.mask),) if entry.mask else (),
        tuple(texts["user"]),
        tuple(texts["assistant"]),
        entry.labels,
    )


def _manifest(folder: Path) -> Iterator[Item]:
    """Lines with path and, where they have them, label, text, group and split."""
    with (folder / MANIFEST).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            row = parse_line(line, number, MANIFEST)
            label: dict[str, Any] = row.get("label") if isinstance(row.get("label"), dict) else {}
            path = folder / inside(row.text("path"))
            masks: dict[str, Any] = label["masks"] if isinstance(label.get("masks"), dict) else {}
            named = [str(label.get("finding") or ""), *map(str, label.get("present") or ()), *map(str, masks)]
            named += [str(box.get("name", "")) for box in label.get("boxes") or () if isinstance(box, dict)]
            yield Item(
                number,
                str(row.get("group")),
                str(row.get("split")),
                (path,),
                tuple(path.parent / inside(str(name)) for name in masks.values()),
                answers=(str(row.get("text")),) if row.get("text") else (),
                labels=dict.fromkeys(filter(None, named), 1),
            )


def _looks(files: Mapping[Path, Places]) -> tuple[dict[Path, Look], list[Path], list[Path]]:
    """What is read of each file, those that are missing, and those that cannot be read."""
    found: dict[Path, Look] = {}
    absent: list[Path] = []
    broken: list[Path] = []

    def one(path: Path) -> Look | bool:
        try:
            return look(path) if path.is_file() else False
        except InputError:
            return True

    waiting = iter(track(files, "files", len(files)))
    while batch := list(islice(waiting, 256)):
        for path, told in zip(batch, parallel(one, batch), strict=True):
            if isinstance(told, Look):
                found[path] = told
            else:
                (broken if told else absent).append(path)
    return found, absent, broken


def _twins(files: Mapping[Path, Places], looks: Mapping[Path, Look]) -> Iterator[Twins]:
    """Images of equal content, then those that look the same; flat pictures are passed over."""
    by_digest: dict[str, list[Path]] = {}
    for path in files:
        if path in looks:
            by_digest.setdefault(looks[path].digest, []).append(path)
    for paths in by_digest.values():
        first = looks[paths[0]]
        if len(paths) > 1 and (first.code is not None or first.shape == (0, 0)):
            yield _twin(files, paths, equal=True)
    coded = [(paths[0], code) for paths in by_digest.values() if (code := looks[paths[0]].code) is not None]
    if not coded:
        return
    pairs = near(np.array([code for _, code in coded]))
    for cluster in clusters(len(coded), pairs, lambda a, b: alike(coded[a][0], coded[b][0])):
        yield _twin(files, [path for i in cluster for path in by_digest[looks[coded[i][0]].digest]], equal=False)


def _twin(files: Mapping[Path, Places], paths: list[Path], *, equal: bool) -> Twins:
    stands = [(line, split, path) for path in paths for split, line in files[path].items()]
    lines, splits, places = zip(*sorted(stands, key=lambda stand: stand[0]), strict=True)
    return Twins(lines, splits, places, equal)


def _problem(text: str, lines: Iterable[int], *, fault: bool = False) -> Problem:
    known = list(lines)
    return Problem(text, len(known), tuple(sorted(known)[:SHOWN]), fault)


def _lines(files: Mapping[Path, Places], chosen: Iterable[Path]) -> list[int]:
    return [min(files[path].values()) for path in chosen]


def _crossing(places: Iterable[Places]) -> list[int]:
    """The line of the second split of all that stand in two and more."""
    return [sorted(held.values())[1] for told in places if len(held := {s: n for s, n in told.items() if s}) > 1]


def _firsts(twins: Iterable[Twins], *, equal: bool) -> list[int]:
    """The line of the second of each."""
    return [twin.lines[1] for twin in twins if twin.equal == equal]


def _file_numbers(
    files: Mapping[Path, Places], looks: Mapping[Path, Look], absent: list[Path], broken: list[Path]
) -> dict[str, Any]:
    shapes = sorted((told.shape for told in looks.values() if told.shape != (0, 0)), key=lambda s: s[0] * s[1])
    return {
        "named": len(files),
        "missing": len(absent),
        "unreadable": len(broken),
        "pictures": len(shapes),
        "bytes": sum(told.size for told in looks.values()),
        "rows_columns": {
            name: list(shapes[index])
            for name, index in (("least", 0), ("median", len(shapes) // 2), ("most", -1))
            if shapes
        },
    }
