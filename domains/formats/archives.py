"""Zip, tar and gzip archives, unpacked under limits.

An archive is refused as a whole, before anything of it is written, when a member's name leaves the folder, is doubled
or holds NUL, when a member is a link, a device, sparse or encrypted, when members of a zip overlap, or when there are
too many, too large or too densely packed. Archives inside an archive stay as they are.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

from domains.formats.content import foreign
from fovea.errors import InputError, LimitError, UnsupportedError

MEMBERS = 20_000
"""The most members of one archive."""
TOTAL = 2**34
"""The most bytes that one archive may hold when it is unpacked."""
RATIO = 200
"""How many times larger than the archive its content may be, once it is larger than 64 MiB."""

_FREE = 2**26
_CHUNK = 2**16
_LIST = 2**23
"""The most bytes of a zip's central directory, or of a name in a tar, that are read at once."""
_XZ_MEMORY = 2**27
_BLOCK = tarfile.BLOCKSIZE
_FOREIGN = (zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, lzma.LZMAError)
_MAGIC = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


class Member(NamedTuple):
    """One file of an archive: its name with "/" between folders, and its size in bytes."""

    name: str
    size: int


_Files = Iterator[tuple[Member, Iterator[bytes]]]


def is_archive(path: Path) -> bool:
    """Whether a file is zip, tar, gzip, bzip2 or xz, by its first bytes."""
    return bool(_format(path))


def members(path: Path) -> list[Member]:
    """The files of an archive, all of it checked and nothing written.

    Raises LimitError, UnsupportedError for what is encrypted or packed in a way that is not read, and InputError.
    """
    with foreign("an archive", *_FOREIGN):
        return [
            member if member.size >= 0 else Member(member.name, sum(map(len, pieces)))
            for member, pieces in _files(path)
        ]


def heads(path: Path, count: int = 8) -> list[bytes]:
    """The first 512 bytes of the first files, for telling what an archive holds; reads no further."""
    with foreign("an archive", *_FOREIGN):
        return [next(pieces, b"")[:_BLOCK] for _, pieces in islice(_files(path), count)]


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of an archive, readable by this user only and removed at the end.

    Raises as `members` does. Memory does not grow with the archive.
    """
    members(path)
    with TemporaryDirectory(prefix="fovea-") as name:
        folder = Path(name)
        with foreign("an archive", *_FOREIGN):
            for member, pieces in _files(path):
                target = folder.joinpath(*member.name.split("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    for piece in pieces:
                        file.write(piece)
        yield folder


def _files(path: Path) -> _Files:
    """Every regular file with its bytes, to be used before the next; raises at the first thing that is refused."""
    found = _format(path)
    if not found:
        raise UnsupportedError("a file that is no archive", "zip, tar, gzip, bzip2 or xz")
    if found == "zip":
        yield from _zipped(path)
        return
    with path.open("rb") as file:
        stream = _Stream(_metered(_inflated(file, found), path.stat().st_size))
        yield from _tarred(stream) if _is_tar(stream.peek(_BLOCK)) else _alone(stream, path)


def _format(path: Path) -> str:
    with foreign("a file"), path.open("rb") as file:
        head = file.read(_BLOCK)
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    return found or ("tar" if _is_tar(head) else "")


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


class _Names:
    """The names seen so far: raises InputError for one that leaves the folder or that two members share."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0

    def add(self, name: str, *, folder: bool = False) -> str:
        """The name as it may be written; letters' case and Unicode form do not make two names out of one."""
        self._count += 1
        if self._count > MEMBERS:
            raise LimitError(f"an archive of more than {MEMBERS} members", "fewer", "Unpack it with a tool you trust.")
        parts = re.split(r"[/\\]", name.rstrip("/\\") if folder else name)
        while len(parts) > 1 and parts[0] == ".":
            del parts[0]
        odd = re.match(r"[A-Za-z]:", name) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name)
        if odd or len(parts) > 64 or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
            if folder and parts in ([""], ["."]) and not name.startswith(("/", "\\")):
                return ""
            raise InputError(
                f"an archive whose member {self._count} has a name that leaves the folder or no file can have",
                "relative names",
                "Do not unpack it: ask its sender.",
            )
        same = [unicodedata.normalize("NFC", part).casefold() for part in parts]
        above = {"/".join(same[:end]) for end in range(1, len(same) + folder)}
        key = "/".join(same)
        if above & self._files or (not folder and key in self._files | self._folders):
            raise InputError(f"an archive whose member {self._count} has the name of another", "every name once")
        self._folders |= above
        if not folder:
            self._files.add(key)
        return "/".join(parts)


