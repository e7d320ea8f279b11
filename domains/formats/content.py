"""What every reader gives back, the limit that it keeps, and the border where foreign errors become ours."""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fovea.errors import InputError, LimitError
from fovea.types import Image

LIMIT = 2**28
"""The most values that one image may declare, over rows, columns, slices and channels: 1 GiB as float32."""

_FOREIGN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "PIL", "nibabel.global")


class Content(NamedTuple):
    """The images of a study, its safe facts, and the SHA-256 of each file in an order that names do not change."""

    images: tuple[Image, ...]
    meta: Mapping[str, str]
    hashes: tuple[str, ...]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; raises InputError when it cannot be read."""
    with foreign("a file"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_size(*shape: int) -> None:
    """Raise LimitError when an image declares more than LIMIT values: called before anything is decoded."""
    values = 1
    for size in shape:
        values *= size
    if not 0 < values <= LIMIT:
        raise LimitError(f"an image of {' × '.join(map(str, shape))} values", f"1 to {LIMIT}", "Split or shrink it.")


@contextmanager
def foreign(what: str, *more: type[Exception]) -> Iterator[None]:
    """Run a foreign reader: what it raises becomes an InputError, what it warns or logs is dropped.

    Foreign texts may hold names or values of the file, so only the kind of error is kept, and the loggers of the
    foreign readers are silent from the first use on.
    """
    _silence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except _FOREIGN + more as error:
        raise InputError(
            f"{what} that cannot be read ({type(error).__name__})", "a whole, valid file", "Fetch or export it again."
        ) from None


@cache
def _silence() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
