"""Progress with the time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how many are done and how long the rest will take, on standard error."""
    terminal = sys.stderr.isatty()
    yield from tqdm(items, desc=what, total=total, mininterval=0.2 if terminal else 15, leave=terminal, ncols=88)
