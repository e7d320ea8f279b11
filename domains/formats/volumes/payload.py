"""The bytes of pixels that a header declares: found beside it, and read without trusting what it declares."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from domains.formats.content import foreign
from fovea.errors import InputError, UnsupportedError

_CHUNK = 2**20
RATIO = 1100
"""DEFLATE makes data at most about 1,030 times smaller (RFC 1951)."""
SHORT = "a file that ends before the pixels that its header declares"

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "zlib": partial(zlib.decompressobj, 47),  # zlib or gzip, by its first bytes
    "bz2": bz2.BZ2Decompressor,
}


def beside(header: Path, name: str) -> Path:
    """The file `name` in the folder of a header; raises InputError where it is missing or would lie elsewhere."""
    if not name or Path(name).name != name or "\\" in name or "\0" in name:
        raise InputError("a header whose pixels lie in another folder", "both in one folder", "Put them side by side.")
    path = header.with_name(name)
    if not path.is_file():
        raise InputError("a header without the file of its pixels", "both in one folder", "Fetch the missing file.")
    if path.resolve().parent != header.resolve().parent:
        raise InputError("a file of pixels that links to another folder", "both in one folder", "Copy it there.")
    return path


def check_length(path: Path, declared: int) -> None:
    """Raise InputError where a file, plain or gzip by its name, cannot hold the bytes that a header declares."""
    most = path.stat().st_size * (RATIO if path.suffix.lower() in (".gz", ".mgz") else 1)
    if declared > most:
        raise InputError(SHORT, "a whole file", "Fetch it again.")


def read_bytes(path: Path, start: int, skip: int, count: int, compression: str = "") -> bytes:
    """`count` bytes after `skip`, both counted once decompressed, of what begins at byte `start` of a file.

    `compression` is "", "zlib" (gzip too) or "bz2". Memory grows with what is there, not with what is declared.
    Raises InputError where the file is shorter or its compression broken.
    """
    with foreign("pixels"), path.open("rb") as file:
        if compression:
            return _decompressed(file, start, skip, count, compression)
        if start + skip + count > path.stat().st_size:
            raise InputError(SHORT, "a whole file", "Fetch it again.")
        file.seek(start + skip)
        return file.read(count)


def _decompressed(file: BinaryIO, start: int, skip: int, count: int, compression: str) -> bytes:
    file.seek(start)
    found, passed = bytearray(), 0
    for piece in _pieces(file, compression):
        found += piece[max(0, skip - passed) :]
        passed += len(piece)
        if len(found) >= count:
            return bytes(found[:count])
    raise InputError(SHORT, "a whole file", "Fetch it again.")


def _pieces(file: BinaryIO, compression: str) -> Iterator[bytes]:
    """What follows in a file, decompressed, in pieces of at most 1 MiB; streams may follow each other."""
    if compression not in _DECOMPRESSORS:
        raise UnsupportedError("pixels in an unknown compression", "raw, gzip, zlib or bzip2", "Convert the file.")
    make, chunk = _DECOMPRESSORS[compression], b""
    decompressor = make()
    while True:
        piece = decompressor.decompress(chunk, _CHUNK)
        chunk = getattr(decompressor, "unconsumed_tail", b"")
        if decompressor.eof:
            chunk, decompressor = decompressor.unused_data, make()
        if piece:
            yield piece
        elif not chunk:
            chunk = file.read(_CHUNK)
            if not chunk:
                return
