"""Members of a tar file, read as a stream: nothing is unpacked to disk, and nothing hostile is followed."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import EOFHeaderError, HeaderError  # type: ignore[attr-defined]
from typing import BinaryIO, NamedTuple, Self

from curriculum.data.importers.source import inside
from domains.formats.content import foreign
from fovea.errors import InputError, LimitError

MEMBER = 2**26
"""The most bytes of one member."""
RATIO = 100
"""The most bytes that one compressed byte may become; pictures hardly compress, and text by less."""
_SLACK = 2**20
_GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """A file of an archive: its relative path and its bytes."""

    name: str
    data: bytes


def members(path: Path) -> Iterator[Member]:
    """The files of a .tar or .tar.gz, in their order, each read when it is its turn.

    Raises InputError for a damaged archive, for links, devices and sparse files, and for names that lead out of the
    folder; LimitError for a member above MEMBER and for an archive that unpacks to more than RATIO times its size.
    """
    with path.open("rb") as raw:
        with foreign("a tar file", tarfile.TarError):
            guarded = _Guarded(raw)
            archive = tarfile.open(fileobj=io.BufferedReader(guarded), mode="r|", tarinfo=_Strict)  # noqa: SIM115
        while True:
            with foreign("a tar file", tarfile.TarError):
                member = _next(archive, guarded)
            if member is None:
                return
            yield member


def _next(archive: tarfile.TarFile, guarded: _Guarded) -> Member | None:
    """The next file that is no folder."""
    while True:
        archive.members.clear()  # type: ignore[attr-defined] # or a long archive would fill the memory
        guarded.room = _SLACK
        info = archive.next()
        if info is None:
            return None
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise InputError("a tar file with a link, device or sparse file", "plain files", "Do not use it.")
        name = inside(info.name)
        if not 0 <= info.size <= MEMBER:
            raise LimitError(f"a tar member of {info.size} bytes", f"at most {MEMBER}", "Leave it out.")
        guarded.room = info.size + _SLACK
        stream = archive.extractfile(info)
        data = stream.read() if stream else b""
        if len(data) != info.size:
            raise InputError("a tar file that ends within a member", "a whole file", "Fetch it again.")
        return Member(name, data)


class _Strict(tarfile.TarInfo):
    """A header; one that is damaged or cut off is an error, where tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """The next header; the end of an archive is a block of zeros."""
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError:
            raise InputError(
                "a tar file with a damaged header, or cut off", "a whole file", "Fetch it again."
            ) from None


class _Guarded(io.RawIOBase):
    """A file, plain or compressed with gzip; raises LimitError when more comes out than `room` or RATIO allow.

    `room` bounds what is read for one member, its headers included: these are held in memory, whatever they declare.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.room = _SLACK
        self._raw, self._given = raw, 0
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        self._stream: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """At most 64 KiB at a time, so that a check follows on every step."""
        data = self._stream.read(min(len(buffer), 2**16))
        self.room -= len(data)
        self._given += len(data)
        if self.room < 0 or self._given > RATIO * (self._raw.tell() + _SLACK):
            given, expected = "a tar file that unpacks to more than it declares", f"up to {RATIO} times its size"
            raise LimitError(given, expected, "Do not use it.")
        buffer[: len(data)] = data
        return len(data)
