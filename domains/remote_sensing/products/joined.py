"""Band files of one scene as one image on the finest of their grids, read by window.

Choices:

- Coarser bands have to share the corners of the finest grid, with pixels a whole number of times as large. They are
  repeated block by block, so that no value is invented; other grids raise GeometryError.
- A reduced read takes each band from its own file at about the wanted size, so that coarse bands and the overviews of
  a file are read as they lie. Windows are then rounded to whole pixels of a coarse band.
- Flags and classes are never averaged: of the pixels that a reduced one covers, the middle one counts.
- A number that means "saturated" is looked for before any scale or offset, as the one for "no data" is in the file.
  The overviews of such a file mix both with their neighbours: in reduced reads these neighbours are left out, too.
- A pixel is valid where every band of the image is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from domains.formats.rasters.geotiff import LIMIT
from fovea.errors import GeometryError, InputError, LimitError
from fovea.image import Bools, Channel, Floats, Grid, Image, Pixels, Span, Window

_STRIP = 2**22
"""Pixels of a mask that are decoded at once."""

QUALITY = ("clear land", "water", "snow or ice", "cloud shadow", "thin cloud", "cloud", "unclassified")
"""What the numbers of the channel "quality" mean, the same for all sensors."""
CLEAR, WATER, SNOW, SHADOW, HAZE, CLOUD, UNCLASSIFIED = range(len(QUALITY))


@dataclass(frozen=True, eq=False)
class Layer:
    """One band: a channel of a file and how its numbers become values, `number * scale + offset`.

    `invalid` numbers are no measurements, though the file has data there. With `planck` (K1, K2) the value so found is
    a radiance, which becomes the temperature K2 / ln(K1 / radiance + 1) in kelvin.
    """

    channel: Channel
    image: Image
    place: int = 0
    scale: float = 1.0
    offset: float = 0.0
    invalid: tuple[float, ...] = ()
    planck: tuple[float, float] | None = None


Numbers = NDArray[np.int64]
Decode = Callable[[Numbers, Bools], tuple[Bools, NDArray[np.uint8] | None]]
"""Flags (band, row, column) and where their file has data, to where the scene has, and to numbers of QUALITY."""


@dataclass(frozen=True, eq=False)
class Flags:
    """A file of flags or classes over the scene; `graded` where it gives numbers of QUALITY."""

    image: Image
    decode: Decode
    graded: bool = False


def join(layers: Sequence[Layer], flags: Sequence[Flags] = ()) -> Image:
    """One image of all layers, and "quality" as its last channel where the flags tell it.

    Raises GeometryError where the grids do not fit together, InputError without layers or with two of one name.
    """
    names = [layer.channel.name for layer in layers]
    if not layers or len(set(names)) < len(names):
        raise InputError(f"{len(names)} bands of {len(set(names))} names", "at least one band, each once")
    grid = min((layer.image.grid for layer in layers), key=lambda g: abs(float(np.linalg.det(g.affine[:2, :2]))))
    parts = tuple(_Part(layer, _factor(layer.image.grid, grid)) for layer in layers)
    masks = tuple(_Mask(mask, _factor(mask.image.grid, grid)) for mask in flags)
    quality = (Channel("quality", "class"),) if any(mask.graded for mask in flags) else ()
    channels = (*(layer.channel for layer in layers), *quality)
    return Image(channels, grid, _Joined(parts, masks, grid, len(channels)))


def split(layers: Sequence[Layer]) -> tuple[list[Layer], list[Layer]]:
    """The layers of reflected light and those of heat, which have gaps of their own and so make an image of their own.

    The panchromatic band is left apart where there are others: its pixels do not share corners with theirs.
    """
    warm = [layer for layer in layers if layer.channel.name.startswith("tir")]
    light = [layer for layer in layers if layer not in warm and layer.channel.name != "pan"]
    return light or [layer for layer in layers if layer not in warm], warm


@dataclass(frozen=True, eq=False)
class _Part:
    layer: Layer
    factor: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Mask:
    flags: Flags
    factor: tuple[int, int]

    def read(self, spans: tuple[Span, Span], out: tuple[int, int]) -> tuple[Bools, NDArray[np.uint8] | None]:
        """The middle pixels, strip by strip."""
        (top, rows), (left, columns) = (
            _middles(span, size, factor) for span, size, factor in zip(spans, out, self.factor, strict=True)
        )
        width = int(columns[-1]) + 1
        height = max(1, _STRIP // width)
        numbers, known = [], []
        for start in range(0, int(rows[-1]) + 1, height):
            inside = rows[(rows >= start) & (rows < start + height)] - start
            if len(inside):
                stop = int(inside[-1]) + start + 1
                window = Window((top + start, top + stop), (left, left + width))
                values, valid = self.flags.image.read(window, None)
                numbers.append(values[:, 0][:, inside][..., columns].astype(np.int64))
                known.append(valid[0][inside][:, columns])
        return self.flags.decode(np.concatenate(numbers, 1), np.concatenate(known, 0))


@dataclass(frozen=True, eq=False)
class _Joined:
    parts: tuple[_Part, ...]
    masks: tuple[_Mask, ...]
    grid: Grid
    count: int

    def __call__(self, window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        """float32 (channel, 1, row, column) and bool (1, row, column)."""
        if window is not None:
            self.grid.crop(window)
        spans = (window.rows, window.columns) if window else ((0, self.grid.shape[1]), (0, self.grid.shape[2]))
        out = shape or (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0])
        if min(out) < 1:
            raise InputError(f"reduced shape {out}", "at least one row and one column")
        if self.count * prod(out) * 4 > LIMIT:
            raise LimitError(
                f"{self.count} x {out[0]} x {out[1]} pixels to be read at once",
                f"at most {LIMIT / 2**20:.0f} MiB as float32",
                "Read windows or a reduced shape",
            )
        values = np.zeros((self.count, 1, *out), np.float32)
        valid = np.ones(out, bool)
        for mask in self.masks:
            good, classes = mask.read(spans, out)
            valid &= good
            if classes is not None:
                values[-1, 0] = classes
        read: dict[tuple[int, tuple[int, int]], _Numbers] = {}
        for place, part in enumerate(self.parts):
            key = id(part.layer.image), part.factor
            read[key] = read.get(key) or _numbers(part, spans, out)
            values[place, 0], good = _measured(part.layer, read[key])
            valid &= good
        values[:, 0, ~valid] = 0
        return values, valid[None]


_Numbers = tuple[Floats, Bools, bool]
"""Numbers of a file (band, row, column), where it has any, and whether they are averages."""


def _numbers(part: _Part, spans: tuple[Span, Span], out: tuple[int, int]) -> _Numbers:
    """The file over the wanted ground: reduced along an axis where that needs fewer pixels than it has, else whole."""
    window, shape, picks, averaged = [], [], [], False
    for span, size, factor in zip(spans, out, part.factor, strict=True):
        if (span[1] - span[0]) / size > factor:
            start = min(round(span[0] / factor), (span[1] - 1) // factor)
            window.append((start, max(round(span[1] / factor), start + 1)))
            shape.append(size)
            picks.append(np.arange(size))
            averaged = True
        else:
            start, middles = _middles(span, size, factor)
            window.append((start, start + int(middles[-1]) + 1))
            shape.append(int(middles[-1]) + 1)
            picks.append(middles)
    reduced = (shape[0], shape[1]) if averaged else None
    values, valid = part.layer.image.read(Window(window[0], window[1]), reduced)
    where = np.ix_(*picks)
    return values[:, 0][:, where[0], where[1]], valid[0][where], averaged


def _measured(layer: Layer, numbers: _Numbers) -> tuple[Floats, Bools]:
    """Values of one band and where they are measurements."""
    values, valid, averaged = numbers[0][layer.place], numbers[1], numbers[2]
    if layer.invalid:
        bad = ~valid | np.isin(values, np.array(layer.invalid, np.float32))
        valid = ~(_widened(bad) if averaged else bad)
    if (layer.scale, layer.offset) != (1.0, 0.0):
        values = values.astype(np.float64) * layer.scale + layer.offset
    if layer.planck:
        valid = valid & (values > 0)
        values = layer.planck[1] / np.log(layer.planck[0] / np.where(valid, values, 1) + 1)
    return values.astype(np.float32), valid


def _middles(span: Span, size: int, factor: int) -> tuple[int, NDArray[np.intp]]:
    """The first pixel of a file under a span of the joined grid, and the middle one under each wanted pixel from it."""
    middles = (2 * np.arange(size) + 1) * (span[1] - span[0]) // (2 * size) + span[0]
    first = span[0] // factor
    return first, (middles // factor - first).astype(np.intp)


def _widened(mask: Bools) -> Bools:
    """A mask and its eight neighbours."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def _factor(coarse: Grid, fine: Grid) -> tuple[int, int]:
    """How many fine rows and columns a coarse pixel covers; raises GeometryError unless the corners agree."""
    rows, columns = (c / f for c, f in zip(coarse.shape[1:], fine.shape[1:], strict=True))
    factor = round(1 / rows), round(1 / columns)
    whole = tuple(size * n for size, n in zip(coarse.shape[1:], factor, strict=True)) == fine.shape[1:]
    if whole and coarse.frame == fine.frame:
        difference = coarse.resample((1, *fine.shape[1:])).affine - fine.affine
        if np.abs(difference).max() < 1e-3 * min(fine.spacing[1:]):
            return factor
    raise GeometryError(
        f"bands of {coarse.shape[1]} x {coarse.shape[2]} and {fine.shape[1]} x {fine.shape[2]} pixels that do not "
        "share their corners",
        "one ground, with pixels that are whole multiples of each other",
        "Warp them to one grid with gdalwarp",
    )
