"""Many windows of one raster, in the order in which its blocks are decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.formats.rasters import geotiff
from domains.formats.rasters.raster import Raster, in_order
from domains.formats.rasters.worker import Array, Box
from fovea.image import Bools, Floats, Image, Window

MEMORY = 2**28
"""Bytes of decoded units that are kept for windows that are still to come."""
Chip = tuple[int, Floats, Bools]
"""The place of the window in the sequence, its pixels (channel, 1, row, column), and validity (1, row, column)."""


def read(
    image: Image | Path, windows: Sequence[Window], *, workers: int | None = None, memory: int = MEMORY
) -> Iterator[Chip]:
    """Pixels of all windows, in the order of the blocks of the file and not of the sequence.

    Each chip has what `image.read(window, None)` gives. Blocks are decoded by `workers` children side by side, and
    once each: only where two rows of blocks would fill more than `memory` bytes, the raster is walked in strips of
    columns, and the blocks between two strips are decoded for both. An image that is no raster of `geotiff.read` is
    read window by window. Raises InputError for a window outside, before anything is decoded, and what reading raises.
    """
    image = geotiff.read(image).images[0] if isinstance(image, Path) else image
    for window in windows:
        image.grid.crop(window)
    if not isinstance(image.read, Raster):
        for index in sorted(range(len(windows)), key=lambda i: (windows[i].rows[0], windows[i].columns[0])):
            yield index, *image.read(windows[index], None)
        return
    yield from _Walk(image.read, windows, memory).chips(workers)


@dataclass(frozen=True, order=True)
class _Key:
    """A unit of the file, in one strip of its columns."""

    strip: int
    row: int
    column: int


class _Walk:
    """The order of windows, the units that each needs, and of each unit the part that some window needs."""

    def __init__(self, raster: Raster, windows: Sequence[Window], memory: int) -> None:
        self.raster, self.level = raster, raster.levels[0]
        self.boxes: list[Box] = [(*window.rows, *window.columns) for window in windows]
        self.strip = self._strip_width(memory)
        rows, columns = self.level.unit
        self.order = sorted(
            range(len(windows)),
            key=lambda i: (
                self.boxes[i][2] // columns // self.strip,
                self.boxes[i][0] // rows,
                self.boxes[i][2] // columns,
                self.boxes[i][:3:2],
            ),
        )
        self.parts: dict[_Key, Box] = {}
        self.uses: Counter[_Key] = Counter()
        for index in self.order:
            for key in self.keys(self.boxes[index]):
                self.uses[key] += 1
                self.parts[key] = _union(self.parts.get(key), _common(self._box(key), self.boxes[index]))

    def chips(self, workers: int | None) -> Iterator[Chip]:
        """Units are decoded in the order in which windows need them, and forgotten after their last window."""
        units = list(self.parts)
        kept: dict[_Key, tuple[Array, Bools | None]] = {}
        with in_order(lambda key: self.raster.part(self.level, self.parts[key]), units, workers) as decoded:
            arriving = zip(units, decoded, strict=True)
            for index in self.order:
                keys = self.keys(self.boxes[index])
                while any(key not in kept for key in keys):
                    key, part = next(arriving)
                    kept[key] = part
                yield index, *self._chip(self.boxes[index], [(self.parts[key], kept[key]) for key in keys])
                for key in keys:
                    self.uses[key] -= 1
                    if not self.uses[key]:
                        del kept[key]

    def keys(self, box: Box) -> list[_Key]:
        """The units that a box touches, in the order of rows."""
        rows, columns = self.level.unit
        strip = box[2] // columns // self.strip
        return [
            _Key(strip, row, column)
            for row in range(box[0] // rows, -(-box[1] // rows))
            for column in range(box[2] // columns, -(-box[3] // columns))
        ]

    def _chip(self, box: Box, parts: list[tuple[Box, tuple[Array, Bools | None]]]) -> tuple[Floats, Bools]:
        shape = box[1] - box[0], box[3] - box[2]
        values, valid = self.raster.buffer(*shape), None
        for part, (given, seen) in parts:
            shared = _common(part, box)
            to, source = _inside(box, shared), _inside(part, shared)
            values[:, *to] = given[:, *source]
            if seen is not None:
                valid = np.ones(shape, bool) if valid is None else valid
                valid[to] = seen[source]
        return self.raster.finish(values, valid)

    def _box(self, key: _Key) -> Box:
        rows, columns = self.level.unit
        height, width = self.level.size
        top, left = key.row * rows, key.column * columns
        return top, min(top + rows, height), left, min(left + columns, width)

    def _strip_width(self, memory: int) -> int:
        """Units across of which all that a row of windows needs fits in the memory."""
        rows, columns = self.level.unit
        tallest = max((box[1] - box[0] for box in self.boxes), default=1)
        widest = max((box[3] - box[2] for box in self.boxes), default=1)
        down = -(-tallest // rows) + 1
        across = memory // (down * self.raster.bytes(rows, columns))
        return max(across - -(-widest // columns), 1)


def _common(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), min(one[3], other[3])


def _union(one: Box | None, other: Box) -> Box:
    if one is None:
        return other
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])


def _inside(outer: Box, box: Box) -> tuple[slice, slice]:
    return slice(box[0] - outer[0], box[1] - outer[0]), slice(box[2] - outer[2], box[3] - outer[2])
