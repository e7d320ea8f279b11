"""Windows of a raster whose header is known: planned here, decoded by children side by side, put together here.

A large window is read unit by unit, a unit being a block of the file or several small ones, so that neither this
process nor a child holds more than the result and a few units. A reduced window is the mean over the area of each
pixel, weighted by validity, from the smallest overview that is fine enough; classes take the nearest pixel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from domains.formats.isolation import isolated
from domains.formats.rasters import worker as raster_worker
from domains.formats.rasters.worker import Array, Box, Source
from fovea.errors import InputError, LimitError
from fovea.image import Bools, Floats, Grid, Pixels, Window

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNIT = 2**18
"""Pixels that one task reads at least, where a block is smaller."""
_DIRECT = 2**22
"""Bytes that are read at once, without units."""
_AVERAGED = 2**27
"""Samples that a reduced read averages; of larger scenes without overviews it takes the nearest."""
_SECONDS, _RATE = 15.0, 2**21
"""A task may take so long, and a second more for so many bytes to decode: a tenth of what slow decoders do."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Level:
    """The full resolution, or an overview by its number: its size and that of its blocks as (rows, columns)."""

    number: int | None
    size: tuple[int, int]
    block: tuple[int, int]

    def units(self, box: Box) -> Iterator[Box]:
        """The parts of the units that lie in a box, in the order of rows."""
        rows, columns = self.unit
        for top in range(box[0] // rows * rows, box[1], rows):
            for left in range(box[2] // columns * columns, box[3], columns):
                yield max(top, box[0]), min(top + rows, box[1]), max(left, box[2]), min(left + columns, box[3])

    @cached_property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of a unit: whole blocks, about as many down as across."""
        rows, columns = self.block
        while rows * columns < _UNIT and (rows < self.size[0] or columns < self.size[1]):
            if columns < self.size[1] and (columns <= rows or rows >= self.size[0]):
                columns *= 2
            else:
                rows *= 2
        return rows, columns


@dataclass(frozen=True)
class Raster:
    """Reads windows of one file; threads and processes may share it.

    `scales` holds (scale, offset) of each band; `palette` the RGBA colours that numbers of a class map stand for.
    """

    source: Source
    levels: tuple[Level, ...]
    dtype: str
    scales: tuple[tuple[float, float], ...]
    palette: tuple[tuple[int, int, int, int], ...]
    nearest: bool
    limit: int

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        """float32 (channel, 1, row, column) and bool (1, row, column); reduced reads average the valid pixels.

        Raises InputError for a window outside, LimitError for more bytes than the limit, and what a broken file
        raises.
        """
        box = self.box(window)
        size = box[1] - box[0], box[3] - box[2]
        out = shape or size
        if min(out) < 1:
            raise InputError(f"reduced shape {out}", "at least one row and one column")
        self._check(*out)
        if out == size:
            return self.finish(*self._whole(box))
        level = self.level(size, out)
        factors = self._factors(level)
        if self.nearest or size[0] * size[1] / factors[0] / factors[1] * len(self.source.bands) > _AVERAGED:
            return self.sample(box, out)
        return self.finish(*self._mean(level, box, out))

    def box(self, window: Window | None) -> Box:
        """The pixels of a window; InputError when it leaves the raster."""
        rows, columns = self.size
        if window is None:
            return 0, rows, 0, columns
        Grid.plain(rows, columns).crop(window)
        return *window.rows, *window.columns

    def sample(self, box: Box, shape: tuple[int, int]) -> Pixels:
        """As a call, of the nearest pixels."""
        blocks = [
            min(n, (stop - start) // size + 2)
            for n, start, stop, size in zip(shape, box[::2], box[1::2], self.levels[0].block, strict=True)
        ]
        cost = blocks[0] * blocks[1] * self.bytes(*self.levels[0].block)
        return self.finish(*self.task(raster_worker.sampled, cost, list(box), list(shape)))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.levels[0].size

    def level(self, size: tuple[int, int], shape: tuple[int, int]) -> Level:
        """The smallest level that still has a pixel for each that is asked for."""
        reduction = min(size[0] / shape[0], size[1] / shape[1])
        fine = [level for level in self.levels if max(self._factors(level)) <= reduction * (1 + 1e-6)]
        return min(fine or self.levels[:1], key=lambda level: level.size)

    def bytes(self, rows: int, columns: int) -> int:
        """What so many pixels take as they are stored."""
        return rows * columns * len(self.source.bands) * np.dtype(self.dtype).itemsize

    def buffer(self, rows: int, columns: int) -> Array:
        """Room for stored values (band, row, column) that `finish` takes."""
        scaled = any(pair != (1, 0) for pair in self.scales)
        return np.empty((len(self.source.bands), rows, columns), self._exact if scaled else np.float32)

    def part(self, level: Level, box: Box) -> tuple[Array, Bools | None]:
        """Stored values (band, row, column) of a part of a unit, and validity, None where all is valid."""
        return self.task(raster_worker.block, self.bytes(*level.unit), level.number, list(box))

    def task(self, function: Callable[..., Result], cost: int, *arguments: Any) -> Result:
        """Call a function of the worker in a child, in a time for so many bytes to decode."""
        return isolated(function, self._plain, *arguments, seconds=_SECONDS + cost / _RATE)

    def finish(self, values: Array, valid: Bools | None) -> Pixels:
        """Stored values to physical ones: colours of a palette, scale and offset; 0 where not valid.

        A buffer of float32 is changed in place.
        """
        seen: Bools = np.ones(values.shape[1:], bool) if valid is None else valid
        if self.palette:
            table = np.array(self.palette, np.float32)
            colors = table.take(values[0].astype(np.intp), axis=0, mode="clip")
            result: Floats = np.ascontiguousarray(np.moveaxis(colors[..., :3], 2, 0))
            seen = seen & (colors[..., 3] > 0)
        else:
            scaled = any(pair != (1, 0) for pair in self.scales)
            with np.errstate(over="ignore", invalid="ignore"):
                if scaled:
                    values = np.asarray(values, self._exact)
                    for band, (scale, offset) in zip(values, self.scales, strict=True):
                        band *= self._exact(scale)
                        band += self._exact(offset)
                result = np.asarray(values, np.float32)
            if scaled or np.dtype(self.dtype).kind == "f":
                seen = seen & np.isfinite(result).all(0)
        if not seen.all():
            np.copyto(result, 0, where=~seen)
        return result[:, None], seen[None]

    @property
    def _exact(self) -> type[np.float32] | type[np.float64]:
        """What scaling is done in: float32 holds 16 bits and a scale, no more."""
        return np.float32 if np.dtype(self.dtype).itemsize <= 2 else np.float64

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return asdict(self.source)

    def _check(self, rows: int, columns: int) -> None:
        count = 3 if self.palette else len(self.source.bands)
        if count * rows * columns * 4 > self.limit:
            raise LimitError(
                f"{count} x {rows} x {columns} pixels to be read at once",
                f"at most {self.limit / 2**20:.0f} MiB as float32",
                "Read windows or a reduced shape, or raise the limit if the file is trusted",
            )

    def _factors(self, level: Level) -> tuple[float, float]:
        return self.size[0] / level.size[0], self.size[1] / level.size[1]

    def _whole(self, box: Box) -> tuple[Array, Bools | None]:
        level, shape = self.levels[0], (box[1] - box[0], box[3] - box[2])
        if self.bytes(*shape) <= _DIRECT:
            cost = self.bytes(shape[0] + 2 * level.block[0], shape[1] + 2 * level.block[1])
            return self.task(raster_worker.block, cost, None, list(box))
        values, valid = self.buffer(*shape), None
        parts = list(level.units(box))
        with in_order(lambda unit: self.part(level, unit), parts) as read:
            for (top, bottom, left, right), (given, seen) in zip(parts, read, strict=True):
                where = slice(top - box[0], bottom - box[0]), slice(left - box[2], right - box[2])
                values[:, *where] = given
                if seen is not None:
                    valid = np.ones(shape, bool) if valid is None else valid
                    valid[where] = seen
        return values, valid

    def _mean(self, level: Level, box: Box, shape: tuple[int, int]) -> tuple[Array, Bools]:
        """Means over the area of each pixel of `shape`; valid where at least half of the area is."""
        factors = self._factors(level)
        edges, inside = [], []
        for start, stop, number, factor, size in zip(box[::2], box[1::2], shape, factors, level.size, strict=True):
            edges.append([start / factor, (stop - start) / factor / number, number])
            inside += [int(start / factor), min(int(np.ceil(stop / factor - 1e-9)), size)]
        area = edges[0][1] * edges[1][1]
        sums: Array = np.zeros((len(self.source.bands), *shape), self._exact)
        weights: Array = np.zeros(shape, self._exact)

        def task(unit: Box) -> tuple[int, int, Array, Array]:
            return self.task(raster_worker.averaged, self.bytes(*level.unit), level.number, list(unit), *edges)

        top, bottom, left, right = inside
        with in_order(task, level.units((top, bottom, left, right))) as read:
            for row, column, part, weight in read:
                where = slice(row, row + weight.shape[0]), slice(column, column + weight.shape[1])
                sums[:, *where] += part
                weights[where] += weight
        valid = weights >= 0.5 * area * (1 - 1e-6)
        np.divide(sums, weights, out=sums, where=valid)
        return sums, valid


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Iterator[Result]]:
    """Results in the order of the items, worked on by threads that are at most two items each ahead."""
    workers = workers or min(cores(), _MOST_WORKERS)
    waiting: list[Future[Result]] = []
    with ThreadPoolExecutor(workers) as pool:

        def results() -> Iterator[Result]:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()

        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()