class _Weighed(FileIO):
    """A file that is never read in large blocks: what reads a zip's list at once shows its weight here."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LIST:
            raise LimitError("a zip with a list of members over 8 MiB", "a shorter one", "Unpack it elsewhere.")
        data = super().read(-1 if size is None else size) or b""
        if data.count(b"PK\x01\x02") > MEMBERS:
            raise LimitError(f"an archive of more than {MEMBERS} members", "fewer", "Unpack it with a tool you trust.")
        return data


def _zipped(path: Path) -> _Files:
    with _Weighed(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names, wanted = _Names(), []
        for number, info in enumerate(entries, 1):
            name = names.add(info.orig_filename, folder=info.is_dir())
            _check_entry(info, number)
            if not info.is_dir():
                wanted.append((info, Member(name, info.file_size)))
        _check_total(sum(member.size for _, member in wanted), path.stat().st_size)
        _check_overlap(entries, archive.start_dir)
        for info, member in wanted:
            with archive.open(info) as opened:
                yield member, iter(lambda opened=opened: opened.read(_CHUNK), b"")  # type: ignore[misc]


def _check_entry(info: zipfile.ZipInfo, number: int) -> None:
    if info.flag_bits & 0x41:  # PKWARE APPNOTE 4.4.4: bit 0 encrypted, bit 6 strongly so
        raise UnsupportedError(f"a zip whose member {number} is encrypted", "no password", "Unpack it first.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"an archive whose member {number} is a link or device", "files and folders only")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsupportedError(f"a zip whose member {number} is not stored or deflated", "one of them", "Pack it anew.")


def _check_overlap(entries: Iterable[zipfile.ZipInfo], end: int) -> None:
    """Raise InputError where the data of two members, or of one and the list, share bytes."""
    spans = sorted((i.header_offset, i.header_offset + 30 + len(i.orig_filename) + i.compress_size) for i in entries)
    starts = [start for start, _ in spans[1:]] + [end]
    if any(stop > start for (_, stop), start in zip(spans, starts, strict=False)):
        raise InputError("a zip whose members overlap", "each byte once", "Do not unpack it: ask its sender.")


def _check_total(size: int, packed: int) -> None:
    if size > TOTAL:
        raise LimitError(f"an archive of more than {TOTAL >> 30} GiB", "less", "Unpack it with a tool you trust.")
    if size > _FREE and size > RATIO * packed:
        raise LimitError(
            f"an archive whose content is more than {RATIO} times its size", "less", "Unpack it with a tool you trust."
        )


def _inflated(file: BinaryIO, found: str) -> Iterator[bytes]:
    """The bytes of a file in small pieces, inflated as its format says."""
    source: Any = file
    if found == "gzip":
        source = gzip.GzipFile(fileobj=file)
    elif found == "bzip2":
        source = bz2.BZ2File(file)
    elif found == "xz":
        source = _Xz(file)
    while piece := source.read(_CHUNK):
        yield piece


class _Xz:
    """An xz stream whose header cannot ask for more memory than is given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._engine = file, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def read(self, size: int) -> bytes:
        while not self._engine.eof:
            packed = self._file.read(_CHUNK) if self._engine.needs_input else b""
            if self._engine.needs_input and not packed:
                raise EOFError
            if piece := self._engine.decompress(packed, size):
                return piece
        return b""


def _metered(pieces: Iterator[bytes], packed: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        _check_total(total, packed)
        yield piece


class _Stream:
    """Bytes that come in pieces, taken in the lengths that are wanted."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, b""

    def peek(self, size: int) -> bytes:
        """The next bytes without taking them; fewer at the end."""
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
        return self._held[:size]

    def take(self, size: int) -> bytes:
        """The next `size` bytes; raises EOFError where there are fewer."""
        if size > _LIST:
            raise LimitError("a tar with a header over 8 MiB", "a shorter one", "Unpack it elsewhere.")
        taken = self.peek(size)
        if len(taken) < size:
            raise EOFError
        self._held = self._held[size:]
        return taken

    def spread(self, size: int | None) -> Iterator[bytes]:
        """The next `size` bytes in pieces, or all that are left; raises EOFError where there are fewer."""
        left = size
        while left is None or left > 0:
            piece = self.peek(1) and self._held[:left]
            if not piece:
                if left is None:
                    return
                raise EOFError
            self._held = self._held[len(piece) :]
            left = None if left is None else left - len(piece)
            yield piece


def _alone(stream: _Stream, path: Path) -> _Files:
    """What is compressed alone, under the name of the archive less its ending; its size shows only at the end."""
    name = path.stem if re.fullmatch(r"[\w. -]+", path.stem) else "file"
    yield Member(name, -1), stream.spread(None)


def _tarred(stream: _Stream) -> _Files:
    """POSIX.1-2001 (pax), ustar, GNU and older tars."""
    names, extended = _Names(), dict[str, str]()
    number = 0
    while (block := stream.take(_BLOCK)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            text = _padded(stream, info.size)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = text.rstrip(b"\0").decode()
            elif info.type != tarfile.XGLTYPE:
                extended |= _pax(text)
            continue
        number += 1
        name, size = extended.get("path", info.name), int(extended.get("size", info.size))
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in extended)
        if sparse or not (info.isreg() or info.isdir()):
            raise InputError(
                f"an archive whose member {number} is a link, a device or sparse", "files and folders only"
            )
        extended = {}
        name = names.add(name, folder=info.isdir())
        if size < 0:
            raise InputError(f"an archive whose member {number} has a negative size", "a whole file")
        if info.isreg():
            yield Member(name, size), (pieces := stream.spread(size))
            for _ in pieces:
                pass
            stream.take(-size % _BLOCK)


def _padded(stream: _Stream, size: int) -> bytes:
    return stream.take(size + -size % _BLOCK)[:size]


def _pax(text: bytes) -> dict[str, str]:
    """The records "length key=value" of an extended header (POSIX.1-2001, pax)."""
    found = {}
    while text:
        length = int(text.split(b" ", 1)[0])
        record, text = text[:length], text[length:]
        key, _, value = record.partition(b" ")[2].partition(b"=")
        if not record.endswith(b"\n") or length < 5:
            raise tarfile.HeaderError
        found[key.decode()] = value[:-1].decode()
    return found
