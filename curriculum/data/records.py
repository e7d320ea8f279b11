"""Imported sets as a recipe uses them: pictures drawn once, splits kept apart, conversations worded as all others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from typing import Any, Literal

import numpy as np

from curriculum.data.corpus import Corpus, Split, places
from curriculum.data.importers.base import RECORDS, Entry, ImportedSet, load_records
from curriculum.prompts import reworded
from curriculum.recipe import Recipe, RecordsConfig
from domains.formats.content import file_hash, parallel
from fovea.contracts import Domain
from fovea.errors import ConfigError, InputError
from fovea.progress import track
from fovea.types import Bytes, Record, View

TEXTS = frozenset({"caption", "report", "conversation"})
"""The kinds of record whose single answer is a text about the picture, for stages 1 and 2."""
SHOWN = 20
"""How many lines of a set are named for each reason to leave records out."""
_INDEX, _PICTURES, _BATCH = "index.json", "pictures.npy", 64
_UNREADABLE, _IN_TEST = "a picture cannot be read", "a training picture also stands in a test split"
_STUDIED = "a test picture is that of a study which is not held out"
Examined = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Example:
    """A conversation with its line in records.jsonl, its split, and what the set says of it. The images of `record`
    are names in the set's `pictures`."""

    record: Record
    line: int
    split: Split
    attributes: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class RecordSet:
    """One imported set. `pictures` are uint8 (row, column, 3), on disk until they are used; `left_out` names the lines
    that cannot be used, by reason; `digest` is of the records and of what the pictures were drawn from."""

    config: RecordsConfig
    info: Mapping[str, Any]
    examples: tuple[Example, ...]
    pictures: Mapping[str, Bytes]
    left_out: dict[str, set[int]]
    digest: str

    @property
    def name(self) -> str:
        return self.config.name

    def of(self, stage: int, split: Examined = "train") -> list[Example]:
        """What a stage takes of a split."""
        return [example for example in self.examples if example.split == split and _suits(example.record, stage)]

    def fitting(self, stage: int, fault: Callable[[Record], str], split: Examined = "train") -> list[Example]:
        """The same without those records that have a fault (its reason, or ""), which are counted and named.

        Raises ConfigError when none is left of the training split.
        """
        kept = []
        for example in track(self.of(stage, split), f"{self.name}: conversations"):
            if reason := fault(example.record):
                self.left_out.setdefault(reason, set()).add(example.line)
            else:
                kept.append(example)
        if not kept and split == "train":
            raise ConfigError(f"{self.name}: {'; '.join(self.told())}", f"records that stage {stage} can train on")
        return kept

    def told(self) -> list[str]:
        """A sentence for each reason to leave records out."""
        return [
            f"{len(lines)} records left out, {reason}: lines {', '.join(map(str, sorted(lines)[:SHOWN]))}"
            f"{' …' if len(lines) > SHOWN else ''} of {RECORDS}"
            for reason, lines in sorted(self.left_out.items())
        ]

    @property
    def cited(self) -> str:
        """The set in a line: its licence first, and how it was used."""
        title, licence, citation, url = (self.info.get(key) for key in ("title", "licence", "citation", "url"))
        training, test = (sum(example.split == split for example in self.examples) for split in ("train", "test"))
        return (
            f"{licence}. {title}, {citation}, {url}; {training} training and {test} test records, share "
            f"{self.config.share:g} of stages {', '.join(map(str, self.config.stages))}, digest {self.digest[:16]}"
        )

    def provenance(self) -> dict[str, Any]:
        """What is kept beside a checkpoint: where the set is from, under which terms, and how much of it was used."""
        known = ("title", "licence", "citation", "url", "source_digest", "records_digest", "disjoint")
        return {
            "name": self.name,
            **{key: self.info.get(key) for key in known},
            "digest": self.digest,
            "stages": list(self.config.stages),
            "share": self.config.share,
            "records": {split: sum(e.split == split for e in self.examples) for split in ("train", "test")},
            "left_out": {
                reason: {"records": len(lines), "lines": sorted(lines)[:SHOWN]}
                for reason, lines in sorted(self.left_out.items())
            },
        }


