"""The folder of a published set: its tables read as streams, its images named and not copied."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from domains.formats.content import file_hash, foreign
from fovea.errors import InputError, LimitError, PluginError, UnsupportedError

LINE = 2**26
"""The most characters of one line."""
WHOLE = 2**30
"""The most bytes of a file that is read at once (JSON, XML, text), and of one stored image."""
FROM_SOURCE, STORED = "source/", "images/"
"""How keys of images begin: of a file of the source, and of one that was taken out of an archive or table."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
}


@dataclass(frozen=True)
class Row:
    """One row of a table by column names, and where it stands, for errors."""

    values: Mapping[str, Any]
    line: int
    file: str
    unit: str = "line"

    def __getitem__(self, name: str) -> Any:
        """The value of a column; raises InputError where the row lacks it."""
        if self.values.get(name) is None:
            raise self.error(f"a value of {name!r}")
        return self.values[name]

    def get(self, name: str, default: str = "") -> Any:
        """The value of a column, or the default where there is none."""
        value = self.values.get(name)
        return default if value is None else value

    def number(self, name: str) -> float:
        """The value of a column as a finite number; raises InputError otherwise."""
        try:
            value = float(self[name])
        except (TypeError, ValueError):
            raise self.error(f"a number as {name!r}") from None
        if value - value != 0:
            raise self.error(f"a finite number as {name!r}")
        return value

    def text(self, name: str) -> str:
        """The value of a column as text without white space around it; a number is written out."""
        value = self[name]
        if not isinstance(value, (str, int, float)):
            raise self.error(f"text as {name!r}")
        return str(value).strip()

    def error(self, expected: str) -> InputError:
        """An error that tells the place and not the content."""
        return InputError(f"{self.unit} {self.line} of {self.file} is malformed", expected, "Mend or remove it.")


