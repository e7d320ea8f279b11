"""What GDAL does with a foreign raster, in a child process that may die: it tells the header and reads blocks.

The functions without a leading underscore are the tasks that `isolation.isolated` runs. They stand under two guards:
drivers are opened by name with sidecars off, and a task may not grow the process by more than its job explains. A few
datasets stay open, each for as long as its file has the same size, time and inode.
"""

from __future__ import annotations

import ctypes
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import foreign
from domains.formats.rasters.georeference import georeference
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.image import Bools

Array = NDArray[Any]
Stamp = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

_MAX_BANDS = 1024
_OPEN = 8
"""Datasets that stay open in one process."""
_CACHE = 2**26
"""Bytes of decoded blocks that GDAL keeps: a task reads whole blocks, so that few are of use again."""
_OPENING = 3 * 2**24
"""Bytes that opening a file and telling its header may take: 48 MiB."""
_SMALL_BLOCK = 2**26
_LARGEST_RATIO = 2000
"""Deflate reaches 1032:1. A larger block than `_SMALL_BLOCK` with a higher ratio to its file is not believed."""
_M_PERTURB = -6
"""The option of glibc's malloc that fills memory: with a byte when it is freed, with its complement when handed out."""
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": False,
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": _CACHE,  # in bytes: rasterio hands it to GDALSetCacheMax
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_NUM_THREADS": 1,  # processes work in parallel, each alone
    "PROJ_NETWORK": "OFF",
}


@dataclass(frozen=True)
class Source:
    """A file as its header was read, and what decides on validity: the first of mask file, mask, alpha, nodata.

    `bands` count from 1, as do `alpha` and the bands that `nodata` has a value for each of.
    """

    path: Path
    driver: str
    stamp: Stamp
    bands: tuple[int, ...]
    mask_file: Path | None = None
    mask_stamp: Stamp | None = None
    mask: bool = False
    alpha: int = 0
    nodata: tuple[float | None, ...] = ()
    any_band: bool = False
    """Whether a pixel counts as valid when one of its bands is not the nodata value; else all have to be."""
    power: bool = False
    """Whether values are the squares of the numbers as stored, so that means are those of power and not amplitude."""


def stamp(path: Path) -> Stamp:
    """Size, time of change in ns, and inode: a file that keeps them is taken to be the same."""
    with foreign("a file"):
        found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def header(path: Path, driver: str, limit: int) -> dict[str, Any]:
    """Facts of a raster as JSON; nothing is decoded.

    Raises LimitError for too many bands or too large blocks, UnsupportedError for complex numbers and GeometryError
    for a position that no affine transform gives.
    """
    seen = stamp(path)
    with _guarded(lambda: _OPENING):
        file = _opened(path, driver, seen)
        _check(file, limit, seen[0])
        levels = []
        for number in range(min(len(file.overviews(1)), 32)):
            level = _opened(path, driver, seen, number)
            levels.append([*level.shape, *level.block_shapes[0]])
        return {
            "stamp": seen,
            "shape": file.shape,
            "block": file.block_shapes[0],
            "compressed": bool(file.compression) or driver != "GTiff",
            "together": file.interleaving.name == "pixel" if file.interleaving else False,
            "dtypes": file.dtypes,
            "levels": levels,
            "geometry": georeference(file),
            "palette": _palette(file),
            "colors": [color.name for color in file.colorinterp],
            "mask": any(flag.name == "per_dataset" for flag in file.mask_flag_enums[0])
            and not any(flag.name == "alpha" for flag in file.mask_flag_enums[0]),
            "nodata": file.nodatavals,
            "scales": file.scales,
            "offsets": file.offsets,
            "descriptions": file.descriptions,
            "units": file.units,
            "tags": {**file.tags(), **file.tags(ns="IMAGERY")},
            "band_tags": [{**file.tags(i), **file.tags(i, ns="IMAGERY")} for i in range(1, file.count + 1)],
        }


def block(source: dict[str, Any], level: int | None, box: Box) -> tuple[Array, Bools | None]:
    """Values (band, row, column) as stored and validity (row, column), None where all is valid.

    `level` is the number of an overview, None for the full resolution; `box` counts its pixels.
    """
    raster, rows, columns = _source(source), box[1] - box[0], box[3] - box[2]
    with _guarded(lambda: _job(raster, rows * columns)):
        return _read(raster, level, box, (rows, columns))


