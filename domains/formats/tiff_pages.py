"""The pages of a TIFF: where each begins, and the file as if it began with one of them.

Readers reach a page by a walk through all before it, which for every page of a stack is quadratic. Here the walk is
done once and reads one tag a page. TIFF 6.0, and BigTIFF as libtiff writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import foreign
from fovea.errors import LimitError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PAGES, _TAGS = 4096, 4096
"""The most pages of a file, and the most tags of a page."""
_SUBFILE, _ASIDE = 254, 1 | 4
"""The tag NewSubfileType, and its bits of a reduced copy and of a transparency mask of another page."""
_SHORT = 3
"""The type of 16-bit values: the tag should be of 32, and is not always."""


def offsets(path: Path) -> list[int]:
    """Where each page begins that is a picture of its own, in the order of the file: the first page is always one.

    Reduced copies and masks are left out. Raises LimitError for too many pages, InputError for a broken file.
    """
    with foreign("a TIFF"), path.open("rb") as file:
        (first, _), *others = _directories(file)
    return [first, *(offset for offset, entries in others if not _subfile(entries) & _ASIDE)]


def tags(path: Path) -> frozenset[int]:
    """The tags of the first page, whatever its size; none of a file that is no TIFF. Raises InputError if broken."""
    with foreign("a TIFF"), path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return frozenset()
        file.seek(0)
        _, entries = next(_directories(file))
        return frozenset(entries["tag"].tolist())


def opened(path: Path, offset: int) -> BufferedReader:
    """The file with the page at `offset` as its first."""
    return BufferedReader(_Page(path, offset))


class _Page(FileIO):
    """Reads a header that names another first page than the file's own does."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(path)
        head = self.read(8)
        order, big = _layout(head)
        self._head = head + Struct(f"{order}Q").pack(offset) if big else head[:4] + Struct(f"{order}I").pack(offset)
        self.seek(0)

    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        known = self._head[start : start + count]
        memoryview(buffer)[: len(known)] = known
        return count


def _directories(file: BinaryIO) -> Iterator[tuple[int, NDArray[Any]]]:
    """Offset and entries ("tag", "type", "value", …) of each page; a chain that comes back to a page ends there."""
    head = file.read(16)
    order, big = _layout(head)
    counter, pointer = (Struct(order + kind) for kind in ("QQ" if big else "HI"))
    fields = [("tag", "u2"), ("type", "u2"), ("count", "u8" if big else "u4"), ("value", "u4")]
    entry = np.dtype([*fields, ("rest", "u4")] if big else fields).newbyteorder(order)
    (offset,) = pointer.unpack_from(head, pointer.size)
    seen: set[int] = set()
    while offset and offset not in seen:
        if len(seen) == _PAGES:
            raise LimitError(f"a TIFF of more than {_PAGES} pages", f"at most {_PAGES}", "Split it.")
        seen.add(offset)
        file.seek(offset)
        (tags,) = counter.unpack(file.read(counter.size))
        if tags > _TAGS:
            raise LimitError(f"a page of {tags} tags", f"at most {_TAGS}", "Save it again with a tool you trust.")
        entries = np.frombuffer(file.read(tags * entry.itemsize), entry, tags)
        yield offset, entries
        (offset,) = pointer.unpack(file.read(pointer.size))


def _subfile(entries: NDArray[Any]) -> int:
    """NewSubfileType, 0 where there is none."""
    for entry in entries[entries["tag"] == _SUBFILE][:1]:
        left = entry["type"] == _SHORT and entries.dtype["value"].byteorder == ">"  # a short value begins its field
        return int(entry["value"]) >> (16 if left else 0)
    return 0


def _layout(head: bytes) -> tuple[Literal["<", ">"], bool]:
    """The byte order as struct writes it, and whether it is a BigTIFF."""
    return "<" if head[:2] == b"II" else ">", 43 in head[2:4]
