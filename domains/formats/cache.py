"""Pixels that took long to decode, kept within a limit of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from fovea.types import Pixels

BYTES = 2**29
"""What all kept pixels of one cache may fill."""


class PixelCache:
    """Decoded pixels by a key that changes with the files; the least recently used go first. Safe between threads."""

    def __init__(self, limit: int = BYTES) -> None:
        self._limit, self._held = limit, 0
        self._kept: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The pixels of a key, read-only arrays, decoded if they are not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found:
                self._kept.move_to_end(key)
                return found
        pixels = decode()
        size = _size(pixels)
        if size > self._limit:
            return pixels
        for array in pixels:
            array.setflags(write=False)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = pixels
                self._held += size
            while self._held > self._limit:
                _, oldest = self._kept.popitem(last=False)
                self._held -= _size(oldest)
        return pixels


def _size(pixels: Pixels) -> int:
    return sum(array.nbytes for array in pixels)
