"""What every reader gives back, the limit that it keeps, and the border where foreign errors become ours."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar, overload

from fovea.errors import InputError, LimitError
from fovea.types import Image

Given = TypeVar("Given")
Result = TypeVar("Result")
LIMIT = 2**28
"""The most values that one image may declare, over rows, columns, slices and channels: 1 GiB as float32."""

_FOREIGN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_LOGGERS = ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "PIL", "nibabel.global")


class FileHashes(Sequence[str]):
    """The SHA-256 of each of some files, computed together when the first is asked for: a digest costs a full read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)

    @cached_property
    def _hashes(self) -> tuple[str, ...]:
        return tuple(parallel(file_hash, self._paths))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._hashes[index]

    def __len__(self) -> int:
        return len(self._paths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._hashes == tuple(other)

    def __hash__(self) -> int:
        return hash(self._hashes)


class Content(NamedTuple):
    """The images of a study, its safe facts, and the SHA-256 of each file in an order that names do not change."""

    images: tuple[Image, ...]
    meta: Mapping[str, str]
    hashes: Sequence[str]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; raises InputError when it cannot be read."""
    with foreign("a file", warns=False), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_size(*shape: int) -> None:
    """Raise LimitError when an image declares more than LIMIT values: called before anything is decoded."""
    values = 1
    for size in shape:
        values *= size
    if not 0 < values <= LIMIT:
        raise LimitError(f"an image of {' × '.join(map(str, shape))} values", f"1 to {LIMIT}", "Split or shrink it.")


@contextmanager
def foreign(what: str, *more: type[Exception], warns: bool = True) -> Iterator[None]:
    """Run a foreign reader: what it raises becomes an InputError, what it warns or logs is dropped.

    Foreign texts may hold names or values of the file, so only the kind of error is kept, and the loggers of the
    foreign readers are silent from the first use on. `warns` is False for what never warns, which costs less.
    """
    _silence()
    try:
        with _quiet if warns else nullcontext():
            yield
    except InputError:
        raise
    except _FOREIGN + more as error:
        raise InputError(
            f"{what} that cannot be read ({type(error).__name__})", "a whole, valid file", "Fetch or export it again."
        ) from None


class _Quiet:
    """Ignores warnings while any thread is inside; `warnings.catch_warnings` alone is not safe between threads."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()


@cache
def _silence() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def parallel(function: Callable[[Given], Result], items: Iterable[Given]) -> list[Result]:
    """The results in order, on as many threads as there are cores: for work that reads, hashes or waits for a child."""
    found = list(items)
    if len(found) < 4:
        return [function(item) for item in found]
    results: list[Any] = [None] * len(found)
    numbers = iter(range(len(found)))  # each thread takes the next: a future for each item costs more than a header

    def work() -> None:
        for number in numbers:
            results[number] = function(found[number])

    threads = min(len(found), os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return results
