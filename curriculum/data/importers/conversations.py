"""Conversations in the layout of LLaVA, in and out, and what it shares with the one of Hugging Face."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from curriculum.data.importers.base import Entry, ImportedSet, Importer, Split
from curriculum.data.importers.lists import first, objects, split_of_path
from curriculum.data.importers.source import Row, SourceFolder, replacing
from fovea.errors import InputError
from fovea.types import Message, Part, Record, Role

PLACEHOLDER = "<image>"
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
_SPEAKERS: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
_CONVERSATIONS = ("conversations", "conversatons")
"""The key of the turns; the second is how the instruction files of LLaVA-Med spell it."""


class Llava:
    """Conversations in LLaVA's JSON or JSON lines, LLaVA-Med's included; images by paths from the source or images/.

    A record is an item. Turns have "from" and "value", their pictures stand where "<image>" is, or before the first
    question where it is nowhere; "image" is a path or a list of them. The group is the first picture, or the item
    where there is none. The split is read off the file's name ("train.json"). What LLaVA-Med says of the kind of image
    becomes the attribute "domain" ("ct_scan"). Items with a video or an empty turn are left out and counted.
    """

    name = "llava"
    title = "LLaVA conversations"
    licence = "not stated; that of the set that is imported"
    citation = "the layout: Liu et al., Visual Instruction Tuning, NeurIPS 2023, arXiv:2304.08485"
    url = "https://github.com/haotian-liu/LLaVA"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The items of every JSON and JSON-lines file at the top of the source, in the order of their names.

        Raises InputError with the number of the item that is malformed.
        """
        first(source, "*.json", "*.jsonl")
        for name in sorted([*source.find("*.json"), *source.find("*.jsonl")]):
            rows = source.jsonl(name) if name.endswith("l") else source.items(name)
            for row in rows:
                if row.get("video"):
                    source.leave_out("an item with a video")
                    continue
                images = [source.image(path, f"images/{path}") for path in _paths(row)]
                yield from said(self, source, row, f"{name}/{row.line}", images, split_of_path(name), _domain(row))


def said(
    importer: Importer,
    source: SourceFolder,
    row: Row,
    original: str,
    images: Sequence[str],
    split: Split,
    attributes: Mapping[str, str],
) -> Iterator[Entry]:
    """The entry of an item with the column "conversations" or "messages"; none when a turn is empty."""
    messages = placed(row, turns(row), len(images))
    if not all(message.parts for message in messages):
        source.leave_out("an empty turn")
        return
    group = f"{importer.name}/{images[0] if images else original}"
    record = Record(f"{importer.name}/{original}", group, "conversation", messages, tuple(images))
    yield Entry(record, importer.name, original, split, attributes=attributes)


def turns(row: Row) -> list[tuple[Role, list[str | None]]]:
    """Who speaks, and pieces of what is said: texts, and None for a picture.

    Takes turns of "from" and "value" and those of "role" and "content", whose content is a text or a list of parts of
    type "text" or "image". Raises InputError for anything else.
    """
    key = next((key for key in (*_CONVERSATIONS, "messages") if row.values.get(key) is not None), _CONVERSATIONS[0])
    if not isinstance(row[key], list) or not row[key]:
        raise row.error(f"a list of turns as {key!r}")
    spoken: list[tuple[Role, list[str | None]]] = []
    for turn in objects(row[key], f"{row.unit} {row.line} of {row.file}", "turn"):
        role = turn.get("from") or turn.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise turn.error(f"one of {', '.join(_ROLES)} as speaker")
        value = turn.values.get("value")
        spoken.append((_ROLES[role], _pieces(turn, turn.values.get("content") if value is None else value)))
    return spoken


def placed(row: Row, spoken: Sequence[tuple[Role, list[str | None]]], images: int) -> tuple[Message, ...]:
    """Messages in which the pictures are counted in their order; with no place for them they stand before the first
    words of the user. Raises InputError when there are more or fewer places than pictures."""
    places = sum(piece is None for _, pieces in spoken for piece in pieces)
    lead = [Part(image=index) for index in range(images)] if places == 0 else []
    if not lead and places != images:
        raise row.error(f"as many images as places for them, and not {images} for {places}")
    numbers = iter(range(images))
    messages = []
    for role, pieces in spoken:
        parts = [Part(image=next(numbers)) if piece is None else Part(piece) for piece in pieces if piece != ""]
        if role == "user" and parts:
            parts, lead = [*lead, *parts], []
        messages.append(Message(role, tuple(parts)))
    if lead:
        raise row.error("a turn of the user that the images go with")
    return tuple(messages)


def _pieces(turn: Row, value: Any) -> list[str | None]:
    """Texts without white space around them, and None for each picture."""
    if isinstance(value, str):
        texts: list[str | None] = []
        for number, text in enumerate(value.split(PLACEHOLDER)):
            texts += [*([None] if number else []), text.strip()]
        return texts
    if not isinstance(value, list):
        raise turn.error("a text, or a list of parts")
    pieces: list[str | None] = []
    for part in objects(value, turn.file, "part"):
        if part.get("type") == "image":
            pieces.append(None)
        elif part.get("type") == "text":
            pieces.append(part.text("text"))
        else:
            raise turn.error("parts of type 'text' or 'image'")
    return pieces


def _paths(row: Row) -> list[str]:
    value = row.values.get("image") or row.values.get("images") or []
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise row.error("a path or a list of paths as 'image'")
    return paths


def _domain(row: Row) -> dict[str, str]:
    flags = row.values.get("domain")
    found = sorted(str(name) for name, on in flags.items() if on) if isinstance(flags, Mapping) else []
    return {"domain": " ".join(found)} if found else {}


def export_llava(dataset: ImportedSet, target: Path, image_folder: Path, split: Split | None = None) -> int:
    """Write the records of an imported set, of one split or all, as LLaVA's JSON; returns how many.

    Images are named by their paths from `image_folder`, which is what LLaVA's option of that name takes. Raises
    InputError when an image lies outside of it, or when a text holds "<image>".
    """
    count = 0
    with replacing(target) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for item in dataset:
            if split is None or item.split == split:
                names = [_named(dataset.path(key), image_folder) for key in item.record.images]
                stream.write(",\n" if count else "\n")
                stream.write(json.dumps(to_llava(item.record, names), ensure_ascii=False))
                count += 1
        stream.write("\n]\n")
    return count


def to_llava(record: Record, images: Sequence[str]) -> dict[str, Any]:
    """One item of LLaVA's JSON: "image" is a path, or a list where there are several; none where there are none."""
    item: dict[str, Any] = {"id": record.id}
    if images:
        item["image"] = images[0] if len(images) == 1 else list(images)
    item["conversations"] = [
        {"from": _SPEAKERS[message.role], "value": "\n".join(map(_written, message.parts))}
        for message in record.messages
    ]
    return item


def _written(part: Part) -> str:
    if part.image is not None:
        return PLACEHOLDER
    if PLACEHOLDER in part.text:
        raise InputError(f"a text that holds {PLACEHOLDER}", "text without it", "Mend that record.")
    return part.text


def _named(path: Path, folder: Path) -> str:
    name = PurePosixPath(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/"))
    if name.is_absolute() or ".." in name.parts:
        raise InputError("an image outside of the image folder", "one folder that holds all images", "Choose another.")
    return re.sub(r"^\./", "", name.as_posix())