def sampled(source: dict[str, Any], box: Box, shape: tuple[int, int]) -> tuple[Array, Bools | None]:
    """As `block` of the full resolution, of the nearest pixel for each of `shape`; overviews serve where they do."""
    raster = _source(source)
    with _guarded(lambda: _job(raster, shape[0] * shape[1])):
        return _read(raster, None, box, (shape[0], shape[1]))


def averaged(
    source: dict[str, Any], level: int | None, box: Box, rows: tuple[float, ...], columns: tuple[float, ...]
) -> tuple[int, int, Array, Array]:
    """The part that a box has in the averages over larger pixels.

    `rows` and `columns` are (first edge, width, number) of the larger pixels, in pixels of the level. Returns the first
    row and column that the box reaches, sums of the values weighted by area and validity (band, row, column), and the
    weights (row, column).
    """
    raster, pixels = _source(source), (box[1] - box[0]) * (box[3] - box[2])
    with _guarded(lambda: _job(raster, 3 * pixels)):
        values, valid = _read(raster, level, box, (box[1] - box[0], box[3] - box[2]))
        kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
        weight: Array = np.ones(values.shape[1:], kind) if valid is None else valid.astype(kind)
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(0)
            weight = weight * finite.astype(kind)
            values = np.where(finite, values, 0)
        down, across = _Overlap.of(rows, box[0], box[1]), _Overlap.of(columns, box[2], box[3])
        sums = np.stack([down.sum(across.sum(band.astype(kind) * weight, 1), 0) for band in values])
        return down.first, across.first, sums, down.sum(across.sum(weight, 1), 0)


@dataclass(frozen=True)
class _Overlap:
    """How a span of pixels is shared among larger ones: cut at the edges of both, into parts of `width`.

    `first` is the first larger pixel that the span touches; each of them is the sum of the parts from its number in
    `starts` on, if it is `met` at all.
    """

    first: int
    pixels: NDArray[np.intp]
    width: Array
    starts: NDArray[np.intp]
    met: Bools

    @classmethod
    def of(cls, edges: tuple[float, ...], start: int, stop: int) -> _Overlap:
        first, width, number = edges
        low = max(int(np.floor((start - first) / width)), 0)
        high = min(max(int(np.ceil((stop - first) / width)), low + 1), int(number))
        outer = np.clip(first + width * np.arange(low, high + 1), start, stop)
        cuts = np.unique(np.concatenate([np.arange(start, stop + 1), outer]))
        parts = np.diff(cuts)
        starts = np.minimum(np.searchsorted(cuts, outer[:-1]), len(parts) - 1)
        inside = (cuts[:-1] >= outer[0]) & (cuts[1:] <= outer[-1])
        return cls(low, np.floor(cuts[:-1]).astype(np.intp) - start, parts * inside, starts, np.diff(outer) > 0)

    def sum(self, values: Array, axis: int) -> Array:
        """Sums over the larger pixels along an axis of (row, column), weighted by the parts."""
        along = (-1, 1) if axis == 0 else (1, -1)
        shared = values.take(self.pixels, axis) * self.width.astype(values.dtype).reshape(along)
        return np.asarray(np.add.reduceat(shared, self.starts, axis) * self.met.reshape(along).astype(values.dtype))


def _source(plain: dict[str, Any]) -> Source:
    lists = {key: tuple(value) for key, value in plain.items() if isinstance(value, list)}
    return Source(**{**plain, **lists})


def _read(source: Source, level: int | None, box: Box, shape: tuple[int, int]) -> tuple[Array, Bools | None]:
    from rasterio.windows import Window

    file = _opened(source.path, source.driver, source.stamp, level)
    where = Window(box[2], box[0], box[3] - box[2], box[1] - box[0])
    values: Array = file.read(list(source.bands), window=where, out_shape=(len(source.bands), *shape))
    valid: Bools | None = None
    if source.mask_file or source.mask:
        if source.mask_file:
            mask = _opened(source.mask_file, "GTiff", source.mask_stamp or (0, 0, 0))
            read = mask.read
        else:
            mask = _opened(source.path, source.driver, source.stamp)
            read = mask.read_masks
        down, across = mask.height / file.height, mask.width / file.width  # masks need not have the overviews
        inside = Window(where.col_off * across, where.row_off * down, where.width * across, where.height * down)
        valid = read(1, window=inside, out_shape=shape) != 0
    elif source.alpha:
        valid = file.read(source.alpha, window=where, out_shape=shape) != 0
    elif any(value is not None for value in source.nodata):
        given = [~_equal(band, value) for band, value in zip(values, source.nodata, strict=True)]
        valid = np.logical_or.reduce(given) if source.any_band else np.logical_and.reduce(given)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if source.power:
        values = np.square(values, dtype=np.float32)
    return values, None if valid is None or bool(valid.all()) else valid


