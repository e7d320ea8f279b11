"""Memory that stays with the process while a network works, instead of going back to the system after each layer."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_KEPT = 2**30
_USUAL = 2**25
"""Where glibc's own threshold for maps of their own ends, as it grows with what is freed."""


@contextmanager
def kept() -> Iterator[None]:
    """Within it, what a layer frees serves the next one; at the end the system gets it back.

    glibc maps each tensor above 32 MiB anew, and the system clears every page of it at its first use. Nothing changes
    where the C library is another, or does not take the thresholds.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _KEPT)
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        libc.malloc_trim(0)