def answer(record: Record) -> str:
    """What the assistant says."""
    return "".join(part.text for message in record.messages if message.role == "assistant" for part in message.parts)


def _suits(record: Record, stage: int) -> bool:
    if stage > 2:
        return True
    answers = sum(message.role == "assistant" for message in record.messages)
    return record.kind in TEXTS and answers == 1 and (len(record.images) == 1 if stage == 1 else bool(record.images))


def open_sets(recipe: Recipe, domain: Domain, corpus: Corpus) -> tuple[RecordSet, ...]:
    """The imported sets of a recipe, their pictures drawn at its image size and kept in OUT/records.

    Raises ConfigError, for all sets together, where a patient or place (the split key) stands in training and in test,
    among the sets and the studies, and where a stage finds nothing to train on. A training record whose picture also
    stands in a test split, by the bytes of its file, is left out.
    """
    drawn = [_open(config, recipe, domain) for config in recipe.data.records]
    faults = [*_leaks([one.found for one in drawn], corpus)]
    sets = _apart(drawn, corpus)
    for found in sets:
        for sentence in found.told():
            print(f"{found.name}: {sentence}", flush=True)
    if faults := [*faults, *_lacks(sets)]:
        raise ConfigError("; ".join(faults), remedy="Change data.records in the recipe and start again.")
    return sets


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A set with the digest of the file behind each picture."""

    found: RecordSet
    digests: Mapping[str, str]


def _open(config: RecordsConfig, recipe: Recipe, domain: Domain) -> _Drawn:
    dataset = load_records(config.path, config.root)
    entries = [(line, item) for line, item in enumerate(dataset, start=1)]
    divided = places((item.record.group for _, item in entries if not item.split), recipe)
    views: dict[str, tuple[str, str]] = {}
    used: list[tuple[int, Entry, Split, tuple[str, ...]]] = []
    for line, item in entries:
        split: Split = item.split or divided[item.record.group]
        if split != "validation":
            shown = [(key, item.attributes.get("slice", "")) for key in item.record.images]
            names = tuple(f"{config.name}/{sha256(repr(view).encode()).hexdigest()[:16]}" for view in shown)
            views |= zip(names, shown, strict=True)
            used.append((line, item, split, names))
    records = file_hash(config.path / RECORDS)
    told, pictures = _draw(dataset, views, records, domain, recipe)
    examples, left_out = [], dict[str, set[int]]()
    for line, item, split, names in used:
        reason = _fault(item.record) or ("" if all(told[name] for name in names) else _UNREADABLE)
        if reason:
            left_out.setdefault(reason, set()).add(line)
            continue
        messages = reworded(item.record.messages, [told[name][0] for name in names])
        record = replace(item.record, messages=messages, images=names)
        examples.append(Example(record, line, split, item.attributes))
    digests = {name: row[1] for name, row in told.items() if row}
    digest = sha256("\n".join([records, *(f"{name} {digests[name]}" for name in sorted(digests))]).encode())
    found = RecordSet(config, dataset.info, tuple(examples), pictures, left_out, digest.hexdigest())
    return _Drawn(found, digests)


def _fault(record: Record) -> str:
    """Why a conversation cannot be trained on; "" if it can."""
    answers = [message for message in record.messages if message.role == "assistant"]
    parts = [part for message in answers for part in message.parts]
    if not answers:
        return "nothing is answered"
    if any(part.image is not None for part in parts):
        return "a picture stands in an answer"
    if not all(any(part.text.strip() for part in message.parts) for message in answers):
        return "an answer is empty"
    return ""


def _draw(
    dataset: ImportedSet, views: Mapping[str, tuple[str, str]], records: str, domain: Domain, recipe: Recipe
) -> tuple[dict[str, list[str]], dict[str, Bytes]]:
    """Of each view (key, slice) by its name: the study's description and digest, nothing where it cannot be read; and
    the picture. Drawn once, then read from OUT/records."""
    folder = recipe.out / "records" / dataset.folder.resolve().name
    names = sorted(views)
    every = sha256("\n".join([*names, str(dataset.root)]).encode()).hexdigest()
    wanted = f"{records} {every} {recipe.image_size} {domain.name}"
    if not (folder / _INDEX).exists() or json.loads((folder / _INDEX).read_text())["wanted"] != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shape = (max(1, len(names)), recipe.image_size, recipe.image_size, 3)
        array = np.lib.format.open_memmap(folder / _PICTURES, "w+", np.uint8, shape)

        def one(place: int) -> list[str]:
            key, index = views[names[place]]
            try:
                study = domain.load(dataset.path(key))
                array[place] = domain.render(study, View(size=recipe.image_size, slice=_slice(index))).pixels
                return [domain.describe(study), study.digest]
            except InputError:
                return []

        told: list[list[str]] = []
        waiting: Iterator[int] = iter(track(range(len(names)), f"{folder.name}: pictures", len(names)))
        while batch := list(islice(waiting, _BATCH)):
            told += parallel(one, batch)
        array.flush()
        (folder / _INDEX).write_text(json.dumps({"wanted": wanted, "told": dict(zip(names, told, strict=True))}))
    pixels = np.asarray(np.load(folder / _PICTURES, mmap_mode="c", allow_pickle=False))
    return json.loads((folder / _INDEX).read_text())["told"], {name: pixels[place] for place, name in enumerate(names)}


def _slice(text: str) -> int | None:
    """The attribute "slice" of a record, counted from 0; None where a volume is shown by an overview."""
    if text and not text.isdecimal():
        raise InputError("a slice that is no number", "the number of a slice, from 0")
    return int(text) if text else None


def _apart(drawn: Sequence[_Drawn], corpus: Corpus) -> tuple[RecordSet, ...]:
    """The sets without test records that show a study not held out, and without training records that show what is
    tested."""
    known = {item.study.digest for item in corpus.items if item.split != "test"}
    tested = {digest for one in drawn for e in one.found.examples if e.split == "test" for digest in _shown(one, e)}
    held = (tested - known) | {item.study.digest for item in corpus.split("test")}
    refused = {"train": (held, _IN_TEST), "test": (known, _STUDIED)}
    sets = []
    for one in drawn:
        kept = []
        for example in one.found.examples:
            digests, reason = refused[example.split]
            if _shown(one, example) & digests:
                one.found.left_out.setdefault(reason, set()).add(example.line)
            else:
                kept.append(example)
        sets.append(replace(one.found, examples=tuple(kept)))
    return tuple(sets)


def _shown(one: _Drawn, example: Example) -> set[str]:
    return {one.digests[name] for name in example.record.images}


def _leaks(sets: Sequence[RecordSet], corpus: Corpus) -> Iterator[str]:
    """A sentence for the studies, and for each set, that train on a split key that is tested."""
    studies = {split: {item.group for item in corpus.items if item.split == split} for split in ("train", "test")}
    held = studies["test"] | {key for found in sets for key in _keys(found.examples, "test")}
    trained = {"the studies": studies["train"]} | {found.name: _keys(found.examples, "train") for found in sets}
    for name, keys in trained.items():
        if shared := len(keys & held):
            yield (
                f"{name}: {shared} split keys (patients or places) of training stand in a test split too, import with "
                "--disjoint or leave the set out"
            )


def _keys(examples: Iterable[Example], split: Split) -> set[str]:
    return {example.record.group for example in examples if example.split == split}


def _lacks(sets: Sequence[RecordSet]) -> Iterator[str]:
    for found in sets:
        for stage in found.config.stages:
            if not found.of(stage):
                what = {1: "texts about one picture", 2: "texts about pictures"}.get(stage, "conversations")
                reasons = "; ".join(found.told())
                yield f"{found.name}: no training records for stage {stage}, which takes {what}" + (
                    f" ({reasons})" if reasons else ""
                )