def _equal(values: Array, nodata: float | None) -> Bools:
    """Where values are the nodata value, to the rounding of the text that the file has it in."""
    if nodata is None:
        return np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        if np.isnan(nodata):
            return np.isnan(values)
        with np.errstate(over="ignore"):
            exact = values.dtype.type(nodata)
            low, high = (np.nextafter(np.nextafter(exact, end), end) for end in (-np.inf, np.inf))
        return np.asarray((values >= low.astype(values.dtype)) & (values <= high.astype(values.dtype)))
    bounds = np.iinfo(values.dtype)
    if nodata != int(nodata) or not bounds.min <= nodata <= bounds.max:
        return np.zeros(values.shape, bool)
    return np.asarray(values == int(nodata))


_files: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


def _opened(path: Path, driver: str, seen: Stamp, level: int | None = None) -> Any:
    """The open dataset of a file, or of one of its overviews; InputError when the file is another by now."""
    import rasterio

    _prepare()
    if stamp(path) != tuple(seen):
        raise InputError("a file that changed since its header was read", "the same file", "Read it again.")
    key = (path, driver, tuple(seen), level)
    file = _files.pop(key, None)
    if file is None:
        options = {} if level is None else {"overview_level": level}
        file = rasterio.open(path, driver=driver, **options)
        while len(_files) >= _OPEN:
            _files.popitem(last=False)[1].close()
    _files[key] = file
    return file


@cache
def _prepare() -> None:
    """GDAL's options, and memory that is handed out as zeros, for as long as the process lives.

    A decoder may leave the end of a block as it found it: what the file before held must not show there.
    """
    import rasterio

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc
    if mallopt:
        mallopt(_M_PERTURB, 0xFF)
    rasterio.Env(**_OPTIONS).__enter__()


@contextmanager
def _guarded(growth: Callable[[], int]) -> Iterator[None]:
    """Errors of GDAL become ours, and the process cannot grow by more than `growth()` bytes.

    Datasets are closed after a failure: what GDAL kept of them may be incomplete.
    """
    from rasterio._err import CPLE_BaseError  # rasterio lets GDAL's own errors through, and exports no base of them
    from rasterio.errors import RasterioError

    _prepare()
    try:
        with foreign("a raster", RasterioError, CPLE_BaseError), _limited(growth()):
            yield
    except (InputError, MemoryError):
        while _files:
            _files.popitem()[1].close()
        raise


@contextmanager
def _limited(growth: int) -> Iterator[None]:
    """No more than `growth` bytes of new private memory, where Linux counts them."""
    import resource

    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(statistics.read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    allowed = used + growth if soft == resource.RLIM_INFINITY else min(used + growth, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _job(source: Source, pixels: int) -> int:
    """Bytes that reading so many pixels explains: GDAL's cache, a block in its two forms, the arrays and copies."""
    file = _opened(source.path, source.driver, source.stamp)
    rows, columns = file.block_shapes[0]
    size = np.dtype(file.dtypes[0]).itemsize * (len(file.dtypes) + 1)
    return int(2**27 + _CACHE + 3 * rows * columns * size + 4 * pixels * max(size, 8))


def _check(file: Any, limit: int, size: int) -> None:
    if file.count > _MAX_BANDS:
        raise LimitError(f"{file.count} bands", f"at most {_MAX_BANDS}", "Select bands with gdal_translate -b")
    if any("complex" in kind for kind in file.dtypes):
        raise UnsupportedError("complex numbers", "real ones", "Convert them to amplitude first")
    rows, columns = file.block_shapes[0]
    together = file.count if file.interleaving and file.interleaving.name == "pixel" else 1
    filled = rows * columns * together * np.dtype(file.dtypes[0]).itemsize
    if filled > limit or (filled > _SMALL_BLOCK and filled > _LARGEST_RATIO * size):
        raise LimitError(
            f"blocks of {filled / 2**20:.0f} MiB in a file of {size / 2**20:.2g} MiB",
            f"at most {limit / 2**20:.0f} MiB, and less than {_LARGEST_RATIO} times the file",
            "Retile it with gdal_translate",
        )


def _palette(file: Any) -> list[tuple[int, int, int, int]]:
    if file.colorinterp[0].name != "palette":
        return []
    colors = file.colormap(1)
    return [colors.get(i, (0, 0, 0, 0)) for i in range(max(colors) + 1)]