class SourceFolder:
    """A published set on disk. What is read of it goes into `digest`; images are named by keys and only looked for.

    `out` receives the images that `store` writes. `missing` holds the keys of files that are not there, `left_out`
    counts the reasons that importers give to `leave_out`.
    """

    def __init__(self, root: Path, out: Path) -> None:
        if not root.is_dir():
            raise InputError("a source that is no folder", "the folder of the published set", "Unpack it first.")
        self.root, self.out = root, out
        self.missing: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self._digest = sha256()

    @property
    def digest(self) -> str:
        """SHA-256 over the names and hashes of the tables and texts that were read, in the order of reading."""
        return self._digest.hexdigest()

    def has(self, name: str) -> bool:
        """Whether a file of that relative path is there."""
        return os.path.isfile(f"{self.root}/{inside(name)}")  # noqa: PTH113  a pathlib path a call is ten times slower

    def find(self, pattern: str) -> list[str]:
        """Relative paths of the files that match a glob pattern, sorted; hidden ones are passed over."""
        found = (path for path in self.root.glob(pattern) if not path.name.startswith(".") and path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def path(self, *names: str) -> Path:
        """The first of the named files that is there (also as NAME.gz); it counts into the digest.

        Raises InputError when there is none of them.
        """
        for name in [form for plain in names for form in (plain, f"{plain}.gz")]:
            if self.has(name):
                self._digest.update(f"{name} {file_hash(self.root / name)}\n".encode())
                return self.root / name
        raise InputError(
            f"a folder without {' or '.join(names)}", "the files as published", "Check the path, or unpack the set."
        )

    def leave_out(self, reason: str, n: int = 1) -> None:
        """Count entries that are not imported, by a reason that holds no content."""
        self.left_out[reason] += n

    def image(self, *names: str) -> str:
        """The key of an image (or mask, or volume) of the source, by its relative path or the several places where it
        may lie. Where there is none, the first of them counts as missing."""
        there = next((name for name in names if self.has(name)), None)
        key = FROM_SOURCE + inside(names[0] if there is None else there)
        if there is None:
            self.missing.add(key)
        return key

    def there(self, keys: Sequence[str]) -> list[str]:
        """Those keys whose files are there, of several views of one study; all of them where none is."""
        return [key for key in keys if key not in self.missing] or list(keys)

    def store(self, data: bytes) -> str:
        """Write an image that lives in an archive or table to `out`, named by its content; returns its key.

        Raises UnsupportedError for bytes that are no picture, LimitError above WHOLE.
        """
        if len(data) > WHOLE:
            raise LimitError("an embedded image of more than 1 GiB", "less", "Leave it out.")
        suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "")
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            suffix = ".webp"
        if not suffix:
            raise UnsupportedError("an embedded image of unknown format", "PNG, JPEG, TIFF, WebP, BMP or GIF")
        key = f"{STORED}{sha256(data).hexdigest()}{suffix}"
        target = self.out / key
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                partial.write_bytes(data)
        return key

    def text(self, *names: str) -> str:
        """A whole text file as UTF-8."""
        with foreign("a text file"):
            return _whole(self.path(*names)).decode("utf-8-sig")

    def json(self, *names: str) -> Any:
        """A whole JSON file."""
        with foreign("a JSON file", RecursionError):
            return json.loads(_whole(self.path(*names)).decode("utf-8-sig"))

    def items(self, *names: str) -> Iterator[Row]:
        """The objects of a JSON file that holds one list; `line` counts them from 1."""
        listed = self.json(*names)
        if not isinstance(listed, list):
            raise InputError(f"{names[0]} that holds no list", "a list of objects", "Check the file.")
        for number, values in enumerate(listed, start=1):
            row = Row(values if isinstance(values, dict) else {}, number, names[0], "item")
            if not isinstance(values, dict):
                raise row.error("an object")
            yield row

    def xml(self, *names: str) -> Any:
        """The root element of an XML file; entities and external references are refused."""
        from defusedxml import DefusedXmlException  # type: ignore[import-untyped]
        from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

        with foreign("an XML file", DefusedXmlException):
            return fromstring(_whole(self.path(*names)), forbid_dtd=True)

    def csv(self, *names: str, columns: Sequence[str] = (), delimiter: str = ",") -> Iterator[Row]:
        """Rows of a table with a head line, one at a time; also compressed with gzip.

        Raises InputError with the number of the line that is malformed, and when one of `columns` is not there.
        """
        with self._lines(*names) as lines:
            reader = csv.reader(lines, strict=True, delimiter=delimiter)
            try:
                head = [name.strip() for name in _trimmed(next(reader, []), 0)]
                lacking = [name for name in columns if name not in head]
                if lacking:
                    raise InputError(f"{names[0]} without the columns {', '.join(lacking)}", "the table as published")
                for fields in reader:
                    if not fields:
                        continue
                    values = _trimmed(fields, len(head))
                    row = Row(dict(zip(head, values, strict=False)), reader.line_num, names[0])
                    if len(values) != len(head):
                        raise row.error(f"{len(head)} fields")
                    yield row
            except csv.Error:
                raise Row({}, reader.line_num, names[0]).error("fields in CSV") from None

    def jsonl(self, *names: str) -> Iterator[Row]:
        """Objects of a file with one JSON object a line, one at a time; also compressed with gzip."""
        with self._lines(*names) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield parse_line(line, number, names[0])

    def parquet(self, name: str, columns: Sequence[str]) -> Iterator[Row]:
        """Rows of a Parquet file, in small batches. `line` counts rows from 1."""
        try:
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise PluginError("Parquet needs pyarrow", remedy="Install pyarrow.") from error
        with foreign("a Parquet file"):
            file = parquet.ParquetFile(self.path(name))
            batches = file.iter_batches(batch_size=64, columns=list(columns))
        lacking = [column for column in columns if column not in file.schema_arrow.names]
        if lacking:
            raise InputError(f"a Parquet file without the columns {', '.join(lacking)}", "the table as published")
        number = 0
        while True:
            with foreign("a Parquet file"):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            for values in rows:
                number += 1
                yield Row(values, number, "a Parquet file", "row")

    @contextmanager
    def _lines(self, *names: str) -> Iterator[Iterator[str]]:
        path = self.path(*names)
        try:
            with _open_text(path) as stream:
                yield _bounded(stream, names[0])
        except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{names[0]} cannot be read to its end ({type(error).__name__})",
                "a whole UTF-8 file",
                "Fetch it again.",
            ) from None


def parse_line(line: str, number: int, file: str) -> Row:
    """A line that holds a JSON object; raises InputError with the line's number otherwise."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    row = Row(values if isinstance(values, dict) else {}, number, file)
    if not isinstance(values, dict):
        raise row.error("one JSON object")
    return row


def inside(name: str) -> str:
    """A relative path in a folder, in POSIX form; raises InputError for one that would leave the folder."""
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or ":" in parts[0]:
        raise InputError("a file name that leads out of the folder", "a relative path", "Do not use this source.")
    return "/".join(parts)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A sibling to write to; it takes the target's place when the block ends well, and is removed when not."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _trimmed(fields: list[str], least: int) -> list[str]:
    """Without the empty fields after the last, down to `least`."""
    n = len(fields)
    while n > least and not fields[n - 1].strip():
        n -= 1
    return fields[:n]


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _bounded(stream: TextIO, file: str) -> Iterator[str]:
    while line := stream.readline(LINE):
        if len(line) == LINE:
            raise LimitError(f"a line of {file} with more than {LINE} characters", "shorter lines")
        yield line


def _whole(path: Path) -> bytes:
    if path.stat().st_size > WHOLE:
        raise LimitError("a file of more than 1 GiB that must be read at once", "a smaller one", "Split it.")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        data = file.read(WHOLE + 1)
    if len(data) > WHOLE:
        raise LimitError("a file that unpacks to more than 1 GiB", "a smaller one", "Split it.")
    return data
